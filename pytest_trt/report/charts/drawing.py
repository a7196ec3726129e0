"""Drawing: one chart as inline SVG with its text alternative; colours are the page's, by class names.

svg.py writes texts and attributes as they are given. Every text that may come from a record goes through ``label`` or
``Drawing.svg``, which escape it; all else is numbers and words of this package.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import svg
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pytest_trt.report.charts.scale import Scale

__all__ = [
    "HEIGHT",
    "WIDTH",
    "Drawing",
    "Place",
    "around",
    "boxes",
    "dots",
    "label",
    "line",
    "lines",
    "numbers",
    "path",
    "rect",
]

WIDTH, HEIGHT = 360, 200

Place = tuple[float, float]


def label(x: float, y: float, text: str, kind: str = "tick", anchor: str = "middle") -> svg.Text:
    """A text, escaped; ``anchor`` is what of it stands at x: start, middle or end."""
    return svg.Text(x=x, y=y, text=str(escape(text)), class_=[kind, anchor])


def line(kind: str, start: Place, end: Place) -> svg.Line:
    """A straight line."""
    return svg.Line(x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=[kind])


def rect(kind: str, start: Place, end: Place) -> svg.Rect:
    """A box between two corners."""
    (x, y), (right, bottom) = start, end
    return svg.Rect(x=x, y=y, width=round(max(right - x, 0), 1), height=round(max(bottom - y, 0), 1), class_=[kind])


def path(kind: str, places: Sequence[Place]) -> svg.Path:
    """A line through these places."""
    return svg.Path(
        class_=[kind], extra={"d": "".join(f"{'L' if n else 'M'}{x} {y}" for n, (x, y) in enumerate(places))}
    )


def lines(kind: str, ends: Iterable[tuple[Place, Place]]) -> svg.Path:
    """Many straight lines as one path: browsers take far longer for an element than for its points."""
    return svg.Path(class_=[kind], extra={"d": "".join(f"M{a:g} {b:g}L{x:g} {y:g}" for (a, b), (x, y) in ends)})


def boxes(kind: str, corners: Iterable[tuple[Place, Place]]) -> svg.Path:
    """Many boxes between two corners each, as one path."""
    parts = [
        f"M{x:g} {y:g}H{right:g}V{bottom:g}H{x:g}z" for (x, y), (right, bottom) in corners if right > x and bottom > y
    ]
    return svg.Path(class_=[kind], extra={"d": "".join(parts)})


def around(x: float, y: float, half: float = 3) -> tuple[Place, Place]:
    """The corners of a square around a place."""
    return (round(x - half, 1), round(y - half, 1)), (round(x + half, 1), round(y + half, 1))


def dots(kind: str, places: Iterable[Place]) -> svg.Path:
    """Many points as one path, which is drawn with round caps; those in one spot are one."""
    spots = dict.fromkeys((round(x), round(y)) for x, y in places)
    # written out: svg.py's own path commands are some forty times as slow
    return svg.Path(class_=[kind], extra={"d": "".join(f"M{x} {y}h0" for x, y in spots)})


class Drawing:
    """Elements of one chart, the lowest first.

    Args:
        width: in CSS pixels; the page makes it smaller where it has no room.
        height: as width.
    """

    def __init__(self, width: float = WIDTH, height: float = HEIGHT) -> None:
        self.width, self.height = width, height
        self.elements: list[svg.Element] = []

    def add(self, *elements: svg.Element) -> None:
        """Draw them over what is there."""
        self.elements += elements

    def x_axis(self, scale: Scale, y: float, said: Callable[[float], str], name: str, most: int = 5) -> None:
        """A horizontal axis at the bottom of the plot, y, with its name below."""
        ticks = scale.ticks(most)
        self.add(
            lines("axis", [((scale.start, y), (scale.end, y)), *[((p, y), (p, y + 4)) for p in map(scale, ticks)]])
        )
        self.add(*[label(scale(tick), y + 15, said(tick)) for tick in ticks])
        self.add(label((scale.start + scale.end) / 2, y + 30, name, "name"))

    def y_axis(self, scale: Scale, left: float, right: float, said: Callable[[float], str], most: int = 5) -> None:
        """Horizontal lines through the plot at round values, which are named at its left."""
        self.grid([(scale(tick), said(tick)) for tick in scale.ticks(most)], left, right)

    def grid(self, ticks: Sequence[tuple[float, str]], left: float, right: float) -> None:
        """Horizontal lines at these places, each named at its left."""
        self.add(lines("grid", [((left, place), (right, place)) for place, _ in ticks]))
        self.add(*[label(left - 5, place + 4, text, anchor="end") for place, text in ticks])

    def marks(self, places: Sequence[Place]) -> None:
        """Numbers 1, 2, ... in discs at these places: what they are is told below the chart."""
        self.add(dots("discs", places))
        self.add(*[label(round(x), round(y) + 3.5, str(number), "number") for number, (x, y) in enumerate(places, 1)])

    def svg(self, title: str, told: str, names: Iterator[int]) -> Markup:
        """The SVG, for inside a page.

        Args:
            title: what the chart is, for those who don't see it.
            told: what it shows, in a sentence.
            names: numbers that no other chart of the page has.
        """
        name = next(names)
        alternative = {"role": "img", "aria-labelledby": f"t{name} d{name}"}
        whole = svg.SVG(
            xmlns=None,  # inside a page it is known
            viewBox=svg.ViewBoxSpec(0, 0, self.width, self.height),
            width=self.width,
            height=self.height,
            class_=["chart"],
            extra=alternative,
            elements=[
                svg.Title(id=f"t{name}", text=str(escape(title))),
                svg.Desc(id=f"d{name}", text=str(escape(told)) or " "),
                *self.elements,
            ],
        )
        return Markup(whole.as_str())


def numbers() -> Iterator[int]:
    """Numbers for the charts of one page."""
    return count(1)
