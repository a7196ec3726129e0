"""Overflow: tensors of a simulated run that are not finite, or flushed to zero, where fp32's hold numbers.

An infinity is no fault where what reads it gives what it gives in fp32 (a mask before a Softmax, an exponential under a
saturated Sigmoid); where it does not, the output is wrong though it be finite. Both runs are compared tensor by tensor
only where the sums that the simulated run measures of itself are odd.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.onnxruntime import open_backend
from pytest_trt.backends.recipe import Recipe
from pytest_trt.comparison.parts import Part, as_endless, sentinels_beyond
from pytest_trt.errors import LoweringError
from pytest_trt.golden._partition import saturating
from pytest_trt.golden._precision_loss import destroyed, losses, mended
from pytest_trt.golden._subgraphs import Inside
from pytest_trt.golden._traced import Traced, both
from pytest_trt.model.feeds import is_float
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import NodeProto

    from pytest_trt.backends.onnxruntime import OnnxruntimeEngine
    from pytest_trt.golden._traced import Pairs
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model

__all__ = ["Overflow", "Settled", "overflows", "recorded", "settle"]

_ROUNDS = 12
_TOGETHER = 6  # tensors that are given out, with those around them, in one run
_HARM = 0.05
_MOST_HARM = 0.5
_FEW = 5.0
_MOST_OF_ONE = 0.9
_LOST = 0.1  # of a row of a Softmax, which sums up to 1


@dataclass(frozen=True)
class Overflow:
    """A tensor that a precision can't hold.

    Attributes:
        tensor: its name.
        node: the node that makes it, as ``keep`` names it.
        op: that node's operator.
        kind: "beyond" the largest value; "divided" by what was flushed to zero; "flushed" to zero itself; "masked", a
            row of a Softmax that holds nothing but masks, whose scores are lost; "small", flushed in part; or
            "cancelled", a sum that leaves its terms' rounding.
        cause: the tensor that was flushed to zero, where that made this one infinite or NaN; else empty.
        keep: the nodes whose staying in fp32 mends it and all that comes after it; none where nothing did.
    """

    tensor: str
    node: str
    op: str
    kind: str
    cause: str = ""
    keep: tuple[str, ...] = ()

    @classmethod
    def of_table(cls, table: Mapping[str, Any]) -> Overflow:
        """As a golden tells it.

        Raises:
            TypeError: it is of another kind.
        """
        return cls(**{**table, "keep": tuple(table["keep"])})

    def kept(self, keep: tuple[str, ...]) -> Overflow:
        """With other nodes that mend it."""
        return replace(self, keep=keep)


@dataclass(frozen=True)
class Settled:
    """A simulation in which nothing overflows, as far as that can be had.

    Attributes:
        outputs: of what was built last, one set a run; none of a first build that had run already.
        suspects: the odd tensors of the first build, those that are right included.
        overflow: the first tensor of that one which is not right; None where all are.
        keep: nodes that stay in fp32 beside those that were asked.
        lowers: whether anything is left that is lowered; else the outputs are those of fp32.
        model: that gave the outputs, lowered as it ran.
    """

    outputs: list[Arrays]
    suspects: tuple[str, ...]
    overflow: Overflow | None
    keep: tuple[str, ...]
    lowers: bool = True
    model: Model | None = None


def settle(
    model: Model,
    build: Callable[[tuple[str, ...]], OnnxruntimeEngine],
    feeds: Sequence[Arrays],
    batch: int | None,
    engine: OnnxruntimeEngine | None = None,
    exact: Sequence[Arrays] = (),
) -> Settled:
    """Build, and keep in fp32 what overflows until nothing does, and what loses the bits that the outputs need.

    Args:
        model: fp32, in operators new enough for the precision.
        build: the simulation with further nodes kept.
        feeds: runs of arrays by input name.
        batch: the most samples at once where the first axis is dynamic.
        engine: the first build, if it is there and has run.
        exact: fp32 outputs, one set a run; what destroys an output otherwise is looked for only where they are given.

    Raises:
        PytestTrtError: the first build fails.
    """
    has_run, engine = engine is not None, engine or build(())
    outputs = [] if has_run else [engine.run(run) for run in feeds]
    suspects = tuple(sorted(engine.inner.suspects | engine.inner.masked))
    found = told = overflows(model, engine, feeds, batch)
    keep: tuple[str, ...] = ()
    for _ in range(_ROUNDS):
        more = [name for one in found for name in one.keep if name not in keep]
        if not more:
            break
        keep = tuple(dict.fromkeys((*keep, *more)))
        try:
            engine = build(keep)
        except LoweringError:  # nothing is left to lower
            return Settled(_in_fp32(model, feeds, batch), suspects, told[0].kept(()), (), lowers=False, model=model)
        outputs = [engine.run(run) for run in feeds]
        found = overflows(model, engine, feeds, batch)
    keep = () if found else keep
    settled = Settled(outputs, suspects, told[0].kept(keep) if told else None, keep, model=engine.model)
    return settled if found or not exact else _unlost(settled, model, build, feeds, batch, engine, exact)


def _unlost(
    settled: Settled,
    model: Model,
    build: Callable[[tuple[str, ...]], OnnxruntimeEngine],
    feeds: Sequence[Arrays],
    batch: int | None,
    engine: OnnxruntimeEngine,
    exact: Sequence[Arrays],
) -> Settled:
    """The same where no output is destroyed by numbers that are too small or cancel; else what keeping them gives."""
    least = saturating(model.proto, engine.precision)
    if not settled.outputs or not destroyed(settled.outputs, exact, engine.precision, least):
        return settled
    ran: list[tuple[OnnxruntimeEngine, list[Arrays]]] = []

    def heals(other: OnnxruntimeEngine) -> bool:
        ran.append((other, [other.run(run) for run in feeds]))
        return not destroyed(ran[-1][1], exact, engine.precision, least)

    found = losses(model, engine, feeds, batch)
    mend = mended(found, lambda more: build((*settled.keep, *more)), heals) if found else None
    if mend is None:
        return settled
    loss, more = mend
    keep = tuple(dict.fromkeys((*settled.keep, *more)))
    word = Traced(model.proto, engine.model.proto).word(loss.node)
    told = settled.overflow or Overflow(loss.tensor, word, loss.node.op_type, loss.kind)
    if not more:
        return Settled(_in_fp32(model, feeds, batch), settled.suspects, told.kept(()), (), lowers=False, model=model)
    healed, outputs = ran[-1]
    return replace(settled, outputs=outputs, overflow=told.kept(keep), keep=keep, model=healed.model)


def _in_fp32(model: Model, feeds: Sequence[Arrays], batch: int | None) -> list[Arrays]:
    engine = open_backend().build(Recipe(model, Precision.FP32, None, batch))
    return [engine.run(run) for run in feeds]


def recorded(settled: Settled) -> dict[str, Any]:
    """What a golden keeps of it as plain data; empty where nothing was odd."""
    if not settled.suspects and settled.overflow is None:
        return {}
    return {"suspects": list(settled.suspects), "found": asdict(settled.overflow) if settled.overflow else None}


def overflows(model: Model, engine: OnnxruntimeEngine, feeds: Sequence[Arrays], batch: int | None) -> list[Overflow]:
    """The tensors at which a simulated run goes wrong by overflow, in the graph's order, those that follow left out.

    Args:
        model: the same network in fp32.
        engine: its simulation, which has run on the feeds.
        feeds: runs of arrays by input name.
        batch: the most samples at once where the first axis is dynamic.
    """
    if not engine.inner.suspects and not engine.inner.masked:
        return []
    search = _Search(model, engine, list(feeds), batch)
    return [*search.origins(), *search.masks()]


class _Search:
    """Both runs, looked at where the sums are odd."""

    def __init__(self, model: Model, engine: OnnxruntimeEngine, feeds: list[Arrays], batch: int | None) -> None:
        self.graph = Traced(model.proto, engine.model.proto)
        self.engine = engine
        self.precision = engine.precision
        self.inside = Inside(self.graph, model, engine.inner.sums, feeds, batch)
        self.suspects = [
            name
            for name, node in self.graph.makers.items()
            if name in engine.inner.suspects or (self.inside.holds(node) and name == node.output[0])
        ]
        self.infected: set[str] = set()
        self._runs = model, engine.model, feeds, batch

    def _look(self, names: Iterable[str], twins: Mapping[str, str] | None = None) -> Pairs:
        model, lowered, feeds, batch = self._runs
        return both(self.graph, model, lowered, names, feeds, batch, twins)

    def origins(self) -> Iterator[Overflow]:
        """Tensors that go wrong by themselves, and do harm."""
        left = list(self.suspects)
        while left:
            some = self._decidable(left)
            left = [name for name in left if name not in some]
            own = [name for name in some if not self._follows(name) and name not in self.infected]
            self.infected.update(name for name in some if name not in own)
            holders = [self.graph.makers[name] for name in own if self.inside.holds(self.graph.makers[name])]
            for holder in holders:
                self.infected.update(holder.output)
                yield from self._told_inside(holder)
            own = [name for name in own if name not in self.infected]
            pairs = self._look({name for one in own for name in (one, *self._frontier(one))}) if own else {}
            narrow = self.precision in (Precision.FP16, Precision.BF16)
            bad = [name for name in own if _bad(pairs[name], by_sample=narrow)]
            self.infected.update(bad)
            yield from (self._told(name, pairs) for name in bad if self._harms(name, pairs))

    def masks(self) -> Iterator[Overflow]:
        """What a Softmax reads, where a row of it is all masks and its result is not that of fp32."""
        for node in self.graph.nodes:
            source = node.input[0] if node.input else ""
            if node.op_type not in ("Softmax", "LogSoftmax") or source in self.infected:
                continue
            if self.graph.lowered_input(node, 0) not in self.engine.inner.masked:
                continue
            twin = self.graph.lowered_input(node, 0)
            pairs = self._look({source, node.output[0]}, {source: twin})
            if source in self.graph.makers and self._lost(pairs[source], pairs[node.output[0]], node):
                yield self._masked(source, node)

    def _masked(self, source: str, softmax: NodeProto) -> Overflow:
        """The masks that it is made of are kept too: it is their rounding that drowns the scores."""
        maker, makers = self.graph.makers[source], self.graph.makers
        pairs = self._look({name for name in maker.input if name in makers})
        lowest = self.engine.inner.lowest / 2
        masks = [name for name, found in pairs.items() if any((low <= lowest).any() for low, _ in found)]
        keep = self._words(*(makers[name] for name in masks), maker, softmax)
        return Overflow(source, self.graph.word(maker), maker.op_type, "masked", "", keep)

    def _decidable(self, left: list[str]) -> list[str]:
        waiting = set(left)
        ready = [name for name in left if not waiting.intersection(self.graph.makers[name].input)]
        return ready[:_TOGETHER] or left[:1]

    def _follows(self, name: str) -> bool:
        return not self.infected.isdisjoint(self.graph.reads(self.graph.makers[name]))

    def _frontier(self, name: str) -> set[str]:
        """What is computed of a tensor, and of others that are odd by it, and is not odd itself."""
        found: set[str] = set()
        seen, left = {name}, [name]
        while left:
            for node in self.graph.readers.get(left.pop(), ()):
                outputs = {output for output in node.output if output} - seen
                seen |= outputs
                odd = outputs.intersection(self.suspects)
                left += odd
                found |= outputs - odd
        return found | (seen & self.graph.outputs)

    def _most(self) -> float:
        """Error beyond which harm is done, as a share of a sample's size."""
        return min(max(_HARM, 64 * self.precision.unit_roundoff), _MOST_HARM)

    def _harms(self, name: str, pairs: Pairs) -> bool:
        most = self._most()
        near = [(one, pair) for one in self._frontier(name) if one in pairs for pair in pairs[one]]
        return any(_error(_masked_alike(pair) if one in self.graph.outputs else pair, most) for one, pair in near)

    def _told_inside(self, holder: NodeProto) -> Iterator[Overflow]:
        """What goes wrong in the subgraphs of a node, where its outputs, or what is computed of them, show it."""
        outputs = [name for name in holder.output if name]
        pairs = self._look({*outputs, *(name for output in outputs for name in self._frontier(output))})
        if not any(_error(pair, self._most()) for found in pairs.values() for pair in found):
            return
        read = [node for output in outputs for node in self.graph.readers.get(output, ())]
        for tensor, maker, readers in self.inside.origins(holder):
            flushed = not self.inside.bad[tensor]
            divides = self.graph.divides(maker) and not flushed
            before = self.inside.makers(holder, maker.input) if divides else []
            cause = next((name for name in self.graph.divisors(maker) if name), "") if divides else ""
            kind = "flushed" if flushed else "divided" if divides else "beyond"
            nodes = [*before, maker, *(readers or read)]
            keep = tuple(dict.fromkeys(self.graph.word(node) for node in nodes))
            yield Overflow(tensor, self.graph.word(maker), maker.op_type, kind, tensor if flushed else cause, keep)

    def _told(self, name: str, pairs: Pairs) -> Overflow:
        node, word = self.graph.makers[name], self.graph.word
        readers = self.graph.readers.get(name, [])
        if not _is_beyond(pairs[name]):
            return Overflow(name, word(node), node.op_type, "flushed", name, self._words(node, *readers))
        beyond = _largest_bad(pairs[name]) > self._largest()
        flushed = self._flushed(node) if self.graph.divides(node) or not beyond else []
        if not flushed and not beyond:
            readers = [self.graph.makers[one] for one in node.input if one in self.graph.makers]
        others = [*(self.graph.makers[one] for one in flushed), *(readers if beyond or not flushed else ())]
        kind, cause = ("divided", flushed[-1]) if flushed else ("beyond", "")
        return Overflow(name, word(node), node.op_type, kind, cause, self._words(node, *others))

    def _words(self, *nodes: NodeProto) -> tuple[str, ...]:
        chosen = {id(node) for node in nodes}
        return tuple(self.graph.word(node) for node in self.graph.nodes if id(node) in chosen)

    def _largest(self) -> float:
        narrow = self.precision in (Precision.FP16, Precision.BF16)
        return self.precision.largest if narrow else float(np.finfo(np.float32).max)

    def _flushed(self, node: NodeProto, depth: int = 8) -> list[str]:
        """Tensors before a node that are zero where fp32's are not, the first one first; one that is cut off by chance
        among many elements counts as well."""
        names = [name for name in self.graph.divisors(node) if name in self.graph.makers] if depth else []
        if not names:
            return []
        zero = self._zeros(node, names)
        before = [one for name in zero for one in self._flushed(self.graph.makers[name], depth - 1)]
        return list(dict.fromkeys([*before, *zero]))

    def _zeros(self, node: NodeProto, names: list[str]) -> list[str]:
        twins = {name: self.graph.lowered_input(node, list(node.input).index(name)) for name in names}
        pairs = self._look(set(names), twins)
        return [name for name in names if any(((low == 0) & (high != 0)).any() for low, high in pairs.get(name, ()))]

    def _lost(self, source: Sequence[Any], result: Sequence[Any], node: NodeProto) -> bool:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
        return any(
            _rows_lost(read, low, high, axis, self.engine.inner.lowest)
            for (read, _), (low, high) in zip(source, result, strict=True)
        )


