"""Q/DQ file: the Q/DQ of anyone's file as it is, what TensorRT would refuse of it, and which operators it reaches."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto

from pytest_trt.evidence.rounding import Grid
from pytest_trt.model.graph import (
    MATRIX_OPERANDS,
    array_of,
    constants,
    element_types,
    is_standard,
    opset,
    tensor_shapes,
)
from pytest_trt.model.model import nodes_of
from pytest_trt.model.quantised_weights import OF_TENSORRT
from pytest_trt.ranges.amax import fault_of_scale

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from onnx import ModelProto, NodeProto

__all__ = ["Refused", "bound_of", "bypassed", "consumers_of", "coverage_of", "described", "refused_by_tensorrt"]

_KINDS: dict[int, str] = {
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
    TensorProto.INT16: "int16",
    TensorProto.UINT16: "uint16",
    TensorProto.FLOAT8E4M3FN: "fp8",
    TensorProto.FLOAT8E5M2: "fp8-e5m2",
}
_DOMAINS = ("", "ai.onnx", "com.microsoft")
PASSED = ("Identity", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "MaxPool", "Slice", "Split",
           "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Dropout", "Gather", "Cast", "Pad")  # fmt: skip
"""Operators that give their first input's values on: Q/DQ may stand on either side of them."""

