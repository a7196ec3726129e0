"""int8 and fp8: symmetric Q/DQ pairs on what :mod:`pytest_trt.lowering.placement` finds.

Activations per tensor with the given ranges, weights per output channel with their own largest value, zero
points 0, biases in float: the form that TensorRT takes, int8 from 8 on and fp8 (E4M3) from 10 on. Nothing stands
between a Conv, its BatchNorm and its Relu, so that they still fuse. A tensor that several operators read has one pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from onnx import helper, numpy_helper

from pytest_trt.errors import LoweringError
from pytest_trt.lowering.placement import kept_in_fp32, placement_of
from pytest_trt.model.external_data import replaced
from pytest_trt.model.graph import (
    MATRIX_OPERANDS,
    array_of,
    constants,
    copy_at_opset,
    drop_unread,
    fresh,
    rewrite_operands,
)
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto, TensorProto

__all__ = ["fp8_qdq", "int8_qdq", "quantised_activations"]

_FIRST_OPSET = {Precision.INT8: 13, Precision.FP8: 19}  # with a step a channel, and with fp8


@dataclass(frozen=True)
class _Grid:
    """The values that a precision has: from ``lowest`` to the precision's largest, in steps of the scale."""

    precision: Precision
    dtype: Any
    lowest: float

    def step(self, amax: float) -> float:
        step = np.float32(amax / self.precision.largest)
        return float(step) if step >= np.finfo(np.float32).tiny else 1.0

    def levels(self, steps: NDArray[Any]) -> NDArray[Any]:
        """Values in steps, as the nearest levels, halves to even."""
        whole = np.rint(steps) if self.precision is Precision.INT8 else steps
        levels: NDArray[Any] = np.clip(whole, self.lowest, self.precision.largest).astype(self.dtype)
        return levels


_INT8 = _Grid(Precision.INT8, np.int8, -128.0)
_FP8 = _Grid(Precision.FP8, ml_dtypes.float8_e4m3fn, -448.0)

_SMALLEST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
_PLACES = {**MATRIX_OPERANDS, "Add": (0, 1)}


def quantised_activations(model: ModelProto, keep: Iterable[str] = (), ops: Iterable[str] = ()) -> list[str]:
    """Names of the tensors whose ranges int8 and fp8 need, in the graph's order.

    Args:
        model: the fp32 graph.
        keep: nodes that stay in fp32, each by its name or by a tensor that it computes.
        ops: kinds of operators that are quantised: of Conv, ConvTranspose, Gemm, MatMul and Add; all if none is named.

    Raises:
        LoweringError: there is nothing to quantise, or no such node or kind of operator.
    """
    return list(placement_of(model, kept_in_fp32(model, Precision.INT8, keep, ops)).activations)


def int8_qdq(model: ModelProto, amax: Mapping[str, float], kept: frozenset[str] = frozenset()) -> ModelProto:
    """fp32 -> int8 by Q/DQ: scale = amax / 127, zero point 0, round half to even, saturate at -128 and 127.

    Args:
        model: the fp32 graph; not changed.
        amax: largest absolute value by activation; 0 makes a step of 1, so that zero stays zero.
        kept: what the nodes compute that stay in fp32.

    Raises:
        LoweringError: a range is missing, negative, NaN, infinite or too small for a float32 scale, a weight is
            NaN or infinite, or there is nothing to quantise.
    """
    return _quantised(model, amax, kept, _INT8)


def fp8_qdq(model: ModelProto, amax: Mapping[str, float], kept: frozenset[str] = frozenset()) -> ModelProto:
    """fp32 -> fp8 (E4M3) by Q/DQ: scale = amax / 448, round half to even, saturate at -448 and 448.

    Arguments and errors are those of :func:`int8_qdq`; a LoweringError too where the opset can't be raised to 19.
    """
    return _quantised(model, amax, kept, _FP8)


