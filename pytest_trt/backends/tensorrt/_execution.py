"""Execution: one run of an engine, tensors by name, shapes and addresses set, outputs found where they are."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from pytest_trt.backends.cuda import DeviceArray, allocate, copy, synchronize, upload
from pytest_trt.backends.tensorrt._log import heard
from pytest_trt.errors import BackendError, DataError
from pytest_trt.model.feeds import is_float

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    import tensorrt
    from numpy.typing import NDArray

__all__ = [
    "Grown",
    "Tensor",
    "as_dtype",
    "execute",
    "feed",
    "grown_output",
    "grown_outputs",
    "numpy_dtype",
    "place",
    "require",
    "select_profile",
    "tensors_of",
    "to_engine",
]

_BY_NAME: dict[str, Any] = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "FP8": ml_dtypes.float8_e4m3fn,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


def numpy_dtype(dtype: Any, what: str) -> np.dtype:
    """numpy's dtype of one of TensorRT's.

    Raises:
        BackendError: values of it fill no whole bytes (int4, fp4), so nothing can be fed or read.
    """
    if dtype.name not in _BY_NAME:
        raise BackendError(
            f"{what} is {dtype.name} in the engine, which can't be fed or read: keep it out of the ends."
        )
    found: np.dtype = np.dtype(_BY_NAME[dtype.name])
    return found


def as_dtype(array: NDArray[Any], dtype: np.dtype, what: str) -> NDArray[Any]:
    """The same values in another dtype of the same kind: floats are rounded, whole numbers must survive.

    Raises:
        DataError: floats where whole numbers are taken, or a number that does not fit.
    """
    if array.dtype == dtype:
        return array
    if is_float(array.dtype) and is_float(dtype):
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    cast = array.astype(dtype)
    if is_float(array.dtype) or is_float(dtype) or not np.array_equal(cast, array):
        raise DataError(f"{what} is {array.dtype}, and its values do not fit the engine's {dtype}.")
    return cast


def to_engine(array: NDArray[Any]) -> NDArray[Any]:
    """As TensorRT's network takes it where its own dtype is not known: no float64, and int64 stays."""
    return array.astype(np.float32) if array.dtype == np.float64 else array


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine.

    Attributes:
        name: as in the model.
        dtype: numpy's.
        shape: -1 for a dynamic axis.
        is_input: whether it is fed.
        on_host: whether its values are read or written on the host, because shapes depend on them.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    is_input: bool
    on_host: bool


def tensors_of(trt: ModuleType, engine: tensorrt.ICudaEngine) -> tuple[Tensor, ...]:
    """Inputs and outputs in the engine's order."""
    names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    return tuple(
        Tensor(
            name,
            numpy_dtype(engine.get_tensor_dtype(name), repr(name)),
            tuple(engine.get_tensor_shape(name)),
            engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
            engine.get_tensor_location(name) == trt.TensorLocation.HOST,
        )
        for name in names
    )


def grown_outputs(
    trt: ModuleType, context: tensorrt.IExecutionContext, tensors: tuple[Tensor, ...]
) -> dict[str, tuple[Grown, Any]]:
    """Allocators, set once, for the outputs on the GPU without a fixed shape; TensorRT does not keep them alive.

    The engine's own word on shapes counts: a context of 8.6 goes on telling that of its last run.
    """
    found = {}
    for tensor in tensors:
        if not tensor.is_input and not tensor.on_host and any(axis < 0 for axis in tensor.shape):
            found[tensor.name] = grown_output(trt, context, tensor)
    return found


def grown_output(trt: ModuleType, context: tensorrt.IExecutionContext, tensor: Tensor) -> tuple[Grown, Any]:
    """An output and its allocator, which the context is told of."""
    output = Grown(tensor)
    allocator = _new_allocator(trt, output)
    context.set_output_allocator(tensor.name, allocator)
    return output, allocator


def select_profile(
    engine: tensorrt.ICudaEngine, tensors: tuple[Tensor, ...], shapes: Mapping[str, tuple[int, ...]], source: str
) -> int:
    """The first profile that covers these shapes.

    Raises:
        BackendError: none does.
    """
    dynamic = [t for t in tensors if t.is_input and not t.on_host and any(axis < 0 for axis in t.shape)]
    for number in range(max(engine.num_optimization_profiles, 1)):
        if all(_covered(engine, tensor.name, number, shapes[tensor.name]) for tensor in dynamic):
            return number
    first = dynamic[0].name
    low, _, high = (tuple(shape) for shape in engine.get_tensor_profile_shape(first, 0))
    raise BackendError(
        f"{source}: no optimization profile of the engine covers the inputs' shapes"
        f" { ({t.name: shapes[t.name] for t in dynamic}) }; the first takes {first!r} from {low} to {high}. Widen"
        " the case's profiles, or build for these inputs."
    )