def _rows_lost(read: NDArray[Any], low: NDArray[Any], high: NDArray[Any], axis: int, lowest: float) -> bool:
    rows = read.max(axis=axis) <= lowest / 2
    error = np.abs(low.astype(np.float64) - high).sum(axis=axis)
    return bool((rows & ~(error <= _LOST)).any())


def _bad(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], *, by_sample: bool) -> bool:
    """Whether it is not finite where fp32's is, or zero throughout where that is not: in one sample, if that counts."""
    silent = [(_is_silent(low), _is_silent(high)) for low, high in pairs]
    lost = any((low & ~high).any() for low, high in silent)
    return _is_beyond(pairs) or (lost and (by_sample or all(low.all() for low, _ in silent)))


def _is_beyond(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> bool:
    return any((~np.isfinite(low) & np.isfinite(high)).any() for low, high in pairs)


def _is_silent(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Which samples, along the first axis, are zero throughout."""
    found: NDArray[np.bool_] = ~(array != 0).reshape(len(array) if array.ndim > 1 else 1, -1).any(axis=1)
    return found


def _largest_bad(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    sizes = [np.abs(high[~np.isfinite(low) & np.isfinite(high)]).max(initial=0.0) for low, high in pairs]
    return float(max(sizes, default=0.0))


def _masked_alike(pair: tuple[NDArray[Any], NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """An output of both runs without its sentinels, where an infinity stands for one of fp32's."""
    low, high = pair
    beyond = sentinels_beyond([high]) if is_float(high.dtype) and low.shape == high.shape else None
    if beyond is None:
        return pair
    ordinary = Part("", beyond=beyond).mask(high)
    alike = as_endless(low, high)
    return np.where(ordinary, low, alike - high), np.where(ordinary, high, 0.0)


def _error(pair: tuple[NDArray[Any], NDArray[Any]], most: float) -> bool:
    """Whether a sample of a tensor, along axis 0, is off by more than this share of its size, or one of its elements by
    five times that share of the largest: a few pixels that are lost are few beside a map."""
    low, high = pair
    if low.shape != high.shape:
        return True
    if not is_float(high.dtype):
        return bool(np.mean(low != high) > most) if high.size else False
    flat = (part.astype(np.float64).reshape(len(part) if part.ndim else 1, -1) for part in (low, high))
    actual, exact = flat
    right = (actual == exact) | (np.isnan(actual) & np.isnan(exact))
    with np.errstate(invalid="ignore"):
        error = np.where(right, 0.0, np.abs(actual - exact))
    size = np.where(np.isfinite(exact), exact, 0.0)
    far = min(_FEW * most, _MOST_OF_ONE)
    one = error.max(axis=1, initial=0.0) > far * np.abs(size).max(axis=1, initial=0.0)
    return bool((one | ~((error**2).sum(axis=1) <= most**2 * (size**2).sum(axis=1))).any())
