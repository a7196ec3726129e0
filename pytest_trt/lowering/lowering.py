"""Lowering: a precision expressed in the ONNX graph itself; and which precision a file holds already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from onnx import TensorProto

from pytest_trt.errors import LoweringError, unknown
from pytest_trt.lowering import _strong_typing as strong_typing
from pytest_trt.lowering import casts, qdq
from pytest_trt.lowering.placement import kept_in_fp32
from pytest_trt.model.graph import constants, copy_at_opset, opset
from pytest_trt.model.model import Model as Checked
from pytest_trt.model.model import Model as Converted
from pytest_trt.model.model import Model as Lowered
from pytest_trt.model.model import checked, nodes_of
from pytest_trt.model.quantised_weights import OF_TENSORRT
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnx import ModelProto, NodeProto

    from pytest_trt.model.model import Model
    from pytest_trt.ranges.amax import Ranges

__all__ = ["OF_FEW_BITS", "at_opset", "held_precision", "held_types", "known_lowering", "lower", "needs_ranges"]

# ONNX's own integer operators, and onnxruntime's: they hold quantised values without Q/DQ around them.
_INTEGER_OPS = (
    "QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantize", "QGemm", "QAttention", "QOrdered", "QEmbed", "QMoE",
)  # fmt: skip

OF_FEW_BITS = ("MatMulNBits", "MatMulBnb4", "MatMulFpQ4", "GatherBlockQuantized")
"""onnxruntime's operators whose weights are in 4 bits, or in as many as ``bits`` tells."""


def held_precision(model: ModelProto) -> str:
    """The coarsest precision in the graph: a name of :class:`Precision`, or fp8, int4, int16 and the like.

    Q/DQ nodes count by the type of their integers, else fp16 or bf16 by tensors and casts, else fp32.
    """
    labels = _quantised(model)
    if labels:
        return min(labels, key=lambda label: (_bits(label), not label.startswith("fp")))
    types = _types(model)
    if TensorProto.BFLOAT16 in types:
        return "bf16"
    return "fp16" if TensorProto.FLOAT16 in types else "fp32"


def held_types(model: ModelProto) -> set[str]:
    """Every precision below fp32 in the graph, by name: Q/DQ nodes by their integers, fp16 and bf16 by tensors."""
    types = _types(model)
    narrow = {"bf16": TensorProto.BFLOAT16, "fp16": TensorProto.FLOAT16}
    return _quantised(model) | {label for label, type_ in narrow.items() if type_ in types}


def _quantised(model: ModelProto) -> set[str]:
    held = constants(model)
    labels = set()
    for node in nodes_of(model.graph):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            labels.add(_label(node, {name: tensor.data_type for name, tensor in held.items()}))
        elif node.op_type in OF_TENSORRT:
            labels.add(OF_TENSORRT[node.op_type])
        elif node.op_type in OF_FEW_BITS:
            labels.add(f"int{next((a.i for a in node.attribute if a.name == 'bits'), 4)}")
        elif node.op_type.startswith(_INTEGER_OPS):
            labels.add("int8")
    # int32 is a bias beside int8 values, never a precision of its own
    return {label for label in labels if label != "int32"} or ({"int8"} if labels else set())


def _label(node: NodeProto, types: dict[str, int]) -> str:
    quantises = node.op_type == "QuantizeLinear"
    told = next((a.i for a in node.attribute if a.name == "output_dtype" and a.i and quantises), None)
    zero = types.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    stored = types.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
    kind = str(TensorProto.DataType.Name(zero or told or stored or TensorProto.UINT8)).lower()
    if kind.startswith("float"):
        return "fp8" if "8" in kind else "fp4"
    return kind.removeprefix("u")


def _types(model: ModelProto) -> set[int]:
    graph = model.graph
    types = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    types |= {tensor.data_type for tensor in constants(model).values()}
    types |= {a.i for node in nodes_of(graph) if node.op_type == "Cast" for a in node.attribute if a.name == "to"}
    return types


def _bits(label: str) -> int:
    return int("".join(character for character in label if character.isdigit()))


LOWERINGS = ("own", "modelopt")
"""What may write a precision into a graph: this package, or NVIDIA ModelOpt."""

_LEAST_OPSET = {Precision.TF32: 11, Precision.FP16: 11, Precision.BF16: 13, Precision.INT8: 13, Precision.FP8: 19}
_RAISED_IF_POSSIBLE = (Precision.TF32, Precision.FP16)


def known_lowering(name: str) -> str:
    """The lowering's name.

    Raises:
        SpecError: it is not known.
    """
    if name not in LOWERINGS:
        raise unknown("lowering", name, LOWERINGS)
    return name


def needs_ranges(model: Model, precision: Precision) -> bool:
    """Whether lowering this model to this precision takes calibration."""

    return precision.takes_ranges and held_precision(model.proto) == "fp32"


