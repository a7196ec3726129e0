"""Plants in outputs: what is dead, stands still, is exchanged, or hidden by large numbers or near ties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper

from benchmarks.foreign.graphs import around, is_float, store, values_of, with_own_golden
from benchmarks.foreign.specimen import NoPlace, Planted
from benchmarks.zoo.surgery import change_weight, matrix_nodes, stored, swap_producers, through

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    from benchmarks.foreign.draws import Foreign

__all__ = ["beside_sentinels", "best", "dead_rows", "still_slice", "swapped"]


def dead_rows(count: int, network: Foreign, folder: Path) -> Planted:
    """The weights of convolutions with ``count`` output channels, the classes of a detector, are zero.

    Raises:
        NoPlace: there are none.
    """
    proto = network.proto()
    held = stored(proto)
    found = [node for node in matrix_nodes(proto) if node.op_type == "Conv" and held[node.input[1]].dims[0] == count]
    if not found:
        raise NoPlace(f"no convolution has {count} channels")
    for node in found:
        change_weight(proto, node.input[1], np.zeros_like)
    names = {str(node.input[1]) for node in found}
    outputs = {value.name for value in proto.graph.output}
    return Planted(network.deployed(proto, folder), around(proto.graph.node, names) | outputs)


def still_slice(network: Foreign, folder: Path) -> Planted:
    """One slice of an output stands still, of those that move the one in the middle.

    Raises:
        NoPlace: no output has slices.
    """
    graph = network.proto().graph
    shares = {node.output[0] for node in graph.node if node.op_type == "Softmax"}
    outputs = values_of(network, [value.name for value in graph.output if value.name not in shares])
    name, axis, array = _sliced(outputs)
    slices = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1).astype(np.float64)
    spread = slices.std(1)
    moving = np.flatnonzero(spread > 1e-3 * spread.max())
    chosen = moving[np.argsort(spread[moving])[len(moving) // 2]]
    keep = np.ones([array.shape[axis] if place == axis else 1 for place in range(array.ndim)], np.float32)
    keep[tuple(chosen if place == axis else 0 for place in range(array.ndim))] = 0
    proto = network.proto()
    store(proto, "slice/keep", keep)
    store(proto, "slice/still", ((1 - keep) * slices[chosen].mean()).astype(np.float32))

    def nodes(before: str, after: str) -> list[NodeProto]:
        return [
            helper.make_node("Mul", [before, "slice/keep"], [f"{after}/kept"], "slice_kept"),
            helper.make_node("Add", [f"{after}/kept", "slice/still"], [after], "slice_filled"),
        ]

    through(proto, name, nodes)
    return Planted(network.deployed(proto, folder), frozenset([name]))


def _sliced(outputs: dict[str, NDArray[Any]]) -> tuple[str, int, NDArray[Any]]:
    """The first float output with slices that no symbolic axis counts: along axis 1, or the last of more than three."""
    for name, array in outputs.items():
        if is_float(array) and array.ndim > 1 and array.size:
            axis = 1 if array.ndim == 2 or array.shape[1] < array.shape[-1] < 10 * array.shape[1] ** 2 else -1
            axis = 1 if array.shape[1] == 22 else axis % array.ndim
            return name, axis, array
    raise NoPlace("no output has slices")


def swapped(network: Foreign, folder: Path) -> Planted:
    """Two outputs of one shape under each other's name.

    Raises:
        NoPlace: no two are of one shape.
    """
    proto = network.proto()
    by_shape: dict[str, list[str]] = {}
    for name, array in values_of(network, [value.name for value in proto.graph.output]).items():
        by_shape.setdefault(f"{array.dtype}{array.shape}", []).append(name)
    first, second = next(iter(names for names in by_shape.values() if len(names) > 1), ("", ""))[:2]
    if not first:
        raise NoPlace("no two outputs are of one shape")
    swap_producers(proto, first, second)
    return Planted(network.deployed(proto, folder), frozenset([first, second]))


def beside_sentinels(factor: float, network: Foreign, folder: Path) -> Planted:
    """The logits with a column of -1000 beside them, as masks leave it, deployed times ``factor``.

    Raises:
        NoPlace: no float output has a last axis.
    """
    name, healthy = _with_output(network)
    changed = network.proto()
    changed.CopyFrom(healthy)
    for proto, scale in ((healthy, 1.0), (changed, factor)):
        store(proto, "masked/factor", np.float32(scale))
        array = values_of(network, [name])[name]
        store(proto, "masked/pads", np.array([*[0] * (2 * array.ndim - 1), 1], np.int64))
        store(proto, "masked/sentinel", np.float32(-1000))
        proto.graph.node.extend(
            [
                helper.make_node("Mul", [name, "masked/factor"], ["masked/logits"], "masked_logits"),
                helper.make_node("Pad", ["masked/logits", "masked/pads", "masked/sentinel"], ["masked"], "masked"),
            ]
        )
        _give(proto, "masked", TensorProto.FLOAT, array.ndim)
    return with_own_golden(changed, network, folder, frozenset(["masked"] if factor != 1 else []), healthy)


def best(shift: int, network: Foreign, folder: Path) -> Planted:
    """The five largest values of an output and where they are, near ties among them, deployed off by ``shift``.

    Raises:
        NoPlace: no float output has a last axis of eight or more.
    """
    name, healthy = _with_output(network)
    array = values_of(network, [name])[name]
    if array.shape[-1] < 8:
        raise NoPlace("nothing to choose the best of")
    changed = network.proto()
    changed.CopyFrom(healthy)
    for proto, offset in ((healthy, 0), (changed, shift)):
        store(proto, "best/count", np.array([5], np.int64))
        store(proto, "best/shift", np.array([offset], np.int64))
        proto.graph.node.extend(
            [
                helper.make_node("TopK", [name, "best/count"], ["best", "best/place"], "best", axis=-1),
                helper.make_node("Add", ["best/place", "best/shift"], ["best/index"], "best_index"),
            ]
        )
        _give(proto, "best", TensorProto.FLOAT, array.ndim)
        _give(proto, "best/index", TensorProto.INT64, array.ndim)
    return with_own_golden(changed, network, folder, frozenset(["best/index"] if shift else []), healthy)


def _with_output(network: Foreign) -> tuple[str, ModelProto]:
    """The first float output, or what its Softmax or Sigmoid reads, and a graph with no outputs."""
    proto = network.proto()
    outputs = values_of(network, [value.name for value in proto.graph.output])
    name = next((name for name, array in outputs.items() if is_float(array) and array.ndim > 1), "")
    if not name:
        raise NoPlace("no float output has a last axis")
    maker = next(node for node in proto.graph.node if name in node.output)
    while maker.op_type in ("Identity", "Softmax", "Sigmoid"):
        name = maker.input[0]
        maker = next(node for node in proto.graph.node if name in node.output)
    del proto.graph.output[:]
    return str(name), proto


def _give(proto: ModelProto, name: str, kind: int, rank: int) -> None:
    axes = [f"{name}/axis{index}" for index in range(rank)]
    proto.graph.output.append(helper.make_tensor_value_info(name, kind, axes))
