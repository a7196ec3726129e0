"""What every lowering needs of a graph: a copy at an opset, types, constants, and nodes put before nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from pytest_trt.errors import LoweringError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

__all__ = [
    "MATRIX_OPERANDS",
    "array_of",
    "constants",
    "copy_at_opset",
    "element_types",
    "fresh",
    "graphs",
    "opset",
    "rewrite_operands",
]

MATRIX_OPERANDS = {"Conv": (0, 1), "ConvTranspose": (0, 1), "Gemm": (0, 1), "MatMul": (0, 1)}
"""The operators of matrix units, and which of their inputs are multiplied (a bias is only added)."""


def opset(model: ModelProto) -> int:
    """The version of the standard operators that the model is written in."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def copy_at_opset(model: ModelProto, least: int) -> ModelProto:
    """A copy, its operators converted to opset ``least`` if they are older.

    Raises:
        LoweringError: onnx's version converter can't convert an operator.
    """
    if opset(model) >= least:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy
    try:
        return onnx.version_converter.convert_version(model, least)
    except Exception as error:  # the converter throws C++ errors of several kinds
        text = " ".join(str(error).split())
        raise LoweringError(
            f"opset {opset(model)} is older than the {least} that this precision needs, and onnx can't convert it:"
            f" {text}. Export the model again at opset {least} or later."
        ) from error


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and all its subgraphs."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for subgraph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from graphs(subgraph)


def element_types(model: ModelProto) -> dict[str, int]:
    """TensorProto element type by tensor name, as far as onnx can infer it."""
    inferred = onnx.shape_inference.infer_shapes(model)
    types: dict[str, int] = {}
    for graph in graphs(inferred.graph):
        types.update({tensor.name: tensor.data_type for tensor in graph.initializer})
        for value in (*graph.input, *graph.value_info, *graph.output):
            if value.type.tensor_type.elem_type:
                types[value.name] = value.type.tensor_type.elem_type
        for node in graph.node:
            _fill_by_schema(node, types, opset(model))
    return types


def constants(model: ModelProto) -> dict[str, TensorProto]:
    """Tensors whose values the file holds: initializers and Constant nodes, and Identity of them."""
    found: dict[str, TensorProto] = {}
    for graph in graphs(model.graph):
        found.update({tensor.name: tensor for tensor in graph.initializer})
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                found[node.output[0]] = node.attribute[0].t
            elif node.op_type == "Identity" and node.input[0] in found:
                found[node.output[0]] = found[node.input[0]]
    return found


def fresh(model: ModelProto) -> Callable[[str], str]:
    """A maker of tensor names that the model has not: the wish itself, or with a number."""
    taken = {name for graph in graphs(model.graph) for node in graph.node for name in (*node.input, *node.output)}
    taken |= {tensor.name for graph in graphs(model.graph) for tensor in graph.initializer}

    def make(wish: str) -> str:
        name, number = wish, 0
        while name in taken:
            number += 1
            name = f"{wish}_{number}"
        taken.add(name)
        return name

    return make


def rewrite_operands(
    graph: GraphProto,
    operand: Callable[[NodeProto, int, int], tuple[str, list[NodeProto]] | None],
) -> int:
    """Give operands of matrix operators another source, subgraphs included.

    Args:
        graph: changed in place.
        operand: for a node, an input's index and a number of the (sub)graph: the tensor to take instead and the
            nodes to put before the first consumer (each tensor's nodes once a graph), or None to leave it.

    Returns:
        How many operands were changed.
    """
    changed = 0
    nodes: list[NodeProto] = []
    made: set[str] = set()
    for node in graph.node:
        for attribute in node.attribute:
            for subgraph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                changed += rewrite_operands(subgraph, operand)
        for index in MATRIX_OPERANDS.get(node.op_type, ()) if node.domain in ("", "ai.onnx") else ():
            replacement = operand(node, index, id(graph))
            if replacement is None:
                continue
            name, before = replacement
            nodes.extend(before if name not in made else [])
            made.add(name)
            node.input[index] = name
            changed += 1
        nodes.append(node)
    _replace_nodes(graph, nodes)
    return changed


def array_of(tensor: TensorProto) -> NDArray[Any]:
    """A stored tensor's values."""
    array: NDArray[Any] = np.asarray(numpy_helper.to_array(tensor))
    return array


def _replace_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    copies = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)


def _fill_by_schema(node: NodeProto, types: dict[str, int], version: int) -> None:
    """Types that shape inference left open: an output typed like an input has that input's type."""
    if all(name in types for name in node.output if name) or not onnx.defs.has(node.op_type, node.domain):
        return
    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    known = {
        schema.inputs[min(i, len(schema.inputs) - 1)].type_str: types[name]
        for i, name in enumerate(node.input)
        if name in types
    }
    for i, name in enumerate(node.output):
        formal = schema.outputs[min(i, len(schema.outputs) - 1)].type_str
        if name and name not in types and formal in known:
            types[name] = known[formal]
