"""Weight only: weights of products in int4 with scales for blocks, round to nearest; activations stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.errors import LoweringError
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.lowering.placement import kept_in_fp32
from pytest_trt.model.graph import Operands, array_of, constants, copy_at_opset, drop_unread, fresh, rewrite_operands
from pytest_trt.model.model import Model
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

__all__ = ["BLOCK", "WeightOnly", "int4_weights"]

BLOCK = 128
"""Weights that share a scale, along the axis that is summed over."""

_FIRST_OPSET = 21  # with blocks, and int4
_FIRST_IR = 10
_PLACES: Operands = {"MatMul": (1,), "Gemm": (1,)}
_MOST = 7.0


@dataclass(frozen=True)
class WeightOnly:
    """A model with weights in few bits.

    Attributes:
        model: with a DequantizeLinear before each product.
        weights: that were quantised, by name.
        cut_short: of these, the ones whose axis is no multiple of the block, so that their last block is shorter.
    """

    model: Model
    weights: tuple[str, ...]
    cut_short: tuple[str, ...]


def int4_weights(model: Model, keep: Iterable[str] = ()) -> WeightOnly:
    """fp32 -> int4 weights of MatMul and Gemm: scale = amax / 7 of each block, zero point 0, halves to even.

    Args:
        model: fp32; not changed.
        keep: nodes that stay in fp32, each by its name or by a tensor that it computes.

    Raises:
        LoweringError: the model holds another precision, its opset can't be raised to 21, a weight is NaN or infinite,
            it has no such node, or nothing would change.
    """
    held = held_precision(model.proto)
    if held != "fp32":
        raise LoweringError(f"{model.source} already holds {held}: name the fp32 file to lower it to int4.")
    try:
        return _lowered(model, tuple(keep))
    except LoweringError as error:
        raise LoweringError(f"{model.source} at int4: {error}") from error


def _lowered(model: Model, keep: tuple[str, ...]) -> WeightOnly:
    copy = copy_at_opset(model.proto, _FIRST_OPSET)
    copy.ir_version = max(copy.ir_version, _FIRST_IR)
    kept = kept_in_fp32(copy, Precision.MODEL, keep)
    held, name = constants(copy), fresh(copy)
    cut_short: dict[str, None] = {}
    made: dict[tuple[str, int, tuple[int, ...]], tuple[str, list[NodeProto]]] = {}

    def source(node: NodeProto, index: int, scope: tuple[int, ...]) -> tuple[str, list[NodeProto]] | None:
        tensor = node.input[index]
        taken = tensor in held and held[tensor].data_type == TensorProto.FLOAT and len(held[tensor].dims) == 2
        if not taken or kept.intersection(node.output):
            return None
        axis = 1 if any(a.name == "transB" and a.i for a in node.attribute) else 0
        if held[tensor].dims[axis] % BLOCK:
            cut_short[tensor] = None
        if (tensor, axis, scope) not in made:
            made[tensor, axis, scope] = _stored(copy, array_of(held[tensor]), axis, tensor, name(f"{tensor}/int4"))
        return made[tensor, axis, scope]

    if not rewrite_operands(copy.graph, _PLACES, source):
        raise LoweringError(
            "nothing would change: no MatMul or Gemm multiplies by a stored fp32 weight of two axes"
            f"{' that is not kept' if kept else ''}."
        )
    drop_unread(copy)
    weights = tuple(dict.fromkeys(tensor for tensor, _, _ in made))
    return WeightOnly(Model(copy, model.source), weights, tuple(cut_short))


def _stored(
    model: ModelProto, values: NDArray[Any], axis: int, tensor: str, stored: str
) -> tuple[str, list[NodeProto]]:
    if not np.isfinite(values).all():
        raise LoweringError(f"weight {tensor!r} holds NaN or infinity: int4 has no value for it.")
    block = min(BLOCK, values.shape[axis])
    levels, scale = _in_blocks(values, axis, block)
    for array, name in ((levels, stored), (scale, f"{stored}/scale")):
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    made = f"{stored}/dequantised"
    told: dict[str, Any] = {"axis": axis, "block_size": block}
    return made, [helper.make_node("DequantizeLinear", [stored, f"{stored}/scale"], [made], made, **told)]


def _in_blocks(values: NDArray[Any], axis: int, block: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Levels, and the scale of each block; the last one may be shorter."""
    starts = np.arange(0, values.shape[axis], block)
    amax = np.maximum.reduceat(np.abs(values), starts, axis=axis)
    scale = (amax / _MOST).astype(np.float32)
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1))
    spread = np.repeat(scale, block, axis).take(range(values.shape[axis]), axis)
    levels: NDArray[Any] = np.clip(np.rint(values / spread), -_MOST, _MOST).astype(ml_dtypes.int4)
    return levels, scale
