"""onnxruntime on the CPU: every precision simulated by its rounding in the graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onnx import TensorProto

from pytest_trt.backends import on_host_only
from pytest_trt.backends.onnxruntime_timing import session_stopwatch
from pytest_trt.feeds import conform, split
from pytest_trt.lowering import lower
from pytest_trt.lowering.casts import fp32_ends
from pytest_trt.lowering.held import held_precision
from pytest_trt.lowering.simulable import as_sandwich
from pytest_trt.model import Model
from pytest_trt.recipe import notes_of, ranges_of
from pytest_trt.session import open_session, require_onnxruntime, run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

    from pytest_trt.feeds import Arrays
    from pytest_trt.latency.host import HostStopwatch
    from pytest_trt.latency.samples import Timing
    from pytest_trt.layer import Layer
    from pytest_trt.precision import Precision
    from pytest_trt.recipe import Recipe

__all__ = ["OnnxruntimeBackend", "OnnxruntimeEngine", "open_backend"]

_NAME = "onnxruntime"


@dataclass(frozen=True)
class OnnxruntimeEngine:
    """A session over the lowered graph."""

    model: Model
    precision: Precision
    session: Any
    outputs: tuple[str, ...]
    batch: int | None = None
    backend: str = _NAME
    simulated: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def layers(self) -> tuple[Layer, ...]:
        """None: nothing was built."""
        return ()

    def run(self, inputs: Arrays, *, on_device: bool = False) -> Arrays:
        """See :meth:`pytest_trt.backends.Engine.run`."""
        on_host_only(self.backend, on_device=on_device)
        fitting = conform(inputs, self.model.inputs, self.model.source)
        found = run(self.session, self.model, fitting, self.batch)
        return dict(zip(self.outputs, found.values(), strict=True))

    def stopwatch(self, inputs: Arrays, timing: Timing) -> HostStopwatch:
        """See :meth:`pytest_trt.latency.stopwatch.Timed.stopwatch`: of the session alone, on feeds that fit."""
        fitting = conform(inputs, self.model.inputs, self.model.source)
        feeds = next(split(fitting, self.model.inputs, self.batch))
        device = self.facts["provider_options"]["device_id"] if "provider_options" in self.facts else None
        return session_stopwatch(self.session, feeds, f"{self.model.source}: onnxruntime", timing, device)


@dataclass(frozen=True)
class OnnxruntimeBackend:
    """Simulates; needs neither GPU nor TensorRT."""

    version: str
    name: str = _NAME
    simulated: bool = True
    builds_engines: bool = False

    def build(self, recipe: Recipe) -> OnnxruntimeEngine:
        """See :meth:`pytest_trt.backends.Backend.build`."""
        model, precision = recipe.model, recipe.precision
        lowered = lower(model, precision, ranges_of(recipe), keep=recipe.keep, ops=recipe.ops)
        lowered = Model(fp32_ends(lowered.proto), lowered.source)
        if held_precision(model.proto) in ("fp16", "bf16") and not _ends_in_fp16(lowered.proto):
            # a typed graph, which onnxruntime would compute in fp32, or not at all
            lowered = Model(as_sandwich(lowered.proto), lowered.source)
        session = open_session(lowered.proto, lowered.source)
        names = tuple(output.name for output in model.outputs)
        return OnnxruntimeEngine(
            lowered, precision, session, names, recipe.batch,
            facts={"lowering": recipe.lowering}, warnings=notes_of(recipe),
        )  # fmt: skip


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
