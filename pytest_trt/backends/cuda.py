"""CUDA: device memory, streams and what a GPU is, by cuda-python. No context is made before one is asked for."""

from __future__ import annotations

import os
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import BackendError, DataError
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from numpy.typing import NDArray

__all__ = [
    "OVERRIDE",
    "DeviceArray",
    "Gpu",
    "Stream",
    "allocate",
    "called",
    "copy",
    "cudart",
    "device_view",
    "download",
    "is_on_device",
    "multiprocessors",
    "open_gpu",
    "pci_bus_id",
    "require_no_override",
    "require_tf32_off",
    "synchronize",
    "upload",
    "using",
]

OVERRIDE = "NVIDIA_TF32_OVERRIDE"


def require_no_override(precision: Precision, backend: str) -> None:
    """Refuse tf32 where the environment forbids it, and the libraries would compute in fp32 without a word.

    Raises:
        BackendError: it does.
    """
    if precision is Precision.TF32 and os.environ.get(OVERRIDE) == "0":
        raise BackendError(f"backend {backend!r} can't run tf32 while {OVERRIDE}=0 forbids it: unset the variable.")


def require_tf32_off(precision: Precision, backend: str) -> None:
    """Refuse fp32 where only the environment could switch TF32 off, and it does not.

    The libraries read the variable once a process, so it is not ours to set.

    Raises:
        BackendError: an engine under the name of fp32 might compute in TF32.
    """
    if precision is Precision.FP32 and os.environ.get(OVERRIDE) != "0":
        raise BackendError(
            f"backend {backend!r} computes fp32 in TF32 where the GPU has it, and has no option against it. Set"
            f" {OVERRIDE}=0 in the environment before pytest starts, or ask for --trt-precision=tf32."
        )


_ON_A_GPU = (2, 13)  # DLPack's numbers of CUDA and of CUDA managed memory


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: among those that are visible.
        name: its model.
        compute_capability: major and minor.
        memory: bytes of all of it.
        driver: the CUDA version that its driver supports, as "13.0".
        runtime: the CUDA runtime that talks to it.
    """

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory: int
    driver: str
    runtime: str


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """A C-contiguous array on the GPU, for what takes ``__cuda_array_interface__`` (torch, CuPy, pycuda, numba).

    Attributes:
        address: of its first element.
        shape: of the array.
        dtype: numpy's; bfloat16 and fp8 are those of ml_dtypes.
        owner: what keeps the memory.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype
    owner: Any = None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of numba's interface; the work that fills the array is over by the time it is handed out."""
        if self.dtype.kind not in "biuf":
            raise AttributeError(f"__cuda_array_interface__ has no word for {self.dtype}")
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "version": 3,
            "strides": None,
            "stream": None,
        }


class _Memory:
    """Bytes on the GPU, freed when nobody holds them any more."""

    def __init__(self, nbytes: int) -> None:
        runtime = cudart()
        # TensorRT takes no null address, not even for an empty tensor
        (self.address,) = called(runtime.cudaMalloc(max(nbytes, 1)), f"{nbytes} bytes of GPU memory can't be had")
        weakref.finalize(self, runtime.cudaFree, self.address)


def open_gpu(index: int) -> Gpu:
    """What a GPU is; it does not become the current one.

    Raises:
        BackendError: cuda-python is not installed, the driver is missing or too old, or there is no such GPU.
    """
    runtime = cudart()
    error, count = runtime.cudaGetDeviceCount()
    if int(error) or not count:
        raise BackendError(f"no GPU can be used: {_words(error) if int(error) else 'none is visible'}. {_LOOK}")
    if index >= count:
        raise BackendError(
            f"GPU {index} was asked (build option device), and {count} can be seen: 0 to {count - 1}. {_LOOK}"
        )
    (found,) = called(runtime.cudaGetDeviceProperties(index), f"GPU {index} tells nothing about itself")
    (driver,) = called(runtime.cudaDriverGetVersion(), "the driver does not tell its version")
    (release,) = called(runtime.cudaRuntimeGetVersion(), "the CUDA runtime does not tell its version")
    name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
    capability = (int(found.major), int(found.minor))
    return Gpu(index, name.strip("\0"), capability, int(found.totalGlobalMem), _version(driver), _version(release))


def multiprocessors(index: int) -> int:
    """How many streaming multiprocessors a GPU has.

    Raises:
        BackendError: it does not tell.
    """
    runtime = cudart()
    asked = runtime.cudaDeviceAttr.cudaDevAttrMultiProcessorCount
    (number,) = called(runtime.cudaDeviceGetAttribute(asked, index), f"GPU {index} tells nothing about itself")
    return int(number)


def pci_bus_id(index: int) -> str:
    """Where a GPU is, as "0000:65:00.0", which NVML understands too.

    Raises:
        BackendError: it does not tell.
    """
    (told,) = called(cudart().cudaDeviceGetPCIBusId(32, index), f"GPU {index} does not tell its PCI bus id")
    text = told.decode() if isinstance(told, bytes) else str(told)
    return text.partition("\0")[0].lower()


