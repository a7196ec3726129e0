"""Chart of SQNR: what every tensor along the network keeps of its signal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pytest_trt.report.charts.along import LEFT, NAMED, RIGHT, TOP, WIDTH, beside, order_axis
from pytest_trt.report.charts.drawing import Drawing, around, boxes, dots, label, path
from pytest_trt.report.charts.figure import Figure, rows_of
from pytest_trt.report.charts.scale import Scale
from pytest_trt.report.told import NOTHING, amount, finite, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Tensor = Mapping[str, Any]
    Points = Sequence[tuple[int, float]]

__all__ = ["sqnr"]

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