def at_opset(model: Model, precision: Precision) -> Model:
    """The model in operators new enough for the precision (bf16 and int8: 13, fp8: 19); itself where they are.

    Done first, because onnx's converter may give tensors other names, and calibration goes by names. tf32 and fp16 need
    no new operators, but before opset 11 a Gemm had to have a bias and a Resize its one way: they are raised where the
    converter can.

    Raises:
        LoweringError: an operator can't be converted.
    """
    least = _LEAST_OPSET.get(precision, 0)
    if opset(model.proto) >= least or held_precision(model.proto) != "fp32":
        return model
    try:
        return Converted(copy_at_opset(model.proto, least), model.source)
    except LoweringError:
        if precision in _RAISED_IF_POSSIBLE:
            return model
        raise


@overload
def lower(
    model: Model,
    precision: Precision | str,
    ranges: Ranges | None = None,
    *,
    typed: bool = False,
    keep: Iterable[str] = (),
    ops: Iterable[str] = (),
) -> Model: ...
@overload
def lower(
    model: ModelProto,
    precision: Precision | str,
    ranges: Ranges | None = None,
    *,
    typed: bool = False,
    keep: Iterable[str] = (),
    ops: Iterable[str] = (),
) -> ModelProto: ...
def lower(
    model: Model | ModelProto,
    precision: Precision | str,
    ranges: Ranges | None = None,
    *,
    typed: bool = False,
    keep: Iterable[str] = (),
    ops: Iterable[str] = (),
) -> Model | ModelProto:
    """The same network with the precision's rounding in its graph; the argument is left alone.

    Args:
        model: an fp32 model, or onnx's ModelProto of one; one that holds the precision already is returned as it is.
        precision: what to express. fp32 and model change nothing.
        ranges: of the activations, for int8 and fp8.
        typed: for fp16 and bf16, the graph in that type itself, which TensorRT takes, in place of the cast sandwich
            that onnxruntime simulates.
        keep: nodes that stay in fp32, each by its name or by a tensor that it computes; of a file with Q/DQ, the
            ones that it leaves in fp32 on purpose.
        ops: kinds of operators that are lowered, as "Conv"; all that the precision lowers if none is named.

    Returns:
        The kind that was given.

    Raises:
        SpecError: no such precision.
        ModelError: the ModelProto is not valid.
        LoweringError: the model holds another reduced precision, can't be expressed in this one, has no such node or
            nothing that would change, or the precision lowers no such operator.
    """
    precision = Precision.parse(precision) if isinstance(precision, str) else precision
    how = _How(ranges, typed, tuple(keep), tuple(ops))
    if isinstance(model, Checked):
        return _expressed(model, precision, how)
    copy = type(model).FromString(model.SerializeToString())
    return _expressed(checked(copy, "the model"), precision, how).proto


@dataclass(frozen=True)
class _How:
    """What :func:`lower` is told beside model and precision."""

    ranges: Ranges | None
    typed: bool
    keep: tuple[str, ...]
    ops: tuple[str, ...]


def _expressed(model: Model, precision: Precision, how: _How) -> Model:

    held = held_precision(model.proto)
    if held != "fp32" and (how.keep or how.ops):
        _require_declaration(model, precision, held, how)
    if precision is Precision.MODEL or held == precision.label:
        return model
    if held != "fp32":
        raise LoweringError(
            f"{model.source} already holds {held}, and {precision} can only be lowered from fp32. Judge the file"
            f" as it is with --trt-precision=model, or name the fp32 file it was made from."
        )
    try:
        return _lowered(at_opset(model, precision), precision, how)
    except LoweringError as error:
        raise LoweringError(f"{model.source} at {precision}: {error}") from error


def _require_declaration(model: Model, precision: Precision, held: str, how: _How) -> None:
    """``keep`` of a file with Q/DQ tells which of its nodes are in fp32 on purpose; nothing else is left to be told."""
    if how.ops or held not in ("int8", "fp8"):
        raise LoweringError(
            f"{model.source} already holds {held}, and keep and ops say what is lowered: leave them out, or name the"
            " fp32 file that it was made from."
        )
    kept_in_fp32(model.proto, precision, how.keep)


def _lowered(model: Model, precision: Precision, how: _How) -> Model:
    if precision is Precision.FP32:
        return model
    kept = kept_in_fp32(model.proto, precision, how.keep, how.ops)
    if precision.takes_ranges:
        if how.ranges is None:
            raise LoweringError(f"{precision} needs ranges, and there are none: give calibration data.")
        pairs = qdq.int8_qdq if precision is Precision.INT8 else qdq.fp8_qdq
        return Lowered(pairs(model.proto, how.ranges.amax, kept), model.source)
    forms = {
        Precision.TF32: casts.tf32_emulated,
        Precision.FP16: strong_typing.fp16_typed if how.typed else casts.fp16_sandwich,
        Precision.BF16: strong_typing.bf16_typed if how.typed else casts.bf16_sandwich,
    }
    return Lowered(forms[precision](model.proto, kept), model.source)
