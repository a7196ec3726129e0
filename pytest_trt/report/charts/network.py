"""Charts along the network: what every tensor keeps of its signal, and how its range fits what flows through it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import svg

from pytest_trt.report.charts.drawing import Drawing, dots, label, line, rect
from pytest_trt.report.charts.figure import Figure, rows_of
from pytest_trt.report.charts.scale import Scale, span
from pytest_trt.report.told import NOTHING, amount, finite, number, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["ranges", "sqnr"]

_WIDTH, _HEIGHT = 560, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, _WIDTH - 12.0, 14.0, _HEIGHT - 36.0
_NAMED = 5
_CLIPPED = 5e-3  # a saturation worth a colour; the verdict on it is the findings'

Tensor = "Mapping[str, Any]"


def sqnr(tensors: Sequence[Mapping[str, Any]], names: Iterator[int], most: int) -> Figure | None:
    """SQNR of every tensor, in the network's order: what its own rounding leaves, and what the lowered run has.

    Args:
        tensors: ``tensor``, ``node``, ``op``, ``position``, ``local_sqnr_db``, ``cumulative_sqnr_db`` each; a ratio is
            None where nothing is lost.
        names: numbers for charts.
        most: rows of the table.
    """
    if not tensors:
        return None
    along = sorted(tensors, key=lambda tensor: finite(tensor.get("position")) or 0)
    local = [(place, found) for place, t in enumerate(along) if (found := finite(t.get("local_sqnr_db"))) is not None]
    run = [
        (place, found) for place, t in enumerate(along) if (found := finite(t.get("cumulative_sqnr_db"))) is not None
    ]
    worst = sorted(local or run, key=lambda each: each[1])[:_NAMED]
    across = Scale(-0.5, len(along) - 0.5, _LEFT, _RIGHT)
    up = Scale(*span([found for _, found in [*local, *run]], with_zero=True), _BOTTOM, _TOP)
    drawing = Drawing(_WIDTH, _HEIGHT)
    drawing.y_axis(up, _LEFT, _RIGHT, number)
    drawing.add(label(_LEFT - 38, _TOP - 3, "dB", "name", "start"))
    drawing.add(svg.Polyline(points=[(across(x), up(y)) for x, y in run], class_=["run"]))
    drawing.add(dots("run-points", [(across(x), up(y)) for x, y in run]))
    drawing.add(*[svg.Rect(x=across(x) - 3, y=up(y) - 3, width=6, height=6, class_=["local"]) for x, y in local])
    drawing.marks([_beside(across(place), up(found)) for place, found in worst])
    _network_axis(drawing, along)
    told = _told_of_sqnr(along, local, worst)
    legend = (("local", "local: what rounding this tensor alone leaves"), ("run", "cumulative: what the whole run has"))
    table = rows_of(_SQNR_HEAD, [_sqnr_row(t) for t in _worst_first(along)], most, words=4, order="worst local SQNR")
    return Figure(
        "SQNR along the network",
        drawing.svg("SQNR along the network", told, names),
        told,
        legend if local else legend[1:],
        tuple((str(along[place]["tensor"]), _both(along[place])) for place, _ in worst),
        table,
        wide=True,
    )


def ranges(found: Sequence[Mapping[str, Any]], names: Iterator[int], most: int) -> Figure | None:
    """Every range over the largest activation it has to hold, and the share of activations beyond it.

    Args:
        found: ``tensor``, ``range``, ``amax``, ``saturated``, ``sqnr_db`` each.
        names: numbers for charts.
        most: rows of the table.
    """
    if not found:
        return None
    fits = [_fit(one) for one in found]
    worst = sorted(range(len(found)), key=lambda place: _badness(found[place]))[:_NAMED]
    drawing = Drawing(_WIDTH, _HEIGHT + 60)
    across = Scale(-0.5, len(found) - 0.5, _LEFT, _RIGHT)
    places = _lollipops(drawing, across, fits)
    _saturation(drawing, across, found)
    drawing.marks([_beside(across(place), places[place]) for place in worst])
    told = _told_of_ranges(found, fits)
    cells = [_range_row(found[place]) for place in sorted(range(len(found)), key=lambda place: _badness(found[place]))]
    legend = (
        ("bar", "range reaches the largest |x|"),
        ("bad", f"more than {percent(_CLIPPED)} of the values lie beyond"),
    )
    return Figure(
        "Ranges against activations",
        drawing.svg("Ranges against activations", told, names),
        told,
        legend,
        tuple((str(found[place]["tensor"]), _said_of_range(found[place])) for place in worst),
        rows_of(_RANGE_HEAD, cells, most, order="worst SQNR"),
        wide=True,
    )


_SQNR_HEAD = ("tensor", "node", "operator", "position", "local", "cumulative")
_RANGE_HEAD = ("tensor", "range", "largest |x|", "range ÷ largest |x|", "saturated", "SQNR")


def _sqnr_row(t: Mapping[str, Any]) -> tuple[str, ...]:
    named = (str(t["tensor"]), str(t.get("node") or NOTHING), str(t.get("op") or "input"), number(t.get("position")))
    return (*named, amount(t.get("local_sqnr_db"), "dB"), amount(t.get("cumulative_sqnr_db"), "dB"))


def _worst_first(along: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    def rank(t: Mapping[str, Any]) -> tuple[float, float]:
        local, run = finite(t.get("local_sqnr_db")), finite(t.get("cumulative_sqnr_db"))
        return math.inf if local is None else local, math.inf if run is None else run

    return sorted(along, key=rank)


def _both(t: Mapping[str, Any]) -> str:
    op = f"{t['op']}, " if t.get("op") else ""
    local, run = amount(t.get("local_sqnr_db"), "dB"), amount(t.get("cumulative_sqnr_db"), "dB")
    return f"{op}local {local}, cumulative {run}"


def _told_of_sqnr(
    along: Sequence[Mapping[str, Any]], local: Sequence[tuple[int, float]], worst: Sequence[tuple[int, float]]
) -> str:
    if not worst:
        return f"{len(along)} tensors; none of them differs from fp32."
    place, least = worst[0]
    kind = "local" if local else "cumulative"
    return f"{len(along)} tensors; the lowest {kind} SQNR is {amount(least, 'dB')}, of {along[place]['tensor']}."


def _network_axis(drawing: Drawing, along: Sequence[Mapping[str, Any]]) -> None:
    drawing.add(line("axis", (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)))
    _ends(drawing, _BOTTOM, len(along))


def _ends(drawing: Drawing, bottom: float, size: int) -> None:
    drawing.add(label(_LEFT, bottom + 16, "first tensor", "tick", "start"))
    drawing.add(label(_RIGHT, bottom + 16, f"last of {size}", "tick", "end"))
    drawing.add(label((_LEFT + _RIGHT) / 2, bottom + 16, "along the network", "name"))


def _beside(x: float, y: float) -> tuple[float, float]:
    """Where the number of a point stands: above it, below it at the top of the plot."""
    return x, (y - 12 if y > _TOP + 14 else y + 13)


def _fit(one: Mapping[str, Any]) -> float | None:
    reach, largest = finite(one.get("range")), finite(one.get("amax"))
    return reach / largest if reach and largest and math.isfinite(reach / largest) else None


def _badness(one: Mapping[str, Any]) -> tuple[float, float]:
    ratio = finite(one.get("sqnr_db"))
    return math.inf if ratio is None else ratio, -(finite(one.get("saturated")) or 0.0)


def _lollipops(drawing: Drawing, across: Scale, fits: Sequence[float | None]) -> list[float]:
    """Sticks from the line where range and largest |x| are the same, by doublings; the place of each one's end."""
    known = [fit for fit in fits if fit]
    low, high = min([*known, 0.5]), max([*known, 2.0])
    up = Scale(low / 1.1, high * 1.1, _BOTTOM, _TOP, log=True)
    one = up(1.0)
    for tick in _doublings(low, high):
        drawing.add(line("grid", (_LEFT, up(tick)), (_RIGHT, up(tick))))
        drawing.add(label(_LEFT - 5, up(tick) + 4, f"{number(tick)}×", anchor="end"))
    drawing.add(line("equal", (_LEFT, one), (_RIGHT, one)))
    ends = [up(fit) if fit else one for fit in fits]
    sticks = "".join(f"M{across(place)} {one}V{end}" for place, end in enumerate(ends))
    drawing.add(svg.Path(class_=["stick"], extra={"d": sticks}))
    drawing.add(dots("run-points", [(across(place), end) for place, end in enumerate(ends) if fits[place]]))
    return ends


