"""Precision loss: where a 16-bit run whose outputs are destroyed loses what they need, and what mends it.

Numbers below the least normal one keep few bits or none, though others of their tensor are whole; and a sum whose
terms nearly cancel leaves their rounding. A tensor is blamed only where keeping it brings the outputs back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import LoweringError
from pytest_trt.golden._traced import Traced, both
from pytest_trt.model.feeds import is_float
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import NodeProto

    from pytest_trt.backends.onnxruntime import OnnxruntimeEngine
    from pytest_trt.golden._traced import Pairs
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model

__all__ = ["Loss", "destroyed", "losses", "mended"]

_HARM = 0.05
_LEAST_NORMAL = {Precision.FP16: 2.0**-14, Precision.BF16: 2.0**-126}
_AMPLIFIED = 4.0  # times the error of what a sum reads
_MOST_TRIED = 6
_MOST_KEPT = 16
_STEPS = (1, 2, 4, 8, 10_000)  # makers back from a sum that cancels; the last are all of them
_SUMS = (
    "Add", "Sub", "Sum", "MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "ReduceSum", "ReduceMean",
    "GlobalAveragePool", "AveragePool",
)  # fmt: skip
"""Linear operators: what makes their relative error larger than that of what they read is cancellation."""


@dataclass(frozen=True)
class Loss:
    """A tensor that loses what the outputs need.

    Attributes:
        tensor: its name.
        node: the node that makes it.
        kind: "small", partly flushed to zero or to few bits; or "cancelled".
        keeps: sets of nodes whose staying in fp32 may mend it, the smallest first.
    """

    tensor: str
    node: NodeProto
    kind: str
    keeps: tuple[tuple[str, ...], ...]


def destroyed(
    outputs: Sequence[Arrays], exact: Sequence[Arrays], precision: Precision, least: Mapping[str, float]
) -> bool:
    """Whether a float output errs by more than 5 % of its size, and than 64 unit roundoffs; at fp16 and bf16 alone.

    Probabilities count by their logarithms: one near tie that a Softmax decides otherwise destroys nothing.

    Args:
        outputs: simulated, one set a run.
        exact: in fp32.
        precision: of the simulation.
        least: of outputs of probabilities, the least that counts.
    """
    if precision not in _LEAST_NORMAL:
        return False
    most = _most(precision)
    names = [name for name, array in exact[0].items() if is_float(array.dtype)]
    return any(
        low[name].shape == high[name].shape and error_of(*_told((low[name], high[name]), least.get(name, 0.0))) > most
        for low, high in zip(outputs, exact, strict=True)
        for name in names
    )


def losses(model: Model, engine: OnnxruntimeEngine, feeds: Sequence[Arrays], batch: int | None) -> list[Loss]:
    """Tensors at which a simulated run may lose what its outputs need, in the graph's order.

    Args:
        model: fp32.
        engine: its simulation.
        feeds: runs of arrays by input name.
        batch: the most samples at once where the first axis is dynamic.
    """
    graph = Traced(model.proto, engine.model.proto)
    pairs = both(graph, model, engine.model, graph.makers, feeds, batch)
    return [loss for node in graph.nodes for loss in _of_node(graph, node, pairs, engine.precision)]


def mended(
    found: Sequence[Loss],
    build: Callable[[tuple[str, ...]], OnnxruntimeEngine],
    heals: Callable[[OnnxruntimeEngine], bool],
) -> tuple[Loss, tuple[str, ...]] | None:
    """The first loss whose keeping heals the outputs, and what is kept: all of them together where none does alone.

    What only half a network in fp32 would heal is lost in no one place. Nothing is kept where the least that could
    heal it leaves nothing to lower.

    Args:
        found: as :func:`losses` tells them.
        build: the simulation with further nodes kept.
        heals: whether a simulation's outputs are whole.
    """
    for loss in found[:_MOST_TRIED]:
        for keep in (keep for keep in loss.keeps if len(keep) <= _MOST_KEPT):
            healed = _heals(keep, build, heals)
            if healed:
                return loss, keep
            if healed is None:
                if keep == loss.keeps[0]:
                    return loss, ()
                break
    together = tuple(dict.fromkeys(word for loss in found for word in loss.keeps[0]))
    few = len(found) > 1 and len(together) <= _MOST_KEPT
    return (found[0], together) if few and _heals(together, build, heals) else None


def error_of(low: NDArray[Any], high: NDArray[Any]) -> float:
    """Relative RMS of what is finite in fp32; that of a tensor of zeros is 0 where it is met."""
    finite = np.isfinite(high)
    exact = np.where(finite, high, 0).astype(np.float64)
    size = float(np.sqrt(np.mean(exact**2))) if exact.size else 0.0
    with np.errstate(invalid="ignore"):
        off = np.where(finite, low.astype(np.float64) - exact, 0.0)
    error = float(np.sqrt(np.mean(off**2))) if off.size else 0.0
    return error / size if size else (0.0 if not error else np.inf)


def _told(pair: tuple[NDArray[Any], NDArray[Any]], least: float) -> tuple[NDArray[Any], NDArray[Any]]:
    low, high = (np.log(np.maximum(array.astype(np.float64), least)) if least else array for array in pair)
    return low, high


def _most(precision: Precision) -> float:
    return max(_HARM, 64 * precision.unit_roundoff)


def _heals(
    keep: tuple[str, ...],
    build: Callable[[tuple[str, ...]], OnnxruntimeEngine],
    heals: Callable[[OnnxruntimeEngine], bool],
) -> bool | None:
    """None where nothing is left to lower."""
    try:
        return heals(build(keep))
    except LoweringError:
        return None


def _of_node(graph: Traced, node: NodeProto, pairs: Pairs, precision: Precision) -> Iterator[Loss]:
    for name in node.output:
        if not pairs.get(name) or not _comparable(pairs[name]):
            continue
        if _is_small(name, node, pairs, precision):
            readers = graph.readers.get(name, ())
            yield Loss(name, node, "small", (_words(graph, (node, *readers)),))
        elif node.op_type in _SUMS and _is_cancelled(name, node, pairs, precision):
            yield Loss(name, node, "cancelled", tuple(_words(graph, before) for before in _befores(graph, node)))


def _comparable(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> bool:
    return all(low.shape == high.shape and is_float(high.dtype) and high.size for low, high in pairs)


def _is_small(name: str, node: NodeProto, pairs: Pairs, precision: Precision) -> bool:
    """Whether its numbers below the least normal one are lost, and those that it is computed from are not lost."""
    least = _LEAST_NORMAL[precision]
    for low, high in pairs[name]:
        small = (high != 0) & (np.abs(high) < least)
        if small.any() and error_of(low[small], high[small]) > _most(precision):
            return _error_read(node, pairs) <= _most(precision)
    return False


def _is_cancelled(name: str, node: NodeProto, pairs: Pairs, precision: Precision) -> bool:
    """Whether a sum's error is far beyond that of what it reads, whose own is no more than its rounding left."""
    error = max(error_of(low, high) for low, high in pairs[name])
    return error > _most(precision) and error > _AMPLIFIED * max(_error_read(node, pairs), precision.unit_roundoff)


def _error_read(node: NodeProto, pairs: Mapping[str, Any]) -> float:
    read = [pair for name in node.input for pair in pairs.get(name, ()) if _comparable([pair])]
    return max((error_of(low, high) for low, high in read), default=0.0)


def _befores(graph: Traced, node: NodeProto) -> Iterator[tuple[NodeProto, ...]]:
    """A node with what it is computed from, further and further back."""
    known, edge, depth = {id(node): node}, [node], 0
    for steps in _STEPS:
        while edge and depth < steps:
            makers = {
                id(graph.makers[one]): graph.makers[one]
                for at in edge
                for one in graph.reads(at)
                if one in graph.makers
            }
            edge = [maker for key, maker in makers.items() if key not in known]
            known |= {id(maker): maker for maker in edge}
            depth += 1
        yield tuple(known.values())
        if not edge:
            return


def _words(graph: Traced, nodes: Sequence[NodeProto]) -> tuple[str, ...]:
    chosen = {id(node) for node in nodes}
    return tuple(graph.word(node) for node in graph.nodes if id(node) in chosen)