_INTEGER_OPS = ("QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
_BOUNDED = {"Sigmoid": 1.0, "Softmax": 1.0, "Tanh": 1.0, "HardSigmoid": 1.0}


@dataclass(frozen=True)
class Refused:
    """A node of integer arithmetic that TensorRT's parser has no import for.

    Attributes:
        node: its name, or its operator and what it reads.
        tensor: what it reads.
        what: "asymmetric", "type", "bias", "computed", "scale" or "operator".
        why: a clause for people.
    """

    node: str
    tensor: str
    what: str
    why: str


def described(model: ModelProto) -> dict[str, Grid]:
    """The grid of each activation that a Q node reads, by the tensor's name; what has no one grid is left out."""
    held, fixed = constants(model), fixed_of(model)
    back = {n.input[0]: _grid(n, held) for n in nodes_of(model.graph) if is_operator(n, "DequantizeLinear")}
    found: dict[str, Grid] = {}
    for node in nodes_of(model.graph):
        grid = _grid(node, held) if is_operator(node, "QuantizeLinear") and node.input[0] not in fixed else None
        if grid is not None:
            read = back.get(node.output[0])
            differs = read is not None and read.scale != grid.scale
            found.setdefault(node.input[0], replace(grid, read_back=read.scale) if read and differs else grid)
    return found


def refused_by_tensorrt(model: ModelProto) -> tuple[Refused, ...]:
    """Every Q and DQ whose zero point, type or scale TensorRT's parser refuses, and integer operators."""
    held = constants(model)
    return tuple(fault for node in nodes_of(model.graph) for fault in _faults(node, held))


def bypassed(model: ModelProto) -> ModelProto:
    """A copy in which activations go around their Q/DQ; weights stay as they are stored.

    A Q that holds nothing below 0 stays as a Clip at its ends: tools leave out the Relu or the Clip whose
    work it does.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    held, fixed = constants(copy), fixed_of(model)
    made = {node.output[0]: node for node in nodes_of(copy.graph) if is_operator(node, "QuantizeLinear")}
    made = {name: node for name, node in made.items() if node.input[0] not in fixed}
    for node in nodes_of(copy.graph):
        if is_operator(node, "DequantizeLinear") and node.input[0] in made:
            first = made[node.input[0]]
            grid = _grid(first, held)
            node.op_type, node.domain = "Identity", ""
            del node.attribute[:]
            node.input[:] = [first.input[0]]
            if grid is not None and grid.ends[0] == 0:
                _clip(copy, node, grid.ends[1], held[first.input[1]].data_type)
    return copy


def consumers_of(model: ModelProto) -> dict[str, str]:
    """By tensor the node that reads it first, beyond its Q/DQ."""
    readers: dict[str, NodeProto] = {}
    for node in nodes_of(model.graph):
        for name in node.input:
            readers.setdefault(name, node)
    found = {}
    for name in readers:
        reader: NodeProto | None = readers[name]
        while reader is not None and (is_operator(reader, "QuantizeLinear") or is_operator(reader, "DequantizeLinear")):
            reader = readers.get(reader.output[0])
        if reader is not None:
            found[name] = called(reader)
    return found


def bound_of(model: ModelProto) -> dict[str, float]:
    """The largest |x| that a tensor can have, where its operator tells: Clip (ReLU6), Sigmoid, Softmax, Tanh."""
    held = constants(model)
    found: dict[str, float] = {}
    for node in nodes_of(model.graph):
        bound = _bound(node, held, found)
        if bound is not None:
            found.update(dict.fromkeys(node.output, bound))
    return found


def called(node: NodeProto) -> str:
    """What messages call a node: its name, else its operator and what it computes."""
    return node.name or f"{node.op_type} of {node.output[0]}"


def fixed_of(model: ModelProto) -> set[str]:
    """Tensors that no input moves: constants, and what is computed from them alone."""
    fixed = set(constants(model))
    for node in nodes_of(model.graph):
        read = [name for name in node.input if name]
        if read and fixed.issuperset(read) and not any(a.HasField("g") for a in node.attribute):
            fixed.update(node.output)
    return fixed


def is_operator(node: NodeProto, operator: str) -> bool:
    """Whether a node is this operator, of ONNX or of onnxruntime, or TensorRT's own that dequantises."""
    own = operator == "DequantizeLinear" and node.op_type in OF_TENSORRT
    return own or (node.op_type == operator and node.domain in _DOMAINS)


def _grid(node: NodeProto, held: Mapping[str, TensorProto]) -> Grid | None:
    kind, scales = _KINDS.get(_type(node, held)), _array(node, 1, held)
    if kind is None or scales is None or scales.size != 1 or fault_of_scale(scale := float(scales.reshape(-1)[0])):
        return None
    zero = _array(node, 2, held)
    if zero is None and len(node.input) > 2 and node.input[2]:
        return None
    whole = 0 if zero is None or kind.startswith("fp8") else int(zero.reshape(-1)[0])
    return Grid(scale, whole, kind)


def _type(node: NodeProto, held: Mapping[str, TensorProto]) -> int:
    if len(node.input) > 2 and node.input[2] in held:
        return int(held[node.input[2]].data_type)
    if is_operator(node, "DequantizeLinear") and node.input[0] in held:
        return int(held[node.input[0]].data_type)
    told = next((a.i for a in node.attribute if a.name == "output_dtype"), 0)
    return int(told) or int(TensorProto.UINT8)


def _array(node: NodeProto, index: int, held: Mapping[str, TensorProto]) -> np.ndarray | None:
    name = node.input[index] if index < len(node.input) else ""
    return array_of(held[name]).astype(np.float64) if name in held else None


def _faults(node: NodeProto, held: Mapping[str, TensorProto]) -> Iterator[Refused]:
    if node.op_type.startswith(_INTEGER_OPS):
        yield Refused(called(node), node.input[0], "operator", f"is a {node.op_type}, which is no Q/DQ")
    if not node.input or not (is_operator(node, "QuantizeLinear") or is_operator(node, "DequantizeLinear")):
        return
    reads, tensor = called(node), node.input[0]
    stored = held[tensor].data_type if tensor in held else None
    if is_operator(node, "DequantizeLinear") and stored == TensorProto.INT32:
        yield Refused(reads, tensor, "bias", "reads int32, as a quantised bias is stored")
        return
    zero, scales = _array(node, 2, held), _array(node, 1, held)
    type_ = _type(node, held)
    if zero is not None and zero.any():
        yield Refused(
            reads, tensor, "asymmetric", f"has the zero point {zero.reshape(-1)[np.flatnonzero(zero)[0]]:.0f}"
        )
    elif is_operator(node, "QuantizeLinear") and type_ in (TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16):
        yield Refused(reads, tensor, "type", f"quantises to {_KINDS[type_]}")
    if scales is None:
        yield Refused(reads, tensor, "computed", "has a scale that is computed, not stored")
    elif fault := next(
        (fault_of_scale(float(scale)) for scale in scales.reshape(-1) if fault_of_scale(float(scale))), None
    ):
        yield Refused(reads, tensor, "scale", f"has a scale that is {fault}")


def _clip(model: ModelProto, node: NodeProto, high: float, type_: int) -> None:
    node.op_type = "Clip"
    if opset(model) < 11:
        node.attribute.extend([onnx.helper.make_attribute("min", 0.0), onnx.helper.make_attribute("max", high)])
        return
    for end, value in (("low", 0.0), ("high", high)):
        name = f"{node.output[0]}/{end}"
        model.graph.initializer.append(onnx.helper.make_tensor(name, type_, [], [value]))
        node.input.append(name)


def _bound(node: NodeProto, held: Mapping[str, TensorProto], found: Mapping[str, float]) -> float | None:
    if node.op_type in _BOUNDED:
        return _BOUNDED[node.op_type]
    if node.op_type == "Clip" and is_standard(node):
        low, high = _array(node, 1, held), _array(node, 2, held)
        told = {a.name: a.f for a in node.attribute}
        ends = [float(end.reshape(-1)[0]) for end in (low, high) if end is not None] or list(told.values())
        return max(map(abs, ends)) if len(ends) == 2 else None
    passes = node.op_type in (*PASSED, "Relu", "AveragePool", "GlobalAveragePool") or is_operator(
        node, "DequantizeLinear"
    )
    passes = passes or is_operator(node, "QuantizeLinear")
    return found.get(node.input[0]) if passes and node.input else None


_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}


