"""Charts of latency: how samples are spread, what earlier runs took, and the ratio to a baseline with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import svg

from pytest_trt.report._charts.drawing import (
    HEIGHT,
    WIDTH,
    Drawing,
    Figure,
    Scale,
    around,
    bins_of,
    boxes,
    dots,
    label,
    line,
    lines,
    path,
    rect,
    rows_of,
    span,
)
from pytest_trt.report._numbers import NOTHING, count, finite, number, percent, ratio, seconds, when

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["compared", "distribution", "history"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, WIDTH - 12.0, 32.0, HEIGHT - 36.0


def distribution(latency: Mapping[str, Any], names: Iterator[int], most: int) -> Figure | None:
    """The samples' histogram, with median and percentiles where there are enough samples for them."""
    histogram = latency.get("histogram") or {}
    edges = [edge for edge in map(finite, histogram.get("edges") or ()) if edge is not None]
    counts = [max(int(finite(found) or 0), 0) for found in histogram.get("counts") or ()]
    if not counts or len(edges) != len(counts) + 1 or not edges[0] < edges[-1]:
        return None
    across, up = Scale(edges[0], edges[-1], _LEFT, _RIGHT), Scale(0, max(*counts, 1), _BOTTOM, _TOP)
    drawing = Drawing()
    drawing.y_axis(up, _LEFT, _RIGHT, lambda tick: count(tick) if tick == int(tick) else "", most=4)
    bins = list(zip(edges, edges[1:], counts, strict=False))
    drawing.add(boxes("bar", [((across(a), up(found)), (across(b) - 0.8, _BOTTOM)) for a, b, found in bins]))
    drawing.x_axis(across, _BOTTOM, seconds, "latency of an inference", most=4)
    marks = [(key[:-2], finite(latency.get(key))) for key in ("p50_s", "p90_s", "p99_s")]
    _percentiles(drawing, [(key, across(place)) for key, place in marks if place is not None])
    told = f"{count(latency.get('samples'))} samples: {', '.join(f'{key} {seconds(s)}' for key, s in marks)}."
    cells = [(f"{seconds(low)} to {seconds(high)}", count(found)) for low, high, found in bins]
    rows = bins_of(("latency", "samples"), cells, most)
    return Figure("Latency distribution", drawing.svg("Latency distribution", told, names), told, rows=rows)


def history(latency: Mapping[str, Any], names: Iterator[int]) -> Figure | None:
    """Medians of earlier runs and of this one, and the gate's interval, inside which a run is no news."""
    runs = [run for run in latency.get("history") or () if finite(run.get("p50_s"))]
    now = finite(latency.get("p50_s"))
    if not runs or now is None:
        return None
    interval = latency.get("interval") or {}
    ends = [end for end in (finite(interval.get("low_s")), finite(interval.get("high_s"))) if end is not None]
    medians = [run["p50_s"] for run in runs]
    low, high = span([*medians, now, *ends])
    low, high = low - (high - low) / 12, high + (high - low) / 12
    across, up = Scale(-0.5, len(runs) + 0.5, _LEFT, _RIGHT), Scale(low, high, _BOTTOM, _TOP)
    drawing = Drawing()
    if len(ends) == 2:
        drawing.add(rect("interval", (_LEFT, up(ends[1])), (_RIGHT, up(ends[0]))))
    drawing.y_axis(up, _LEFT, _RIGHT, seconds, most=4)
    _runs(drawing, across, up, runs, now)
    many = "run" if len(runs) == 1 else "runs"
    told = f"{len(runs)} earlier {many}; this run {seconds(now)}{_told_of_interval(ends)}."
    cells = [(str(r.get("run", "")), when(r.get("when", "")), _state(r), seconds(r["p50_s"])) for r in runs]
    table = rows_of(("run", "when", "state", "median"), [*cells, ("this run", "", "", seconds(now))], words=3)
    legend = (
        ("run-points", "median of a run"),
        ("local", "baseline"),
        ("now", "this run"),
        ("interval", "gate's interval"),
    )
    return Figure("Latency history", drawing.svg("Latency history", told, names), told, legend, rows=table)


