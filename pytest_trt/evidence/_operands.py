"""Operands: where a graph multiplies by what it stores, and those values as rows, one for each output channel."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.evidence._qdq_file import called, is_operator
from pytest_trt.model.graph import RECURRENT, array_of
from pytest_trt.model.normalise import subgraphs
from pytest_trt.model.quantised_weights import OF_TENSORRT, stored_scale

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

__all__ = ["Operand", "Stored", "operands"]

_PLACES: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "Conv": ("Conv", (1,)),
    "FusedConv": ("Conv", (1,)),
    "QLinearConv": ("Conv", (3,)),
    "ConvTranspose": ("ConvTranspose", (1,)),
    "Gemm": ("MatMul", (0, 1)),
    "FusedGemm": ("MatMul", (0, 1)),
    "MatMul": ("MatMul", (0, 1)),
    "FusedMatMul": ("MatMul", (0, 1)),
    "QLinearMatMul": ("MatMul", (3,)),
    "LSTM": ("LSTM", (1, 2)),
    "GRU": ("GRU", (1, 2)),
    "RNN": ("RNN", (1, 2)),
    "Gather": ("Gather", (0,)),
    "Einsum": ("Einsum", (0, 1)),
}
"""By operator: what it is called among its like, and which of its inputs it multiplies by or looks up."""

_LAYOUT = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast")
_SAME = ("QuantizeLinear", "DequantizeLinear", "Identity", "Cast")
_CASTS: Mapping[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
}
_FLOATS = {"float64": "fp32", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_NARROW_FLOATS = {"float8_e4m3fn": "fp8", "float8_e5m2": "fp8-e5m2", "float4_e2m1fn": "fp4"}
_MOST = {"fp8": 448.0, "fp8-e5m2": 57344.0, "fp4": 6.0}


@dataclass(frozen=True, eq=False)
class Stored:
    """A weight as it is stored, and what it stands for.

    Attributes:
        rows: what it stands for, shape (channels, values), float32.
        kind: of what is stored: fp32, fp16, bf16, fp8, fp8-e5m2, fp4, or int8, uint4 and the like.
        grain: what one scale is for: "tensor", "channel" or "block"; empty where there is none.
        groups: which scale each value has: shape (channels, 1) where it is one for a channel, else as ``rows``; None
            where there is one for all, or none.
        scales: by group; None where there are none.
        symmetric: whether its zero points are 0 and it is signed.
    """

    rows: NDArray[np.float32]
    kind: str
    grain: str = ""
    groups: NDArray[np.int32] | None = None
    scales: NDArray[np.float32] | None = None
    symmetric: bool = True


@dataclass(frozen=True, eq=False)
class Operand:
    """A stored operand of two axes or more.

    Attributes:
        node: what messages call the node that multiplies by it.
        name: the node's own name; empty where it has none.
        computes: the node's first output.
        family: its operator, as its like are called: a Gemm is a MatMul.
        index: its place among the node's inputs.
        tensor: what is stored, by name.
        identity: the same for all operands that read the same stored tensor.
        shape: of its rows.
        gain: what a BatchNormalization behind a convolution multiplies each channel by; None where there is none.
    """

    node: str
    name: str
    computes: str
    family: str
    index: int
    tensor: str
    identity: int
    shape: tuple[int, int]
    gain: NDArray[np.float32] | None
    _layout: _Layout
    _chain: _Chain | _Packed
    _node: NodeProto

    def stored(self) -> Stored:
        """Its values, read now and kept nowhere."""
        chain = self._chain
        return chain.stored() if isinstance(chain, _Packed) else _stored(chain, self._layout)

    @property
    def held(self) -> TensorProto:
        """The tensor that is stored."""
        chain = self._chain
        return chain.values if isinstance(chain, _Packed) else chain.tensor

    def as_read(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows in the shape in which the node reads them."""
        return self._layout.undone(rows)

    def read(self, tensor: str) -> None:
        """Let the node read another tensor in its place; this changes the graph."""
        self._node.input[self.index] = tensor