@dataclass(frozen=True)
class Coverage:
    """The matrix operators of a file with Q/DQ, by name in the graph's order.

    Attributes:
        bare: those that read an operand which no DQ made.
        gaps: of these, the ones that nobody would leave out by a rule: others of their kind are quantised, they are
            neither the first on the way of an input nor the last on the way to an output, and some that are named
            alike but for their numbers are quantised, or none is.
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
    types, kept, kinds = element_types(model), set(keep), _Kinds(fixed_of(model), tensor_shapes(model))
    nodes = [node for node in nodes_of(model.graph) if node.op_type in MATRIX_OPERANDS and is_standard(node)]
    nodes = [node for node in nodes if types.get(node.output[0], TensorProto.FLOAT) in _FLOATS]
    ends = _ends(model, nodes)
    counted = [node for node in nodes if not kept.intersection((node.name, *node.output))]
    bare = [node for node in counted if not all(_dequantised(node.input[i], made) for i in (0, 1))]
    left = {node.output[0] for node in bare}
    reached = {kinds.of(node) for node in counted if node.output[0] not in left}
    ruled = _ruled(counted, left)
    gaps = [n for n in bare if kinds.of(n) in reached and n.output[0] not in ends and _pattern(n) not in ruled]
    return Coverage(tuple(map(called, bare)), tuple(map(called, gaps)), len(counted))


@dataclass(frozen=True)
class _Kinds:
    """What tells kinds of operators apart: tensors that no input moves, and shapes."""

    fixed: Collection[str]
    shapes: Mapping[str, Sequence[int | str | None]]

    def of(self, node: NodeProto) -> tuple[str, bool, bool, bool]:
        """Operator, whether in groups (depthwise), by stored weights, on maps of one pixel (squeeze-and-excite)."""
        grouped = any(a.name == "group" and a.i > 1 for a in node.attribute)
        pixels = tuple(self.shapes.get(node.output[0]) or ())[2:]
        pooled = node.op_type.startswith("Conv") and bool(pixels) and set(pixels) == {1}
        return node.op_type, grouped, node.input[1] in self.fixed, pooled


def _ruled(nodes: Sequence[NodeProto], left: Collection[str]) -> set[str]:
    """Patterns of names that two or more nodes have, all of them left out: somebody excluded them by name."""
    alike: dict[str, list[bool]] = {}
    for node in nodes:
        alike.setdefault(_pattern(node), []).append(node.output[0] in left)
    return {pattern for pattern, out in alike.items() if pattern and len(out) > 1 and all(out)}


def _pattern(node: NodeProto) -> str:
    """A name without its numbers, which count blocks and layers; empty where nothing else is in it but its operator."""
    words = re.sub(r"\d+", "#", node.name)
    return words if re.sub(rf"{node.op_type}|\W|[#_]", "", words) else ""


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
