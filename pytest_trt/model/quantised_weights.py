"""Quantised weights: what a file stores in few bits with scales by tensor, channel or block: its format, and in fp32.

Sources: ONNX's DequantizeLinear of opset 10 to 25; onnxruntime's ``com.microsoft.MatMulNBits``; OCP Microscaling
Formats 1.0 (mxfp8, mxfp4: blocks of 32 with a power of two as scale); NVFP4 is E2M1 in blocks of 16, whose E4M3 scales
have one fp32 scale themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.errors import ModelError
from pytest_trt.model.graph import array_of, constants, drop_unread, graphs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

__all__ = [
    "OF_TENSORRT",
    "QuantisedWeight",
    "dequantised",
    "quantised_weights",
    "require_sound_weights",
    "stored_dequantised",
    "stored_scale",
    "without_kernels",
]

_DOMAINS = ("", "ai.onnx", "com.microsoft")
OF_TENSORRT: Mapping[str, str] = {
    "TRT_MXFP8DequantizeLinear": "fp8",
    "TRT_FP8DequantizeLinear": "fp8",
    "TRT_INT4DequantizeLinear": "int4",
}
"""TensorRT's own operators, which ModelOpt writes and no other runtime has, and what they dequantise."""
_LABELS: Mapping[int, str] = {
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT8E5M2: "fp8-e5m2",
    TensorProto.FLOAT4E2M1: "fp4",
}
_FEWEST_IN_BLOCK = 16  # that MatMulNBits has
_PACKED_BITS = (2, 4, 8)


@dataclass(frozen=True)
class QuantisedWeight:
    """A stored weight that a node dequantises.

    Attributes:
        tensor: what is stored, by name.
        node: that dequantises it, by name, or by what it computes.
        operator: of the node: DequantizeLinear or MatMulNBits.
        kind: of the values: int4, uint4, int8, fp8, fp4 and the like; nvfp4, mxfp8 and mxfp4 say the scales too.
        grain: what one scale is for: "tensor", "channel" or "block".
        block: values of a block; 0 where there are none.
        zero_points: whether there are zero points.
        whole: whether the axis is a multiple of the block.
    """

    tensor: str
    node: str
    operator: str
    kind: str
    grain: str
    block: int = 0
    zero_points: bool = False
    whole: bool = True

    @property
    def format(self) -> str:
        """In words, as "int4 in blocks of 128"."""
        grain = f"in blocks of {self.block}" if self.block else f"by {self.grain}"
        zero = " with zero points" if self.zero_points else ""
        return f"{self.kind} {grain}{zero}{' (MatMulNBits)' if self.operator == 'MatMulNBits' else ''}"


def quantised_weights(model: ModelProto) -> Iterator[QuantisedWeight]:
    """Every stored weight behind a DequantizeLinear or in a MatMulNBits, in the graph's order; no value is read.

    Biases in int32 are none, and neither are scales that are quantised themselves.
    """
    stored = _Stored.of(model)
    scales = {node.input[1] for node in stored.dequantising()}
    for node in stored.nodes:
        if node.op_type == "MatMulNBits" and node.input[1] in stored.held:
            yield _packed(node)
        elif stored.dequantises(node) and not scales.intersection(node.output):
            values = stored.held[node.input[0]]
            if values.data_type != TensorProto.INT32:
                yield _described(node, values, stored)


def stored_dequantised(tensor: str, held: Mapping[str, TensorProto], made: Mapping[str, NodeProto]) -> NDArray[Any]:
    """The values of a tensor that is stored, or that DequantizeLinear makes of stored ones, in its own type.

    Args:
        tensor: its name.
        held: stored tensors by name.
        made: nodes by the tensors that they compute.

    Raises:
        KeyError: something of it is not stored.
    """
    if tensor in held:
        return array_of(held[tensor])
    node = made[tensor]
    if not _is_dequantize(node):
        raise KeyError(tensor)
    values, scale = array_of(held[node.input[0]]), stored_scale(node, held, made)
    zero = array_of(held[node.input[2]]) if len(node.input) > 2 and node.input[2] else None
    found = dequantised(values, scale, zero, _attribute(node, "axis", 1), _attribute(node, "block_size", 0))
    kind = _attribute(node, "output_dtype", 0)
    with np.errstate(over="ignore"):
        return found.astype(helper.tensor_dtype_to_np_dtype(kind) if kind else scale.dtype)


