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

__all__ = ["HEIGHT", "WIDTH", "Drawing", "Place", "dots", "label", "line", "rect"]

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


def dots(kind: str, places: Iterable[Place]) -> svg.Path:
    """Many points as one path, which is drawn with round caps: one element for hundreds; those in one spot are one."""
    spots = dict.fromkeys((round(x), round(y)) for x, y in places)
    # written out: svg.py's own path commands are some forty times as slow
    return svg.Path(class_=[kind], extra={"d": "".join(f"M{x} {y}h0" for x, y in spots)})


class Drawing:
    """Elements of one chart, the lowest first.

    Args:
        width: in units of the drawing, which are CSS pixels where the page has room.
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
        self.add(line("axis", (scale.start, y), (scale.end, y)))
        for tick in scale.ticks(most):
            self.add(line("axis", (scale(tick), y), (scale(tick), y + 4)), label(scale(tick), y + 15, said(tick)))
        self.add(label((scale.start + scale.end) / 2, y + 29, name, "name"))

    def y_axis(self, scale: Scale, left: float, right: float, said: Callable[[float], str], most: int = 5) -> None:
        """Horizontal lines through the plot at round values, which are named at its left."""
        for tick in scale.ticks(most):
            place = scale(tick)
            self.add(line("grid", (left, place), (right, place)), label(left - 5, place + 4, said(tick), anchor="end"))

    def marks(self, places: Sequence[Place]) -> None:
        """Numbers 1, 2, ... in discs at these places: what they are is told below the chart."""
        for number, (x, y) in enumerate(places, 1):
            self.add(svg.Circle(cx=x, cy=y, r=7, class_=["disc"]), label(x, y + 3.5, str(number), "number"))

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
            viewBox=svg.ViewBoxSpec(0, 0, self.width, self.height),
            class_=["chart"],
            extra=alternative,
            elements=[
                svg.Title(id=f"t{name}", text=str(escape(title))),
                svg.Desc(id=f"d{name}", text=str(escape(told)) or " "),
                *self.elements,
            ],
        )
        return Markup(whole.as_str())  # noqa: S704


def numbers() -> Iterator[int]:
    """Numbers for the charts of one page."""
    return count(1)
