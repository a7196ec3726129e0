"""Files of a changed network, each judged by what the healthy network computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.zoo.network import MEAN, SPREAD
from benchmarks.zoo.surgery import (
    change_weight,
    drop_residual,
    matrix_nodes,
    middle_weight,
    prepend,
    rescale_between,
    set_attribute,
    swap_producers,
    through,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    from benchmarks.zoo.network import Network
    from pytest_trt.case.case import Case

__all__ = [
    "another_axis",
    "another_epsilon",
    "another_pooling",
    "batch_epsilon",
    "batch_statistics",
    "dead_input",
    "edited",
    "exchanged_coordinates",
    "flipped_bit",
    "head_weights",
    "kernel_changed",
    "label_off_by_one",
    "large_between",
    "middle_changed",
    "nan_weight",
    "no_bias",
    "no_last_activation",
    "no_rectifier",
    "no_residual",
    "normalised_twice",
    "one_channel_pruned",
    "raw_image",
    "reordered_input",
    "shifted_padding",
    "small_weights",
    "swapped_outputs",
    "truncated",
    "unscaled",
    "weight_beyond_fp16",
]


def edited(change: Callable[[ModelProto], None], network: Network, folder: Path) -> Case:
    """The deployment of a changed graph."""
    proto = network.proto()
    change(proto)
    return network.deployed(proto, folder)


def middle_changed(change: Callable[[NDArray[Any]], NDArray[Any]], proto: ModelProto) -> None:
    """Change the weight in the middle of the network."""
    change_weight(proto, middle_weight(proto), change)


def kernel_changed(change: Callable[[NDArray[Any]], NDArray[Any]], proto: ModelProto) -> None:
    """Change the kernel in the middle of those of more than one pixel."""
    change_weight(proto, middle_weight(proto, window=True), change)


def head_weights(change: Callable[[NDArray[Any]], NDArray[Any]], proto: ModelProto) -> None:
    """Change weight and bias of the last node that multiplies, class by class along axis 0."""
    head = matrix_nodes(proto)[-1]
    for name in head.input[1:]:
        change_weight(proto, name, change)


def nan_weight(proto: ModelProto) -> None:
    """One NaN in the middle of the network."""

    def change(values: NDArray[Any]) -> NDArray[Any]:
        values.flat[values.size // 2] = np.nan
        return values

    middle_changed(change, proto)


def flipped_bit(proto: ModelProto) -> None:
    """The highest bit of the exponent of one weight in the middle is flipped."""

    def change(values: NDArray[Any]) -> NDArray[Any]:
        bits = values.view(np.uint32)
        bits.flat[values.size // 2] ^= np.uint32(1 << 28)
        return values

    middle_changed(change, proto)


def no_last_activation(proto: ModelProto) -> None:
    """The last Softmax and Sigmoid are lost."""
    for node in proto.graph.node:
        if node.op_type in ("Softmax", "Sigmoid"):
            node.op_type = "Identity"
            del node.attribute[:]


def one_channel_pruned(proto: ModelProto) -> None:
    """The strongest output channel of the first layer is zero."""
    first = matrix_nodes(proto)[0]
    axis = 0 if first.op_type == "Conv" else 1

    def change(values: NDArray[Any]) -> NDArray[Any]:
        moved = np.moveaxis(values, axis, 0)
        moved[np.argmax(np.abs(moved).reshape(len(moved), -1).sum(1))] = 0
        return values

    change_weight(proto, first.input[1], change)


def truncated(digits: int | None, proto: ModelProto) -> None:
    """All weights as a file of few decimal digits keeps them, or of the upper half of their bits."""

    def change(values: NDArray[Any]) -> NDArray[Any]:
        if digits is not None:
            return np.round(values, digits).astype(np.float32)
        return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)

    for node in matrix_nodes(proto):
        change_weight(proto, node.input[1], change)


def no_bias(proto: ModelProto) -> None:
    """The last layer's bias is lost."""
    change_weight(proto, matrix_nodes(proto)[-1].input[2], np.zeros_like)


def no_residual(proto: ModelProto) -> None:
    """A shortcut is lost."""
    drop_residual(proto)


