"""onnxruntime on the CPU: every precision simulated by its rounding in the graph, timed by the host's clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from onnx import TensorProto

from pytest_trt.backends.backend import on_host_only
from pytest_trt.backends.recipe import notes_of, ranges_of
from pytest_trt.backends.stopwatch import HostStopwatch, batch_of, shapes_of
from pytest_trt.errors import BackendError
from pytest_trt.lowering.casts import as_sandwich, fp32_ends
from pytest_trt.lowering.inner_values import InnerValues, Watched, watched
from pytest_trt.lowering.lowering import OF_FEW_BITS, held_precision, held_types, lower
from pytest_trt.model.feeds import conform, split
from pytest_trt.model.graph import MATRIX_OPERANDS, element_types
from pytest_trt.model.model import Model, nodes_of
from pytest_trt.model.onnx_session import open_session, require_onnxruntime, run
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

    from pytest_trt.backends.backend import Layer
    from pytest_trt.backends.recipe import Recipe
    from pytest_trt.backends.stopwatch import Timing
    from pytest_trt.model.feeds import Arrays

__all__ = ["OnnxruntimeEngine", "open_backend", "session_stopwatch"]

_COPIES = (
    "what is timed is session.run by the host's clock: copies to the GPU and back are part of it, and so is"
    " onnxruntime's own work."
)
_BOUND = (
    "what is timed is session.run_with_iobinding by the host's clock, inputs and outputs on the GPU: onnxruntime's own"
    " work and the wait for the GPU are part of it."
)


def session_stopwatch(session: Any, feeds: Arrays, what: str, timing: Timing, device: int | None) -> HostStopwatch:
    """A session with one run's inputs in place, run once.

    Args:
        session: onnxruntime's.
        feeds: one run's inputs, as the session takes them.
        what: what messages call it.
        timing: whether copies are part of what is timed.
        device: the GPU that it runs on; None for the CPU.

    Raises:
        BackendError: onnxruntime fails.
    """
    names = [output.name for output in session.get_outputs()]
    bound = device is not None and not timing.transfers
    try:
        infer = _bound(session, names, feeds, device or 0) if bound else partial(session.run, names, feeds)
        infer()
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        raise BackendError(f"{what} fails while it is prepared: {type(error).__name__}: {error}") from error
    notes = () if device is None else (_BOUND,) if bound else (_COPIES,)
    # as with copies to a GPU, whatever is done on the way counts
    return HostStopwatch(
        infer, what, batch_of(feeds), shapes_of(feeds), notes=notes, transfers=device is not None and not bound
    )


def _bound(session: Any, names: list[str], feeds: Arrays, device: int) -> Any:
    values = require_onnxruntime().OrtValue
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, values.ortvalue_from_numpy(value, "cuda", device))
    for name in names:
        binding.bind_output(name, "cuda", device)
    return partial(session.run_with_iobinding, binding)


_NAME = "onnxruntime"
_NARROW = {"fp16", "bf16"}


@dataclass(frozen=True)
class OnnxruntimeEngine:
    """A session over the lowered graph.

    Attributes:
        model: the lowered graph.
        precision: that it was lowered to.
        session: over it, or over its twin that measures inner tensors too.
        outputs: the names that its outputs go by.
        batch: the most samples at once where the first axis is dynamic.
        backend: what opened it.
        simulated: whether it is no engine.
        facts: what there is to record.
        warnings: what there is to say.
        watched: what that twin gives beside its outputs; None where no inner tensor is measured.
        inner: what was measured, over all runs.
    """

    model: Model
    precision: Precision
    session: Any
    outputs: tuple[str, ...]
    batch: int | None = None
    backend: str = _NAME
    simulated: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    watched: Watched | None = None
    inner: InnerValues = field(default_factory=InnerValues)

    def layers(self) -> tuple[Layer, ...]:
        """None: nothing was built."""
        return ()

    def run(self, inputs: Arrays, *, on_device: bool = False) -> Arrays:
        """See :meth:`pytest_trt.backends.backend.Engine.run`."""
        on_host_only(self.backend, on_device=on_device)
        fitting = conform(inputs, self.model.inputs, self.model.source)
        found = run(self.session, self.model, fitting, self.batch)
        if self.watched is not None:
            self.watched.read(found, self.inner)
        return dict(zip(self.outputs, list(found.values())[: len(self.outputs)], strict=True))

    def stopwatch(self, inputs: Arrays, timing: Timing) -> HostStopwatch:
        """See :meth:`pytest_trt.backends.stopwatch.Timed.stopwatch`: of a session that measures nothing else."""
        fitting = conform(inputs, self.model.inputs, self.model.source)
        feeds = next(split(fitting, self.model.inputs, self.batch))
        device = self.facts["provider_options"]["device_id"] if "provider_options" in self.facts else None
        session = self.session if self.watched is None else open_session(self.model.proto, self.model.source)
        return session_stopwatch(session, feeds, f"{self.model.source}: onnxruntime", timing, device)


@dataclass(frozen=True)
class OnnxruntimeBackend:
    """Simulates; needs neither GPU nor TensorRT."""

    version: str
    name: str = _NAME
    simulated: bool = True
    builds_engines: bool = False

    def build(self, recipe: Recipe) -> OnnxruntimeEngine:
        """See :meth:`pytest_trt.backends.backend.Backend.build`."""
        model, precision = recipe.model, recipe.precision
        lowered = lower(model, precision, ranges_of(recipe), keep=recipe.keep, ops=recipe.ops)
        lowered = Model(fp32_ends(lowered.proto), lowered.source)
        if _is_typed(model.proto) and not _ends_in_fp16(lowered.proto):
            # a typed graph, which onnxruntime would compute in fp32, or not at all
            lowered = Model(as_sandwich(lowered.proto), lowered.source)
        proto, measured = (lowered.proto, None) if precision is Precision.FP32 else watched(lowered.proto)
        session = open_session(proto, lowered.source, in_order=measured is not None)
        names = tuple(output.name for output in model.outputs)
        return OnnxruntimeEngine(
            lowered, precision, session, names, recipe.batch,
            facts={"lowering": recipe.lowering}, warnings=notes_of(recipe), watched=measured,
        )  # fmt: skip


def _is_typed(proto: ModelProto) -> bool:
    """Whether it computes in fp16 or bf16: all of it, or what its quantised weights are multiplied by."""
    if held_precision(proto) in _NARROW:
        return True
    if _NARROW.isdisjoint(held_types(proto)) or any(node.op_type in OF_FEW_BITS for node in nodes_of(proto.graph)):
        return False  # onnx knows no types behind onnxruntime's own operators, which take fp16 as it is
    types = element_types(proto)
    computed = (types.get(node.output[0]) for node in nodes_of(proto.graph) if node.op_type in MATRIX_OPERANDS)
    return not {TensorProto.FLOAT16, TensorProto.BFLOAT16}.isdisjoint(computed)


def _ends_in_fp16(proto: ModelProto) -> bool:
    return TensorProto.FLOAT16 in {
        value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)
    }


def open_backend(name: str = _NAME) -> OnnxruntimeBackend:  # noqa: ARG001 - this module has but one
    """The backend, if onnxruntime is installed.

    Raises:
        BackendError: it is not.
    """
    return OnnxruntimeBackend(f"onnxruntime {require_onnxruntime().__version__}")
