"""Speed-up: how many times as fast an engine is as another backend: in one process, on the same inputs, in turns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_trt.backends import choose
from pytest_trt.latency.interleaved import interleave
from pytest_trt.latency.opening import stopwatch_of
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from pytest_trt.feeds import Arrays
    from pytest_trt.latency.budgets import SpeedUp
    from pytest_trt.latency.interleaved import Design
    from pytest_trt.latency.samples import Timing
    from pytest_trt.latency.stopwatch import Stopwatch
    from pytest_trt.trial import Built

__all__ = ["speedup_over"]


def speedup_over(
    told: SpeedUp, built: Built, inputs: Arrays, stopwatch: Stopwatch, timing: Timing, design: Design
) -> float:
    """The median of the other's time over this one's, block by block.

    Args:
        told: over which backend, and in which precision that one runs.
        built: the engine.
        inputs: that both run.
        stopwatch: of the engine.
        timing: how each is timed.
        design: how they take turns.

    Raises:
        LoweringError, ModelError, BackendError: the other backend can't run the case.
    """
    precision = Precision.parse(told.precision)
    calibration = built.recipe.calibration if precision is built.recipe.precision else None
    other = choose(told.over).build(replace(built.recipe, precision=precision, calibration=calibration, plan=None))
    blocks = interleave(stopwatch_of(other, inputs, timing), stopwatch, design)
    with np.errstate(divide="ignore", invalid="ignore"):  # what is no time is no speed-up, and the budget says so
        return float(np.median(blocks.baseline / blocks.candidate))
