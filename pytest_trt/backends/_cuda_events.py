"""CUDA events: the GPU's own clock around inferences, of which a few are always queued; graphs, pinned memory."""

from __future__ import annotations

import ctypes
import gc
import weakref
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from pytest_trt.backends.cuda import called, cudart
from pytest_trt.backends.stopwatch import Lap
from pytest_trt.errors import BackendError, PytestTrtError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from pytest_trt.backends.cuda import DeviceArray, Stream

__all__ = ["EVENTS", "DeviceStopwatch", "EventClock", "Events", "Graph", "Pinned", "copy_in", "copy_out"]


class Events:
    """Events on a stream, by number: made once, and recorded as often as one likes.

    Raises:
        BackendError: CUDA makes none.
    """

    def __init__(self, count: int, stream: Stream, *, spin: bool) -> None:
        self._runtime = runtime = cudart()
        self._stream = stream
        flags = runtime.cudaEventDefault if spin else runtime.cudaEventBlockingSync
        self._events = []
        for _ in range(count):
            (event,) = called(runtime.cudaEventCreateWithFlags(flags), "no CUDA event can be made")
            weakref.finalize(self, runtime.cudaEventDestroy, event)
            self._events.append(event)

    def record(self, number: int) -> None:
        """Let an event happen when the work before it is done."""
        called(self._runtime.cudaEventRecord(self._events[number], self._stream.handle), "no event can be recorded")

    def wait(self, number: int) -> None:
        """Until an event has happened."""
        called(self._runtime.cudaEventSynchronize(self._events[number]), "the work on the GPU failed")

    def seconds(self, first: int, second: int) -> float:
        """Between two events that have happened."""
        elapsed = self._runtime.cudaEventElapsedTime(self._events[first], self._events[second])
        (milliseconds,) = called(elapsed, "two events tell no time")
        return float(milliseconds) / 1000


class Graph:
    """What was enqueued on a stream, kept to be launched as one.

    Args:
        stream: to capture on, and to launch on.
        enqueue: puts the work on the stream, and waits for none of it.

    Raises:
        BackendError: the work can't be captured.
    """

    def __init__(self, stream: Stream, enqueue: Callable[[], None]) -> None:
        self._runtime = runtime = cudart()
        self._stream = stream
        graph = self._captured(enqueue)
        try:
            instance = runtime.cudaGraphInstantiate(graph, 0)
            (self._instance,) = called(instance, "the captured CUDA graph can't be made ready")
        finally:
            runtime.cudaGraphDestroy(graph)
        weakref.finalize(self, runtime.cudaGraphExecDestroy, self._instance)

    def launch(self) -> None:
        """Put it on the stream once more."""
        called(self._runtime.cudaGraphLaunch(self._instance, self._stream.handle), "the CUDA graph can't be launched")

    def _captured(self, enqueue: Callable[[], None]) -> Any:
        runtime, handle = self._runtime, self._stream.handle
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        called(runtime.cudaStreamBeginCapture(handle, mode), "no CUDA graph can be captured")
        try:
            with _no_frees():
                enqueue()
        except BaseException:
            _, unfinished = runtime.cudaStreamEndCapture(handle)
            if unfinished is not None and int(unfinished):
                runtime.cudaGraphDestroy(unfinished)
            runtime.cudaGetLastError()  # or the next call would report it
            raise
        (graph,) = called(runtime.cudaStreamEndCapture(handle), "the work can't be captured into a CUDA graph")
        return graph


class Pinned:
    """Bytes of the host that stay in their place, freed when nobody holds them any more.

    Attributes:
        address: of the first.
        nbytes: how many.
    """

    def __init__(self, nbytes: int) -> None:
        runtime = cudart()
        self.nbytes = nbytes
        asked = runtime.cudaMallocHost(max(nbytes, 1))
        (self.address,) = called(asked, f"{nbytes} bytes of pinned memory can't be had")
        weakref.finalize(self, runtime.cudaFreeHost, self.address)

    @classmethod
    def of(cls, array: NDArray[Any]) -> Pinned:
        """A copy of an array, C-contiguous."""
        import numpy as np

        whole = np.ascontiguousarray(array)
        pinned = cls(whole.nbytes)
        ctypes.memmove(int(pinned.address), whole.ctypes.data, whole.nbytes)
        return pinned

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> NDArray[Any]:
        """A copy of what lies there."""
        import numpy as np

        return np.frombuffer(ctypes.string_at(int(self.address), self.nbytes), dtype).reshape(shape)


def copy_in(source: Pinned, target: DeviceArray, stream: Stream) -> None:
    """Put a copy to the GPU on the stream, and do not wait for it."""
    runtime = cudart()
    kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
    copied = runtime.cudaMemcpyAsync(target.address, source.address, source.nbytes, kind, stream.handle)
    called(copied, "an input can't be copied to the GPU")


def copy_out(source: DeviceArray, target: Pinned, stream: Stream) -> None:
    """Put a copy from the GPU on the stream, and do not wait for it."""
    runtime = cudart()
    kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
    copied = runtime.cudaMemcpyAsync(target.address, source.address, target.nbytes, kind, stream.handle)
    called(copied, "an output can't be copied back")


@contextmanager
def _no_frees() -> Iterator[None]:
    """Garbage of others may hold memory of the GPU, and freeing any would break the capture."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


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
    """See :class:`pytest_trt.backends.stopwatch.Stopwatch`.

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
        """See :meth:`pytest_trt.backends.stopwatch.Stopwatch.lap`."""
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
