"""The timing half of the fake CUDA runtime: events on the GPU's own clock, capture into graphs, pinned memory."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1
    cudaStreamCaptureModeRelaxed = 2


class Handle:
    """An opaque pointer."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __int__(self) -> int:
        return self._number


@dataclass
class Event:
    """When it happened, in seconds of the GPU; None before."""

    blocking: bool
    stream: Any = None
    happened: float | None = None
    recorded: bool = False


@dataclass
class Stream:
    """Work in order, each with the seconds that it takes; work that is captured goes elsewhere."""

    blocking: bool
    queue: list[tuple[Callable[[], None], float]] = field(default_factory=list)
    captured: list[tuple[Callable[[], None], float]] | None = None
    invalid: bool = False
    longest: int = 0

    def put(self, act: Callable[[], None], seconds: float = 0.0) -> None:
        if self.captured is not None:
            self.captured.append((act, seconds))
            return
        self.queue.append((act, seconds))
        self.longest = max(self.longest, len(self.queue))

    def forbidden(self) -> bool:
        """Whether this stream is captured, which a call that waits or frees makes invalid."""
        self.invalid = self.invalid or self.captured is not None
        return self.captured is not None


class Timing:
    """The functions; ``_device`` and ``_errors`` are the runtime's."""

    _device: Any
    _errors: Any

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        if error := self._device.refusal():
            return (error, None)
        return (self._errors.cudaSuccess, self._kept(self._device.events, Event(blocking=bool(flags & 1))))

    def cudaEventCreate(self) -> tuple[Any, ...]:
        return self.cudaEventCreateWithFlags(0)

    def cudaEventRecord(self, event: Any, stream: Any) -> tuple[Any, ...]:
        found, on = self._event(event), self._device.stream(stream)
        found.stream, found.happened, found.recorded = on, None, True

        def happen() -> None:
            found.happened = self._device.time

        on.put(happen)
        return (self._errors.cudaSuccess,)

    def cudaEventSynchronize(self, event: Any) -> tuple[Any, ...]:
        found = self._event(event)
        while found.recorded and found.happened is None:
            self._device.step(found.stream)
        return (self._errors.cudaSuccess,)

    def cudaEventElapsedTime(self, start: Any, end: Any) -> tuple[Any, ...]:
        first, last = self._event(start), self._event(end)
        if not (first.recorded and last.recorded):
            return (self._errors.cudaErrorInvalidResourceHandle, None)
        if first.happened is None or last.happened is None:
            return (self._errors.cudaErrorNotReady, None)
        return (self._errors.cudaSuccess, float(np.float32((last.happened - first.happened) * 1000)))

    def cudaEventDestroy(self, event: Any) -> tuple[Any, ...]:
        self._event(event)
        del self._device.events[int(event)]
        return (self._errors.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: Any, mode: cudaStreamCaptureMode) -> tuple[Any, ...]:
        assert isinstance(mode, cudaStreamCaptureMode), "a capture needs a mode"
        on = self._device.stream(stream)
        assert int(stream), "the default stream can't be captured"
        assert on.captured is None, "a capture inside a capture"
        on.captured, on.invalid = [], False
        return (self._errors.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:
        on = self._device.stream(stream)
        assert on.captured is not None, "no capture has begun"
        work, on.captured = on.captured, None
        if on.invalid:
            return (self._errors.cudaErrorStreamCaptureInvalidated, Handle(0))
        return (self._errors.cudaSuccess, self._kept(self._device.graphs, work))

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        assert flags == 0
        if self._device.no_instance:
            return (self._errors.cudaErrorMemoryAllocation, None)
        return (self._errors.cudaSuccess, self._kept(self._device.instances, list(self._device.graphs[int(graph)])))

    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> tuple[Any, ...]:
        on = self._device.stream(stream)
        work = self._device.instances[int(graphExec)]

        def launch() -> None:
            for act, seconds in work:
                self._device.time += seconds
                act()

        self._device.launches += 1
        on.put(launch)
        return (self._errors.cudaSuccess,)

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any, ...]:
        del self._device.graphs[int(graph)]
        return (self._errors.cudaSuccess,)

    def cudaGraphExecDestroy(self, graphExec: Any) -> tuple[Any, ...]:
        del self._device.instances[int(graphExec)]
        return (self._errors.cudaSuccess,)

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        if error := self._device.refusal():
            return (error, None)
        block = (ctypes.c_ubyte * max(size, 1))()
        self._device.pinned[ctypes.addressof(block)] = block
        return (self._errors.cudaSuccess, ctypes.addressof(block))

    def cudaFreeHost(self, ptr: Any) -> tuple[Any, ...]:
        assert int(ptr) in self._device.pinned, f"{int(ptr):#x} is no pinned memory"
        self._device.wait_for_all()
        del self._device.pinned[int(ptr)]
        return (self._errors.cudaSuccess,)

    def cudaDeviceGetPCIBusId(self, length: int, device: int) -> tuple[Any, ...]:
        if not 0 <= device < self._device.device_count:
            return (self._errors.cudaErrorInvalidDevice, None)
        return (self._errors.cudaSuccess, f"0000:{device + 1:02X}:00.0".encode().ljust(length, b"\0"))

    def _event(self, handle: Any) -> Event:
        assert int(handle) in self._device.events, "use of a destroyed event, or of none"
        return self._device.events[int(handle)]

    def _kept(self, table: dict[int, Any], thing: Any) -> Handle:
        self._device.handles += 16
        table[self._device.handles] = thing
        return Handle(self._device.handles)
