"""Described: the Q/DQ of a file as it is, whoever made it, what TensorRT would refuse of it included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto

from pytest_trt.grid import Grid
from pytest_trt.lowering.graph import array_of, constants, is_standard
from pytest_trt.model import nodes_of
from pytest_trt.ranges.amax import fault_of_scale

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnx import ModelProto, NodeProto

__all__ = [
    "PASSED",
    "Refused",
    "bound_of",
    "bypassed",
    "called",
    "consumers_of",
    "described",
    "fixed_of",
    "is_operator",
    "refused_by_tensorrt",
]

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
    found: dict[str, Grid] = {}
    for node in nodes_of(model.graph):
        grid = _grid(node, held) if is_operator(node, "QuantizeLinear") and node.input[0] not in fixed else None
        if grid is not None:
            found.setdefault(node.input[0], grid)
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
    """Whether a node is this operator, of ONNX or of onnxruntime."""
    return node.op_type == operator and node.domain in _DOMAINS


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