def _require_range(tensor: str, amax: float, grid: _Grid) -> None:
    """Zero is one: the tensor never moved, and stays zero."""
    scale = amax / grid.precision.largest
    if amax != 0 and not (_SMALLEST <= scale <= _LARGEST):
        raise LoweringError(
            f"the range of {tensor!r} is {amax!r}, whose {grid.precision.label} scale is no positive float32 that"
            " engines divide by. Look at what it was taken from."
        )


def _quantised(model: ModelProto, amax: Mapping[str, float], kept: frozenset[str], grid: _Grid) -> ModelProto:
    copy, label = copy_at_opset(model, _FIRST_OPSET[grid.precision]), grid.precision.label
    placement = placement_of(copy, kept)
    wanted = placement.activations
    missing = [name for name in wanted if name not in amax]
    if missing:
        raise LoweringError(
            f"{label} needs a range for {len(wanted)} tensors, and {len(missing)} have none:"
            f" {', '.join(map(repr, missing[:5]))}{' ...' if len(missing) > 5 else ''}."
        )
    for tensor in wanted:
        _require_range(tensor, amax[tensor], grid)
    held, name = constants(copy), fresh(copy)
    made: dict[tuple[str, int | None, tuple[int, ...]], tuple[str, list[NodeProto]]] = {}

    def source(node: NodeProto, index: int, scope: tuple[int, ...]) -> tuple[str, list[NodeProto]] | None:
        if (node.output[0], index) not in placement.operands:
            return None
        tensor = node.input[index]
        axis = _channel_axis(node, index, len(held[tensor].dims)) if tensor in held else None
        if (tensor, axis, scope) not in made:
            quantised = name(f"{tensor}/{label}"), name(f"{tensor}/dequantised")
            made[tensor, axis, scope] = (
                _weight(copy, held[tensor], axis, tensor, quantised, grid)
                if tensor in held
                else _activation(copy, tensor, amax[tensor], quantised, grid)
            )
        return made[tensor, axis, scope]

    rewrite_operands(copy.graph, _PLACES, source)
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


def _activation(
    model: ModelProto, tensor: str, amax: float, quantised: tuple[str, str], grid: _Grid
) -> tuple[str, list[NodeProto]]:
    scale, zero = _stored_grid(model, quantised[0], np.array(grid.step(amax), np.float32), grid)
    return quantised[1], [
        helper.make_node("QuantizeLinear", [tensor, scale, zero], [quantised[0]], quantised[0]),
        helper.make_node("DequantizeLinear", [quantised[0], scale, zero], [quantised[1]], quantised[1]),
    ]


def _weight(
    model: ModelProto, held: TensorProto, axis: int | None, tensor: str, quantised: tuple[str, str], grid: _Grid
) -> tuple[str, list[NodeProto]]:
    values = array_of(held)
    if not np.isfinite(values).all():
        raise LoweringError(f"weight {tensor!r} holds NaN or infinity: {grid.precision} has no value for it.")
    others = tuple(a for a in range(values.ndim) if a != axis)
    amax = np.abs(values).max(axis=others if axis is not None else None, keepdims=axis is not None)
    steps = np.vectorize(grid.step, otypes=[np.float32])(amax)
    model.graph.initializer.append(replaced(held, grid.levels(values / steps), quantised[0]))
    scale, zero = _stored_grid(model, quantised[0], steps.reshape(-1) if axis is not None else steps, grid)
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    node = helper.make_node("DequantizeLinear", [quantised[0], scale, zero], [quantised[1]], quantised[1], **attributes)
    return quantised[1], [node]


def _stored_grid(model: ModelProto, prefix: str, steps: NDArray[np.float32], grid: _Grid) -> tuple[str, str]:
    names = f"{prefix}/scale", f"{prefix}/zero"
    model.graph.initializer.append(numpy_helper.from_array(steps, names[0]))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(steps.shape, grid.dtype), names[1]))
    return names
