"""Isolation: the nodes of a lowered graph that can be run on exact inputs, which tells what each does by itself.

An error that grows from one tensor to the next says little of the node between them: a pooling makes more of the error
of a convolution before it than that convolution did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto

from pytest_trt.model.graph import array_of, constants, element_types
from pytest_trt.model.normalise import subgraphs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnx import ModelProto, NodeProto

__all__ = ["Isolated", "isolated_nodes"]

_ROUNDING = ("Cast", "QuantizeLinear", "DequantizeLinear", "Identity")


@dataclass(frozen=True, eq=False)
class Isolated:
    """A node of the lowered graph, and the tensors of the fp32 graph that it computes from.

    Attributes:
        node: the node.
        place: which of its outputs it is about.
        exact: by place of an input, the fp32 graph's tensor to read instead.
        same: whether the fp32 graph has this very node, and no stored float is among its inputs.
    """

    node: NodeProto
    place: int
    exact: Mapping[int, str]
    same: bool

    def on_exact_inputs(self, output: str) -> NodeProto:
        """The node as it is called by now, its result under this name."""
        copy = onnx.NodeProto.FromString(self.node.SerializeToString())
        copy.name = output
        copy.input[:] = [self.exact.get(place, name) for place, name in enumerate(copy.input)]
        names = [name and f"{output}/{place}" for place, name in enumerate(copy.output)]
        copy.output[:] = [*names[: self.place], output, *names[self.place + 1 :]]
        return copy


def isolated_nodes(reference: ModelProto, lowered: ModelProto) -> dict[str, Isolated]:
    """By tensor that both graphs compute, the lowered graph's node; none of one that reads what fp32 has not.

    Args:
        reference: fp32.
        lowered: the same network as it is simulated; the nodes found are its own, and are renamed with it.
    """
    exact, low = _Graph(reference), _Graph(lowered)
    found = {}
    for tensor in (name for name in exact.makers if name in low.makers):
        before = exact.makers[tensor]
        name = low.unrounded(tensor) if before.op_type not in _ROUNDING else tensor
        node = low.makers[name]
        sources = None if any(True for _ in subgraphs(node)) else _sources(node, tensor, exact, low)
        if sources is not None:
            same = _is_same(node, before, sources, exact, low)
            found[tensor] = Isolated(node, list(node.output).index(name), sources, same)
    return found


class _Graph:
    """Who makes what, and what is stored, or computed of what is."""

    def __init__(self, model: ModelProto) -> None:
        self.makers = {name: node for node in model.graph.node for name in node.output if name}
        self.types, self.held = element_types(model), constants(model)
        fed = [value.name for value in model.graph.input if value.name not in self.held]
        self.order = {name: place for place, name in enumerate([*fed, *self.makers]) if name not in self.held}
        self.stored = set(self.held)
        for node in model.graph.node:
            if node.input and all(name in self.stored for name in node.input if name):
                self.stored.update(node.output)

    def unrounded(self, tensor: str) -> str:
        """What a tensor was before its own rounding."""
        node = self.makers.get(tensor)
        while node is not None and node.op_type in _ROUNDING and node.input[0] in self.makers:
            tensor = node.input[0]
            node = self.makers[tensor]
        return tensor

    def root(self, tensor: str, known: Mapping[str, int]) -> str:
        """The first tensor of that name on the way up through roundings; the end of that way where there is none."""
        while tensor not in known and tensor in self.makers and self.makers[tensor].op_type in _ROUNDING:
            tensor = self.makers[tensor].input[0]
        return tensor


def _sources(node: NodeProto, tensor: str, exact: _Graph, low: _Graph) -> dict[int, str] | None:
    """By place the fp32 tensors that stand for a lowered node's inputs; None where one has no counterpart before."""
    found = {}
    for place, name in enumerate(node.input):
        if not name or name in low.stored:
            continue
        root = low.root(name, exact.order)
        if not exact.order.get(root, len(exact.order)) < exact.order[tensor]:
            return None
        if low.types.get(name) != exact.types.get(root):
            return None
        found[place] = root
    return found


def _is_same(node: NodeProto, before: NodeProto, sources: Mapping[int, str], exact: _Graph, low: _Graph) -> bool:
    if (node.op_type, node.domain, len(node.input)) != (before.op_type, before.domain, len(before.input)):
        return False
    told, wanted = ({a.name: a.SerializeToString() for a in one.attribute} for one in (node, before))
    stored = [(own, other) for place, (own, other) in _pairs(node, before) if place not in sources]
    return (
        told == wanted
        and all(before.input[place] == name for place, name in sources.items())
        and all(_are_equal_numbers(own, other, exact, low) for own, other in stored if own or other)
    )


def _pairs(node: NodeProto, before: NodeProto) -> Iterator[tuple[int, tuple[str, str]]]:
    return enumerate(zip(node.input, before.input, strict=True))


def _are_equal_numbers(own: str, other: str, exact: _Graph, low: _Graph) -> bool:
    """Whether both are stored whole numbers, and equal."""
    if own not in low.held or other not in exact.held or low.held[own].data_type == TensorProto.FLOAT:
        return False
    return np.array_equal(array_of(low.held[own]), array_of(exact.held[other]))
