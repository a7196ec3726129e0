"""CUDA for timing: events, graphs, memory of the host that the GPU reads at full speed."""

from __future__ import annotations

import ctypes
import gc
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.cuda import called, cudart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from pytest_trt.backends.cuda import DeviceArray, Stream

__all__ = ["Events", "Graph", "Pinned", "copy_in", "copy_out"]


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
