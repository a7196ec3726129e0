"""Along the network: what charts of tensors in the network's order have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.report.charts.drawing import label, line

if TYPE_CHECKING:
    from pytest_trt.report.charts.drawing import Drawing, Place

__all__ = ["LEFT", "NAMED", "RIGHT", "TOP", "WIDTH", "beside", "order_axis"]

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
