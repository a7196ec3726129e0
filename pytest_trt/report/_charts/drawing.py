"""Drawing: one chart as inline SVG with its text alternative, its scale, its caption and its data as a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import svg
from markupsafe import Markup, escape

from pytest_trt.report._numbers import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = [
    "HEIGHT",
    "WIDTH",
    "Drawing",
    "Figure",
    "Place",
    "Scale",
    "around",
    "bins_of",
    "boxes",
    "decades",
    "dots",
    "label",
    "line",
    "lines",
    "meter",
    "numbers",
    "path",
    "rect",
    "rows_of",
    "span",
]

_FAR, _NEAR = 1e300, 1e-300  # what lies beyond is drawn there: sums and quotients stay inside float64
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low: value at ``start``.
        high: value at ``end``; not equal to low.
        start: place of the low end, in units of the drawing.
        end: place of the high end.
        log: whether equal distances are equal quotients; both ends are positive then.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value, to a tenth; beyond an end it is that end."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(value) if value > 0 else -math.inf, math.log10(low), math.log10(high)
        # halved, since both ends may be near the largest float
        share = min(max((value / 2 - low / 2) / (high / 2 - low / 2), 0.0), 1.0)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values inside the ends, at most about so many."""
        return self._decades(most) if self.log else self._steps(most)

    def _steps(self, most: int) -> list[float]:
        rough = (self.high / most) - (self.low / most)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in _STEPS if power * factor >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _decades(self, most: int) -> list[float]:
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        every = max(1, math.ceil((last - first + 1) / most))
        return [10.0**power for power in range(first, last + 1, every)]


def span(values: Iterable[float]) -> tuple[float, float]:
    """The ends of a straight axis for these values, never the same: of one value, what is around it."""
    found = [min(max(value, -_FAR), _FAR) for value in values] or [0.0, 1.0]
    low, high = min(found), max(found)
    if high - low > 1e-12 * max(abs(low), abs(high), _NEAR):
        return low, high
    middle = max(abs(low), abs(high), _NEAR)
    return (0.0 if low == 0 else low - middle / 2), high + middle / 2


def decades(values: Iterable[float], least: float = 1e-12) -> tuple[float, float]:
    """The ends of a logarithmic axis: whole decades around these values, of which those below ``least`` count as it."""
    found = [max(value, least) for value in values] or [1.0]
    low, high = math.floor(math.log10(min(found))), math.ceil(math.log10(max(found)))
    return 10.0 ** max(low, -300), 10.0 ** min(max(high, low + 1), 300)


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


@dataclass(frozen=True)
class Rows:
    """A table.

    Attributes:
        head: names of the columns.
        cells: a tuple of texts a row.
        total: how many rows there would be; more than there are where only the first are shown.
        words: how many columns from the left are words and not numbers.
        order: what comes first.
    """

    head: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    total: int
    words: int = 1
    order: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart and what belongs to it.

    Attributes:
        name: what it shows.
        drawing: its SVG.
        told: the same in a sentence: its caption and its text alternative.
        legend: class name and meaning of each kind of mark.
        marks: what the numbered marks are: name and figures.
        rows: its data.
        wide: whether it wants the page's width.
    """

    name: str
    drawing: Markup
    told: str
    legend: tuple[tuple[str, str], ...] = ()
    marks: tuple[tuple[str, str], ...] = ()
    rows: Rows | None = None
    wide: bool = False


def rows_of(
    head: Sequence[str], cells: Sequence[Sequence[str]], most: int | None = None, *, words: int = 1, order: str = ""
) -> Rows:
    """A table of at most so many rows; those that are left out are counted."""
    shown = tuple(tuple(row) for row in cells[:most])
    return Rows(tuple(head), shown, len(cells), words, order)


def bins_of(head: Sequence[str], cells: Sequence[Sequence[str]], most: int) -> Rows | None:
    """A table of a histogram's bins, which is whole or not there: a part of them says nothing."""
    return rows_of(head, cells) if len(cells) <= most else None


_WIDTH, _BOUND = 96.0, 72.0


def meter(error: Any, bound: Any) -> Markup | None:
    """A bar that reaches a stroke where the error is the bound; None where there are no such figures.

    It says nothing that the numbers beside it don't, and is hidden from those who have them read out.
    """
    size, most = finite(error), finite(bound)
    if error is None or most is None or most <= 0:
        return None
    share = 2.0 if size is None else min(size / most, 2.0)
    end = round(min(_BOUND * share, _WIDTH), 1)
    kind = "bar" if share <= 1 else "bad"
    elements: list[svg.Element] = [rect("track", (0, 2), (_WIDTH, 6)), rect(kind, (0, 1), (end, 7))]
    whole = svg.SVG(
        xmlns=None,
        viewBox=svg.ViewBoxSpec(0, 0, _WIDTH, 8),
        class_=["meter"],
        extra={"aria-hidden": "true"},
        elements=[*elements, line("limit", (_BOUND, 0), (_BOUND, 8))],
    )
    return Markup(whole.as_str())
