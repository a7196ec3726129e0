"""A graph in fp16 or bf16 itself, as the cast sandwich that rounds alike: what onnxruntime can simulate of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.lowering.graph import array_of, copy_at_opset, element_types, fresh, graphs, require_type
from pytest_trt.model import tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import GraphProto, ModelProto, NodeProto

__all__ = ["as_sandwich"]

_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_FIRST_BF16_CAST = 13
_KINDS = ("to", "dtype", "output_dtype")


def as_sandwich(model: ModelProto) -> ModelProto:
    """fp16 or bf16 tensors as fp32 ones of the same values: computed in fp32, and rounded after each operator.

    What the graph leaves in fp32 stays so, and an overflow becomes infinity, both of which onnxruntime would lose.

    Args:
        model: a typed graph with fp32 inputs and outputs; not changed.

    Raises:
        LoweringError: the type of a tensor can't be inferred.
    """
    copy = copy_at_opset(model, _FIRST_BF16_CAST)
    types, name = element_types(copy), fresh(copy)
    for tensor in tensors_of(copy.graph):
        if tensor.data_type in _NARROW:
            tensor.CopyFrom(numpy_helper.from_array(array_of(tensor).astype("float32"), tensor.name))
    for graph in graphs(copy.graph):
        del graph.value_info[:]
        _round_again(graph, types, name)
    return copy


def _round_again(graph: GraphProto, types: dict[str, int], name: Callable[[str], str]) -> None:
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            if attribute.name in _KINDS and attribute.i in _NARROW:
                attribute.i = TensorProto.FLOAT
        if node.op_type in ("Constant", "Identity"):
            continue  # rounded already
        for index, output in enumerate(node.output):
            if output and require_type(output, node, types) in _NARROW:
                node.output[index] = name(f"{output}/exact")
                nodes.extend(_rounding(node.output[index], output, types[output], name))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _rounding(exact: str, output: str, to: int, name: Callable[[str], str]) -> list[NodeProto]:
    low = name(f"{output}/rounded")
    return [
        helper.make_node("Cast", [exact], [low], f"{low}/cast", to=to),
        helper.make_node("Cast", [low], [output], f"{output}/cast", to=TensorProto.FLOAT),
    ]
