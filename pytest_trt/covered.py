"""Covered: which matrix operators of a file its Q/DQ reaches, and which it leaves out among their like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import TensorProto

from pytest_trt.described import PASSED, called, fixed_of, is_operator
from pytest_trt.lowering.graph import MATRIX_OPERANDS, element_types, is_standard
from pytest_trt.model import nodes_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from onnx import ModelProto, NodeProto

__all__ = ["Coverage", "coverage_of"]

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}


@dataclass(frozen=True)
class Coverage:
    """The matrix operators of a file with Q/DQ, by name in the graph's order.

    Attributes:
        bare: those that read an operand which no DQ made.
        gaps: of these, the ones that nobody would leave out by a rule: others of their kind are quantised, and they
            are neither the first on the way of an input nor the last on the way to an output.
        operators: how many there are.
    """

    bare: tuple[str, ...]
    gaps: tuple[str, ...]
    operators: int


def coverage_of(model: ModelProto, keep: Iterable[str] = ()) -> Coverage:
    """What Q/DQ reaches.

    Args:
        model: with Q/DQ nodes.
        keep: nodes that are in fp32 on purpose, each by its name or by a tensor that it computes; they do not count.
    """
    made = {name: node for node in nodes_of(model.graph) for name in node.output if name}
    types, kept, fixed = element_types(model), set(keep), fixed_of(model)
    nodes = [node for node in nodes_of(model.graph) if node.op_type in MATRIX_OPERANDS and is_standard(node)]
    nodes = [node for node in nodes if types.get(node.output[0], TensorProto.FLOAT) in _FLOATS]
    ends = _ends(model, nodes)
    counted = [node for node in nodes if not kept.intersection((node.name, *node.output))]
    bare = [node for node in counted if not all(_dequantised(node.input[i], made) for i in (0, 1))]
    reached = {_kind(node, fixed) for node in counted if node not in bare}
    gaps = [node for node in bare if _kind(node, fixed) in reached and node.output[0] not in ends]
    return Coverage(tuple(map(called, bare)), tuple(map(called, gaps)), len(counted))


def _kind(node: NodeProto, fixed: Collection[str]) -> tuple[str, bool, bool]:
    """Operator, whether it works in groups (depthwise), and whether it multiplies by stored weights."""
    grouped = any(a.name == "group" and a.i > 1 for a in node.attribute)
    return node.op_type, grouped, node.input[1] in fixed


def _ends(model: ModelProto, nodes: Sequence[NodeProto]) -> set[str]:
    """What the matrix operators compute that are the first on the way of an input, or the last to an output."""
    computing, order = {node.output[0] for node in nodes}, list(nodes_of(model.graph))
    return {
        *_unreached(computing, [(node.output, node.input, node.output) for node in order]),
        *_unreached(computing, [(node.output, node.output, node.input) for node in reversed(order)]),
    }


def _unreached(computing: set[str], steps: Iterable[tuple[Sequence[str], Sequence[str], Sequence[str]]]) -> set[str]:
    """Of the matrix operators those that no other one lies before, in this order of (computes, before, behind)."""
    after: set[str] = set()
    found: set[str] = set()
    for computes, before, behind in steps:
        own, is_after = computing.intersection(computes), not after.isdisjoint(before)
        if own and not is_after:
            found.update(own)
        if own or is_after:
            after.update(behind)
    return found


def _dequantised(tensor: str, made: Mapping[str, NodeProto]) -> bool:
    node = made.get(tensor)
    while node is not None and node.op_type in PASSED:
        node = made.get(node.input[0])
    return node is not None and is_operator(node, "DequantizeLinear")
