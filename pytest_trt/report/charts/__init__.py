"""Charts: figures of the record as inline SVG, each with its text alternative and its data."""

from __future__ import annotations

from pytest_trt.report.charts.drawing import numbers
from pytest_trt.report.charts.figure import Figure, Rows
from pytest_trt.report.charts.meter import meter
from pytest_trt.report.charts.network import sqnr
from pytest_trt.report.charts.outputs import errors, scatter
from pytest_trt.report.charts.ranges import ranges
from pytest_trt.report.charts.speed import compared, distribution, history
from pytest_trt.report.charts.steps import hops, layers

__all__ = [
    "Figure",
    "Rows",
    "compared",
    "distribution",
    "errors",
    "history",
    "hops",
    "layers",
    "meter",
    "numbers",
    "ranges",
    "scatter",
    "sqnr",
]
