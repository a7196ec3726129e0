"""Charts along the network: what every tensor keeps of its signal, and how each range fits its activations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import svg

from pytest_trt.report._charts.drawing import Drawing, Figure, Scale, around, boxes, dots, label, line, path, rows_of
from pytest_trt.report._numbers import NOTHING, amount, finite, number, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_trt.report._charts.drawing import Place

__all__ = ["ranges", "sqnr"]

WIDTH = 600.0
LEFT, RIGHT, TOP = 46.0, WIDTH - 12.0, 22.0
NAMED = 5
"""How many of the worst tensors are numbered in the chart and named below it."""


def order_axis(drawing: Drawing, bottom: float, size: int) -> None:
    """A horizontal axis from the first to the last of so many tensors."""
    drawing.add(line("axis", (LEFT, bottom), (RIGHT, bottom)))
    drawing.add(label(LEFT, bottom + 16, "first tensor", "tick", "start"))
    drawing.add(label(RIGHT, bottom + 16, f"last of {size}", "tick", "end"))


def beside(x: float, y: float) -> Place:
    """Where the number of a point stands: above it, below it at the top of the plot."""
    return x, round(y - 12 if y > TOP + 14 else y + 13, 1)


if TYPE_CHECKING:
    Tensor = Mapping[str, Any]
    Points = Sequence[tuple[int, float]]


_NAME = "SQNR along the network"
_BOTTOM = 176.0
_LEGEND = (("local", "local: what rounding this tensor alone leaves"), ("run", "cumulative: what the whole run has"))
_HEAD = ("tensor", "node", "operator", "position", "local", "cumulative")


def sqnr(tensors: Sequence[Tensor], names: Iterator[int], most: int) -> Figure | None:
    """SQNR of every tensor, in the network's order: what its own rounding leaves, and what the lowered run has.

    Args:
        tensors: ``tensor``, ``node``, ``op``, ``position``, ``local_sqnr_db``, ``cumulative_sqnr_db`` each; a ratio is
            None where nothing is lost. None is returned where that is so of all.
        names: numbers for charts.
        most: rows of the table.
    """
    along = sorted(tensors, key=lambda tensor: finite(tensor.get("position")) or 0)
    local, run = _points(along, "local_sqnr_db"), _points(along, "cumulative_sqnr_db")
    if not local and not run:
        return None
    worst = sorted(local or run, key=lambda point: point[1])[:NAMED]
    told = _told(along, "local" if local else "cumulative", worst[0])
    cells = [_row(tensor) for tensor in sorted(along, key=_rank)]
    return Figure(
        _NAME,
        _draw(local, run, worst, len(along)).svg(_NAME, told, names),
        told,
        _LEGEND if local else _LEGEND[1:],
        tuple((str(along[place]["tensor"]), _both(along[place])) for place, _ in worst),
        rows_of(_HEAD, cells, most, words=3, order="lowest local SQNR"),
        wide=True,
    )


def _points(along: Sequence[Tensor], key: str) -> list[tuple[int, float]]:
    return [(place, found) for place, t in enumerate(along) if (found := finite(t.get(key))) is not None]


def _draw(local: Points, run: Points, worst: Points, size: int) -> Drawing:
    across = Scale(-0.5, size - 0.5, LEFT, RIGHT)
    up = Scale(*_tens([found for _, found in [*local, *run]]), _BOTTOM, TOP)
    drawing = Drawing(WIDTH, _BOTTOM + 24)
    drawing.y_axis(up, LEFT, RIGHT, lambda tick: f"{tick:g}")
    drawing.add(label(RIGHT, TOP - 8, "SQNR in dB", "name", "end"))
    places = [(across(x), up(y)) for x, y in run]
    drawing.add(path("run", places), dots("run-points", places))
    drawing.add(boxes("local", [around(across(x), up(y)) for x, y in local]))
    drawing.marks([beside(across(place), up(found)) for place, found in worst])
    order_axis(drawing, _BOTTOM, size)
    return drawing


def _tens(ratios: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis in dB: whole tens with all of the values well between them."""
    return 10 * math.floor((min(ratios) - 4) / 10), 10 * math.ceil((max(ratios) + 2) / 10)


def _row(t: Tensor) -> tuple[str, ...]:
    named = (str(t["tensor"]), str(t.get("node") or NOTHING), str(t.get("op") or "input"), number(t.get("position")))
    return (*named, amount(t.get("local_sqnr_db"), "dB"), amount(t.get("cumulative_sqnr_db"), "dB"))


def _rank(t: Tensor) -> tuple[float, float]:
    local, run = finite(t.get("local_sqnr_db")), finite(t.get("cumulative_sqnr_db"))
    return math.inf if local is None else local, math.inf if run is None else run


