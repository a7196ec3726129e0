"""int8: symmetric Q/DQ pairs on what the matrix operators multiply.

Activations per tensor with the given ranges, weights per output channel with their own largest value, zero
points 0, biases in float: the form that TensorRT 8 to 11 take. Nothing stands between a Conv, its BatchNorm
and its Relu, so that they still fuse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.errors import LoweringError
from pytest_trt.lowering.graph import (
    MATRIX_OPERANDS,
    array_of,
    constants,
    copy_at_opset,
    drop_unread,
    element_types,
    fresh,
    operands_of,
    require_type,
    rewrite_operands,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

__all__ = ["int8_qdq", "quantised_activations"]

_LEVELS = 127
_FIRST_PER_CHANNEL_OPSET = 13


def quantised_activations(model: ModelProto) -> list[str]:
    """Names of the tensors whose ranges :func:`int8_qdq` needs, in the graph's order.

    Raises:
        LoweringError: there is no matrix operator in the model, so int8 would change nothing.
    """
    types, held = element_types(model), constants(model)
    found: dict[str, None] = {}
    quantised = False
    for node, index, inner in operands_of(model.graph, MATRIX_OPERANDS):
        tensor = node.input[index]
        if require_type(tensor, node, types) != TensorProto.FLOAT:
            continue
        quantised = True
        if inner and tensor not in held:
            raise LoweringError(
                f"{tensor!r}, read by {node.op_type} {node.name!r}, is in a subgraph (If, Loop or Scan), where it can't"
                " be calibrated: int8 is not lowered there."
            )
        if tensor not in held:
            found[tensor] = None
    if not quantised:
        raise LoweringError(
            f"int8 would change nothing here: the model has no {', '.join(MATRIX_OPERANDS)} on fp32 tensors."
        )
    return list(found)


def int8_qdq(model: ModelProto, amax: Mapping[str, float]) -> ModelProto:
    """fp32 -> int8 by Q/DQ: scale = amax / 127, zero point 0, round half to even, saturate at -128 and 127.

    Args:
        model: the fp32 graph; not changed.
        amax: largest absolute value by activation; one too small for a step makes a step of 1, so zero stays zero.

    Raises:
        LoweringError: a range is missing, a weight is NaN or infinite, or there is nothing to quantise.
    """
    wanted = quantised_activations(model)
    missing = [name for name in wanted if name not in amax]
    if missing:
        raise LoweringError(
            f"int8 needs a range for {len(wanted)} tensors, and {len(missing)} have none:"
            f" {', '.join(map(repr, missing[:5]))}{' ...' if len(missing) > 5 else ''}."
        )
    copy = copy_at_opset(model, _FIRST_PER_CHANNEL_OPSET)
    types, held, name = element_types(copy), constants(copy), fresh(copy)
    made: dict[tuple[str, int | None, tuple[int, ...]], tuple[str, list[NodeProto]]] = {}

    def source(node: NodeProto, index: int, scope: tuple[int, ...]) -> tuple[str, list[NodeProto]] | None:
        tensor = node.input[index]
        if require_type(tensor, node, types) != TensorProto.FLOAT:
            return None
        axis = _channel_axis(node, index, array_of(held[tensor]).ndim) if tensor in held else None
        if (tensor, axis, scope) not in made:
            quantised = name(f"{tensor}/int8"), name(f"{tensor}/dequantised")
            made[tensor, axis, scope] = (
                _weight(copy, array_of(held[tensor]), axis, tensor, quantised)
                if tensor in held
                else _activation(copy, tensor, amax[tensor], quantised)
            )
        return made[tensor, axis, scope]

    rewrite_operands(copy.graph, MATRIX_OPERANDS, source)
    drop_unread(copy)
    return copy


def _channel_axis(node: NodeProto, index: int, rank: int) -> int | None:
    """The axis of output channels of a constant operand; None for one scale for all."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if index != 1 or rank < 2:
        return None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attributes.get("group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if attributes.get("transB", 0) else 1
    return 1 if rank == 2 else None


def _activation(model: ModelProto, tensor: str, amax: float, quantised: tuple[str, str]) -> tuple[str, list[NodeProto]]:
    scale, zero = _grid(model, quantised[0], np.array(_step(amax), np.float32))
    return quantised[1], [
        helper.make_node("QuantizeLinear", [tensor, scale, zero], [quantised[0]], quantised[0]),
        helper.make_node("DequantizeLinear", [quantised[0], scale, zero], [quantised[1]], quantised[1]),
    ]


def _weight(
    model: ModelProto, values: NDArray[Any], axis: int | None, tensor: str, quantised: tuple[str, str]
) -> tuple[str, list[NodeProto]]:
    if not np.isfinite(values).all():
        raise LoweringError(f"weight {tensor!r} holds NaN or infinity: int8 has no value for it.")
    others = tuple(a for a in range(values.ndim) if a != axis)
    amax = np.abs(values).max(axis=others if axis is not None else None, keepdims=axis is not None)
    steps = np.vectorize(_step, otypes=[np.float32])(amax)
    levels = np.clip(np.rint(values / steps), -_LEVELS - 1, _LEVELS).astype(np.int8)
    model.graph.initializer.append(numpy_helper.from_array(levels, quantised[0]))
    scale, zero = _grid(model, quantised[0], steps.reshape(-1) if axis is not None else steps)
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    node = helper.make_node("DequantizeLinear", [quantised[0], scale, zero], [quantised[1]], quantised[1], **attributes)
    return quantised[1], [node]


def _step(amax: float) -> float:
    step = np.float32(amax / _LEVELS)
    return float(step) if step >= np.finfo(np.float32).tiny else 1.0


def _grid(model: ModelProto, prefix: str, steps: NDArray[np.float32]) -> tuple[str, str]:
    names = f"{prefix}/scale", f"{prefix}/zero"
    model.graph.initializer.append(numpy_helper.from_array(steps, names[0]))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(steps.shape, np.int8), names[1]))
    return names
