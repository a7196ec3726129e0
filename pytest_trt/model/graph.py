"""Graph: a copy at an opset, types, constants, operands and new sources for them: what each change needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto

from pytest_trt.errors import LoweringError
from pytest_trt.model.external_data import LEAST, array_of, without_weights
from pytest_trt.model.normalise import free_name, subgraphs

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

__all__ = [
    "MATRIX_OPERANDS",
    "RECURRENT",
    "TF32_OPERANDS",
    "Operands",
    "array_of",
    "constants",
    "copy_at_opset",
    "drop_unread",
    "element_types",
    "float_activations",
    "fresh",
    "graphs",
    "is_axis_name",
    "is_standard",
    "matrix_nodes",
    "operands_of",
    "opset",
    "require_type",
    "rewrite_operands",
    "tensor_shapes",
    "with_outputs",
]

Operands = Mapping[str, tuple[int, ...]]
"""By operator: which of its inputs are meant."""

MATRIX_OPERANDS: Operands = {"Conv": (0, 1), "ConvTranspose": (0, 1), "Gemm": (0, 1), "MatMul": (0, 1)}
"""The operators of matrix units, and which of their inputs are multiplied (a bias is only added)."""

RECURRENT = ("LSTM", "GRU", "RNN")
"""The operators that multiply matrices step after step."""

TF32_OPERANDS: Operands = {
    **MATRIX_OPERANDS,
    "Einsum": tuple(range(16)),
    **dict.fromkeys(RECURRENT, (0, 1, 2)),
}
"""The operators that TF32 speaks of, and which of their inputs it rounds."""

_NO_NAMES = frozenset({"any", "dyn", "dynamic", "none", "null", "unk", "unknown", "unnamed"})
_FIRST_RESIZE_MODES = 11
_FIRST_FREE_INITIALIZERS = 4  # the IR version from which an initializer need not be an input too


def with_outputs(model: ModelProto, names: Iterable[str], kind: int | None = None) -> ModelProto:
    """A copy that gives these tensors out too.

    Args:
        model: whose outputs stay as they are.
        names: of tensors that it computes.
        kind: their element type, which lowering and TensorRT want told; onnxruntime finds it itself.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {output.name for output in model.graph.output}
    told = None if kind is None else onnx.TypeProto(tensor_type=onnx.TypeProto.Tensor(elem_type=kind))
    copy.graph.output.extend(onnx.ValueInfoProto(name=name, type=told) for name in names if name not in present)
    return copy


def opset(model: ModelProto) -> int:
    """The version of the standard operators that the model is written in."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def is_standard(node: NodeProto) -> bool:
    """Whether the operator is ONNX's own: other domains may mean anything by the same name."""
    return node.domain in ("", "ai.onnx")


def copy_at_opset(model: ModelProto, least: int) -> ModelProto:
    """A copy, its operators converted to opset ``least`` if they are older.

    Raises:
        LoweringError: onnx's version converter can't convert an operator.
    """
    copy = onnx.ModelProto()
    if opset(model) >= least:
        copy.CopyFrom(model)
    else:
        copy = _converted(model, least)
    copy.ir_version = max(copy.ir_version, _FIRST_FREE_INITIALIZERS)
    return copy


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and all its subgraphs."""
    yield graph
    for node in graph.node:
        for subgraph in subgraphs(node):
            yield from graphs(subgraph)


def operands_of(graph: GraphProto, operands: Operands) -> Iterator[tuple[NodeProto, int, bool]]:
    """Each operand that is meant: its node, its place among the inputs, and whether it is in a subgraph."""
    for part in graphs(graph):
        for node in part.node:
            for index in operands.get(node.op_type, ()) if is_standard(node) else ():
                if index < len(node.input) and node.input[index]:
                    yield node, index, part is not graph


def element_types(model: ModelProto) -> dict[str, int]:
    """TensorProto element type by tensor name, as far as onnx can infer it; 0 for what is no tensor."""
    inferred = onnx.shape_inference.infer_shapes(without_weights(model, LEAST))
    types: dict[str, int] = {}
    for graph in graphs(inferred.graph):
        types.update({tensor.name: tensor.data_type for tensor in graph.initializer})
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.WhichOneof("value")
            if kind == "tensor_type" and value.type.tensor_type.elem_type:
                types[value.name] = value.type.tensor_type.elem_type
            elif kind not in (None, "tensor_type"):
                types[value.name] = TensorProto.UNDEFINED
        for node in graph.node:
            _fill_by_schema(node, types, opset(model))
    return types


def tensor_shapes(model: ModelProto) -> dict[str, tuple[int | str | None, ...]]:
    """Shape by tensor name, as far as onnx can infer it: a size, the name of a dynamic axis, or None for any."""
    graph = onnx.shape_inference.infer_shapes(without_weights(model, LEAST)).graph
    told = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}
    return {
        name: tuple(_axis(axis) for axis in kind.shape.dim) for name, kind in told.items() if kind.HasField("shape")
    }


def is_axis_name(text: str) -> bool:
    """Whether a dynamic axis has a name by which it is the same as others of that name.

    paddle2onnx calls every dynamic axis "?", and other exporters have words of that kind.
    """
    return any(letter.isalpha() for letter in text) and text.lower() not in _NO_NAMES


def _axis(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) if is_axis_name(dim.dim_param) else None


def require_type(tensor: str, node: NodeProto, types: Mapping[str, int]) -> int:
    """The element type of a tensor that a node reads or makes.

    Raises:
        LoweringError: onnx does not know it, or it is float64, which no precision here is lowered from.
    """
    if tensor not in types:
        raise LoweringError(
            f"the type of {tensor!r} at {node.op_type} {node.name!r}"
            f"{f' of domain {node.domain!r}' if node.domain else ''} is not known to onnx, so it can't be told whether"
            " to round it. Add it to the graph's value_info, or judge a file lowered by another tool with"
            " --trt-precision=model."
        )
    if types[tensor] == TensorProto.DOUBLE and node.op_type not in ("Constant", "ConstantOfShape", "Range", "Cast"):
        raise LoweringError(
            f"{tensor!r} at {node.op_type} {node.name!r} is float64, which TensorRT does not compute in and which is"
            " not lowered. Export the model in fp32."
        )
    return types[tensor]


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


def float_activations(model: ModelProto) -> list[str]:
    """Names of the fp32 tensors that are computed or fed, in the graph's order; subgraphs are left out."""
    types, held = element_types(model), constants(model)
    inputs = [value.name for value in model.graph.input]
    names = [*inputs, *(name for node in model.graph.node for name in node.output if name)]
    return [name for name in names if name not in held and types.get(name) == TensorProto.FLOAT]


