"""A fake ``cuda.bindings.runtime``: device memory is host memory, streams are queues, misuse is an AssertionError."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from fakes.cuda_timing import Event, Stream, Timing, cudaStreamCaptureMode

if TYPE_CHECKING:
    from collections.abc import Callable


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInitializationError = 3
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400
    cudaErrorNotReady = 600
    cudaErrorIllegalAddress = 700
    cudaErrorLaunchFailure = 719
    cudaErrorSystemDriverMismatch = 803
    cudaErrorCompatNotSupportedOnDevice = 804
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901
    cudaErrorUnknown = 999


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3
    cudaMemcpyDefault = 4


class cudaDeviceAttr(IntEnum):
    cudaDevAttrMultiProcessorCount = 16
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


_TEXTS = {
    cudaError_t.cudaSuccess: b"no error",
    cudaError_t.cudaErrorMemoryAllocation: b"out of memory",
    cudaError_t.cudaErrorInsufficientDriver: b"CUDA driver version is insufficient for CUDA runtime version",
    cudaError_t.cudaErrorNoDevice: b"no CUDA-capable device is detected",
    cudaError_t.cudaErrorInvalidDevice: b"invalid device ordinal",
}
_SUCCESS = cudaError_t.cudaSuccess


class cudaStream_t:
    """A handle; 0 is the default stream."""

    def __init__(self, handle: int = 0) -> None:
        self._handle = handle

    def __int__(self) -> int:
        return self._handle


@dataclass
class Device:
    """What the fake machine is, does and has seen; a test reads its counters as ``cuda._device``.

    ``time`` is the GPU's, in seconds: an inference takes ``inference_s``, a byte that is copied ``byte_s``.
    """

    device_count: int = 1
    driver_error: int = 0
    out_of_memory_above: int | None = None
    name: str = "FAKE GPU"
    compute_capability: tuple[int, int] = (8, 9)
    memory: int = 8 << 30
    current: int = 0
    live: dict[int, Any] = field(default_factory=dict)
    freed: set[int] = field(default_factory=set)
    graveyard: list[Any] = field(default_factory=list)
    streams: dict[int, Stream] = field(default_factory=lambda: {0: Stream(True)})
    destroyed: set[int] = field(default_factory=set)
    allocations: int = 0
    bytes_to_device: int = 0
    bytes_to_host: int = 0
    bytes_on_device: int = 0
    time: float = 0.0
    inference_s: float = 0.0
    byte_s: float = 0.0
    no_instance: bool = False
    events: dict[int, Event] = field(default_factory=dict)
    graphs: dict[int, Any] = field(default_factory=dict)
    instances: dict[int, Any] = field(default_factory=dict)
    pinned: dict[int, Any] = field(default_factory=dict)
    handles: int = 0x9000
    launches: int = 0

    @property
    def allocated(self) -> int:
        """Bytes that are not freed."""
        return sum(len(block) for block in self.live.values())

    @property
    def open_streams(self) -> int:
        """Streams that are not destroyed."""
        return len(self.streams) - 1

    @property
    def pending(self) -> int:
        """Queued operations for which nobody has waited."""
        return sum(len(stream.queue) for stream in self.streams.values())

    def refusal(self) -> cudaError_t:
        if self.driver_error:
            return cudaError_t(self.driver_error)
        return _SUCCESS if self.device_count else cudaError_t.cudaErrorNoDevice

    def knows(self, address: int) -> bool:
        live = any(start <= address < start + len(block) for start, block in self.live.items())
        return live or address in self.freed

    def demand(self, address: int, size: int) -> None:
        """Raises AssertionError: these bytes are not inside one live allocation."""
        for start, block in self.live.items():
            if start <= address < start + len(block):
                assert address + size <= start + len(block), f"overrun: {size} bytes at {len(block)} allocated"
                return
        assert address not in self.freed, f"use after free of device memory at {address:#x}"
        raise AssertionError(f"{address:#x} is no device memory")

    def read(self, address: int, size: int) -> bytes:
        self.demand(address, size)
        return ctypes.string_at(address, size)

    def write(self, address: int, data: bytes) -> None:
        self.demand(address, len(data))
        ctypes.memmove(address, data, len(data))

    def stream(self, handle: Any) -> Stream:
        number = int(handle)
        assert number not in self.destroyed, "use of a destroyed stream"
        assert number in self.streams, f"{number:#x} is no stream"
        return self.streams[number]

    def step(self, stream: Stream) -> None:
        act, seconds = stream.queue.pop(0)
        self.time += seconds
        act()

    def wait(self, stream: Stream) -> None:
        while stream.queue:
            self.step(stream)

    def is_capturing(self) -> bool:
        """Whether a stream is, which a call that waits or frees makes invalid."""
        return bool([stream for stream in self.streams.values() if stream.forbidden()])

    def is_pinned(self, address: int) -> bool:
        return any(start <= address < start + len(block) for start, block in self.pinned.items())

    def wait_for_all(self, blocking_only: bool = False) -> None:
        for stream in self.streams.values():
            if stream.blocking or not blocking_only:
                self.wait(stream)


def _address(pointer: Any) -> int:
    if hasattr(pointer, "__int__") and not isinstance(pointer, np.ndarray):
        return int(pointer)
    view = np.frombuffer(pointer, np.uint8) if not isinstance(pointer, np.ndarray) else pointer
    assert view.flags.c_contiguous, "a strided array is no plain memory"
    return int(view.ctypes.data)


def _copy(device: Device, dst: Any, src: Any, count: int, kind: Any) -> Callable[[], None]:
    """Checks a copy now and gives the act of it; what comes from pageable memory is read now."""
    target, source = _address(dst), _address(src)
    to_device, from_device = device.knows(target), device.knows(source)
    found = cudaMemcpyKind(int(from_device) * 2 + int(to_device))
    assert kind in (found, cudaMemcpyKind.cudaMemcpyDefault), f"{kind!r} asked, but the addresses are {found.name}"
    if to_device:
        device.demand(target, count)
    if from_device:
        device.demand(source, count)
    late = from_device or device.is_pinned(source)
    held = None if late else ctypes.string_at(source, count)

    def act() -> None:
        _count(device, found, count)
        data = held
        if data is None:
            data = device.read(source, count) if from_device else ctypes.string_at(source, count)
        if to_device:
            device.demand(target, count)
        ctypes.memmove(target, data, count)
        del data

    kept: Any = act
    kept.keeps = (dst, src)
    return act


def _count(device: Device, kind: cudaMemcpyKind, count: int) -> None:
    device.bytes_to_device += count * (kind is cudaMemcpyKind.cudaMemcpyHostToDevice)
    device.bytes_to_host += count * (kind is cudaMemcpyKind.cudaMemcpyDeviceToHost)
    device.bytes_on_device += count * (kind is cudaMemcpyKind.cudaMemcpyDeviceToDevice)


class _Runtime(Timing):
    """The functions, each as in CUDA 13's bindings: a tuple whose first element is the error."""

    _errors = cudaError_t

    def __init__(self, device: Device) -> None:
        self._device = device

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        error = self._device.refusal()
        return (error, None) if error else (_SUCCESS, self._device.device_count)

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        error = self._device.refusal()
        if not error and not 0 <= device < self._device.device_count:
            error = cudaError_t.cudaErrorInvalidDevice
        if not error:
            self._device.current = device
        return (error,)

    def cudaGetDevice(self) -> tuple[Any, ...]:
        error = self._device.refusal()
        return (error, None) if error else (_SUCCESS, self._device.current)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        if error := self._device.refusal():
            return (error, None)
        if not 0 <= device < self._device.device_count:
            return (cudaError_t.cudaErrorInvalidDevice, None)
        major, minor = self._device.compute_capability
        found = SimpleNamespace(name=self._device.name.encode(), major=major, minor=minor, multiProcessorCount=4)
        vars(found).update(totalGlobalMem=self._device.memory, pciBusID=device + 1, pciDeviceID=0, pciDomainID=0)
        return (_SUCCESS, found)

    def cudaDeviceGetAttribute(self, attr: cudaDeviceAttr, device: int) -> tuple[Any, ...]:
        error, found = self.cudaGetDeviceProperties(device)
        if error:
            return (error, None)
        values = {16: found.multiProcessorCount, 75: found.major, 76: found.minor}
        return (_SUCCESS, values[int(attr)])

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        if error := self._device.refusal():
            return (error, None)
        if self._device.is_capturing():
            return (cudaError_t.cudaErrorStreamCaptureUnsupported, None)
        limit = self._device.out_of_memory_above
        if limit is not None and self._device.allocated + size > limit:
            return (cudaError_t.cudaErrorMemoryAllocation, None)
        if size == 0:
            return (_SUCCESS, 0)
        block = (ctypes.c_ubyte * size)(*([0xCD] * min(size, 64)))
        address = ctypes.addressof(block)
        self._device.live[address] = block
        self._device.freed.discard(address)
        self._device.allocations += 1
        return (_SUCCESS, address)

    def cudaFree(self, devPtr: Any) -> tuple[Any, ...]:
        address = int(devPtr)
        if address == 0:
            return (_SUCCESS,)
        if self._device.is_capturing():
            return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
        assert address not in self._device.freed, f"double free of {address:#x}"
        assert address in self._device.live, f"{address:#x} was not allocated by cudaMalloc"
        self._device.wait_for_all()
        self._device.graveyard.append(self._device.live.pop(address))  # so that its address is not given out again
        self._device.freed.add(address)
        return (_SUCCESS,)

    def cudaMemcpy(self, dst: Any, src: Any, count: int, kind: cudaMemcpyKind) -> tuple[Any, ...]:
        if self._device.is_capturing():
            return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
        self._device.wait_for_all(blocking_only=True)
        _copy(self._device, dst, src, count, kind)()
        return (_SUCCESS,)

    def cudaMemcpyAsync(self, dst: Any, src: Any, count: int, kind: cudaMemcpyKind, stream: Any) -> tuple[Any, ...]:
        act = _copy(self._device, dst, src, count, kind)
        self._device.stream(stream).put(act, count * self._device.byte_s)
        return (_SUCCESS,)

    def cudaStreamCreate(self) -> tuple[Any, ...]:
        return self.cudaStreamCreateWithFlags(0)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        if error := self._device.refusal():
            return (error, None)
        handle = 0x5000 + 16 * (len(self._device.streams) + len(self._device.destroyed))
        self._device.streams[handle] = Stream(blocking=not flags & 1)
        return (_SUCCESS, cudaStream_t(handle))

    def cudaStreamSynchronize(self, stream: Any) -> tuple[Any, ...]:
        if self._device.is_capturing():
            return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
        self._device.wait(self._device.stream(stream))
        return (_SUCCESS,)

    def cudaStreamDestroy(self, stream: Any) -> tuple[Any, ...]:
        self._device.wait(self._device.stream(stream))
        assert int(stream), "the default stream cannot be destroyed"
        del self._device.streams[int(stream)]
        self._device.destroyed.add(int(stream))
        return (_SUCCESS,)

    def cudaDeviceSynchronize(self) -> tuple[Any, ...]:
        if self._device.is_capturing():
            return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
        self._device.wait_for_all()
        return (self._device.refusal(),)

    def cudaDriverGetVersion(self) -> tuple[Any, ...]:
        return (_SUCCESS, 11040 if self._device.driver_error == 35 else 13000)

    def cudaRuntimeGetVersion(self) -> tuple[Any, ...]:
        return (_SUCCESS, 13000)

    def cudaGetLastError(self) -> tuple[Any, ...]:
        return (self._device.refusal(),)

    def cudaGetErrorString(self, error: cudaError_t) -> tuple[Any, ...]:
        return (_SUCCESS, _TEXTS.get(error, error.name.encode()))

    def cudaGetErrorName(self, error: cudaError_t) -> tuple[Any, ...]:
        return (_SUCCESS, error.name.encode())

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        if error := self._device.refusal():
            return (error, None, None)
        return (_SUCCESS, self._device.memory - self._device.allocated, self._device.memory)


def runtime(**faults: Any) -> ModuleType:
    """A module like ``cuda.bindings.runtime``; ``faults`` are fields of :class:`Device`, kept as ``_device``."""
    module = ModuleType("cuda.bindings.runtime")
    device = Device(**faults)
    functions = _Runtime(device)
    for name in dir(functions):
        if name.startswith("cuda"):
            setattr(module, name, getattr(functions, name))
    for kind in (cudaError_t, cudaMemcpyKind, cudaDeviceAttr, cudaStream_t, cudaStreamCaptureMode):
        setattr(module, kind.__name__, kind)
    flags = {"cudaStreamDefault": 0, "cudaStreamNonBlocking": 1, "cudaEventDefault": 0, "cudaEventBlockingSync": 1}
    vars(module).update(flags, _device=device)
    return module
