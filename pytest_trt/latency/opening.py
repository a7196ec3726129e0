"""Opening: the stopwatch of any engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.latency.host import stopwatch_around_run
from pytest_trt.latency.stopwatch import Timed

if TYPE_CHECKING:
    from pytest_trt.backends import Engine
    from pytest_trt.feeds import Arrays
    from pytest_trt.latency.samples import Timing
    from pytest_trt.latency.stopwatch import Stopwatch

__all__ = ["stopwatch_of"]


def stopwatch_of(engine: Engine, inputs: Arrays, timing: Timing) -> Stopwatch:
    """The engine's own stopwatch; around its ``run`` where it has none.

    Args:
        engine: what is timed.
        inputs: arrays by input name, samples along axis 0; one run of them is timed.
        timing: with a CUDA graph or not, with copies or not.

    Raises:
        DataError: the inputs do not fit.
        BackendError: the engine can't be prepared, or does not run.
    """
    if isinstance(engine, Timed):
        return engine.stopwatch(inputs, timing)
    return stopwatch_around_run(engine, inputs)