def stored_scale(node: NodeProto, held: Mapping[str, TensorProto], made: Mapping[str, NodeProto]) -> NDArray[Any]:
    """What a node multiplies its levels by, of any shape and float type.

    Raises:
        KeyError: something of it is not stored.
    """
    found = stored_dequantised(node.input[1], held, made)
    # TensorRT's operator takes the exponents of two, in bytes
    return found.astype(np.uint8).view(ml_dtypes.float8_e8m0fnu) if _takes_exponents(node, found) else found


def _takes_exponents(node: NodeProto, scale: NDArray[Any]) -> bool:
    return node.op_type == "TRT_MXFP8DequantizeLinear" and scale.dtype == np.uint8


def dequantised(
    values: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any] | None = None, axis: int = 1, block: int = 0
) -> NDArray[np.float32]:
    """(values - zero) x scale, as DequantizeLinear computes it, float32.

    Args:
        values: as they are stored, of any shape.
        scale: for all, for each index along the axis, or for each block of it; the last block may be cut short.
        zero: of the scale's shape; None for zero.
        axis: that channels or blocks lie along.
        block: values of a block; 0 where there are none.
    """
    with np.errstate(over="ignore"):
        found: NDArray[np.float32] = values.astype(np.float32)
        if zero is not None:
            found = found - _spread(zero.astype(np.float32), values.shape, axis, block)
        return np.asarray(found * _spread(scale.astype(np.float32), values.shape, axis, block), np.float32)


def without_kernels(model: ModelProto, runs: Callable[[NodeProto, Mapping[str, int]], bool]) -> ModelProto | None:
    """A copy that stores in floating point what DequantizeLinear makes of stored values, where nothing runs the node.

    Args:
        model: not changed.
        runs: whether a node runs, given the types of what it reads.

    Returns:
        None where all that could be stored runs.
    """
    stored = _Stored.of(model)
    types = {name: int(tensor.data_type) for name, tensor in stored.held.items()}
    types |= {node.output[0]: _output_type(node, types) for node in stored.dequantising()}
    lacking = {node.output[0] for node in stored.dequantising() if not runs(node, types)}
    if not lacking:
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for graph in graphs(copy.graph):
        _store(graph, lacking, stored)
    _drop_unread_scales(copy)
    return copy


def _store(graph: GraphProto, names: set[str], stored: _Stored) -> None:
    for node in [node for node in graph.node if names.intersection(node.output)]:
        array = stored_dequantised(node.output[0], stored.held, stored.made)
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), node.output[0]))
        graph.node.remove(node)


def _drop_unread_scales(model: ModelProto) -> None:
    """Remove what made the scales of weights that are stored in floating point now, and then what that read."""
    read = {name for graph in graphs(model.graph) for node in graph.node for name in node.input}
    read |= {value.name for graph in graphs(model.graph) for value in graph.output}
    for graph in graphs(model.graph):
        for node in [node for node in graph.node if _is_dequantize(node) and not read.intersection(node.output)]:
            graph.node.remove(node)
        held = {tensor.name for tensor in graph.initializer}
        still = {name for part in graphs(model.graph) for node in part.node for name in node.input}
        for value in [value for value in graph.input if value.name in held and value.name not in still]:
            graph.input.remove(value)  # exporters list initializers among the inputs
    drop_unread(model)


def require_sound_weights(model: ModelProto, source: str) -> None:
    """Refuse quantised weights whose scales, zero points or blocks do not fit their values.

    Args:
        model: which the checker has taken.
        source: what messages call it.

    Raises:
        ModelError: one does not fit; names the tensor.
    """
    stored = _Stored.of(model)
    for node in stored.nodes:
        fault = _fault(node, stored)
        if fault:
            raise ModelError(
                f"{source}: weight {node.input[0 if _is_dequantize(node) else 1]!r}, read by {node.op_type}"
                f" {node.name or node.output[0]!r}, {fault}. Quantise and export it again."
            )