def _doublings(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log2(low) - 0.2), math.floor(math.log2(high) + 0.2)
    every = max(1, math.ceil((last - first + 1) / 6))
    # through 1, where the range is as large as the largest |x|
    return [2.0**power for power in range(first, last + 1) if power % every == 0]


def _saturation(drawing: Drawing, across: Scale, found: Sequence[Mapping[str, Any]]) -> None:
    """Bars below: the share of values beyond the range."""
    bottom, top = _HEIGHT + 24.0, _HEIGHT - 18.0
    shares = [finite(one.get("saturated")) or 0.0 for one in found]
    up = Scale(0.0, max([*shares, 0.01]), bottom, top)
    wide = max(2.0, min(14.0, (_RIGHT - _LEFT) / len(found) - 2))
    drawing.y_axis(up, _LEFT, _RIGHT, lambda share: f"{100 * share:.3g}%", most=2)
    drawing.add(line("axis", (_LEFT, bottom), (_RIGHT, bottom)))
    for place, share in enumerate(shares):
        if share:
            kind = "bad" if share > _CLIPPED else "bar"
            middle = across(place)
            drawing.add(
                rect(kind, (round(middle - wide / 2, 1), min(up(share), bottom - 1)), (middle + wide / 2, bottom))
            )
    _ends(drawing, bottom, len(found))


def _told_of_ranges(found: Sequence[Mapping[str, Any]], fits: Sequence[float | None]) -> str:
    known = [fit for fit in fits if fit]
    worst = max(found, key=lambda one: finite(one.get("saturated")) or 0.0)
    share = finite(worst.get("saturated")) or 0.0
    spread = f"they are {number(min(known))} to {number(max(known))} times the largest |x|; " if known else ""
    told = f"most is beyond the range of {worst['tensor']}: {percent(share)}." if share else "nothing lies beyond."
    return f"{len(found)} ranges: {spread}{told}"


def _said_of_range(one: Mapping[str, Any]) -> str:
    held = f"range {number(one.get('range'))} for {number(one.get('amax'))}"
    return f"{held}, {percent(one.get('saturated'))} beyond, {amount(one.get('sqnr_db'), 'dB')}"


def _range_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    figures = (number(one.get("range")), number(one.get("amax")), number(_fit(one)))
    return (str(one["tensor"]), *figures, percent(one.get("saturated")), amount(one.get("sqnr_db"), "dB"))