def no_rectifier(proto: ModelProto) -> None:
    """A Relu is lost."""
    nodes = [node for node in proto.graph.node if node.op_type in ("Relu", "Clip")]
    chosen = nodes[len(nodes) // 2]
    chosen.op_type = "Identity"
    del chosen.input[1:]


def unscaled(proto: ModelProto) -> None:
    """Attention without its scale: the Softmax in the middle is fed eight times as much."""
    chosen = next(node for node in proto.graph.node if node.op_type == "Softmax")
    rescale = helper.make_node("Mul", [chosen.input[0], "eight"], ["unscaled"], "unscaled")
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(8), "eight"))
    proto.graph.node.insert(list(proto.graph.node).index(chosen), rescale)
    chosen.input[0] = "unscaled"


def another_axis(proto: ModelProto) -> None:
    """Softmax along the wrong axis."""
    chosen = next(node for node in proto.graph.node if node.op_type == "Softmax")
    axis = next(attribute.i for attribute in chosen.attribute if attribute.name == "axis")
    set_attribute(chosen, "axis", -2 if axis == -1 else axis - 1)


def another_epsilon(proto: ModelProto) -> None:
    """Every LayerNormalization with epsilon 1e-3 in place of 1e-5."""
    for node in proto.graph.node:
        if node.op_type == "LayerNormalization":
            set_attribute(node, "epsilon", 1e-3)


def another_pooling(proto: ModelProto) -> None:
    """Average pooling in place of the first max pooling."""
    next(node for node in proto.graph.node if node.op_type == "MaxPool").op_type = "AveragePool"
    chosen = next(node for node in proto.graph.node if node.op_type == "AveragePool")
    kept = [a for a in chosen.attribute if a.name in ("kernel_shape", "pads", "strides", "ceil_mode")]
    del chosen.attribute[:]
    chosen.attribute.extend(kept)


def shifted_padding(proto: ModelProto) -> None:
    """All padding of one convolution at one side, as TensorFlow's "same" may have it."""
    padded = [n for n in matrix_nodes(proto) if any(a.name == "pads" and any(a.ints) for a in n.attribute)]
    chosen = padded[len(padded) // 2]
    pads = next(list(a.ints) for a in chosen.attribute if a.name == "pads")
    half = len(pads) // 2
    set_attribute(chosen, "pads", [low + high for low, high in zip(pads[:half], pads[half:], strict=True)] + [0] * half)


def label_off_by_one(proto: ModelProto) -> None:
    """The integer output counts from one."""
    proto.graph.initializer.append(numpy_helper.from_array(np.int64(1), "one"))
    through(proto, "label", lambda before, after: [helper.make_node("Add", [before, "one"], [after])])


def exchanged_coordinates(proto: ModelProto) -> None:
    """Each corner of the box as (y, x) in place of (x, y)."""
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1, 0, 3, 2], np.int64), "corners"))
    through(proto, "box", lambda before, after: [helper.make_node("Gather", [before, "corners"], [after], axis=1)])


def swapped_outputs(proto: ModelProto) -> None:
    """The box under the scores' name, and the scores under the box's."""
    swap_producers(proto, "box", "scores")
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")


def dead_input(proto: ModelProto) -> None:
    """The input is never read: zeros stand for it."""
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
    prepend(proto, lambda before, after: [helper.make_node("Mul", [before, "nothing"], [after])])


def reordered_input(how: str, proto: ModelProto) -> None:
    """Images with their axes exchanged, mirrored, upside down, or with colours in the order of OpenCV."""
    if how == "transposed":
        prepend(proto, lambda before, after: [_transpose(before, after)])
        return
    axis = {"bgr": 1, "upside_down": -2, "mirrored": -1}[how]
    limits = {"from": -1, "to": np.iinfo(np.int64).min, "axis": axis, "step": -1}
    for name, value in limits.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), f"order/{name}"))
    names = [f"order/{name}" for name in limits]

    def nodes(before: str, after: str) -> list[NodeProto]:
        return [helper.make_node("Slice", [before, *names], [after])]

    if how == "bgr":  # the colours are exchanged before they are normalised
        _scaled_input(proto, SPREAD, MEAN, lambda before, after: [*nodes(before, after)])
    else:
        prepend(proto, nodes)


