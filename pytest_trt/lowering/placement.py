"""Placement: which operands are quantised, so that TensorRT fuses best, and which nodes stay in fp32."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto

from pytest_trt.errors import LoweringError
from pytest_trt.model.graph import (
    MATRIX_OPERANDS,
    TF32_OPERANDS,
    constants,
    element_types,
    graphs,
    is_standard,
    operands_of,
    require_type,
    tensor_shapes,
)
from pytest_trt.model.model import nodes_of
from pytest_trt.model.normalise import subgraphs
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from onnx import ModelProto, NodeProto

__all__ = ["kept_in_fp32", "placement_of"]

_QUANTISED = (*MATRIX_OPERANDS, "Add")

_KINDS = {
    Precision.INT8: _QUANTISED,
    Precision.FP8: _QUANTISED,
    Precision.TF32: tuple(TF32_OPERANDS),
}


def kept_in_fp32(
    model: ModelProto, precision: Precision, keep: Iterable[str] = (), ops: Iterable[str] = ()
) -> frozenset[str]:
    """What the nodes compute that stay in fp32: names of tensors, which are unique where names of nodes need not be.

    Args:
        model: to be lowered.
        precision: to be lowered to.
        keep: nodes, each by its name or by a tensor that it computes; with a node the bodies that it holds.
        ops: kinds of operators that are lowered, all others being kept; if none, nothing is kept by its kind. For int8
            and fp8 of Conv, ConvTranspose, Gemm, MatMul and Add (the residual ones), for tf32 of the operators that
            multiply matrices, for fp16 and bf16 of all operators.

    Raises:
        LoweringError: there is no such node, or the precision lowers no such operator; names the nearest.
    """
    words, kinds = tuple(keep), tuple(ops)
    nodes = [node for node in nodes_of(model.graph) if node.op_type != "Constant"]
    for kind in kinds:
        _require_kind(kind, precision, nodes)
    for word in words:
        _require_node(word, nodes)
    kept: set[str] = set()
    for node in nodes:
        if {node.name, *node.output}.intersection(words):
            kept.update(_computed_by(node))
        elif kinds and node.op_type not in kinds:
            kept.update(node.output)
    return frozenset(kept - {""})


def _computed_by(node: NodeProto) -> Iterator[str]:
    yield from node.output
    for subgraph in subgraphs(node):
        for inner in nodes_of(subgraph):
            yield from inner.output


def _require_kind(kind: str, precision: Precision, nodes: list[NodeProto]) -> None:
    known = _KINDS.get(precision)
    present = sorted({node.op_type for node in nodes})
    if kind in (known or present) or (known is None and onnx.defs.has(kind)):
        return
    near = difflib.get_close_matches(kind, known or present, n=1, cutoff=0.0)
    raise LoweringError(
        f"ops: {precision} lowers no operator {kind!r}: did you mean {near[0]!r}? (known:"
        f" {', '.join(known or present)}; operators go by their kind, nodes by their names in keep)"
    )


def _require_node(word: str, nodes: list[NodeProto]) -> None:
    names = list(dict.fromkeys(name for node in nodes for name in (node.name, *node.output) if name))
    if word and word in names:
        return
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.0)
    raise LoweringError(
        f"keep: the model has no node {word!r}; the nearest are {', '.join(map(repr, near))}. A node goes by its name,"
        " or by the name of a tensor that it computes: Netron shows both, and so does"
        " python -c \"import onnx; print(onnx.printer.to_text(onnx.load('FILE').graph))\"."
    )


@dataclass(frozen=True)
class Placement:
    """Where Q/DQ goes.

    Attributes:
        operands: the inputs that read a quantised tensor: first output of the node, and the input's index.
        activations: the tensors among them that need a range, in the graph's order; the others are weights.
    """

    operands: frozenset[tuple[str, int]]
    activations: tuple[str, ...]


def placement_of(model: ModelProto, kept: frozenset[str] = frozenset()) -> Placement:
    """Which operands of a model are quantised.

    Args:
        model: the fp32 graph.
        kept: what the nodes compute that stay in fp32.

    Raises:
        LoweringError: nothing would be quantised, or an activation inside a subgraph would have to be.
    """
    types, held = element_types(model), constants(model)
    tensors: dict[tuple[str, int], str] = {}
    inside: list[tuple[NodeProto, str]] = []
    for node, index, inner in operands_of(model.graph, MATRIX_OPERANDS):
        tensor = node.input[index]
        if kept.intersection(node.output) or require_type(tensor, node, types) != TensorProto.FLOAT:
            continue
        if inner and tensor not in held:
            inside.append((node, tensor))
        tensors[node.output[0], index] = tensor
    if inside:
        raise _not_calibrated(inside)
    if not tensors:
        raise LoweringError(
            f"quantising would change nothing here: the model has no {', '.join(MATRIX_OPERANDS)} on fp32 tensors"
            f"{' that is not kept in fp32' if kept else ''}."
        )
    tensors.update(_residual(model, types, set(held), kept, {output for output, _ in tensors}))
    return Placement(frozenset(tensors), tuple(_in_order(model, tensors, set(held))))


def _not_calibrated(inside: list[tuple[NodeProto, str]]) -> LoweringError:
    """All nodes at once, as ``keep`` names them, so that to keep them is enough."""
    node, tensor = inside[0]
    called = Counter(other.name for other in {id(one): one for one, _ in inside}.values())
    words = [one.name if one.name and called[one.name] == 1 else one.output[0] for one, _ in inside]
    return LoweringError(
        f"{tensor!r}, read by {node.op_type} {node.name!r}, is in a subgraph (If, Loop or Scan), where it can't be"
        " calibrated: nothing is quantised there. Keep what multiplies there in fp32: keep ="
        f" [{', '.join(json.dumps(word) for word in dict.fromkeys(words))}]."
    )


def _in_order(model: ModelProto, tensors: Mapping[tuple[str, int], str], held: set[str]) -> dict[str, None]:
    places = [
        (node.output[0], index)
        for part in graphs(model.graph)
        for node in part.node
        for index in range(len(node.input))
        if node.output
    ]
    return dict.fromkeys(tensors[place] for place in places if place in tensors and tensors[place] not in held)


def _residual(
    model: ModelProto, types: Mapping[str, int], held: set[str], kept: frozenset[str], quantised: set[str]
) -> Iterator[tuple[tuple[str, int], str]]:
    """The residual inputs of Adds behind quantised convolutions."""
    read = Counter(name for part in graphs(model.graph) for node in part.node for name in node.input)
    read.update(value.name for part in graphs(model.graph) for value in part.output)
    convolved = set(_convolved(model, read, quantised))
    adds = [node for node in model.graph.node if node.op_type == "Add" and convolved.intersection(node.input)]
    shapes, longest = (tensor_shapes(model), _convolutions_before(model)) if adds else ({}, {})
    for node in adds:
        ends = list(node.input)
        summed = all(tensor not in held and types.get(tensor) == TensorProto.FLOAT for tensor in ends)
        if not (summed and is_standard(node) and ends[0] != ends[1]) or kept.intersection(node.output):
            continue
        branch = max((0, 1), key=lambda index: (ends[index] in convolved, longest.get(ends[index], 0)))
        if not _broadcast(shapes.get(ends[0]), shapes.get(ends[1])):
            yield (node.output[0], 1 - branch), ends[1 - branch]


def _convolved(model: ModelProto, read: Mapping[str, int], quantised: set[str]) -> Iterator[str]:
    """Results of quantised convolutions, behind their BatchNormalization or without one, that are read once."""
    found: set[str] = set()
    for node in model.graph.node:
        first = node.op_type == "Conv" and node.output[0] in quantised
        follows = node.op_type == "BatchNormalization" and node.input[0] in found
        if (first or follows) and is_standard(node) and read[node.output[0]] == 1:
            found.add(node.output[0])
            yield node.output[0]


def _convolutions_before(model: ModelProto) -> dict[str, int]:
    """By tensor, how many convolutions the longest way to it goes through."""
    longest: dict[str, int] = {}
    for node in model.graph.node:
        before = max((longest.get(name, 0) for name in node.input), default=0)
        longest.update(dict.fromkeys(node.output, before + _is_convolution(node)))
    return longest


def _is_convolution(node: NodeProto) -> bool:
    return node.op_type == "Conv" and is_standard(node)


def _differ(first: int | str | None, second: int | str | None) -> bool:
    return isinstance(first, int) and isinstance(second, int) and first != second


def _broadcast(first: tuple[int | str | None, ...] | None, second: tuple[int | str | None, ...] | None) -> bool:
    if first is None or second is None:
        return False
    pairs = zip(first, second, strict=False)
    return len(first) != len(second) or any((a != b and 1 in (a, b)) or _differ(a, b) for a, b in pairs)
