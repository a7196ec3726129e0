"""Bound buffers: inputs and outputs of an engine in their places, for the same inference again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_trt.backends._cuda_events import Graph, Pinned, copy_in, copy_out
from pytest_trt.backends.cuda import DeviceArray, synchronize
from pytest_trt.backends.tensorrt._execution import as_dtype, feed, grown_output, place, require, select_profile
from pytest_trt.backends.tensorrt._log import heard, logger_of
from pytest_trt.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    import tensorrt
    from numpy.typing import NDArray

    from pytest_trt.backends.cuda import Stream
    from pytest_trt.backends.tensorrt._execution import Grown, Tensor
    from pytest_trt.backends.tensorrt._log import Heard

__all__ = ["Copies", "bind", "captured", "memory_of"]


@dataclass(frozen=True, eq=False)
class Bound:
    """A context of its own, so that nobody else sets its addresses.

    Attributes:
        inputs: by name, on the GPU, or on the host where the engine reads them there.
        outputs: likewise.
        grown: outputs whose shape the engine tells as it runs, with their allocators.
    """

    context: tensorrt.IExecutionContext
    stream: Stream
    source: str
    inputs: Mapping[str, DeviceArray | NDArray[Any]]
    outputs: Mapping[str, DeviceArray | NDArray[Any]]
    grown: Mapping[str, tuple[Grown, Any]]

    def enqueue(self) -> None:
        """Put one inference on the stream.

        Raises:
            BackendError: TensorRT does not take it.
        """
        if not self.context.execute_async_v3(self.stream.handle):
            raise BackendError(f"{self.source}: the engine does not run.")

    @property
    def hinders_capture(self) -> str:
        """Why no CUDA graph should be made of it; empty where one can be tried."""
        if self.grown:
            return f"the shape of {', '.join(map(repr, self.grown))} is known only after each run"
        on_host = [
            name for name, value in {**self.inputs, **self.outputs}.items() if not isinstance(value, DeviceArray)
        ]
        return f"{', '.join(map(repr, on_host))} are read or written on the host" if on_host else ""

    @property
    def results(self) -> dict[str, DeviceArray]:
        """Outputs on the GPU, after a run."""
        fixed = {name: value for name, value in self.outputs.items() if isinstance(value, DeviceArray)}
        return fixed | {name: grown.written() for name, (grown, _) in self.grown.items()}


class Copies:
    """Copies of all inputs to the GPU and of all outputs back, by pinned memory."""

    def __init__(self, bound: Bound, feeds: Mapping[str, NDArray[Any]]) -> None:
        inputs = {name: array for name, array in bound.inputs.items() if isinstance(array, DeviceArray)}
        self._stream = bound.stream
        self._ins = [
            (Pinned.of(as_dtype(feeds[name], array.dtype, f"{bound.source}: input {name!r}")), array)
            for name, array in inputs.items()
        ]
        self._outs = [(array, Pinned(array.nbytes)) for array in bound.results.values()]

    def go_in(self) -> None:
        """Put those of the inputs on the stream."""
        for pinned, array in self._ins:
            copy_in(pinned, array, self._stream)

    def go_out(self) -> None:
        """Put those of the outputs on the stream."""
        for array, pinned in self._outs:
            copy_out(array, pinned, self._stream)


def bind(
    trt: ModuleType,
    engine: tensorrt.ICudaEngine,
    tensors: tuple[Tensor, ...],
    feeds: Mapping[str, NDArray[Any] | DeviceArray],
    stream: Stream,
    source: str,
) -> Bound:
    """Put one run's inputs and outputs in their places, and run it once.

    Args:
        trt: the release.
        engine: that gets another context.
        tensors: of the engine.
        feeds: one run's inputs by name.
        stream: to run on; it is waited for.
        source: what messages call the model.

    Raises:
        BackendError: no profile covers the shapes, memory does not suffice, or TensorRT fails.
    """
    with heard(trt) as said:
        profile = select_profile(engine, tensors, {name: tuple(value.shape) for name, value in feeds.items()}, source)
        context = _own_context(trt, engine, profile, stream, said, source)
        inputs = {t.name: feed(context, t, feeds[t.name], said, source) for t in tensors if t.is_input}
        missing = context.infer_shapes()
        require(not missing, said, f"{source}: the inputs do not tell the shapes of {', '.join(missing)}")
        outputs, grown = _outputs(trt, context, tensors)
        bound = Bound(context, stream, source, inputs, outputs, grown)
        require(context.execute_async_v3(stream.handle), said, f"{source}: the engine does not run")
        synchronize(stream.handle)
    return bound


def captured(trt: ModuleType, bound: Bound) -> Graph | str:
    """One inference as a CUDA graph, launched once; or why there is none."""
    if bound.hinders_capture:
        return bound.hinders_capture
    try:
        with heard(trt) as said:
            graph = Graph(bound.stream, bound.enqueue)
            graph.launch()
            synchronize(bound.stream.handle)
            return graph
    except BackendError as error:
        return " ".join([str(error).rstrip("."), *dict.fromkeys(said.errors)])


def memory_of(engine: tensorrt.ICudaEngine, plan_bytes: int | None) -> int | None:
    """Bytes of the GPU: what one context needs for activations, and the plan, most of which is weights."""
    names = ("device_memory_size_v2", "device_memory_size")
    sizes = [int(getattr(engine, name)) for name in names if hasattr(engine, name)]
    return sizes[0] + plan_bytes if sizes and plan_bytes is not None else None


def _own_context(
    trt: ModuleType, engine: tensorrt.ICudaEngine, profile: int, stream: Stream, said: Heard, source: str
) -> tensorrt.IExecutionContext:
    """A second context; of the same engine loaded once more where two may not have the same profile (8.6).

    The second context of one engine is never told a profile: 8.6 crashes there where a shape depends on data.
    """
    what = f"{source}: no second execution context can be made, mostly for memory"
    context = engine.create_execution_context()
    require(context is not None, said, what)
    if context.active_optimization_profile == profile:
        return context
    context = _loaded_again(trt, engine).create_execution_context()
    require(context is not None, said, what)
    has_it = context.active_optimization_profile == profile
    if has_it or context.set_optimization_profile_async(profile, stream.handle):
        return context
    raise BackendError(said.told(f"{source}: no second execution context takes profile {profile}"))


def _loaded_again(trt: ModuleType, engine: tensorrt.ICudaEngine) -> tensorrt.ICudaEngine:
    runtime = trt.Runtime(logger_of(trt))
    runtime.engine_host_code_allowed = True  # it runs already
    loaded: tensorrt.ICudaEngine = runtime.deserialize_cuda_engine(engine.serialize())
    return loaded


def _outputs(
    trt: ModuleType, context: tensorrt.IExecutionContext, tensors: tuple[Tensor, ...]
) -> tuple[dict[str, DeviceArray | NDArray[Any]], dict[str, tuple[Grown, Any]]]:
    """Memory where the shape is known now, an allocator where it is not: with one no graph can be captured."""
    outputs: dict[str, DeviceArray | NDArray[Any]] = {}
    grown = {}
    for tensor in (tensor for tensor in tensors if not tensor.is_input):
        if any(axis < 0 for axis in context.get_tensor_shape(tensor.name)):
            grown[tensor.name] = grown_output(trt, context, tensor)
        else:
            outputs[tensor.name] = place(context, tensor)
    return outputs, grown