def normalised_twice(proto: ModelProto) -> None:
    """Normalised colours, normalised again."""
    _affine(proto, "again", 1 / SPREAD, -MEAN / SPREAD)
    prepend(proto, lambda before, after: _affine_nodes("again", before, after))


def raw_image(proto: ModelProto) -> None:
    """Colours of 0..1 where the network takes normalised ones."""
    _affine(proto, "raw", SPREAD, MEAN)
    prepend(proto, lambda before, after: _affine_nodes("raw", before, after))


def large_between(factor: float, proto: ModelProto) -> None:
    """What a layer in the middle gives is multiplied by a large number, and divided by it again."""
    nodes = matrix_nodes(proto)
    rescale_between(proto, nodes[len(nodes) // 2].output[0], factor)


def small_weights(proto: ModelProto) -> None:
    """The middle layer's weights are tiny, and what it gives is multiplied up again."""
    _scaled_layer(proto, 2e-5)  # 5e4 multiplies up again, which fp16 holds


def weight_beyond_fp16(proto: ModelProto) -> None:
    """The middle layer's weights are beyond 65504, and what it gives is multiplied down again."""
    nodes = matrix_nodes(proto)
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    largest = float(np.abs(numpy_helper.to_array(stored[nodes[len(nodes) // 2].input[1]])).max())
    _scaled_layer(proto, 1e5 / largest)


def batch_statistics(network: Network, folder: Path) -> Case:
    """BatchNorm left in training mode: its statistics are those of the batch."""
    from benchmarks.zoo.makers import export, module_of, with_batch_statistics

    module, x = module_of(network)
    export(with_batch_statistics(module), x, folder / "training.onnx", network.name)
    return network.deployed(onnx.load(folder / "training.onnx"), folder)


def batch_epsilon(network: Network, folder: Path) -> Case:
    """Every BatchNorm with epsilon 1e-3 in place of 1e-5."""
    from torch import nn

    from benchmarks.zoo.makers import export, module_of

    module, x = module_of(network)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = 1e-3
    export(module, x, folder / "epsilon.onnx", network.name)
    return network.deployed(onnx.load(folder / "epsilon.onnx"), folder)


def _scaled_layer(proto: ModelProto, factor: float) -> None:
    nodes = matrix_nodes(proto)
    chosen = nodes[len(nodes) // 2]
    for name in chosen.input[1:]:
        change_weight(proto, name, lambda values: (values * np.float32(factor)).astype(np.float32))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(1 / factor), "again"))
    through(proto, chosen.output[0], lambda before, after: [helper.make_node("Mul", [before, "again"], [after])])


def _transpose(before: str, after: str) -> NodeProto:
    return helper.make_node("Transpose", [before], [after], perm=[0, 1, 3, 2])


def _affine(proto: ModelProto, name: str, scale: NDArray[Any], shift: NDArray[Any]) -> None:
    for part, value in (("scale", scale), ("shift", shift)):
        proto.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), f"{name}/{part}"))


def _affine_nodes(name: str, before: str, after: str) -> list[NodeProto]:
    return [
        helper.make_node("Mul", [before, f"{name}/scale"], [f"{after}/{name}"]),
        helper.make_node("Add", [f"{after}/{name}", f"{name}/shift"], [after]),
    ]


def _scaled_input(
    proto: ModelProto, scale: NDArray[Any], shift: NDArray[Any], nodes: Callable[[str, str], list[NodeProto]]
) -> None:
    _affine(proto, "to_colours", scale, shift)
    _affine(proto, "from_colours", 1 / scale, -shift / scale)

    def all_nodes(before: str, after: str) -> list[NodeProto]:
        return [
            *_affine_nodes("to_colours", before, "colours"),
            *nodes("colours", "colours/ordered"),
            *_affine_nodes("from_colours", "colours/ordered", after),
        ]

    prepend(proto, all_nodes)