@dataclass(frozen=True)
class _Layout:
    """How an operand's axes become rows: split into ``parts``, put in ``order``, joined into ``shape``."""

    whole: tuple[int, ...]
    parts: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, int]

    def rows(self, array: NDArray[Any]) -> NDArray[Any]:
        rows: NDArray[Any] = array.reshape(self.parts).transpose(self.order).reshape(self.shape)
        return rows

    def undone(self, rows: NDArray[Any]) -> NDArray[Any]:
        split = rows.reshape([self.parts[axis] for axis in self.order])
        return np.ascontiguousarray(split.transpose(np.argsort(self.order)).reshape(self.whole))


@dataclass(frozen=True)
class _Coding:
    """A scale and a zero point, by the tensors that hold them."""

    scale: TensorProto
    zero: TensorProto | None
    axis: int
    block: int
    kind: int


@dataclass(frozen=True)
class _Chain:
    """From what is stored to what a node reads."""

    name: str
    tensor: TensorProto
    before: tuple[NodeProto, ...]
    coding: _Coding | None
    after: tuple[NodeProto, ...]
    held: Mapping[str, TensorProto]


@dataclass(frozen=True)
class _Packed:
    """A weight of few bits with its blocks' scales, as onnxruntime's MatMulNBits holds it.

    Attributes:
        values: uint8, shape (channels, blocks, bytes of a block), the first of a byte's values in its lowest bits.
        scales: shape (channels x blocks).
        zeros: packed as the values are, or a float for each block; None where it is half of all levels.
        columns: values of a channel.
        bits: of a value.
        block: values of a block.
    """

    values: TensorProto
    scales: TensorProto
    zeros: TensorProto | None
    columns: int
    bits: int
    block: int

    def stored(self) -> Stored:
        """Its rows, as :class:`Stored` tells them."""
        packed = array_of(self.values)
        channels, blocks = packed.shape[:2]
        levels = _unpacked(packed.reshape(channels, -1), self.bits).astype(np.float32)[:, : blocks * self.block]
        scales = array_of(self.scales).astype(np.float32).reshape(-1)
        numbers = np.arange(channels * blocks, dtype=np.int32).reshape(channels, blocks)
        groups = np.repeat(numbers, self.block, 1)[:, : self.columns]
        rows = (levels[:, : self.columns] - self._zero(channels, blocks).reshape(-1)[groups]) * scales[groups]
        kind = f"{'int' if self.zeros is None else 'uint'}{self.bits}"
        return Stored(rows, kind, "block", groups, scales, self.zeros is None)

    def _zero(self, channels: int, blocks: int) -> NDArray[np.float32]:
        if self.zeros is None:
            return np.full((channels, blocks), 2 ** (self.bits - 1), np.float32)
        zeros = array_of(self.zeros)
        if zeros.dtype == np.uint8:
            zeros = _unpacked(zeros.reshape(channels, -1), self.bits)[:, :blocks]
        return np.ascontiguousarray(zeros.reshape(channels, blocks), np.float32)


