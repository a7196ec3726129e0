"""Scores: outputs that hold the scores of classes at each position of a sequence, as text recognisers give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.model.graph import constants, tensor_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import ModelProto, NodeProto

__all__ = ["sequences_of_scores"]

_SOFTMAX = ("Softmax", "LogSoftmax")
_CARRIES = ("Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Add")


def sequences_of_scores(model: ModelProto) -> tuple[str, ...]:
    """The outputs of three axes, classes along the last, that a Softmax or a layer of stored weights computes.

    Features that a network normalises or activates at its end are none: their largest element means nothing.
    """
    shapes = tensor_shapes(model)
    outputs = [value.name for value in model.graph.output if len(shapes.get(value.name, ())) == 3]
    makers = {name: node for node in model.graph.node for name in node.output if name} if outputs else {}
    held = constants(model) if outputs else {}
    return tuple(name for name in outputs if _scores(name, makers, held))


def _scores(name: str, makers: Mapping[str, NodeProto], held: Mapping[str, object]) -> bool:
    node = makers.get(name)
    while node is not None and node.op_type in _CARRIES:
        left = [one for one in node.input[:2] if one and one not in held]
        if node.op_type == "Add" and len(left) != 1:
            return False  # a sum of two tensors is a residual's
        node = makers.get(left[0]) if left else None
    return node is not None and (node.op_type in _SOFTMAX or _multiplies(node, held))


def _multiplies(node: NodeProto, held: Mapping[str, object]) -> bool:
    inputs: Sequence[str] = node.input
    products = ("MatMul", "Gemm")  # a convolution has its classes along axis 1
    return node.op_type in products and any(one in held for one in inputs[:2])