@dataclass(frozen=True, eq=False)
class _Stored:
    """What a graph stores, and the nodes that may dequantise it."""

    held: Mapping[str, TensorProto]
    nodes: tuple[NodeProto, ...]
    made: Mapping[str, NodeProto]

    @classmethod
    def of(cls, model: ModelProto) -> _Stored:
        nodes = tuple(
            node
            for graph in graphs(model.graph)
            for node in graph.node
            if node.input and node.output and (_is_dequantize(node) or node.op_type == "MatMulNBits")
        )
        held = constants(model) if nodes else {}
        return cls(held, nodes, {node.output[0]: node for node in nodes if _is_dequantize(node)})

    def dequantises(self, node: NodeProto) -> bool:
        """Whether all that a DequantizeLinear reads is stored, or made of what is."""
        if not _is_dequantize(node) or node.input[0] not in self.held:
            return False
        zero = node.input[2] if len(node.input) > 2 else ""
        scale = node.input[1]
        known = scale in self.held or (scale in self.made and self.dequantises(self.made[scale]))
        return known and (not zero or zero in self.held)

    def dequantising(self) -> list[NodeProto]:
        """The nodes that :meth:`dequantises` tells."""
        return [node for node in self.nodes if self.dequantises(node)]

    def scale_of(self, node: NodeProto) -> tuple[tuple[int, ...], int]:
        """Shape and stored type of a node's scale; of one that is quantised itself, of its values."""
        name = node.input[1]
        tensor = self.held[name if name in self.held else self.made[name].input[0]]
        return tuple(tensor.dims), int(tensor.data_type)


def _described(node: NodeProto, values: TensorProto, stored: _Stored) -> QuantisedWeight:
    shape, kind = stored.scale_of(node)
    block = _attribute(node, "block_size", 0)
    axis = _attribute(node, "axis", 1) % max(len(values.dims), 1)
    zero = len(node.input) > 2 and bool(node.input[2]) and values.data_type not in _LABELS
    return QuantisedWeight(
        node.input[0],
        node.name or node.output[0],
        node.op_type,
        _kind(values.data_type, kind, block),
        "block" if block else "channel" if int(np.prod(shape)) > 1 else "tensor",
        block,
        zero and bool(array_of(stored.held[node.input[2]]).astype(np.int32).any()),
        not block or values.dims[axis] % block == 0,
    )


def _kind(values: int, scale: int, block: int) -> str:
    label = _LABELS.get(values) or str(TensorProto.DataType.Name(values)).lower()
    if label == "fp4" and scale == TensorProto.FLOAT8E4M3FN and block:
        return "nvfp4"
    if label in ("fp4", "fp8", "fp8-e5m2") and scale in (TensorProto.FLOAT8E8M0, TensorProto.UINT8) and block:
        return f"mx{label}"
    return label


def _packed(node: NodeProto) -> QuantisedWeight:
    zero = len(node.input) > 3 and bool(node.input[3])
    bits, block, columns = (_attribute(node, name, 4 if name == "bits" else 0) for name in ("bits", "block_size", "K"))
    return QuantisedWeight(
        node.input[1],
        node.name or node.output[0],
        node.op_type,
        f"{'uint' if zero else 'int'}{bits}",
        "block",
        block,
        zero,
        bool(block) and columns % block == 0,
    )


def _fault(node: NodeProto, stored: _Stored) -> str:
    """What does not fit, as a clause; empty where all fits, or nothing is known."""
    if node.op_type == "MatMulNBits":
        return _fault_of_packed(node, stored.held)
    if not stored.dequantises(node) or node.domain not in ("", "ai.onnx"):
        return ""
    values = stored.held[node.input[0]]
    shape, (scale, kind) = tuple(values.dims), stored.scale_of(node)
    if kind == TensorProto.FLOAT8E8M0 and not _attribute(node, "output_dtype", 0):
        return "has scales of powers of two (float8e8m0) and no output_dtype, so nothing says what it is dequantised to"
    fault = _misplaced(shape, scale, _attribute(node, "axis", 1), _attribute(node, "block_size", 0))
    if fault or len(node.input) < 3 or not node.input[2]:
        return fault
    return _fault_of_zero(stored.held[node.input[2]], values, scale)