def compared(latency: Mapping[str, Any], names: Iterator[int]) -> Figure | None:
    """The ratio to the baseline with its confidence interval, between the threshold's two sides.

    An end of the interval that is None is without end: the line goes on to the drawing's edge.
    """
    comparison = latency.get("comparison") or {}
    found, low, high = (finite(comparison.get(key)) for key in ("ratio", "low", "high"))
    if found is None:
        return None
    threshold = finite(comparison.get("threshold"))
    drawing = _ratio(found, low, high, threshold)
    ends = f"between {_end(low)} and {_end(high)}"
    told = f"{ratio(found)} against {_baseline(comparison)}, {ends}."
    cells = [(str(key), _cell(value)) for key, value in comparison.items()]
    legend = [("now", "ratio with its interval")]
    if threshold is not None:
        legend.append(("interval", f"within the threshold of {percent(threshold)}"))
    drawn = drawing.svg("Latency against the baseline", told, names)
    return Figure("Against the baseline", drawn, told, tuple(legend), rows=rows_of(("figure", "value"), cells))


def _ratio(found: float, low: float | None, high: float | None, threshold: float | None) -> Drawing:
    known = [found, *[end for end in (low, high) if end is not None]]
    most = threshold or 0.01
    low_end, high_end = span([*known, 1 - 2 * most, 1 + 2 * most])
    across = Scale(low_end, high_end, 16.0, WIDTH - 16.0)
    drawing = Drawing(WIDTH, 92)
    if threshold is not None:
        drawing.add(rect("interval", (across(1 - threshold), 12), (across(1 + threshold), 54)))
    drawing.add(line("equal", (across(1), 8), (across(1), 54)))
    start, stop = (0.0 if low is None else across(low)), (float(WIDTH) if high is None else across(high))
    closed = [((across(end), 27.0), (across(end), 39.0)) for end in (low, high) if end is not None]
    drawing.add(lines("run", [((start, 33.0), (stop, 33.0)), *closed]))
    drawing.add(svg.Circle(cx=across(found), cy=33, r=5, class_=["now"]))
    drawing.x_axis(across, 54, ratio, "latency against the baseline", most=4)
    return drawing


def _end(value: float | None) -> str:
    return "no end" if value is None else ratio(value)


def _baseline(comparison: Mapping[str, Any]) -> str:
    return str(comparison.get("baseline") or f"the baseline ({comparison.get('method')})")


def _cell(value: Any) -> str:
    return "; ".join(map(str, value)) or NOTHING if isinstance(value, list) else number(value)


def _percentiles(drawing: Drawing, marks: Sequence[tuple[str, float]]) -> None:
    """Strokes with their names above the plot, a line higher where the one before is too near."""
    before, height = -99.0, 0.0
    for name, place in marks:
        height = 13.0 if place - before < 28 and not height else 0.0
        drawing.add(line("limit", (place, _TOP - 2 - height), (place, _BOTTOM)))
        drawing.add(label(place, _TOP - 6 - height, name, "said"))
        before = place


def _runs(drawing: Drawing, across: Scale, up: Scale, runs: Sequence[Mapping[str, Any]], now: float) -> None:
    places = [(across(place), up(run["p50_s"])) for place, run in enumerate(runs)]
    drawing.add(line("axis", (_LEFT, _BOTTOM), (_RIGHT, _BOTTOM)))
    drawing.add(path("thin", [*places, (across(len(runs)), up(now))]))
    drawing.add(dots("run-points", [place for place, run in zip(places, runs, strict=True) if not run.get("baseline")]))
    kept = [place for place, run in zip(places, runs, strict=True) if run.get("baseline")]
    drawing.add(boxes("local", [around(x, y, 4) for x, y in kept]))
    drawing.add(svg.Circle(cx=across(len(runs)), cy=up(now), r=5, class_=["now"]))
    drawing.add(
        label(_LEFT, _BOTTOM + 16, "oldest", "tick", "start"), label(_RIGHT, _BOTTOM + 16, "this run", "tick", "end")
    )


def _told_of_interval(ends: Sequence[float]) -> str:
    return f"; the gate's interval is {seconds(ends[0])} to {seconds(ends[1])}" if len(ends) == 2 else ""


def _state(run: Mapping[str, Any]) -> str:
    return ", ".join(filter(None, (str(run.get("state") or ""), "the baseline" if run.get("baseline") else "")))