def _unpacked(packed: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Rows of bytes as rows of values."""
    places = np.arange(0, 8, bits, dtype=np.uint8)
    found: NDArray[np.uint8] = (packed[..., None] >> places) & np.uint8(2**bits - 1)
    return found.reshape(len(packed), -1)


def operands(model: ModelProto) -> Iterator[Operand]:
    """Every stored operand of two axes or more, in the graph's order, those of subgraphs where they stand."""
    yield from _of_graph(model.graph, ChainMap(), ChainMap())


def _of_graph(graph: GraphProto, held: ChainMap[str, TensorProto], made: ChainMap[str, NodeProto]) -> Iterator[Operand]:
    held, made = held.new_child({t.name: t for t in graph.initializer}), made.new_child()
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            held[node.output[0]] = node.attribute[0].t
        made.update(dict.fromkeys(filter(None, node.output), node))
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in graph.node:
        for subgraph in subgraphs(node):
            yield from _of_graph(subgraph, held, made)
        yield from _of_node(node, held, made, _gain(node, readers, held))


def _of_node(
    node: NodeProto,
    held: Mapping[str, TensorProto],
    made: Mapping[str, NodeProto],
    gain: NDArray[np.float32] | None,
) -> Iterator[Operand]:
    if node.op_type == "MatMulNBits":
        yield from _of_packed(node, held)
    family, places = _PLACES.get(node.op_type, ("", ()))
    for index in places:
        chain = _chain(node, index, held, made)
        shape = _shape(chain) if chain else ()
        layout = _layout(node, family, index, shape) if chain and len(shape) > 1 and 0 not in shape else None
        if chain and layout:
            at = {3: 1}.get(index, index) if node.op_type.startswith("QLinear") else index
            folds = gain if family.startswith("Conv") and gain is not None and len(gain) == layout.shape[0] else None
            yield Operand(
                called(node),
                node.name,
                node.output[0],
                family,
                at,
                chain.name,
                id(chain.tensor),
                layout.shape,
                folds,
                layout,
                chain,
                node,
            )


def _of_packed(node: NodeProto, held: Mapping[str, TensorProto]) -> Iterator[Operand]:
    names = [*node.input, "", ""]
    told = {name: _attribute(node, name, 0) for name in ("N", "K", "bits", "block_size")}
    shape, bits = (told["N"], told["K"]), told["bits"] or 4
    stored = names[1] in held and names[2] in held and (not names[3] or names[3] in held)
    if not stored or bits not in (1, 2, 4, 8) or names[4] or 0 in shape or not told["block_size"]:
        return
    packed = _Packed(held[names[1]], held[names[2]], held.get(names[3]), shape[1], bits, told["block_size"])
    layout = _Layout(shape, shape, (0, 1), shape)
    yield Operand(
        called(node),
        node.name,
        node.output[0],
        "MatMul",
        1,
        names[1],
        id(packed.values),
        shape,
        None,
        layout,
        packed,
        node,
    )


def _chain(
    node: NodeProto, index: int, held: Mapping[str, TensorProto], made: Mapping[str, NodeProto]
) -> _Chain | None:
    if index >= len(node.input):
        return None
    name, coding = node.input[index], None
    after: list[NodeProto] = []
    before: list[NodeProto] = []
    if node.op_type.startswith("QLinear"):
        coding = _coding(node, (index + 1, index + 2), 0 if node.op_type == "QLinearConv" else -1, held, made)
    while name not in held:
        step = made.get(name)
        if step is None or not step.input:
            return None
        if is_operator(step, "DequantizeLinear") and coding is None:
            coding = _coding(step, (1, 2), _attribute(step, "axis", 1), held, made)
            if coding is None:
                return None
        elif step.op_type in _LAYOUT and (step.op_type != "Cast" or _attribute(step, "to", 0) in _CASTS):
            (before if coding else after).append(step)
        elif not is_operator(step, "QuantizeLinear"):
            return None
        name = step.input[0]
    known = held[name].data_type in (*_CASTS, TensorProto.DOUBLE) or coding is not None
    return _Chain(name, held[name], tuple(before[::-1]), coding, tuple(after[::-1]), held) if known else None


def _coding(
    node: NodeProto,
    places: tuple[int, int],
    axis: int,
    held: Mapping[str, TensorProto],
    made: Mapping[str, NodeProto],
) -> _Coding | None:
    names = [node.input[place] if place < len(node.input) else "" for place in places]
    if names[1] and names[1] not in held:
        return None
    plain = names[0] in held and node.op_type not in OF_TENSORRT
    if not plain and not is_operator(node, "DequantizeLinear"):
        return None
    try:
        scale = held[names[0]] if plain else numpy_helper.from_array(stored_scale(node, held, made))
    except KeyError:
        return None
    zero = held.get(names[1])
    kind = zero.data_type if zero is not None else int(TensorProto.UNDEFINED)
    return _Coding(scale, zero, axis, _attribute(node, "block_size", 0), kind)


def _shape(chain: _Chain) -> tuple[int, ...]:
    shape = tuple(chain.tensor.dims)
    for step in (*chain.before, *chain.after):
        found = _laid(np.broadcast_to(np.int8(0), shape), step, chain.held)
        if found is None:
            return ()
        shape = found.shape
    return shape


def _layout(node: NodeProto, family: str, index: int, shape: tuple[int, ...]) -> _Layout:
    parts, order = shape, tuple(range(len(shape)))
    first = 1
    if family == "ConvTranspose":
        group = _attribute(node, "group", 1)
        parts = (group, shape[0] // group, *shape[1:])
        order, first = (0, 2, 1, *range(3, len(parts))), 2
    elif family == "MatMul":
        turned = bool(_attribute(node, "transA" if index == 0 else "transB", 0))
        if (index == 0) == turned:  # its output channels are its last axis
            order = (len(shape) - 1, *range(len(shape) - 1))
        elif len(shape) > 2:
            order = (len(shape) - 2, *range(len(shape) - 2), len(shape) - 1)
    elif family == "Einsum":
        order, first = _einsum_order(node, index, len(shape))
    elif family in RECURRENT:
        first = 2
    sizes = [parts[axis] for axis in order]
    channels = int(np.prod(sizes[:first]))
    return _Layout(shape, parts, order, (channels, int(np.prod(shape)) // channels))


def _einsum_order(node: NodeProto, index: int, axes: int) -> tuple[tuple[int, ...], int]:
    """A factor's axes, those first that its result has of it alone, and how many these are; as they are if none is."""
    equation = next((a.s.decode() for a in node.attribute if a.name == "equation"), "").replace(" ", "")
    factors, _, result = equation.partition("->")
    labels = [*factors.split(","), "", ""][index]
    others = "".join(one for place, one in enumerate(factors.split(",")) if place != index)
    if len(labels) != axes or "." in labels or len(set(labels)) != axes:
        return tuple(range(axes)), 1
    own = [place for place, label in enumerate(labels) if label in result and label not in others]
    return (*own, *(place for place in range(axes) if place not in own)), max(len(own), 1)


def _stored(chain: _Chain, layout: _Layout) -> Stored:
    array = array_of(chain.tensor)
    kind = _FLOATS.get(str(array.dtype), "")
    casts = [step for step in chain.after if step.op_type == "Cast"]
    for step in chain.before:
        array = _laid(array, step, chain.held)
    groups = _groups(chain.coding, array.shape) if chain.coding else None
    dtype = str(array.dtype)
    for step in chain.after:
        if chain.coding is None or step.op_type != "Cast":  # levels are none of the values that are cast
            array = _laid(array, step, chain.held)
        groups = None if groups is None else _laid(groups, step, chain.held)
    if not kind or chain.coding is None:
        narrow = next((label for label in (kind, *map(_cast_to, casts)) if label != "fp32"), kind)
        rows = layout.rows(array).astype(np.float32, copy=False)
        return Stored(rows, narrow) if chain.coding is None else _decoded(rows, dtype, chain, layout, groups)
    return _decoded(layout.rows(array).astype(np.float32, copy=False), "", chain, layout, groups)


def _cast_to(node: NodeProto) -> str:
    return _FLOATS[str(np.dtype(_CASTS[_attribute(node, "to", 0)]))]


def _decoded(
    levels: NDArray[np.float32], dtype: str, chain: _Chain, layout: _Layout, groups: NDArray[np.int32] | None
) -> Stored:
    """Levels, or fp32 values that a Q turns into levels, as what they stand for."""
    coding = chain.coding
    assert coding is not None
    scales = array_of(coding.scale).astype(np.float32).reshape(-1)
    zeros = None if coding.zero is None else array_of(coding.zero).astype(np.float32).reshape(-1)
    name = dtype or _name_of(coding.kind)
    grain, places = "tensor", None
    if groups is not None:
        places = layout.rows(groups)
        same = bool((places == places[:, :1]).all())
        grain, places = ("channel", places[:, :1]) if same else ("block", places)
    scale = scales[0] if places is None else scales[places]
    zero = np.float32(0) if zeros is None else zeros[0] if places is None or zeros.size == 1 else zeros[places]
    if not dtype:
        levels = _levels(levels, scale, zero, name)
    values = levels if zeros is None or not zeros.any() else levels - zero
    kind = _NARROW_FLOATS.get(name, name)
    symmetric = not kind.startswith("u") and (zeros is None or not zeros.any())
    return Stored(values * scale, kind, grain, places, scales, symmetric)


def _levels(values: NDArray[np.float32], scale: Any, zero: Any, name: str) -> NDArray[np.float32]:
    if name in _NARROW_FLOATS:
        largest = _MOST[_NARROW_FLOATS[name]]
        clipped: NDArray[Any] = np.clip(_over(values, scale), -largest, largest)
        return clipped.astype(getattr(ml_dtypes, name)).astype(np.float32)
    bits, unsigned = int("".join(filter(str.isdigit, name))), name.startswith("u")
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    found: NDArray[np.float32] = np.clip(np.rint(_over(values, scale)) + zero, low, high).astype(np.float32)
    return found


def _over(values: NDArray[np.float32], scale: Any) -> NDArray[np.float32]:
    """Zero at a scale of zero, which makes zero of any level."""
    steps = np.broadcast_to(scale, values.shape)
    found: NDArray[np.float32] = np.divide(values, steps, out=np.zeros_like(values), where=steps != 0)
    return found


def _name_of(kind: int) -> str:
    return str(helper.tensor_dtype_to_np_dtype(kind)) if kind else "uint8"


def _groups(coding: _Coding, shape: tuple[int, ...]) -> NDArray[np.int32] | None:
    """Which scale each value of an array of this shape has; None for one for all."""
    told = tuple(coding.scale.dims)
    count = int(np.prod(told))
    if count == 1:
        return None
    axis = coding.axis % len(shape)
    if coding.block:
        numbers = np.repeat(np.arange(count, dtype=np.int32).reshape(told), coding.block, axis)
        return numbers[tuple(slice(0, size) for size in shape)]
    numbers = np.arange(count, dtype=np.int32).reshape([-1 if at == axis else 1 for at in range(len(shape))])
    return np.broadcast_to(numbers, shape)


def _laid(array: NDArray[Any], node: NodeProto, held: Mapping[str, TensorProto]) -> Any:
    """The array as a node of layout gives it on; None where that is computed."""
    op = node.op_type
    if op == "Cast":
        target = _CASTS[_attribute(node, "to", 0)]
        with np.errstate(over="ignore"):
            return array.astype(target) if array.dtype.kind in "fV" else array
    if op == "Identity":
        return array
    if op == "Transpose":
        return array.transpose(_list(node, "perm", range(array.ndim)[::-1]))
    if op == "Flatten":
        axis = _attribute(node, "axis", 1) % (array.ndim + 1)
        return array.reshape(int(np.prod(array.shape[:axis])), -1)
    told = _list(node, {"Reshape": "shape"}.get(op, "axes"), None)
    if told is None and len(node.input) > 1:
        told = array_of(held[node.input[1]]).reshape(-1).tolist() if node.input[1] in held else None
    if told is None:
        return None
    if op == "Reshape":
        return array.reshape([array.shape[at] if size == 0 else size for at, size in enumerate(told)])
    return np.squeeze(array, tuple(told)) if op == "Squeeze" else np.expand_dims(array, tuple(told))


def _gain(
    node: NodeProto, readers: Mapping[str, Sequence[NodeProto]], held: Mapping[str, TensorProto]
) -> NDArray[np.float32] | None:
    """What the one reader of a convolution multiplies its channels by, where that is a BatchNormalization."""
    reader: NodeProto | None = node
    while reader is not None and (reader is node or reader.op_type in _SAME):
        following = readers.get(reader.output[0], ()) if reader.output else ()
        reader = following[0] if len(following) == 1 else None
    if reader is None or reader.op_type != "BatchNormalization":
        return None
    names = [reader.input[1], reader.input[4]]
    if not all(name in held for name in names):
        return None
    scale, variance = (array_of(held[name]).astype(np.float64) for name in names)
    epsilon = next((a.f for a in reader.attribute if a.name == "epsilon"), 1e-5)
    return np.asarray(scale / np.sqrt(variance + epsilon), np.float32)


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _list(node: NodeProto, name: str, default: Any) -> Any:
    return next((list(a.ints) for a in node.attribute if a.name == name), default)
