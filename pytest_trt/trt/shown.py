"""Shown: inner tensors of an engine as it runs, by the debug tensors of TensorRT 10.11 and later.

Those that no fusion has swallowed are shown, and asking for them changes no fusion: so one build is enough.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pytest_trt.backends.cuda import DeviceArray, download, synchronize
from pytest_trt.trt.dtypes import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import ModuleType

    import tensorrt
    from numpy.typing import NDArray

__all__ = ["can_show", "mark", "showing"]


def can_show(trt: ModuleType) -> bool:
    """Whether the release shows tensors without forbidding fusions for it."""
    return hasattr(trt, "IDebugListener") and hasattr(trt.INetworkDefinition, "mark_unfused_tensors_as_debug_tensors")


def mark(network: tensorrt.INetworkDefinition) -> None:
    """Let the engine be built so that it can show its tensors."""
    network.mark_unfused_tensors_as_debug_tensors()


@contextmanager
def showing(
    trt: ModuleType, context: tensorrt.IExecutionContext, names: Collection[str]
) -> Iterator[dict[str, NDArray[Any]]]:
    """A dict that running the context fills with those of the named tensors that there are, in float32.

    What goes wrong in between is raised afterwards, since TensorRT drops it.
    """
    found: dict[str, NDArray[Any]] = {}
    faults: list[Exception] = []
    listener = _listener(trt, found, faults, frozenset(names))
    context.set_debug_listener(listener)
    context.unfused_tensors_debug_state = True
    try:
        yield found
    finally:
        context.unfused_tensors_debug_state = False
        context.set_debug_listener(
            cast("Any", None)
        )  # none is one too, by the C++ interface, which its stub leaves out
    if faults:
        raise faults[0]


def _listener(trt: ModuleType, found: dict[str, NDArray[Any]], faults: list[Exception], names: Collection[str]) -> Any:
    class Listener(trt.IDebugListener):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IDebugListener.__init__(self)

        def process_debug_tensor(self, addr: Any, location: Any, type: Any, shape: Any, name: str, stream: int) -> bool:
            try:
                if name in names:
                    on_host = location == trt.TensorLocation.HOST
                    found[name] = _copied(_address(addr), type, tuple(shape), name, None if on_host else int(stream))
            except Exception as error:
                faults.append(error)
                return False
            return True

    return Listener()


def _copied(address: int, kind: Any, shape: tuple[int, ...], name: str, stream: int | None) -> NDArray[Any]:
    """What lies there for as long as the callback takes; on the host where there is no stream to wait for."""
    dtype = numpy_dtype(kind, repr(name))
    if stream is None:
        count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        held: NDArray[Any] = np.frombuffer(ctypes.string_at(address, count), dtype).reshape(shape)
    else:
        synchronize(stream)
        held = download(DeviceArray(address, shape, dtype))
    return held.astype(np.float32)


def _address(told: Any) -> int:
    """The bindings hand a pointer over in a capsule."""
    if isinstance(told, int):
        return told
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return int(api.PyCapsule_GetPointer(told, api.PyCapsule_GetName(told)) or 0)
