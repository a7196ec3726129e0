"""Charts of an output: how its errors are spread, and its values against the golden's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pytest_trt.report.charts.drawing import HEIGHT, WIDTH, Drawing, boxes, dots, line
from pytest_trt.report.charts.figure import Figure, bins_of
from pytest_trt.report.charts.scale import Scale, span
from pytest_trt.report.told import count, finite, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["errors", "scatter"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, WIDTH - 10.0, 10.0, HEIGHT - 36.0
_SQUARE = 280.0


def errors(output: str, histogram: Mapping[str, Any], side: str, names: Iterator[int], most: int) -> Figure | None:
    """The error histogram; counts by decades, so that a single far element is seen beside thousands of near ones.

    Args:
        output: its name.
        histogram: ``edges`` (n + 1) and ``counts`` (n).
        side: what was compared with the golden: "engine", "simulated", ...
        names: numbers for charts.
        most: rows of the table, which is left out where there are more bins.
    """
    edges = [finite(edge) for edge in histogram.get("edges") or ()]
    counts = [max(int(finite(found) or 0), 0) for found in histogram.get("counts") or ()]
    places = [edge for edge in edges if edge is not None]
    if not counts or len(places) != len(edges) or len(edges) != len(counts) + 1 or not places[0] < places[-1]:
        return None
    told = f"{count(sum(counts))} elements of {output}, error from {_reach(places, counts)}."
    drawing = Drawing()
    _bars(drawing, places, counts, f"{side} − golden")
    cells = [
        (f"{number(low)} to {number(high)}", count(found))
        for low, high, found in zip(places, places[1:], counts, strict=False)
        if found
    ]
    rows = bins_of(("error", "elements"), cells, most)
    return Figure("Error histogram", drawing.svg(f"Error histogram of {output}", told, names), told, rows=rows)


def scatter(output: str, points: Mapping[str, Any], side: str, names: Iterator[int]) -> Figure | None:
    """Values against the golden's, with the line on which nothing differs.

    Args:
        output: its name.
        points: ``golden`` and ``actual`` of as many elements, and of how many they were taken (``sampled_of``).
        side: what was compared with the golden.
        names: numbers for charts.
    """
    pairs = list(zip(points.get("golden") or (), points.get("actual") or (), strict=False))
    found = [(x, y) for x, y in ((finite(x), finite(y)) for x, y in pairs) if x is not None and y is not None]
    if not found:
        return None
    low, high = span([value for pair in found for value in pair])
    across, up = Scale(low, high, _LEFT, _SQUARE - 10, False), Scale(low, high, _SQUARE - 36, _TOP)
    drawing = Drawing(_SQUARE, _SQUARE)
    drawing.y_axis(up, _LEFT, _SQUARE - 10, number)
    drawing.x_axis(across, _SQUARE - 36, number, f"golden (across) against {side} (up)", most=4)
    drawing.add(line("equal", (across(low), up(low)), (across(high), up(high))))
    drawing.add(dots("points", [(across(x), up(y)) for x, y in found]))
    told = _told_of_points(output, len(found), len(pairs), points.get("sampled_of"), side)
    return Figure("Golden against " + side, drawing.svg(f"{side} against golden, {output}", told, names), told)


def _bars(drawing: Drawing, edges: list[float], counts: list[int], name: str) -> None:
    across = Scale(edges[0], edges[-1], _LEFT, _RIGHT)
    top = max(counts)
    up = Scale(0.0, math.log10(1 + top) or 1.0, _BOTTOM, _TOP)
    marks = [10**power for power in range(16) if 10**power <= top]
    shown = marks[:: max(1, math.ceil(len(marks) / 5))]
    drawing.grid([(up(math.log10(1 + tick)), _short(tick)) for tick in shown], _LEFT, _RIGHT)
    bars = [
        ((across(low), up(math.log10(1 + found))), (max(across(high) - 0.8, across(low) + 0.4), _BOTTOM))
        for low, high, found in zip(edges, edges[1:], counts, strict=False)
        if found
    ]
    drawing.add(boxes("bar", bars))
    drawing.x_axis(across, _BOTTOM, number, name)
    if edges[0] < 0 < edges[-1]:
        drawing.add(line("zero", (across(0), _TOP), (across(0), _BOTTOM)))


def _short(tick: int) -> str:
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if tick >= 10**power:
            return f"{tick // 10**power}{letter}"
    return str(tick)


def _reach(edges: list[float], counts: list[int]) -> str:
    used = [place for place, found in enumerate(counts) if found]
    if not used:
        return "nowhere"
    return f"{number(edges[used[0]])} to {number(edges[used[-1] + 1])}"


def _told_of_points(output: str, drawn: int, given: int, of: Any, side: str) -> str:
    sampled = f", of {count(of)}" if finite(of) and of != drawn else ""
    left = f"; {given - drawn} are not finite and not drawn" if given > drawn else ""
    return f"{drawn} elements of {output}{sampled}: on the line, {side} equals golden{left}."
