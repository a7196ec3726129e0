"""Subgraphs: tensors in the branches of an If and the bodies of Loop and Scan that go wrong where fp32's do not.

Their values can't leave a subgraph, only one number of each does, in both runs; what it does is seen at the outputs of
the node that holds the subgraph.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_trt.lowering.inner_values import InnerValues, watched
from pytest_trt.model.feeds import conform
from pytest_trt.model.graph import graphs
from pytest_trt.model.normalise import subgraphs
from pytest_trt.model.onnx_session import open_session, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from onnx import NodeProto

    from pytest_trt.golden._traced import Traced
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model

__all__ = ["Inside"]


class Inside:
    """The subgraphs' nodes of the fp32 graph, and which of their tensors went wrong.

    Attributes:
        bad: by tensor its size in the simulated run, where that is no number, or zero, and fp32's is not.
    """

    def __init__(
        self, traced: Traced, model: Model, sums: Mapping[str, float], feeds: Iterable[Arrays], batch: int | None
    ) -> None:
        self._nodes: dict[int, list[NodeProto]] = {}
        for node in traced.nodes:
            inner = [one for subgraph in subgraphs(node) for part in graphs(subgraph) for one in part.node]
            self._nodes |= {id(node): inner} if inner else {}
        known = {name for inner in self._nodes.values() for one in inner for name in one.output}
        odd = {name: size for name, size in sums.items() if name in known and not (math.isfinite(size) and size)}
        exact = _sums(model, odd, feeds, batch) if odd else {}
        self.bad = {
            name: size
            for name, size in odd.items()
            if math.isfinite(exact.get(name, math.inf)) and (exact[name] or not math.isfinite(size))
        }

    def holds(self, node: NodeProto) -> bool:
        """Whether a tensor in its subgraphs went wrong."""
        return any(True for _ in self.origins(node))

    def origins(self, node: NodeProto) -> Iterator[tuple[str, NodeProto, list[NodeProto]]]:
        """Tensors in its subgraphs that went wrong by themselves, what makes each, and what reads it there."""
        inner = self._nodes.get(id(node), [])
        for maker in inner:
            for tensor in self.bad.keys() & set(maker.output):
                if self.bad.keys().isdisjoint(_before(maker)):
                    yield tensor, maker, [one for one in inner if tensor in one.input]

    def makers(self, node: NodeProto, tensors: Iterable[str]) -> list[NodeProto]:
        """The nodes in its subgraphs that make these tensors."""
        wanted = set(tensors)
        return [one for one in self._nodes.get(id(node), []) if wanted.intersection(one.output)]


def _before(node: NodeProto) -> set[str]:
    """What a node reads, and all that its own subgraphs read and make."""
    inner = [one for subgraph in subgraphs(node) for part in graphs(subgraph) for one in part.node]
    return {*node.input, *(name for one in inner for name in (*one.input, *one.output))}


def _sums(model: Model, names: Iterable[str], feeds: Iterable[Arrays], batch: int | None) -> dict[str, float]:
    """The fp32 run's own, as the simulated run measures them."""
    proto, measured = watched(model.proto, frozenset(names))
    found = InnerValues()
    if measured is not None:
        session = open_session(proto, model.source, in_order=True)
        for arrays in feeds:
            measured.read(run(session, model, conform(arrays, model.inputs, model.source), batch), found)
    return found.sums
