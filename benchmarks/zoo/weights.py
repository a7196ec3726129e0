"""Files whose stored weights are rounded, and what may have become of one of them on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.zoo.given import ranges_of
from benchmarks.zoo.surgery import matrix_nodes, stored
from pytest_trt.golden.create import update
from pytest_trt.lowering.lowering import at_opset, lower
from pytest_trt.model.model import load
from pytest_trt.precision import Precision
from pytest_trt.ranges.amax import Ranges

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.zoo.network import Network
    from pytest_trt.case.case import Case

__all__ = ["clipped", "coarse", "powers_of_two", "pruned_with_reference", "rounded_file", "zeroed"]

Change = Any  # levels and scale in, levels and scale out


def rounded_file(change: Change, network: Network, folder: Path, precision: str = "int8") -> Case:
    """A file with Q/DQ, or of fp16, in which the weight in the middle is changed.

    Args:
        change: takes the weight in steps of the scale and the scale, channels first, and gives both.
        network: the healthy one.
        folder: where the file goes.
        precision: int8 or fp16.
    """
    if precision == "fp16":
        proto = lower(load(network.onnx), "fp16", typed=True, keep=network.case.keep).proto
        _change_halves(proto, change)
    else:
        model = at_opset(load(network.onnx), Precision.INT8)
        proto = lower(model, "int8", Ranges(ranges_of(network))).proto
        _change_levels(proto, change)
    return network.deployed(proto, folder)


def zeroed(levels: NDArray[Any], scale: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """A quarter of the channels is zero."""
    levels[: max(1, len(levels) // 4)] = 0
    return levels, scale


def coarse(factor: int, levels: NDArray[Any], scale: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Steps that are so many times too large."""
    return np.rint(levels / factor), scale * factor


def clipped(share: float, levels: NDArray[Any], scale: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cut off at this share of the largest value."""
    return np.clip(np.rint(levels / share), -127, 127), scale * share


def powers_of_two(levels: NDArray[Any], scale: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scales that are powers of two, as tools for shifts write them."""
    wanted = np.exp2(np.ceil(np.log2(scale)))
    share = (scale / wanted).reshape(-1, *[1] * (levels.ndim - 1))
    return np.rint(levels * share), wanted


def pruned_with_reference(network: Network, folder: Path) -> Case:
    """A pruned network, quantised: its reference is pruned too, and the golden is of that."""
    proto = network.proto()
    held = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes = matrix_nodes(proto)
    tensor = held[nodes[len(nodes) // 2].input[1]]
    values = numpy_helper.to_array(tensor).copy()
    values[: max(1, len(values) // 4)] = 0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, folder / "pruned.onnx")
    pruned = replace(network.case, onnx=str(folder / "pruned.onnx"), golden=str(folder / "pruned.safetensors"))
    update(pruned, folder)
    model = at_opset(load(folder / "pruned.onnx"), Precision.INT8)
    onnx.save(lower(model, "int8", Ranges(ranges_of(network))).proto, folder / "int8.onnx")
    return replace(pruned, onnx=str(folder / "int8.onnx"), reference=str(folder / "pruned.onnx"))


def _change_levels(proto: onnx.ModelProto, change: Change) -> None:
    held = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes = [n for n in proto.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in held]
    nodes = [n for n in nodes if len(held[n.input[0]].dims) > 1]
    node = nodes[len(nodes) // 2]
    stored, scales = held[node.input[0]], held[node.input[1]]
    axis = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "axis"), 0)
    levels = np.moveaxis(numpy_helper.to_array(stored).astype(np.float32), axis, 0)
    scale = numpy_helper.to_array(scales)
    levels, scale = change(levels, scale)
    back = np.ascontiguousarray(np.moveaxis(levels, 0, axis)).astype(np.int8)
    stored.CopyFrom(numpy_helper.from_array(back, stored.name))
    scales.CopyFrom(numpy_helper.from_array(scale.astype(np.float32), scales.name))


def _change_halves(proto: onnx.ModelProto, change: Change) -> None:
    held = stored(proto)
    nodes = matrix_nodes(proto)
    node = nodes[len(nodes) // 2]
    tensor = held[node.input[1]]
    values = numpy_helper.to_array(tensor).astype(np.float32)
    first = node.op_type == "Conv" or any(a.name == "transB" and a.i for a in node.attribute)
    values = np.moveaxis(values, 0 if first else 1, 0)
    scale = np.abs(values).max(tuple(range(1, values.ndim)), keepdims=True) / 127
    levels, scale = change(values / scale, scale)
    back = np.moveaxis(levels * scale, 0, 0 if first else 1)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(back).astype(np.float16), tensor.name))
