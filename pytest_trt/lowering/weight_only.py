"""Weight only: weights of products in few bits with scales for blocks; activations stay as they are."""

from __future__ import annotations

from collections.abc import Callable
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
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

__all__ = ["BLOCK", "Format", "WeightOnly", "int4_weights", "with_weights_in"]

BLOCK = 128
"""Weights that share a scale, along the axis that is summed over."""

_PLACES: Operands = {"MatMul": (1,), "Gemm": (1,)}
_MOST = 7.0


Store = Callable[["ModelProto", "NDArray[Any]", int, str], tuple[str, "list[NodeProto]"]]
"""Stores a weight in a model, given its values, the axis that is summed over and a name for it: the tensor that stands
for it, and the nodes that compute that."""


@dataclass(frozen=True)
class Format:
    """A way to store weights in few bits.

    Attributes:
        label: what it is called.
        block: weights that share a scale.
        opset: the first that has it.
        ir: the first version of the file that has it.
        store: does it.
        cuts: whether a last block may be shorter; else a weight whose axis no block divides stays in fp32.
        even: whether the other axis must be even.
    """

    label: str
    block: int
    opset: int
    ir: int
    store: Store
    cuts: bool = False
    even: bool = False

    def fits(self, shape: Sequence[int], axis: int) -> bool:
        """Whether a weight of this shape can be stored."""
        return (self.cuts or shape[axis] % self.block == 0) and not (self.even and shape[1 - axis] % 2)


@dataclass(frozen=True)
class WeightOnly:
    """A model with weights in few bits.

    Attributes:
        model: with what dequantises before each product.
        format: of the weights.
        weights: that were quantised, by name.
        odd: those whose axes are no multiples of the block: their last block is shorter, or they stay in fp32.
    """

    model: Model
    format: Format
    weights: tuple[str, ...]
    odd: tuple[str, ...]


def int4_weights(model: Model, keep: Iterable[str] = ()) -> WeightOnly:
    """fp32 -> int4 weights of MatMul and Gemm: scale = amax / 7 of each block, zero point 0, halves to even.

    Args:
        model: fp32; not changed.
        keep: nodes that stay in fp32, each by its name or by a tensor that it computes.

    Raises:
        LoweringError: the model holds another precision, its opset can't be raised to 21, a weight is NaN or infinite,
            it has no such node, or nothing would change.
    """
    return with_weights_in(Format("int4", BLOCK, 21, 10, _stored, cuts=True), model, keep)


def with_weights_in(format_: Format, model: Model, keep: Iterable[str] = ()) -> WeightOnly:
    """fp32 -> the stored weights of two axes of MatMul and Gemm in a format.

    Args:
        format_: of the weights.
        model: fp32; not changed.
        keep: nodes that stay in fp32, each by its name or by a tensor that it computes.

    Raises:
        LoweringError: as :func:`int4_weights`, or the format can't be had.
    """
    held, label = held_precision(model.proto), format_.label
    if held != "fp32":
        raise LoweringError(f"{model.source} already holds {held}: name the fp32 file to lower it to {label}.")
    try:
        return _lowered(format_, model, tuple(keep))
    except LoweringError as error:
        raise LoweringError(f"{model.source} at {label}: {error}") from error


def _lowered(format_: Format, model: Model, keep: tuple[str, ...]) -> WeightOnly:
    copy = copy_at_opset(model.proto, format_.opset)
    copy.ir_version = max(copy.ir_version, format_.ir)
    kept = kept_in_fp32(copy, Precision.MODEL, keep)
    held, name = constants(copy), fresh(copy)
    odd: dict[str, None] = {}
    made: dict[tuple[str, int, tuple[int, ...]], tuple[str, list[NodeProto]]] = {}

    def source(node: NodeProto, index: int, scope: tuple[int, ...]) -> tuple[str, list[NodeProto]] | None:
        tensor = node.input[index]
        taken = tensor in held and held[tensor].data_type == TensorProto.FLOAT and len(held[tensor].dims) == 2
        if not taken or kept.intersection(node.output):
            return None
        axis = 1 if any(a.name == "transB" and a.i for a in node.attribute) else 0
        fits = format_.fits(held[tensor].dims, axis)
        if held[tensor].dims[axis] % format_.block or not fits:
            odd[tensor] = None
        if not fits:
            return None
        if (tensor, axis, scope) not in made:
            values = array_of(held[tensor])
            if not np.isfinite(values).all():
                raise LoweringError(f"weight {tensor!r} holds NaN or infinity: {format_.label} has no value for it.")
            made[tensor, axis, scope] = format_.store(copy, values, axis, name(f"{tensor}/{format_.label}"))
        return made[tensor, axis, scope]

    if not rewrite_operands(copy.graph, _PLACES, source):
        raise LoweringError(
            "nothing would change: no MatMul or Gemm multiplies by a stored fp32 weight of two axes"
            f"{' that is not kept' if kept else ''}"
            f"{'' if format_.cuts else f' whose axis {format_.block} divides'}."
        )
    drop_unread(copy)
    weights = tuple(dict.fromkeys(tensor for tensor, _, _ in made))
    return WeightOnly(Model(copy, model.source), format_, weights, tuple(odd))


def _stored(model: ModelProto, values: NDArray[Any], axis: int, stored: str) -> tuple[str, list[NodeProto]]:
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