def _both(t: Tensor) -> str:
    made = f"{t['op']}: " if t.get("op") else "input: "
    local, run = (finite(t.get(key)) for key in ("local_sqnr_db", "cumulative_sqnr_db"))
    alone = "not rounded by itself" if local is None else f"local {amount(local, 'dB')}"
    whole = "as in fp32" if run is None else f"cumulative {amount(run, 'dB')}"
    return f"{made}{alone}, {whole}"


def _told(along: Sequence[Tensor], kind: str, worst: tuple[int, float]) -> str:
    place, least = worst
    return f"{len(along)} tensors; the lowest {kind} SQNR is {amount(least, 'dB')}, of {along[place]['tensor']}."


if TYPE_CHECKING:
    Range = Mapping[str, Any]


_RANGES_NAME = "Ranges against activations"
_MIDDLE, _RANGES_BOTTOM = 158.0, 212.0
_MANY = 5e-3  # a share beyond the range that gets a colour; what is a fault, the findings say
_RANGES_LEGEND = (
    ("run-points", "range ÷ largest |x|: below 1× it clips, far above it is coarse"),
    ("bar", "share of values beyond the range"),
    ("bad", f"the same, over {percent(_MANY)}"),
)
_RANGES_HEAD = ("tensor", "range", "largest |x|", "range ÷ largest |x|", "beyond", "SQNR")


def ranges(found: Sequence[Range], names: Iterator[int], most: int) -> Figure | None:
    """Every range over the largest activation it has to hold, and the share of activations beyond it.

    Args:
        found: ``tensor``, ``range``, ``amax``, ``saturated``, ``sqnr_db`` each, in the network's order.
        names: numbers for charts.
        most: rows of the table.
    """
    if not found:
        return None
    worst = sorted(range(len(found)), key=lambda place: _rank_range(found[place]))
    told = _told_range(found)
    return Figure(
        _RANGES_NAME,
        _draw_ranges(found, worst[:NAMED]).svg(_RANGES_NAME, told, names),
        told,
        _RANGES_LEGEND,
        tuple((str(found[place]["tensor"]), _said(found[place])) for place in worst[:NAMED]),
        rows_of(_RANGES_HEAD, [_row_range(found[place]) for place in worst], most, order="lowest SQNR"),
        wide=True,
    )


def _draw_ranges(found: Sequence[Range], worst: Sequence[int]) -> Drawing:
    drawing = Drawing(WIDTH, _RANGES_BOTTOM + 24)
    across = Scale(-0.5, len(found) - 0.5, LEFT, RIGHT)
    ends = _sticks(drawing, across, [_fit(one) for one in found])
    _beyond(drawing, across, [finite(one.get("saturated")) or 0.0 for one in found])
    drawing.marks([beside(across(place), ends[place]) for place in worst])
    order_axis(drawing, _RANGES_BOTTOM, len(found))
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
    up = Scale(0.0, max([*shares, 0.01]), _RANGES_BOTTOM, _MIDDLE + 14)
    half = max(1.0, min(7.0, (RIGHT - LEFT) / len(shares) / 2 - 1))
    drawing.grid([(up(tick), f"{100 * tick:.2g} %") for tick in (up.high, 0.0)], LEFT, RIGHT)
    bars = [(share, across(place)) for place, share in enumerate(shares) if share]
    for kind, chosen in (("bar", [b for b in bars if b[0] <= _MANY]), ("bad", [b for b in bars if b[0] > _MANY])):
        tops = [(min(up(share), _RANGES_BOTTOM - 1), middle) for share, middle in chosen]
        drawing.add(boxes(kind, [((round(x - half, 1), y), (round(x + half, 1), _RANGES_BOTTOM)) for y, x in tops]))


def _fit(one: Range) -> float | None:
    reach, largest = finite(one.get("range")), finite(one.get("amax"))
    # beyond 2 ** 40 it is as far away as can be shown
    return min(max(reach / largest, 2.0**-40), 2.0**40) if reach and largest else None


def _rank_range(one: Range) -> tuple[float, float]:
    ratio = finite(one.get("sqnr_db"))
    return math.inf if ratio is None else ratio, -(finite(one.get("saturated")) or 0.0)


def _told_range(found: Sequence[Range]) -> str:
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


def _row_range(one: Range) -> tuple[str, ...]:
    figures = (number(one.get("range")), number(one.get("amax")), number(_fit(one)))
    return (str(one["tensor"]), *figures, percent(one.get("saturated")), amount(one.get("sqnr_db"), "dB"))
