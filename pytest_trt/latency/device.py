"""The GPU's own clock: pairs of events around inferences, of which a few are always queued.

Where a graph was captured it holds one inference, and a sample of k inferences launches it k times: that is what a
deployment does, with the gap between two launches, and no graph has to be captured anew for another k.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from pytest_trt.errors import BackendError, PytestTrtError
from pytest_trt.latency.samples import Lap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

__all__ = ["EVENTS", "DeviceStopwatch", "EventClock"]

_QUEUED = 4  # samples at once: the GPU never waits for the host, and the launch queue never fills
_MARKS = 4  # events of a sample: before and after the copies in, after the inferences, after the copies out
EVENTS = _QUEUED * _MARKS


class EventClock(Protocol):
    """Events by number, 0 to EVENTS - 1."""

    def record(self, number: int) -> None:
        """Let an event happen when the work before it is done."""
        ...

    def wait(self, number: int) -> None:
        """Until an event has happened."""
        ...

    def seconds(self, first: int, second: int) -> float:
        """Between two events that have happened."""
        ...


@dataclass(frozen=True, eq=False)
class DeviceStopwatch:
    """See :class:`pytest_trt.latency.stopwatch.Stopwatch`.

    Attributes:
        infer: puts one inference on the stream.
        events: on the same stream.
        what: what messages call the engine.
        copies: put the copies of the inputs, and those of the outputs, on the stream; None where none are timed.
        around: entered for each lap: the GPU that is current, the modes that count.
        keeps: what must live as long.
        now: the host's clock, seconds.
    """

    infer: Callable[[], None]
    events: EventClock
    what: str
    batch: int
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    graph: bool = False
    spin: bool = True
    copies: tuple[Callable[[], None], Callable[[], None]] | None = None
    memory: int | None = None
    notes: tuple[str, ...] = ()
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    keeps: Any = None
    now: Callable[[], float] = perf_counter
    clock: Literal["cuda_event"] = "cuda_event"

    @property
    def transfers(self) -> bool:
        """Whether copies are timed."""
        return self.copies is not None

    def lap(self, samples: int, inferences: int) -> Lap:
        """See :meth:`pytest_trt.latency.stopwatch.Stopwatch.lap`."""
        try:
            with self.around():
                took = self._timed(samples, inferences)
        except PytestTrtError:
            raise
        except Exception as error:  # whatever runs the engine raises what it likes
            raise BackendError(f"{self.what} fails while it is timed: {type(error).__name__}: {error}") from error
        h2d, compute, d2h, enqueue = took / inferences
        return Lap(compute, h2d, d2h, enqueue) if self.transfers else Lap(compute, enqueue=enqueue)

    def _timed(self, samples: int, inferences: int) -> NDArray[np.float64]:
        """Seconds of copies in, inferences, copies out, and the host, float64[4, samples]."""
        took = np.zeros((4, samples))
        for _ in range(inferences):
            self.infer()  # not timed: while it runs the first sample is queued, which would else wait for its launch
        for number in range(samples):
            if number >= _QUEUED:
                took[:3, number - _QUEUED] = self._read(number % _QUEUED)
            took[3, number] = self._queue(number % _QUEUED, inferences)
        for number in range(max(0, samples - _QUEUED), samples):
            took[:3, number] = self._read(number % _QUEUED)
        return took

    def _queue(self, slot: int, inferences: int) -> float:
        """Put a sample on the stream; the host's seconds for its inferences."""
        events, first, infer = self.events, slot * _MARKS, self.infer
        if self.copies:
            events.record(first)
            self._repeat(self.copies[0], inferences)
        events.record(first + 1)
        started = self.now()
        for _ in range(inferences):
            infer()
        ended = self.now()
        events.record(first + 2)
        if self.copies:
            self._repeat(self.copies[1], inferences)
            events.record(first + 3)
        return ended - started

    def _read(self, slot: int) -> tuple[float, float, float]:
        """Wait for a sample: seconds of its copies in, inferences, copies out."""
        events, first = self.events, slot * _MARKS
        if not self.copies:
            events.wait(first + 2)
            return 0.0, events.seconds(first + 1, first + 2), 0.0
        events.wait(first + 3)
        h2d, compute, d2h = (events.seconds(first + mark, first + mark + 1) for mark in range(3))
        return h2d, compute, d2h

    def _repeat(self, act: Callable[[], None], times: int) -> None:
        for _ in range(times):
            act()
