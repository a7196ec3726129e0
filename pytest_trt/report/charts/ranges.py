"""Chart of ranges: how each fits the activations that it has to hold, and how many of them lie beyond it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import svg

from pytest_trt.report.charts.along import LEFT, NAMED, RIGHT, TOP, WIDTH, beside, order_axis
from pytest_trt.report.charts.drawing import Drawing, boxes, dots, line
from pytest_trt.report.charts.figure import Figure, rows_of
from pytest_trt.report.charts.scale import Scale
from pytest_trt.report.told import amount, finite, number, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Range = Mapping[str, Any]

__all__ = ["ranges"]

_NAME = "Ranges against activations"
_MIDDLE, _BOTTOM = 158.0, 212.0
_MANY = 5e-3  # a share beyond the range that gets a colour; what is a fault, the findings say
_LEGEND = (
    ("run-points", "range ÷ largest |x|: below 1× it clips, far above it is coarse"),
    ("bar", "share of values beyond the range"),
    ("bad", f"the same, over {percent(_MANY)}"),
)
_HEAD = ("tensor", "range", "largest |x|", "range ÷ largest |x|", "beyond", "SQNR")


def ranges(found: Sequence[Range], names: Iterator[int], most: int) -> Figure | None:
    """Every range over the largest activation it has to hold, and the share of activations beyond it.

    Args:
        found: ``tensor``, ``range``, ``amax``, ``saturated``, ``sqnr_db`` each, in the network's order.
        names: numbers for charts.
        most: rows of the table.
    """
    if not found:
        return None
    worst = sorted(range(len(found)), key=lambda place: _rank(found[place]))
    told = _told(found)
    return Figure(
        _NAME,
        _draw(found, worst[:NAMED]).svg(_NAME, told, names),
        told,
        _LEGEND,
        tuple((str(found[place]["tensor"]), _said(found[place])) for place in worst[:NAMED]),
        rows_of(_HEAD, [_row(found[place]) for place in worst], most, order="lowest SQNR"),
        wide=True,
    )


def _draw(found: Sequence[Range], worst: Sequence[int]) -> Drawing:
    drawing = Drawing(WIDTH, _BOTTOM + 24)
    across = Scale(-0.5, len(found) - 0.5, LEFT, RIGHT)
    ends = _sticks(drawing, across, [_fit(one) for one in found])
    _beyond(drawing, across, [finite(one.get("saturated")) or 0.0 for one in found])
    drawing.marks([beside(across(place), ends[place]) for place in worst])
    order_axis(drawing, _BOTTOM, len(found))
    return drawing


def _sticks(drawing: Drawing, across: Scale, fits: Sequence[float | None]) -> list[float]:
    """Sticks from the line where range and largest |x| are the same, by doublings; the place of each one's end."""
    known = [fit for fit in fits if fit]
    low, high = min([*known, 0.5]), max([*known, 2.0])
    up = Scale(low / 1.1, high * 1.1, _MIDDLE, TOP, log=True)
    drawing.grid([(up(tick), f"{number(tick)}×") for tick in _doublings(low, high)], LEFT, RIGHT)
    drawing.add(line("equal", (LEFT, up(1.0)), (RIGHT, up(1.0))))
    ends = [up(fit) if fit else up(1.0) for fit in fits]
    sticks = "".join(f"M{across(place)} {up(1.0)}V{end}" for place, end in enumerate(ends))
    drawing.add(svg.Path(class_=["stick"], extra={"d": sticks}))
    drawing.add(dots("run-points", [(across(place), end) for place, end in enumerate(ends) if fits[place]]))
    return ends


def _doublings(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log2(low) - 0.1), math.floor(math.log2(high) + 0.1)
    every = max(1, math.ceil((last - first + 1) / 6))
    # through 1, where the range is as large as the largest |x|
    return [2.0**power for power in range(first, last + 1) if power % every == 0]


def _beyond(drawing: Drawing, across: Scale, shares: Sequence[float]) -> None:
    """Bars below: the share of values beyond the range."""
    up = Scale(0.0, max([*shares, 0.01]), _BOTTOM, _MIDDLE + 14)
    half = max(1.0, min(7.0, (RIGHT - LEFT) / len(shares) / 2 - 1))
    drawing.grid([(up(tick), f"{100 * tick:.2g} %") for tick in (up.high, 0.0)], LEFT, RIGHT)
    bars = [(share, across(place)) for place, share in enumerate(shares) if share]
    for kind, chosen in (("bar", [b for b in bars if b[0] <= _MANY]), ("bad", [b for b in bars if b[0] > _MANY])):
        tops = [(min(up(share), _BOTTOM - 1), middle) for share, middle in chosen]
        drawing.add(boxes(kind, [((round(x - half, 1), y), (round(x + half, 1), _BOTTOM)) for y, x in tops]))


def _fit(one: Range) -> float | None:
    reach, largest = finite(one.get("range")), finite(one.get("amax"))
    # beyond 2 ** 40 it is as far away as can be shown
    return min(max(reach / largest, 2.0**-40), 2.0**40) if reach and largest else None


def _rank(one: Range) -> tuple[float, float]:
    ratio = finite(one.get("sqnr_db"))
    return math.inf if ratio is None else ratio, -(finite(one.get("saturated")) or 0.0)


def _told(found: Sequence[Range]) -> str:
    known = [fit for fit in map(_fit, found) if fit]
    worst = max(found, key=lambda one: finite(one.get("saturated")) or 0.0)
    share = finite(worst.get("saturated")) or 0.0
    spread = f" of {number(min(known))} to {number(max(known))} times the largest |x|" if known else ""
    most = (
        f"{percent(share)} of {worst['tensor']} lies beyond its own, the most" if share else "nothing lies beyond them"
    )
    return f"{len(found)} ranges{spread}; {most}."


def _said(one: Range) -> str:
    held = f"range {number(one.get('range'))} for a largest |x| of {number(one.get('amax'))}"
    return f"{held}, {percent(one.get('saturated'))} beyond, SQNR {amount(one.get('sqnr_db'), 'dB')}"


def _row(one: Range) -> tuple[str, ...]:
    figures = (number(one.get("range")), number(one.get("amax")), number(_fit(one)))
    return (str(one["tensor"]), *figures, percent(one.get("saturated")), amount(one.get("sqnr_db"), "dB"))
