"""Casts: fp16, bf16 and tf32 as rounding written into the graph; a typed graph as one that rounds alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.errors import LoweringError
from pytest_trt.lowering.batch_normalization import fold_batch_normalization
from pytest_trt.lowering.weights import Rounding, round_stored, set_aside, sizes_of, to_bf16, to_fp16
from pytest_trt.model.external_data import replaced
from pytest_trt.model.graph import (
    MATRIX_OPERANDS,
    TF32_OPERANDS,
    array_of,
    constants,
    copy_at_opset,
    drop_unread,
    element_types,
    fresh,
    graphs,
    require_type,
    rewrite_operands,
)
from pytest_trt.model.model import nodes_of, tensors_of
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

__all__ = ["as_sandwich", "bf16_sandwich", "fp16_sandwich", "fp32_ends", "round_to_tf32", "tf32_emulated"]

_FIRST_BF16_CAST = 13
_PASSING = ("Constant", "Identity")  # values stored, which are rounded as such, or passed on


def fp16_sandwich(model: ModelProto, kept: frozenset[str] = frozenset()) -> ModelProto:
    """fp32 -> fp16 rounding of weights, inputs and every float tensor; overflow becomes infinity.

    Args:
        model: the fp32 graph; not changed.
        kept: what the nodes compute that stay in fp32: their weights are not rounded, and their results only where a
            node reads them that does not stay so.

    Raises:
        LoweringError: the type of a tensor can't be inferred, or every node is kept.
    """
    copy = copy_at_opset(model, 0)
    return _sandwich(copy, kept, TensorProto.FLOAT16, Precision.FP16, to_fp16)


def bf16_sandwich(model: ModelProto, kept: frozenset[str] = frozenset()) -> ModelProto:
    """fp32 -> bf16 rounding of weights, inputs and every float tensor.

    Arguments and errors are those of :func:`fp16_sandwich`; a LoweringError too where the opset can't be raised to 13.
    """
    copy = copy_at_opset(model, _FIRST_BF16_CAST)
    return _sandwich(copy, kept, TensorProto.BFLOAT16, Precision.BF16, to_bf16)


def tf32_emulated(model: ModelProto, kept: frozenset[str] = frozenset()) -> ModelProto:
    """Operands of matrix products (Conv, ConvTranspose, Gemm, MatMul, Einsum, RNNs) rounded to TF32's 10 stored bits.

    Weights are rounded to nearest even. Activations are rounded in the graph by Veltkamp's splitting
    (c = (2^13 + 1) x; c - (c - x)); one beyond 2^114 would overflow in it and becomes NaN, which fails.

    Args:
        model: the fp32 graph; not changed.
        kept: what the nodes compute whose operands are not rounded.

    Raises:
        LoweringError: there is no matrix product in fp32, or the type of an operand is not known.
    """
    copy = copy_at_opset(model, 0)
    types, held, name = element_types(copy), constants(copy), fresh(copy)
    factor = name("trt/veltkamp")
    rounded: dict[tuple[str, tuple[int, ...]], tuple[str, list[NodeProto]]] = {}

    def source(node: NodeProto, index: int, scope: tuple[int, ...]) -> tuple[str, list[NodeProto]] | None:
        tensor = node.input[index]
        if kept.intersection(node.output) or require_type(tensor, node, types) != TensorProto.FLOAT:
            return None
        key = (tensor, scope)
        if key not in rounded and tensor in held:
            rounded[key] = (_rounded(copy, held[tensor], name(f"{tensor}/tf32")), [])
        elif key not in rounded:
            rounded[key] = _veltkamp(tensor, factor, name)
        return rounded[key]

    if not rewrite_operands(copy.graph, TF32_OPERANDS, source):
        raise LoweringError(
            f"tf32 would change nothing here: the model has no {', '.join(MATRIX_OPERANDS)} on fp32 tensors"
            f"{' that is not kept in fp32' if kept else ''}."
        )
    _store(copy, factor, np.array(2.0**13 + 1, np.float32))
    drop_unread(copy)
    return copy


def fp32_ends(model: ModelProto) -> ModelProto:
    """Inputs and outputs of bf16 or fp8 turned into fp32 by a Cast, since numpy can't hand them to onnxruntime.

    Their values are rounded to the narrow type still; a model without such ends is returned as it is.
    """
    held = {tensor.name for tensor in model.graph.initializer}
    ends = [v for v in (*model.graph.input, *model.graph.output) if v.name not in held and _is_narrow(v)]
    if not ends:
        return model
    copy = copy_at_opset(model, _FIRST_BF16_CAST)
    name = fresh(copy)
    for value in copy.graph.input:
        if value.name not in held and _is_narrow(value):
            inner = name(f"{value.name}/narrow")
            _read_instead(copy.graph, value.name, inner)
            copy.graph.node.insert(0, _cast(value.name, inner, value.type.tensor_type.elem_type))
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for value in copy.graph.output:
        if _is_narrow(value):
            outer = name(f"{value.name}/fp32")
            copy.graph.node.append(_cast(value.name, outer, TensorProto.FLOAT))
            value.name, value.type.tensor_type.elem_type = outer, TensorProto.FLOAT
    return copy


def round_to_tf32(array: NDArray[Any]) -> NDArray[np.float32]:
    """fp32 values with 10 stored bits of the significand, rounded to nearest even; NaN and Inf stay."""
    values = np.ascontiguousarray(array, np.float32)
    bits = values.view(np.uint32).astype(np.uint64)
    even = (bits >> np.uint64(13)) & np.uint64(1)
    nearest = ((bits + np.uint64(0xFFF) + even) & np.uint64(0xFFFFE000)).astype(np.uint32)
    return np.where(np.isfinite(values), nearest.view(np.float32), values).reshape(np.shape(array))


@dataclass(frozen=True)
class _Sandwich:
    """How a graph is rounded.

    Attributes:
        to: TensorProto's number of the type to round to.
        label: its name.
        types: element type by tensor.
        kept: what the nodes compute that stay in fp32.
        sizes: tensors that tell sizes and thresholds, which are never rounded.
        name: makes names of tensors.
    """

    to: int
    label: str
    types: Mapping[str, int]
    kept: frozenset[str]
    sizes: set[str]
    name: Callable[[str], str]

    def keeps(self, node: NodeProto) -> bool:
        return not self.kept.isdisjoint(node.output)

    def rounds(self, output: str, node: NodeProto) -> bool:
        """Whether a tensor that a node makes is rounded."""
        return bool(output) and output not in self.sizes and require_type(output, node, self.types) == TensorProto.FLOAT

    def pair(self, source: str, target: str) -> list[NodeProto]:
        low = self.name(f"{target}/{self.label}")
        return [
            helper.make_node("Cast", [source], [low], f"{target}/to_{self.label}", to=self.to),
            helper.make_node("Cast", [low], [target], f"{target}/to_fp32", to=TensorProto.FLOAT),
        ]


def _sandwich(copy: ModelProto, kept: frozenset[str], to: int, precision: Precision, rounding: Rounding) -> ModelProto:
    fold_batch_normalization(copy, kept)
    name = fresh(copy)
    how = _Sandwich(to, precision.label, element_types(copy), kept, sizes_of(copy.graph), name)
    if kept:
        _require_something_rounded(copy, how)
    round_stored(copy, how.sizes | kept | set_aside(copy, kept, name), rounding, precision.largest)
    rounded = _rounded_for_others(copy, how)
    for graph in graphs(copy.graph):
        _round_computed(graph, how, rounded)
    _round_inputs(copy.graph, how)
    return copy


def _require_something_rounded(model: ModelProto, how: _Sandwich) -> None:
    computing = [node for node in nodes_of(model.graph) if node.op_type not in _PASSING and not how.keeps(node)]
    if not any(how.rounds(output, node) for node in computing for output in node.output):
        raise LoweringError(f"{how.label} would change nothing here: every node is kept in fp32. Keep fewer.")


def _rounded_for_others(model: ModelProto, how: _Sandwich) -> dict[str, str]:
    """What kept nodes make, by name, and the rounded tensor that all other nodes read in its place from now on."""
    others = [node for node in nodes_of(model.graph) if not how.keeps(node)]
    read = {tensor for node in others for tensor in node.input}
    makers = [node for node in nodes_of(model.graph) if how.keeps(node)]
    rounded = {
        output: how.name(f"{output}/rounded")
        for node in makers
        for output in node.output
        if output in read and how.rounds(output, node)
    }
    for node in others:
        node.input[:] = [rounded.get(tensor, tensor) for tensor in node.input]
    return rounded


def _round_computed(graph: GraphProto, how: _Sandwich, rounded: Mapping[str, str]) -> None:
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        if how.keeps(node):
            for output in filter(rounded.__contains__, node.output):
                nodes.extend(how.pair(output, rounded[output]))
        elif node.op_type not in _PASSING:
            for index, output in enumerate(node.output):
                if how.rounds(output, node):
                    node.output[index] = how.name(f"{output}/exact")
                    nodes.extend(how.pair(node.output[index], output))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _round_inputs(graph: GraphProto, how: _Sandwich) -> None:
    held = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name in held | how.sizes or how.types.get(value.name) != TensorProto.FLOAT:
            continue
        rounded = how.name(f"{value.name}/{how.label}")
        _read_instead(graph, value.name, rounded, how.kept)
        for position, node in enumerate(how.pair(value.name, rounded)):
            graph.node.insert(position, node)


def _read_instead(graph: GraphProto, old: str, new: str, kept: frozenset[str] = frozenset()) -> None:
    for node in nodes_of(graph):
        if kept.isdisjoint(node.output):
            node.input[:] = [new if tensor == old else tensor for tensor in node.input]


def _is_narrow(value: onnx.ValueInfoProto) -> bool:
    kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    return kind == "BFLOAT16" or kind.startswith("FLOAT8")


def _cast(source: str, target: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], f"{target}/cast", to=to)


def _veltkamp(tensor: str, factor: str, name: Callable[[str], str]) -> tuple[str, list[NodeProto]]:
    scaled, rest, high = (name(f"{tensor}/{part}") for part in ("tf32_scaled", "tf32_rest", "tf32"))
    return high, [
        helper.make_node("Mul", [tensor, factor], [scaled], scaled),
        helper.make_node("Sub", [scaled, tensor], [rest], rest),
        helper.make_node("Sub", [scaled, rest], [high], high),
    ]


def _rounded(model: ModelProto, held: TensorProto, name: str) -> str:
    model.graph.initializer.append(replaced(held, round_to_tf32(array_of(held)), name))
    return name


def _store(model: ModelProto, name: str, array: NDArray[Any]) -> str:
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
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
            tensor.CopyFrom(replaced(tensor, array_of(tensor).astype("float32")))
    for graph in graphs(copy.graph):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type in _NARROW:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
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
        helper.make_node("Cast", [exact], [low], f"{low}/narrowed", to=to),
        helper.make_node("Cast", [low], [output], f"{output}/widened", to=TensorProto.FLOAT),
    ]
