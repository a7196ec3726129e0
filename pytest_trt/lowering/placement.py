"""Placement: which operands of a network are quantised, so that TensorRT fuses best.

NVIDIA's guide (TensorRT documentation, *Working with Quantized Types*, section *Q/DQ Layer-Placement Recommendations*)
asks to quantise

1. all inputs of weighted operators, here Conv, ConvTranspose, Gemm and MatMul, weights and activations;
2. not their outputs, so that what follows (a BatchNormalization, a bias, a Relu) fuses with them in fp32;
3. the residual input of skip connections: TensorRT adds a second tensor inside the convolution's own kernel, whose
   result can leave as integers only where that tensor comes as integers.

The residual input is the one of an Add that is not the result of a convolution made for this Add alone (a
BatchNormalization may stand between them). Where both are, as in a block with a convolution on its shortcut, the
longer branch is the one to fuse with, and the shortcut is quantised. A sum that broadcasts is no residual, and does not
fuse. Behind Gemm and MatMul nothing is quantised: TensorRT fuses sums with convolutions, and the residual stream of a
transformer goes on in floating point to a LayerNormalization and the next sum.

Everything else keeps reading fp32: a dequantised tensor feeds these operands and nothing more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import TensorProto

from pytest_trt.errors import LoweringError
from pytest_trt.lowering.graph import (
    MATRIX_OPERANDS,
    constants,
    element_types,
    graphs,
    is_standard,
    operands_of,
    require_type,
    tensor_shapes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnx import ModelProto, NodeProto

__all__ = ["Placement", "placement_of"]


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
    for node, index, inner in operands_of(model.graph, MATRIX_OPERANDS):
        tensor = node.input[index]
        if kept.intersection(node.output) or require_type(tensor, node, types) != TensorProto.FLOAT:
            continue
        if inner and tensor not in held:
            raise LoweringError(
                f"{tensor!r}, read by {node.op_type} {node.name!r}, is in a subgraph (If, Loop or Scan), where it can't"
                " be calibrated: nothing is quantised there. Keep that node in fp32."
            )
        tensors[node.output[0], index] = tensor
    if not tensors:
        raise LoweringError(
            f"quantising would change nothing here: the model has no {', '.join(MATRIX_OPERANDS)} on fp32 tensors"
            f"{' that is not kept in fp32' if kept else ''}."
        )
    tensors.update(_residual(model, types, set(held), kept, {output for output, _ in tensors}))
    return Placement(frozenset(tensors), tuple(_in_order(model, tensors, set(held))))


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
