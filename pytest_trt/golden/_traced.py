"""Traced: the nodes of a network in fp32, and where the tensors that they read and make are in its simulated graph."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from pytest_trt.model.feeds import conform
from pytest_trt.model.graph import graphs, with_outputs
from pytest_trt.model.normalise import subgraphs
from pytest_trt.model.onnx_session import open_session, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model

__all__ = ["Pairs", "Traced", "both"]

Pairs = dict[str, list[tuple["NDArray[Any]", "NDArray[Any]"]]]
"""By tensor of the fp32 graph, a pair a run: the simulated run's, and fp32's."""

_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_DIVISORS = {"Div": (1,), "Reciprocal": (0,), "Log": (0,), "Pow": (0,)}
_SPREADING = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")


class Traced:
    """The fp32 graph beside the simulated one; subgraphs count for the node that holds them.

    Attributes:
        nodes: of the fp32 graph, in its order, constants left out.
        makers: by tensor the node that makes it, in the graph's order.
        readers: by tensor the nodes that read it.
        outputs: of the graph.
    """

    def __init__(self, model: ModelProto, lowered: ModelProto) -> None:
        self.nodes = [node for node in model.graph.node if node.op_type != "Constant"]
        self.makers = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(self.reads(node)):
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in model.graph.output}
        self._names = Counter(node.name for part in graphs(model.graph) for node in part.node)
        self._lowered = {name: node for node in lowered.graph.node for name in node.output if name}

    def reads(self, node: NodeProto) -> Iterator[str]:
        """What a node reads, in its subgraphs too."""
        yield from node.input
        for subgraph in subgraphs(node):
            for part in graphs(subgraph):
                for inner in part.node:
                    yield from inner.input

    def word(self, node: NodeProto) -> str:
        """What ``keep`` calls a node: its name, or a tensor of it where others have that name or it has none."""
        alone = bool(node.name) and self._names[node.name] == 1
        return str(node.name) if alone else str(next(filter(None, node.output)))

    def divides(self, node: NodeProto) -> bool:
        """Whether a zero makes it infinite."""
        return node.op_type in _DIVISORS

    def divisors(self, node: NodeProto) -> list[str]:
        """The inputs of a node whose zeros matter to it; none of one that mixes many elements."""
        if node.op_type in _SPREADING:
            return []
        places = _DIVISORS.get(node.op_type, range(len(node.input)))
        return [node.input[place] for place in places if place < len(node.input) and node.input[place]]

    def holds(self, tensor: str) -> bool:
        """Whether the simulated graph makes a tensor of this name."""
        return tensor in self._lowered

    def lowered_input(self, node: NodeProto, place: int) -> str:
        """What the simulated graph's node reads there: the tensor itself, or what it was rounded to."""
        own = self._lowered.get(node.output[0])
        for _ in range(2):  # up and down again
            if own is not None and own.op_type == "Cast" and node.op_type != "Cast":
                own = self._lowered.get(own.input[0])
        return own.input[place] if own is not None and place < len(own.input) else node.input[place]


def both(
    traced: Traced,
    model: Model,
    lowered: Model,
    names: Iterable[str],
    feeds: Iterable[Arrays],
    batch: int | None,
    twins: Mapping[str, str] | None = None,
) -> Pairs:
    """The values of tensors in both runs.

    Args:
        traced: both graphs.
        model: fp32.
        lowered: its simulation.
        names: of tensors of the fp32 graph; those that the simulated graph does not make are left out.
        feeds: runs of arrays by input name.
        batch: the most samples at once where the first axis is dynamic.
        twins: names in the simulated graph that differ.
    """
    other = {name: (twins or {}).get(name, name) for name in names}
    other = {name: twin for name, twin in other.items() if traced.holds(twin)}
    found: Pairs = {name: [] for name in other}
    exact, low = (_opened(one, wanted) for one, wanted in ((model, other.keys()), (lowered, other.values())))
    for arrays in feeds:
        ours, theirs = (
            run(session, one, conform(arrays, one.inputs, one.source), batch)
            for session, one in ((low, lowered), (exact, model))
        )
        for name, twin in other.items():
            if isinstance(theirs[name], np.ndarray):  # a sequence is none
                found[name].append((ours[twin], theirs[name]))
    return found


def _opened(model: Model, names: Iterable[str]) -> Any:
    return open_session(with_outputs(model.proto, names), model.source)
