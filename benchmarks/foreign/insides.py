"""Plants inside: what fp16 can't hold on the way, though fp32 computes the same as ever."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from benchmarks.foreign.graphs import (
    around,
    is_float,
    middle_layer,
    outputs_of,
    relative_rms,
    store,
    values_of,
    with_own_golden,
)
from benchmarks.foreign.specimen import NoPlace, Planted
from benchmarks.zoo.surgery import change_weight, matrix_nodes, rescale_between, through

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto, NodeProto

    from benchmarks.foreign.draws import Foreign

__all__ = ["divided_by_epsilon", "few_overflow", "flushed", "healthy_scaled", "large_constant", "swallowed", "unkept"]

LARGEST_HALF = 65504.0
MOVED = 0.05
"""Relative RMS that rounding to fp16 does not reach on these networks."""
TRIED = 6
"""Places for an infinity, from the middle on."""


def few_overflow(network: Foreign, folder: Path) -> Planted:
    """A layer is scaled up and what it gives is scaled down: few golden samples overflow, and an output moves.

    Raises:
        NoPlace: an infinity moves no output, since it is cut off right behind.
    """
    count = len(matrix_nodes(network.proto()))
    for place in sorted(range(count), key=lambda place: abs(place - count // 2))[:TRIED]:
        proto = network.proto()
        chosen = matrix_nodes(proto)[place]
        _scale_layer(proto, chosen, _between_samples(network, chosen.output[0]))
        if _moves(network, proto, "scaled_down"):
            return with_own_golden(proto, network, folder, around(proto.graph.node, {chosen.output[0]}) | {chosen.name})
    raise NoPlace("no infinity moves an output")


def _scale_layer(proto: ModelProto, chosen: NodeProto, factor: float) -> None:
    for name in chosen.input[1:]:
        change_weight(proto, name, lambda values: (values * np.float32(factor)).astype(np.float32))
    _scaled_down(proto, chosen.output[0], factor)


def swallowed(network: Foreign, folder: Path) -> Planted:
    """The same before an operator that makes a finite number of infinity, where that moves an output.

    Raises:
        NoPlace: there is none.
    """
    computed = {name for node in network.proto().graph.node for name in node.output}
    kinds = ("Sigmoid", "Softmax", "HardSigmoid", "Tanh", "Erf")
    places = [
        place
        for place, node in enumerate(network.proto().graph.node)
        if node.op_type in kinds and node.input[0] in computed
    ]
    for place in sorted(places, key=lambda place: abs(place - places[len(places) // 2]))[:TRIED]:
        proto = _enlarged(network, place)
        if _moves(network, proto, "bound_down"):
            name = str(proto.graph.node[place].output[0])
            return with_own_golden(proto, network, folder, frozenset([name, "bound_up", "bound_down"]))
    raise NoPlace("no infinity is swallowed on its way to an output that moves")


def _enlarged(network: Foreign, place: int) -> ModelProto:
    """What a node reads is made large and small again."""
    proto = network.proto()
    node = proto.graph.node[place]
    tensor, before = node.input[0], f"{node.input[0]}/bounded"
    factor = _between_samples(network, tensor)
    store(proto, "bounded/up", np.float32(factor))
    store(proto, "bounded/down", np.float32(1 / factor))
    node.input[0] = before
    proto.graph.node.insert(place, helper.make_node("Mul", [f"{before}/large", "bounded/down"], [before], "bound_down"))
    proto.graph.node.insert(place, helper.make_node("Mul", [tensor, "bounded/up"], [f"{before}/large"], "bound_up"))
    return proto


def _moves(network: Foreign, proto: ModelProto, reader: str) -> bool:
    """Whether an output leaves what rounding moves where only what a node reads is cast to fp16, in onnxruntime."""
    cast = type(proto)()
    cast.CopyFrom(proto)
    node = next(node for node in cast.graph.node if node.name == reader)
    place = list(cast.graph.node).index(node)
    large = node.input[0]
    node.input[0] = "bounded/wide"
    cast.graph.node.insert(place, helper.make_node("Cast", ["bounded/half"], ["bounded/wide"], to=TensorProto.FLOAT))
    cast.graph.node.insert(place, helper.make_node("Cast", [large], ["bounded/half"], to=TensorProto.FLOAT16))
    found, healthy = outputs_of(cast, network.inputs), outputs_of(proto, network.inputs)
    return any(not relative_rms(found[name], array) < MOVED for name, array in healthy.items() if is_float(array))


def unkept(network: Foreign, folder: Path) -> Planted:
    """The network as it is, where it is known to need nodes in fp32.

    Raises:
        NoPlace: it is right in fp16.
    """
    kept = network.source.keep
    if not kept:
        raise NoPlace("it is right in fp16")
    nodes = [node for node in network.proto().graph.node if {node.name, *node.output} & set(kept)]
    named = {name for node in nodes for name in (node.name, *node.input, *node.output)}
    planted = with_own_golden(network.proto(), network, folder, frozenset(named))
    return replace(planted, case=replace(planted.case, keep=()))


def divided_by_epsilon(network: Foreign, folder: Path) -> Planted:
    """What a layer gives, times x / (x + 1e-8) of its positive part, which is 1 or 0: in fp16 it is 0 / 0 at zero."""
    proto = network.proto()
    store(proto, "epsilon", np.float32(1e-8))

    def nodes(before: str, after: str) -> list[NodeProto]:
        return [
            helper.make_node("Relu", [before], [f"{after}/part"], "positive_part"),
            helper.make_node("Add", [f"{after}/part", "epsilon"], [f"{after}/sum"], "add_epsilon"),
            helper.make_node("Div", [f"{after}/part", f"{after}/sum"], [f"{after}/share"], "divide"),
            helper.make_node("Mul", [f"{after}/part", f"{after}/share"], [f"{after}/same"], "multiply"),
            helper.make_node("Sub", [before, f"{after}/part"], [f"{after}/rest"], "negative_part"),
            helper.make_node("Add", [f"{after}/rest", f"{after}/same"], [after], "add_parts"),
        ]

    tensor = middle_layer(proto).output[0]
    through(proto, tensor, nodes)
    named = {"epsilon", "add_epsilon", "divide", f"{tensor}/after/sum", f"{tensor}/after/share"}
    return with_own_golden(proto, network, folder, frozenset(named))


def flushed(network: Foreign, folder: Path) -> Planted:
    """What a layer gives is made so small that fp16 has nothing but zero for it, and large again."""
    proto = network.proto()
    tensor = middle_layer(proto).output[0]
    largest = np.abs(values_of(network, [tensor])[tensor]).max()
    rescale_between(proto, tensor, 1e-9 / float(largest))
    return with_own_golden(proto, network, folder, frozenset([f"{tensor}/after/large", "scale_up"]))


def healthy_scaled(network: Foreign, folder: Path) -> Planted:
    """A layer scaled up and down again within what fp16 holds."""
    proto = network.proto()
    _scale_layer(proto, middle_layer(proto), 4.0)
    return with_own_golden(proto, network, folder, frozenset())


def large_constant(network: Foreign, folder: Path) -> Planted:
    """A large number is added to what a layer gives, and taken away: what is left is rounded to steps of its size."""
    proto = network.proto()
    tensor = middle_layer(proto).output[0]
    values = values_of(network, [tensor])[tensor].astype(np.float64)
    large = float(np.sqrt(np.mean(values**2))) * 1024
    store(proto, "large", np.float32(large))

    def nodes(before: str, after: str) -> list[NodeProto]:
        return [
            helper.make_node("Add", [before, "large"], [f"{after}/large"], "add_large"),
            helper.make_node("Sub", [f"{after}/large", "large"], [after], "subtract_large"),
        ]

    through(proto, tensor, nodes)
    named = frozenset([f"{tensor}/after/large", f"{tensor}/after", "add_large", "large"])
    return with_own_golden(proto, network, folder, named)


def _scaled_down(proto: ModelProto, tensor: str, factor: float) -> None:
    store(proto, "scaled/down", np.float32(1 / factor))
    through(
        proto,
        tensor,
        lambda before, after: [helper.make_node("Mul", [before, "scaled/down"], [after], "scaled_down")],
    )


def _between_samples(network: Foreign, tensor: str) -> float:
    """What makes the largest of few golden samples overflow in fp16, and none of the others."""
    values = np.abs(values_of(network, [tensor])[tensor]).astype(np.float64)
    count = network.source.golden
    largest = np.sort(values.reshape(count, -1).max(1))[::-1] if len(values) % count == 0 else values.reshape(-1)
    steps = largest[:-1] / largest[1:]
    last = int(np.argmax(steps[: max(1, count // 4)]))
    return float(LARGEST_HALF / np.sqrt(largest[last] * largest[last + 1]))