def execute(
    trt: ModuleType,
    engine: tensorrt.ICudaEngine,
    context: tensorrt.IExecutionContext,
    tensors: tuple[Tensor, ...],
    grown: Mapping[str, tuple[Grown, Any]],
    feeds: Mapping[str, NDArray[Any] | DeviceArray],
    stream: int,
    source: str,
) -> dict[str, NDArray[Any] | DeviceArray]:
    """Outputs by name in the engine's dtypes, on the GPU unless they are the host's.

    Args:
        trt: the release.
        engine: whose profiles are looked at.
        context: to run in.
        tensors: of the engine.
        grown: its outputs without a fixed shape.
        feeds: one run's inputs by name.
        stream: to run on; it is waited for.
        source: what messages call the model.

    Raises:
        BackendError: no profile covers the shapes, or TensorRT fails.
    """
    with heard(trt) as said:
        profile = select_profile(engine, tensors, {name: tuple(value.shape) for name, value in feeds.items()}, source)
        if engine.num_optimization_profiles > 1 and profile != context.active_optimization_profile:
            require(context.set_optimization_profile_async(profile, stream), said, f"{source}: profile {profile}")
        held = [feed(context, tensor, feeds[tensor.name], said, source) for tensor in tensors if tensor.is_input]
        missing = context.infer_shapes()
        if missing:
            raise BackendError(said.told(f"{source}: the inputs do not tell the shapes of {', '.join(missing)}"))
        outputs = {t.name: place(context, t) for t in tensors if not t.is_input and t.name not in grown}
        require(context.execute_async_v3(stream), said, f"{source}: the engine does not run")
        synchronize(stream)
    del held
    return outputs | {name: output.copied() for name, (output, _) in grown.items()}


def _covered(engine: tensorrt.ICudaEngine, name: str, profile: int, shape: tuple[int, ...]) -> bool:
    low, _, high = engine.get_tensor_profile_shape(name, profile)
    return len(low) == len(shape) and all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))


def require(done: bool, said: Any, what: str) -> None:
    """Refuse to go on.

    Raises:
        BackendError: it is not done; tells what TensorRT says.
    """
    if not done:
        raise BackendError(said.told(what))


def feed(context: tensorrt.IExecutionContext, tensor: Tensor, value: Any, said: Any, source: str) -> Any:
    """Set an input's shape and address; what is returned keeps its memory, on the GPU or on the host.

    Raises:
        DataError: an array on the GPU has another dtype, or is needed on the host.
        BackendError: TensorRT does not take it.
    """
    what = f"{source}: input {tensor.name!r}"
    if isinstance(value, DeviceArray):
        if value.dtype != tensor.dtype or tensor.on_host:
            where = "on the host" if tensor.on_host else f"as {tensor.dtype}"
            raise DataError(f"{what} is {value.dtype} on the GPU, and the engine reads it {where}.")
        held: Any = value
        address = value.address
    elif tensor.on_host:
        held = np.ascontiguousarray(as_dtype(value, tensor.dtype, what))
        address = held.ctypes.data
    else:
        held = upload(as_dtype(value, tensor.dtype, what))
        address = held.address
    require(context.set_input_shape(tensor.name, tuple(value.shape)), said, f"{what} has shape {tuple(value.shape)}")
    require(context.set_tensor_address(tensor.name, address), said, f"{what} can't be fed")
    return held


def place(context: tensorrt.IExecutionContext, tensor: Tensor) -> Any:
    """Memory for an output whose shape is known, on the GPU or on the host.

    Raises:
        BackendError: there is none left.
    """
    shape = tuple(context.get_tensor_shape(tensor.name))
    if tensor.on_host:
        array = np.zeros(shape, tensor.dtype)
        context.set_tensor_address(tensor.name, array.ctypes.data)
        return array
    output = allocate(shape, tensor.dtype)
    context.set_tensor_address(tensor.name, output.address)
    return output


class Grown:
    """An output whose shape an engine tells as it runs."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.memory: DeviceArray | None = None
        self.shape: tuple[int, ...] = ()

    def grow(self, nbytes: int) -> int:
        """At least so many bytes; 0 where they can't be had, which TensorRT takes as a failure."""
        if self.memory is None or self.memory.nbytes < nbytes:
            try:
                self.memory = allocate((max(nbytes, 1),), np.dtype(np.uint8))
            except BackendError:
                return 0
        return self.memory.address

    def copied(self) -> DeviceArray:
        """What was written, in memory of its own: the next run writes over this one where it is large enough."""
        return copy(self.written())

    def written(self) -> DeviceArray:
        """What was written, where it lies.

        Raises:
            BackendError: TensorRT did not say where.
        """
        memory = self.memory
        if memory is None or prod(self.shape) * self.tensor.dtype.itemsize > memory.nbytes:
            raise BackendError(f"TensorRT never said where output {self.tensor.name!r} lies.")
        return DeviceArray(memory.address, self.shape, self.tensor.dtype, memory)


def _new_allocator(trt: ModuleType, grown: Grown) -> Any:
    class Allocator(trt.IOutputAllocator):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)

        def reallocate_output(self, _name: str, _memory: int, size: int, _alignment: int) -> int:
            return grown.grow(size)

        def reallocate_output_async(self, _name: str, _memory: int, size: int, _alignment: int, _stream: int) -> int:
            return grown.grow(size)

        def notify_shape(self, _name: str, shape: Any) -> None:
            grown.shape = tuple(shape)

    return Allocator()