def matrix_nodes(model: ModelProto) -> frozenset[str]:
    """Names of the nodes that multiply matrices, those of RNNs included."""
    kinds = {*MATRIX_OPERANDS, "Einsum", "RNN", "GRU", "LSTM"}
    return frozenset(node.name for node in model.graph.node if node.op_type in kinds and node.name)


def fresh(model: ModelProto) -> Callable[[str], str]:
    """A maker of tensor names that the model has not: the wish itself, or with a number."""
    taken = {name for graph in graphs(model.graph) for node in graph.node for name in (*node.input, *node.output)}
    taken |= {tensor.name for graph in graphs(model.graph) for tensor in graph.initializer}

    return lambda wish: free_name(wish, taken)


def rewrite_operands(
    graph: GraphProto,
    operands: Operands,
    source: Callable[[NodeProto, int, tuple[int, ...]], tuple[str, list[NodeProto]] | None],
    scope: tuple[int, ...] = (),
) -> int:
    """Give operands another source, in subgraphs too.

    Args:
        graph: changed in place.
        operands: which are meant.
        source: for a node, an input's index and the way to the (sub)graph: the tensor to take instead and the
            nodes to put before the first consumer (each tensor's nodes once a graph), or None to leave it.
        scope: the way to this subgraph; the caller gives none.

    Returns:
        How many operands were changed.
    """
    changed, nodes, made = 0, [], set()
    for place, node in enumerate(graph.node):
        for number, subgraph in enumerate(subgraphs(node)):
            changed += rewrite_operands(subgraph, operands, source, (*scope, place, number))
        for index in operands.get(node.op_type, ()) if is_standard(node) else ():
            present = index < len(node.input) and node.input[index]
            replacement = source(node, index, scope) if present else None
            if replacement is None:
                continue
            name, before = replacement
            nodes.extend(before if name not in made else [])
            made.add(name)
            node.input[index] = name
            changed += 1
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return changed


def drop_unread(model: ModelProto) -> None:
    """Remove initializers that nothing reads any more: their lowered twins took their place."""
    read = {name for part in graphs(model.graph) for node in part.node for name in node.input}
    read |= {value.name for part in graphs(model.graph) for value in (*part.output, *part.input)}
    for graph in graphs(model.graph):
        for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
            graph.initializer.remove(tensor)


def _converted(model: ModelProto, least: int) -> ModelProto:
    try:
        found = onnx.version_converter.convert_version(model, least)
    except Exception as error:  # the converter throws C++ errors of several kinds
        text = " ".join(str(error).split())
        raise LoweringError(
            f"opset {opset(model)} is older than the {least} that is needed, and onnx can't convert it:"
            f" {text}. Export the model again at opset {least} or later."
        ) from error
    if opset(model) < _FIRST_RESIZE_MODES:
        for graph in graphs(found.graph):
            for node in graph.node:
                _resize_as_before(node)
    return found


def _resize_as_before(node: NodeProto) -> None:
    """Resize had one way to place its points before opset 11, and the converter does not write it down."""
    if node.op_type == "Resize" and not any(a.name == "coordinate_transformation_mode" for a in node.attribute):
        node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
        node.attribute.append(onnx.helper.make_attribute("nearest_mode", "floor"))


def _fill_by_schema(node: NodeProto, types: dict[str, int], version: int) -> None:
    """Types that shape inference left open: an output typed like an input has that input's type."""
    if all(name in types for name in node.output if name) or not onnx.defs.has(node.op_type, node.domain):
        return
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:  # onnxruntime knew it under ONNX's name before ONNX did
        schema = onnx.defs.get_schema(node.op_type, domain=node.domain)
    known = {
        schema.inputs[min(i, len(schema.inputs) - 1)].type_str: types[name]
        for i, name in enumerate(node.input)
        if name in types
    }
    for i, name in enumerate(node.output):
        formal = schema.outputs[min(i, len(schema.outputs) - 1)].type_str
        if name and name not in types and formal in known:
            types[name] = known[formal]
