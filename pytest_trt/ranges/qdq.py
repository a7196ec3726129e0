"""Q/DQ: the ranges that a quantised ONNX model holds in its QuantizeLinear nodes, whoever made it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto

from pytest_trt.errors import DataError
from pytest_trt.model.graph import array_of, constants
from pytest_trt.model.model import load, nodes_of
from pytest_trt.ranges.amax import FP8_LARGEST, INT8_LEVELS, Ranges, fault_of, fault_of_scale

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from onnx import ModelProto, NodeProto

__all__ = ["ranges_of_graph", "read_qdq"]

_LARGEST: dict[int, int] = {TensorProto.INT8: INT8_LEVELS, TensorProto.FLOAT8E4M3FN: FP8_LARGEST}
_DOMAINS = ("", "ai.onnx", "com.microsoft")


def read_qdq(data: bytes, path: Path, source: str) -> Ranges:  # noqa: ARG001 - the model brings files beside it
    """Ranges of a model's file.

    Raises:
        ModelError: it is no ONNX model.
        DataError: as :func:`ranges_of_graph`.
    """
    return ranges_of_graph(load(path).proto, source)


def ranges_of_graph(model: ModelProto, source: str) -> Ranges:
    """Ranges of the activations that Q nodes read: amax = scale times 127 for int8, times 448 for fp8 E4M3.

    Weights are left out: what is computed from constants alone. A tensor goes by the name that Q reads, or by the name
    of the graph's output where its DQ makes one.

    Args:
        model: with Q/DQ nodes, its constants as tensors (see :func:`pytest_trt.model.model.load`).
        source: what messages call it.

    Raises:
        DataError: there is no such node; or a zero point other than 0, a type other than int8 and fp8 E4M3, a scale a
            channel, one that is computed, zero, negative, NaN, infinite or subnormal, or two scales for one tensor;
            names the node.
    """
    held = constants(model)
    fixed = _fixed(model, set(held))
    quantise = [node for node in nodes_of(model.graph) if _is(node, "QuantizeLinear")]
    names = _names(model, quantise)
    found: dict[str, tuple[float, NodeProto]] = {}
    for node in quantise:
        if node.input[0] in fixed:
            continue
        amax = _amax(node, held, source)
        tensor = names[node.output[0]]
        first = found.setdefault(tensor, (amax, node))
        if first[0] != amax:
            raise DataError(
                f"{source}: {tensor!r} has two ranges: {first[0]!r} at {_called(first[1])}, and {amax!r} at"
                f" {_called(node)}. One tensor has one range: make the file again with one scale for both."
            )
    _require_pairs(model, quantise, held, source)
    if not found:
        raise DataError(
            f"{source}: the model has no QuantizeLinear node that reads an activation, so it holds no ranges. Give the"
            " model with Q/DQ nodes, a ranges file, or samples to calibrate on."
        )
    return Ranges({tensor: amax for tensor, (amax, _) in found.items()}, source)


def _is(node: NodeProto, operator: str) -> bool:
    return node.op_type == operator and node.domain in _DOMAINS


def _called(node: NodeProto) -> str:
    return f"{node.op_type} {node.name!r} of {node.input[0]!r}"


def _fixed(model: ModelProto, held: set[str]) -> set[str]:
    """Tensors that no input moves: constants, and what is computed from them alone."""
    fixed = set(held)
    for node in nodes_of(model.graph):
        read = [name for name in node.input if name]
        if read and fixed.issuperset(read) and not any(a.HasField("g") for a in node.attribute):
            fixed.update(node.output)
    return fixed


def _names(model: ModelProto, quantise: list[NodeProto]) -> dict[str, str]:
    """By Q's output: the fp32 model's name of what it reads, which of a graph's output is the output's own."""
    outputs = {value.name for value in model.graph.output}
    names = {node.output[0]: node.input[0] for node in quantise}
    for node in nodes_of(model.graph):
        if _is(node, "DequantizeLinear") and node.input[0] in names and node.output[0] in outputs:
            names[node.input[0]] = node.output[0]
    return names


def _amax(node: NodeProto, held: Mapping[str, TensorProto], source: str) -> float:
    where = f"{source}: {_called(node)}"
    type_ = _type(node, held, where)
    if type_ not in _LARGEST:
        raise DataError(
            f"{where} quantises to {onnx.helper.tensor_dtype_to_string(type_)} (uint8 where it has no zero point), and"
            " TensorRT takes activations in INT8 or FLOAT8E4M3FN. Make the file again with a symmetric type of these."
        )
    amax = _LARGEST[type_] * _scale(node, held, where)
    if fault_of(amax):
        raise DataError(f"{where}: its range, {amax!r}, is {fault_of(amax)}.")
    return amax


def _type(node: NodeProto, held: Mapping[str, TensorProto], where: str) -> int:
    if len(node.input) > 2 and node.input[2]:
        zero = held.get(node.input[2])
        if zero is None:
            raise DataError(f"{where}: its zero point {node.input[2]!r} is computed, not stored.")
        if array_of(zero).astype(np.float64).any():
            raise DataError(
                f"{where} is asymmetric: its zero point is {array_of(zero).reshape(-1)[0]}, and TensorRT takes 0 alone."
                " Quantise symmetrically (onnxruntime: ActivationSymmetric=True with int8)."
            )
        return int(zero.data_type)
    told = next((a.i for a in node.attribute if a.name == "output_dtype"), 0)
    return int(told) or int(TensorProto.UINT8)


def _scale(node: NodeProto, held: Mapping[str, TensorProto], where: str) -> float:
    if node.input[1] not in held:
        raise DataError(
            f"{where}: its scale {node.input[1]!r} is computed, not stored: quantise statically, or fold constants."
        )
    scales = array_of(held[node.input[1]]).astype(np.float64)
    if scales.size != 1:
        raise DataError(f"{where} has {scales.size} scales, one a channel or block; an activation takes one.")
    scale = float(scales.reshape(-1)[0])
    if fault_of_scale(scale):
        raise DataError(f"{where}: its scale {scale!r} is {fault_of_scale(scale)}.")
    return scale


def _require_pairs(model: ModelProto, quantise: list[NodeProto], held: Mapping[str, TensorProto], source: str) -> None:
    """Refuse a DQ that multiplies by another scale than its Q divided by."""
    made = {node.output[0]: node for node in quantise}
    for node in nodes_of(model.graph):
        first = made.get(node.input[0]) if _is(node, "DequantizeLinear") else None
        if first is None or not {first.input[1], node.input[1]} <= held.keys():
            continue
        divided, multiplied = (array_of(held[name]).astype(np.float64) for name in (first.input[1], node.input[1]))
        if not np.array_equal(divided.reshape(-1), multiplied.reshape(-1), equal_nan=True):
            raise DataError(f"{source}: {_called(first)} and {_called(node)} have different scales.")
