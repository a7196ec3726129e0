"""Graph: what TensorRT is given to parse, and the builder flags that go with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.errors import BackendError
from pytest_trt.lowering import lower
from pytest_trt.lowering.held import held_precision, held_types
from pytest_trt.precision import Precision
from pytest_trt.recipe import ranges_of
from pytest_trt.trt.release import label, member, require

if TYPE_CHECKING:
    from types import ModuleType

    from pytest_trt.backends.cuda import Gpu
    from pytest_trt.model import Model
    from pytest_trt.recipe import Recipe

__all__ = ["flags_for", "graph_for", "require_fp8_told", "require_possible"]

_FLAGS = {"fp16": "FP16", "bf16": "BF16", "int8": "INT8", "fp8": "FP8", "int4": "INT4", "fp4": "FP4"}

# the least compute capability with arithmetic of this kind, and a GPU generation that has it
_HARDWARE = {
    "fp16": ((5, 3), "Pascal"),
    "int8": ((6, 1), "Turing"),
    "tf32": ((8, 0), "Ampere"),
    "bf16": ((8, 0), "Ampere"),
    "fp8": ((8, 9), "Ada or Hopper"),
    "fp4": ((10, 0), "Blackwell"),
}

_INSTEAD = {
    "bf16": "TensorRT 10 or later has it; fp16 is the nearest that this one has",
    "fp8": "TensorRT 10 or later has it; int8 is the nearest that this one has",
    "fp4": "TensorRT 10.8 or later has it",
    "int4": "TensorRT 10.1 or later has it",
}


def graph_for(recipe: Recipe, typing: str) -> Model:
    """The model as TensorRT gets it: lowered where the model tells the precision, fp32 where flags do.

    Raises:
        LoweringError: it can't be expressed in the precision.
    """
    model, precision = recipe.model, recipe.precision
    if held_precision(model.proto) != "fp32":
        return lower(model, precision)  # as it is, or a refusal
    if precision in (Precision.MODEL, Precision.FP32, Precision.TF32) or typing == "weak":
        return model
    return lower(model, precision, ranges_of(recipe), typed=True, keep=recipe.keep, ops=recipe.ops)


def flags_for(trt: ModuleType, graph: Model, precision: Precision, typing: str, fallback: str) -> list[Any]:
    """The builder flags for what the graph holds, and for what it is asked to become; none where types tell all.

    Raises:
        BackendError: the release has no such precision.
    """
    if typing == "strong" and member(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") is not None:
        return []
    labels = held_types(graph.proto)
    if typing == "weak":
        labels |= {precision.label, *({"fp16"} if fallback == "fp16" and precision is Precision.INT8 else ())}
    return [
        require(member(trt.BuilderFlag, _FLAGS[name]), name, trt, _INSTEAD.get(name, "take another precision"))
        for name in sorted(labels)
        if name in _FLAGS
    ]


def require_fp8_told(trt: ModuleType, recipe: Recipe, typing: str) -> None:
    """Refuse fp8 where nothing would tell TensorRT: a release before strong typing, or an fp32 graph with a flag.

    Raises:
        BackendError: says what would do.
    """
    held = held_precision(recipe.model.proto)
    asked = held if recipe.precision is Precision.MODEL else recipe.precision.label
    if asked != "fp8":
        return
    require(member(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"), "fp8", trt, _INSTEAD["fp8"])
    if typing == "weak" and held == "fp32":
        raise BackendError(
            "fp8 is told by Q/DQ in a strongly typed network, and no builder flag or dynamic range stands for them:"
            " take --trt-typing=strong or auto."
        )


def require_possible(trt: ModuleType, builder: Any, precision: str, gpu: Gpu | None) -> None:
    """Refuse a precision that this GPU has no arithmetic for, which the builder would replace by another.

    Raises:
        BackendError: names the GPU and one that could.
    """
    if gpu is None or precision not in _HARDWARE:
        return
    least, generation = _HARDWARE[precision]
    fast = getattr(builder, {"tf32": "platform_has_tf32"}.get(precision, f"platform_has_fast_{precision}"), True)
    if gpu.compute_capability < least or not fast:
        major, minor = gpu.compute_capability
        raise BackendError(
            f"{gpu.name} (compute capability {major}.{minor}) has no {precision} arithmetic that {label(trt)} uses:"
            f" it takes a GPU of {least[0]}.{least[1]} or higher ({generation}). Check at a precision that it has."
        )
