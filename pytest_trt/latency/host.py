"""The host's clock around an inference, for engines that run on the CPU or wait for their GPU themselves."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pytest_trt.errors import BackendError, PytestTrtError
from pytest_trt.latency.samples import Lap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from pytest_trt.backends import Engine
    from pytest_trt.feeds import Arrays

__all__ = ["HostStopwatch", "batch_of", "shapes_of", "stopwatch_around_run"]


@dataclass(frozen=True, eq=False)
class HostStopwatch:
    """See :class:`pytest_trt.latency.stopwatch.Stopwatch`.

    Attributes:
        infer: one inference, over when it returns.
        what: what messages call the engine.
        around: entered for each lap.
        now: the clock, seconds.
    """

    infer: Callable[[], Any]
    what: str
    batch: int
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    memory: int | None = None
    notes: tuple[str, ...] = ()
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    now: Callable[[], float] = perf_counter
    clock: Literal["perf_counter"] = "perf_counter"
    graph: bool = False
    spin: bool = False
    transfers: bool = False

    def lap(self, samples: int, inferences: int) -> Lap:
        """See :meth:`pytest_trt.latency.stopwatch.Stopwatch.lap`."""
        took = np.empty(samples)
        try:
            with self.around():
                for number in range(samples):
                    took[number] = self._once(inferences)
        except PytestTrtError:
            raise
        except Exception as error:  # whatever runs the engine raises what it likes
            raise BackendError(f"{self.what} fails while it is timed: {type(error).__name__}: {error}") from error
        return Lap(took / inferences)

    def _once(self, inferences: int) -> float:
        infer, now = self.infer, self.now
        if inferences == 1:
            started = now()
            infer()
            return now() - started
        started = now()
        for _ in range(inferences):
            infer()
        return now() - started


def stopwatch_around_run(engine: Engine, inputs: Arrays) -> HostStopwatch:
    """For an engine that can't be timed any nearer: its ``run`` over all of these inputs, with all that it does.

    Raises:
        DataError: the inputs do not fit.
        BackendError: running fails.
    """
    engine.run(inputs)
    return HostStopwatch(
        infer=lambda: engine.run(inputs),
        what=f"the engine of backend {engine.backend!r}",
        batch=batch_of(inputs),
        shapes=shapes_of(inputs),
        notes=(
            f"backend {engine.backend!r} has no stopwatch of its own: what is timed is run() as a whole, which checks,"
            " copies and converts inputs and outputs.",
        ),
    )


def batch_of(feeds: Mapping[str, Any]) -> int:
    """Samples along axis 0 of the first input that has one; 1 where none has."""
    return next((int(value.shape[0]) for value in feeds.values() if value.shape), 1)


def shapes_of(feeds: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes by name."""
    return {name: tuple(int(size) for size in value.shape) for name, value in feeds.items()}
