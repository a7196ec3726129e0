"""Network: what TensorRT is given to parse, the builder flags that go with it, and every complaint of its parser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.backends.achieved_precision import asked_of
from pytest_trt.backends.recipe import ranges_of
from pytest_trt.backends.tensorrt._log import heard, logger_of
from pytest_trt.backends.tensorrt._release import label, member, require
from pytest_trt.errors import BackendError, ModelError
from pytest_trt.lowering.lowering import held_precision, held_types, lower
from pytest_trt.model.external_data import shared_folder, with_weights_at
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from types import ModuleType

    import tensorrt

    from pytest_trt.backends.cuda import Gpu
    from pytest_trt.backends.recipe import Recipe
    from pytest_trt.model.model import Model

__all__ = ["flags_for", "graph_for", "parse", "require_fp8_told", "require_possible"]

_ENGINE = {"engine": True}  # what findings look at: an engine was wanted
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
    if asked_of(recipe.precision, recipe.model) != "fp8":
        return
    require(member(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"), "fp8", trt, _INSTEAD["fp8"])
    if typing == "weak" and held_precision(recipe.model.proto) == "fp32":
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


def parse(trt: ModuleType, builder: tensorrt.Builder, graph: Model, typing: str) -> tensorrt.INetworkDefinition:
    """The network of a graph.

    Args:
        trt: the release.
        builder: that will build it.
        graph: as it is to be parsed.
        typing: "strong" or "weak".

    Raises:
        ModelError: the parser refuses it; with all its errors, or TensorRT's.
    """
    network = builder.create_network(_network_flags(trt, typing))
    parser = trt.OnnxParser(network, logger_of(trt))
    with heard(trt) as said:
        folder = shared_folder(graph.proto)
        if folder is None:
            parsed = parser.parse(graph.proto.SerializeToString())
        else:  # weights in files are found from the folder of the model that the path names
            proto = with_weights_at(graph.proto, folder)
            parsed = parser.parse(proto.SerializeToString(), str(folder / "model.onnx"))
    errors = [_words(parser.get_error(number), graph) for number in range(parser.num_errors)]
    if errors:
        listing = "\n".join(f"  {error}" for error in errors)
        raise ModelError(
            f"{graph.source}: {label(trt)}'s parser refuses it, {len(errors)} error(s):\n{listing}", _ENGINE
        )
    if not parsed or not network.num_outputs:
        raise ModelError(said.told(f"{graph.source}: {label(trt)}'s parser makes no network of it"))
    return network


def _network_flags(trt: ModuleType, typing: str) -> int:
    names = ["EXPLICIT_BATCH"] if typing == "weak" else ["EXPLICIT_BATCH", "STRONGLY_TYPED"]
    found = (member(trt.NetworkDefinitionCreationFlag, name) for name in names)
    return sum(1 << int(flag) for flag in found if flag is not None)


def _words(error: tensorrt.ParserError, graph: Model) -> str:
    number = error.node()
    node = graph.proto.graph.node[number] if 0 <= number < len(graph.proto.graph.node) else None
    name = _told(error, "node_name") or (node.name if node else "")
    operator = _told(error, "node_operator") or (node.op_type if node else "")
    where = f"node {name!r} ({operator}), number {number}" if operator else "the model as a whole"
    # some of the parser's descriptions are the bare condition that failed
    text = error.desc() if error.desc() not in ("", "false") else "it has no importer for this operator"
    if "Plugin not found" in text:
        text += " (name its library with the build option plugins)"
    return f"{where}: {text} [{_code(error)} in {error.func()}, {error.file()}:{error.line()}]"


def _told(error: Any, name: str) -> str:
    return str(getattr(error, name)()) if hasattr(error, name) else ""


def _code(error: Any) -> str:
    code = error.code()
    return str(getattr(code, "name", code))
