"""Which precision a file holds already, whoever made it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto

from pytest_trt.lowering.graph import constants
from pytest_trt.model import nodes_of

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["held_precision", "held_types"]

# ONNX's own integer operators, and onnxruntime's: they hold quantised values without Q/DQ around them.
_INTEGER_OPS = (
    "QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantize", "QGemm", "QAttention", "QOrdered", "QEmbed", "QMoE",
    "MatMulNBits", "MatMulBnb4", "MatMulFpQ4", "GatherBlockQuantized",
)  # fmt: skip


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
        elif node.op_type.startswith(_INTEGER_OPS):
            labels.add("int8")
    # int32 is a bias beside int8 values, never a precision of its own
    return {label for label in labels if label != "int32"} or ({"int8"} if labels else set())


def _label(node: NodeProto, types: dict[str, int]) -> str:
    told = next((a.i for a in node.attribute if a.name == "output_dtype" and a.i), None)
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
