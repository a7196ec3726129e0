"""Charts of accuracy: how the errors of an output are spread, the error of each hop, and what layers run in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pytest_trt.report._charts.drawing import (
    HEIGHT,
    WIDTH,
    Drawing,
    Figure,
    Scale,
    bins_of,
    boxes,
    decades,
    dots,
    label,
    line,
    lines,
    rect,
    rows_of,
    span,
)
from pytest_trt.report._numbers import NOTHING, count, finite, is_over, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["errors", "hops", "layers", "scatter"]

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


_STEPS_LEFT, _STEPS_RIGHT, _STEP = 8.0, WIDTH - 12.0, 40.0
_PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8", "unknown")
_DRAWN = 12  # hops of a case with many outputs; its table has all
_NO_LAYERS = "no layers that compute"


def hops(steps: Sequence[Mapping[str, Any]], blame: str | None, names: Iterator[int]) -> Figure | None:
    """The error of each step as a bar by decades, with its limit as a stroke.

    Args:
        steps: ``from``, ``to``, ``output``, ``rel_rms`` and ``limit`` each.
        blame: the step to blame, "from -> to"; None if all are fine.
        names: numbers for charts.
    """
    if not steps:
        return None
    told = f"{_arrow(blame)} is to blame." if blame else "No step is over its limit."
    if len(steps) > _DRAWN:
        told += f" The first {_DRAWN} of {len(steps)} are drawn."
    cells = [(_arrow(_name(s)), str(s["output"]), number(s["rel_rms"]), number(s["limit"])) for s in steps]
    table = rows_of(("hop", "output", "relative RMS", "limit"), cells, words=2)
    legend = (("bar", "inside its limit"), ("bad", "over its limit"), ("limit", "limit"))
    return Figure("Hops", _draw(steps[:_DRAWN], blame).svg("Error of each hop", told, names), told, legend, rows=table)


def layers(achieved: Mapping[str, Any], names: Iterator[int], most: int) -> Figure | None:
    """The layers that compute, stacked by the precision they run in, and all layers as a table.

    Args:
        achieved: ``asked``, ``compute``, ``honoured``, ``by_precision`` and ``layers``.
        names: numbers for charts.
        most: rows of the table.
    """
    if not achieved:
        return None
    counts = _in_order(achieved.get("by_precision") or {})
    asked = str(achieved.get("asked", ""))
    told = f"{achieved.get('honoured')} of {achieved.get('compute')} compute layers run in {asked}, as asked."
    drawing = Drawing(WIDTH, 66)
    _stack(drawing, counts)
    listed = sorted(achieved.get("layers") or (), key=lambda layer: _rank(layer, asked))
    table = rows_of(_LAYER_HEAD, [_layer(layer) for layer in listed], most, words=8, order=f"computing, not in {asked}")
    legend = tuple((f"p-{_known(name)}", f"{name}: {found}") for name, found in counts)
    name = "Layers by achieved precision"
    return Figure(name, drawing.svg(name, f"{told} {_listed(counts)}", names), told, legend, rows=table)


def _draw(steps: Sequence[Mapping[str, Any]], blame: str | None) -> Drawing:
    sizes = [size for step in steps for size in (finite(step["rel_rms"]), finite(step["limit"])) if size]
    low, high = decades(sizes, least=1e-9)
    bottom = _STEP * len(steps) + 2
    drawing = Drawing(WIDTH, bottom + 34)
    across = Scale(low / 10, high, _STEPS_LEFT, _STEPS_RIGHT, log=True)
    drawing.add(lines("grid", [((place, 4), (place, bottom)) for place in map(across, across.ticks())]))
    several = len({step["output"] for step in steps}) > 1
    for row, step in enumerate(steps):
        output = f" ({_short_name(step['output'])})" if several else ""
        _hop(drawing, across, row, step, f"{_arrow(_name(step))}{output}", blame)
    drawing.x_axis(across, bottom, number, "relative RMS error")
    return drawing


def _hop(drawing: Drawing, across: Scale, row: int, step: Mapping[str, Any], name: str, blame: str | None) -> None:
    top = _STEP * row + 22
    error, limit = finite(step["rel_rms"]), finite(step["limit"])
    over = is_over(step)
    blamed = over and _name(step) == blame
    kind = "strong" if blamed else "said"
    drawing.add(label(_STEPS_LEFT, top - 7, f"{name}{' — to blame' if blamed else ''}", kind, "start"))
    drawing.add(label(_STEPS_RIGHT, top - 7, number(step["rel_rms"]), kind, "end"))
    if error is None:  # NaN and infinity are as large as can be
        drawing.add(rect("bad", (_STEPS_LEFT, top), (_STEPS_RIGHT, top + 12)))
    elif error:
        drawing.add(rect("bad" if over else "bar", (_STEPS_LEFT, top), (max(across(error), _STEPS_LEFT + 2), top + 12)))
    if limit:
        drawing.add(line("limit", (across(limit), top - 4), (across(limit), top + 16)))


def _stack(drawing: Drawing, counts: Sequence[tuple[str, int]]) -> None:
    whole = sum(found for _, found in counts)
    if not whole:
        drawing.add(label(WIDTH / 2, 30, _NO_LAYERS, "said"))
        return
    place = _STEPS_LEFT
    for name, found in counts:
        end = place + (_STEPS_RIGHT - _STEPS_LEFT) * (found / whole)
        drawing.add(rect(f"p-{_known(name)}", (round(place, 1), 10), (max(end - 1.5, place + 1), 40)))
        if end - place > 40:
            drawing.add(label(round((place + end) / 2, 1), 57, f"{name} {found}", "said"))
        place = end


_LAYER_HEAD = ("layer", "type", "runs in", "computes", "reads", "writes", "weights", "tactic")


def _layer(layer: Mapping[str, Any]) -> tuple[str, ...]:
    kept = " (kept in fp32)" if layer.get("kept") else ""
    return (
        str(layer.get("name", "")),
        str(layer.get("type", "")),
        f"{layer.get('precision', '')}{kept}",
        "yes" if layer.get("computes") else NOTHING,
        ", ".join(map(str, layer.get("inputs") or ())) or NOTHING,
        ", ".join(map(str, layer.get("outputs") or ())) or NOTHING,
        str(layer.get("weights") or NOTHING),
        str(layer.get("tactic") or NOTHING),
    )


def _rank(layer: Mapping[str, Any], asked: str) -> tuple[bool, bool]:
    computes = bool(layer.get("computes")) and not layer.get("kept")
    return not computes, layer.get("precision") == asked


def _in_order(counts: Mapping[str, Any]) -> list[tuple[str, int]]:
    rank = {name: place for place, name in enumerate(_PRECISIONS)}
    found = [(name, int(size)) for name, size in counts.items() if (finite(size) or 0) > 0]
    return sorted(found, key=lambda each: (rank.get(each[0], len(rank)), each[0]))


def _known(name: str) -> str:
    return name if name in _PRECISIONS else "unknown"


def _listed(counts: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{found} in {name}" for name, found in counts) + "." if counts else ""


def _short_name(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _arrow(step: str) -> str:
    return step.replace(" -> ", " → ")


def _name(step: Mapping[str, Any]) -> str:
    return f"{step['from']} -> {step['to']}"
