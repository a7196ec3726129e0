"""Changes to a graph, as faults of exporters, converters and people make them. Each changes its argument."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import AttributeProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto, TensorProto

__all__ = [
    "change_weight",
    "drop_residual",
    "matrix_nodes",
    "middle_weight",
    "prepend",
    "rescale_between",
    "set_attribute",
    "stored",
    "swap_producers",
    "through",
]


def stored(proto: ModelProto) -> dict[str, TensorProto]:
    """What the graph stores, in initializers and Constant nodes, by the name that nodes read it under."""
    constants = [node for node in proto.graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    return {tensor.name: tensor for tensor in proto.graph.initializer} | {
        node.output[0]: node.attribute[0].t for node in constants
    }


def matrix_nodes(proto: ModelProto) -> list[NodeProto]:
    """Nodes that multiply by a stored weight, in the graph's order."""
    held = stored(proto)
    kinds = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    return [node for node in proto.graph.node if node.op_type in kinds and node.input[1] in held]


def change_weight(proto: ModelProto, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Replace one stored weight by what ``change`` makes of it."""
    tensor = stored(proto)[name]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))


def middle_weight(proto: ModelProto, *, window: bool = False) -> str:
    """The weight of the middle one of the nodes that multiply, or of those with a window of more than one pixel."""
    held = stored(proto)
    names = [str(node.input[1]) for node in matrix_nodes(proto)]
    chosen = [name for name in names if held[name].dims[-1] > 1 and len(held[name].dims) == 4] if window else names
    return chosen[len(chosen) // 2]


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    """Give a node another attribute."""
    kept: list[AttributeProto] = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def through(proto: ModelProto, tensor: str, nodes: Callable[[str, str], list[NodeProto]]) -> None:
    """Send a tensor through new nodes on its way to whoever reads it; the graph's outputs keep their names."""
    place = next((i for i, node in enumerate(proto.graph.node) if tensor in node.output), -1)
    if any(output.name == tensor for output in proto.graph.output):
        before = f"{tensor}/before"
        for node in proto.graph.node:
            _renamed(node.input, tensor, before)
        _renamed(proto.graph.node[place].output, tensor, before)
        added = nodes(before, tensor)
    else:
        after = f"{tensor}/after"
        for node in proto.graph.node:
            _renamed(node.input, tensor, after)
        added = nodes(tensor, after)
    for offset, node in enumerate(added):
        proto.graph.node.insert(place + 1 + offset, node)


def prepend(proto: ModelProto, nodes: Callable[[str, str], list[NodeProto]]) -> None:
    """Send the first input through new nodes: preprocessing that the deployment does otherwise."""
    through(proto, proto.graph.input[0].name, nodes)


def rescale_between(proto: ModelProto, tensor: str, factor: float) -> None:
    """Multiply a tensor by ``factor`` and divide again: nothing in fp32, and all of a narrow range."""
    _store(proto, "up", np.float32(factor))
    _store(proto, "down", np.float32(1 / factor))

    def nodes(before: str, after: str) -> list[NodeProto]:
        return [
            helper.make_node("Mul", [before, "up"], [f"{after}/large"], "scale_up"),
            helper.make_node("Mul", [f"{after}/large", "down"], [after], "scale_down"),
        ]

    through(proto, tensor, nodes)


def drop_residual(proto: ModelProto) -> None:
    """Take the shortcut out of the middle one of the sums of two computed tensors."""
    computed = {name for node in proto.graph.node for name in node.output if node.op_type != "Constant"}
    sums = [n for n in proto.graph.node if n.op_type == "Add" and set(n.input) <= computed]
    chosen = sums[len(sums) // 2]
    keep = chosen.input[0]
    chosen.op_type = "Identity"
    del chosen.input[:]
    chosen.input.append(keep)


def swap_producers(proto: ModelProto, first: str, second: str) -> None:
    """Exchange two tensors wherever they are read and given out."""
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = {first: second, second: first}.get(name, name)


def _renamed(names: Any, before: str, after: str) -> None:
    for index, name in enumerate(names):
        if name == before:
            names[index] = after


def _store(proto: ModelProto, name: str, value: Any) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