def allocate(shape: tuple[int, ...], dtype: np.dtype) -> DeviceArray:
    """An array whose values are not set.

    Raises:
        BackendError: there is no memory left for it.
    """
    memory = _Memory(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
    return DeviceArray(int(memory.address), shape, dtype, memory)


def upload(array: NDArray[Any]) -> DeviceArray:
    """A copy on the GPU.

    Raises:
        BackendError: there is no memory left for it.
    """
    whole = np.ascontiguousarray(array)
    copy = allocate(array.shape, array.dtype)
    kind = cudart().cudaMemcpyKind.cudaMemcpyHostToDevice
    called(cudart().cudaMemcpy(copy.address, whole.ctypes.data, whole.nbytes, kind), "an input can't be copied to it")
    return copy


def download(array: DeviceArray) -> NDArray[Any]:
    """A copy in numpy.

    Raises:
        BackendError: the GPU reports an error, of work before it as well.
    """
    copy = np.empty(array.shape, array.dtype)
    kind = cudart().cudaMemcpyKind.cudaMemcpyDeviceToHost
    called(cudart().cudaMemcpy(copy.ctypes.data, array.address, array.nbytes, kind), "an output can't be copied back")
    return copy


def copy(array: DeviceArray) -> DeviceArray:
    """The same values in other memory of the GPU.

    Raises:
        BackendError: there is no memory left for it.
    """
    other = allocate(array.shape, array.dtype)
    kind = cudart().cudaMemcpyKind.cudaMemcpyDeviceToDevice
    called(cudart().cudaMemcpy(other.address, array.address, array.nbytes, kind), "an output can't be copied")
    return other


def is_on_device(value: Any) -> bool:
    """Whether it is an array on a GPU: by DLPack's word, or by having ``__cuda_array_interface__``."""
    if hasattr(value, "__dlpack_device__"):
        return int(value.__dlpack_device__()[0]) in _ON_A_GPU
    return hasattr(value, "__cuda_array_interface__")


def device_view(value: Any, what: str) -> DeviceArray:
    """An array of any library on the GPU, without a copy; its pending work is waited for.

    Args:
        value: anything with DLPack or ``__cuda_array_interface__``.
        what: what messages call it.

    Raises:
        DataError: it is not C-contiguous.
        BackendError: cuda-core, which reads both, is not installed.
    """
    if isinstance(value, DeviceArray):
        return value
    synchronize()
    view = _strided(value, what)
    expected = np.cumprod((1, *reversed(view.shape)), dtype=np.int64)[:-1][::-1] if view.shape else ()
    strides = expected if view.strides is None else view.strides
    if any(size > 1 and step != wanted for size, step, wanted in zip(view.shape, strides, expected, strict=True)):
        raise DataError(f"{what} on the GPU is not C-contiguous (strides {tuple(strides)}): pass a contiguous copy.")
    return DeviceArray(int(view.ptr), tuple(view.shape), np.dtype(view.dtype), value)


class Stream:
    """A stream of our own, since the default one would wait for everybody's; destroyed when nobody holds it any more.

    Attributes:
        handle: its address, as TensorRT takes it.

    Raises:
        BackendError: CUDA makes none.
    """

    def __init__(self) -> None:
        runtime = cudart()
        (stream,) = called(runtime.cudaStreamCreate(), "no CUDA stream can be made")
        self.handle = int(stream)
        weakref.finalize(self, runtime.cudaStreamDestroy, stream)


@contextmanager
def using(index: int) -> Iterator[None]:
    """Make a GPU the current one of this thread, and the one before it afterwards.

    Raises:
        BackendError: it can't be used.
    """
    runtime = cudart()
    (before,) = called(runtime.cudaGetDevice(), "the current GPU can't be found out")
    called(runtime.cudaSetDevice(index), f"GPU {index} can't be used")
    try:
        yield
    finally:
        if before != index:
            called(runtime.cudaSetDevice(before), f"GPU {before} can't be used")


def synchronize(stream: int | None = None) -> None:
    """Wait for a stream's work, or for all work on the GPU.

    Raises:
        BackendError: the work failed.
    """
    runtime = cudart()
    result = runtime.cudaDeviceSynchronize() if stream is None else runtime.cudaStreamSynchronize(stream)
    called(result, "the work on the GPU failed")


_LOOK = (
    "Look at nvidia-smi and CUDA_VISIBLE_DEVICES; in a container, at --gpus; on a machine without a GPU,"
    " --trt-backend=tensorrt-rtx --trt-build-only --trt-build compute_capabilities=8.9 builds, and"
    " --trt-backend=onnxruntime simulates."
)


def _strided(value: Any, what: str) -> Any:
    try:
        from cuda.core.utils import StridedMemoryView
    except ImportError as error:
        raise BackendError(
            f"{what} lies on the GPU, and cuda-core, which reads DLPack and __cuda_array_interface__, can't be"
            f" imported ({error}): pip install cuda-core, or pass numpy arrays."
        ) from error
    return StridedMemoryView.from_any_interface(value, stream_ptr=-1)


def cudart() -> ModuleType:
    """cuda-python's CUDA runtime, for the modules of this folder.

    Raises:
        BackendError: it is not installed.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise BackendError(
            f"cuda-python can't be imported ({error}), and running an engine needs its device memory:"
            " pip install cuda-bindings."
        ) from error
    return runtime  # type: ignore[no-any-return]


def called(result: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    """What a function of CUDA returned, without the error code.

    Raises:
        BackendError: the code is one; ``what`` says what does not work then.
    """
    error, *values = result
    if int(error):
        raise BackendError(f"{what}: {_words(error)}.")
    return tuple(values)


def _words(error: Any) -> str:
    _, text = cudart().cudaGetErrorString(error)
    return f"{text.decode() if isinstance(text, bytes) else text} ({getattr(error, 'name', error)})"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