def _misplaced(shape: tuple[int, ...], scale: tuple[int, ...], axis: int, block: int) -> str:
    """What of a scale's shape does not fit a weight's; one for all fits any."""
    told = f"has shape {list(shape)} and scales of shape {list(scale)}"
    if not block and int(np.prod(scale)) == 1:
        return ""
    if not -len(shape) <= axis < len(shape):
        return f"{told}, and its axis {axis} is none of its {len(shape)} axes"
    axis %= len(shape)
    if not block:
        fits = scale == (shape[axis],)
        return "" if fits else f"{told}, where its axis {axis} needs one scale for each of {shape[axis]}"
    if block < 0:
        return f"has a block_size of {block}, which must be positive"
    wanted = tuple(-(-size // block) if at == axis else size for at, size in enumerate(shape))
    if scale == wanted:
        return ""
    return f"{told}, where blocks of {block} along axis {axis} need {list(wanted)}: the blocks do not divide it"


def _fault_of_zero(zero: TensorProto, values: TensorProto, scale: tuple[int, ...]) -> str:
    names = [str(TensorProto.DataType.Name(one.data_type)).lower() for one in (values, zero)]
    if zero.data_type != values.data_type:
        return f"is {names[0]} and its zero point {zero.name!r} is {names[1]}: they must be of one type"
    if tuple(zero.dims) != scale and int(np.prod(zero.dims)) != int(np.prod(scale)):
        return f"has scales of shape {list(scale)} and zero points {zero.name!r} of shape {list(zero.dims)}"
    if values.data_type in _LABELS and array_of(zero).astype(np.float32).any():
        return f"is {names[0]} and its zero point {zero.name!r} is not 0, which floating point has none beside"
    return ""


def _fault_of_packed(node: NodeProto, held: Mapping[str, TensorProto]) -> str:
    names = [*node.input, "", ""]
    if names[1] not in held or names[2] not in held:
        return ""
    rows, columns, block = (_attribute(node, name, 0) for name in ("N", "K", "block_size"))
    bits = _attribute(node, "bits", 4)
    if bits not in _PACKED_BITS:
        return f"has values of {bits} bits, and only 2, 4 and 8 are known"
    if block < _FEWEST_IN_BLOCK or block & (block - 1):
        return f"has a block_size of {block}, which must be a power of two of at least {_FEWEST_IN_BLOCK}"
    blocks = -(-columns // block)
    wanted, shape = [rows, blocks, block * bits // 8], list(held[names[1]].dims)
    if shape != wanted:
        return f"has shape {shape}, where N = {rows}, K = {columns} in blocks of {block} need {wanted}"
    scales = int(np.prod(held[names[2]].dims))
    if scales != rows * blocks:
        return f"has {scales} scales in {names[2]!r}, where {rows} x {blocks} blocks need {rows * blocks}"
    return ""


def _spread(told: NDArray[np.float32], shape: tuple[int, ...], axis: int, block: int) -> NDArray[np.float32]:
    """Scales or zero points in a shape that goes with the values."""
    if told.size == 1:
        return told.reshape(())
    axis %= len(shape)
    if not block:
        return told.reshape([-1 if at == axis else 1 for at in range(len(shape))])
    wide = np.repeat(told, block, axis)
    return wide[tuple(slice(0, size) for size in shape)]


def _output_type(node: NodeProto, types: Mapping[str, int]) -> int:
    return _attribute(node, "output_dtype", 0) or types.get(node.input[1], int(TensorProto.FLOAT))


def _is_dequantize(node: NodeProto) -> bool:
    known = node.op_type == "DequantizeLinear" and node.domain in _DOMAINS
    return len(node.input) > 1 and (known or node.op_type in OF_TENSORRT)


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)
