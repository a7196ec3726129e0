"""Bisection: where an engine leaves its simulation, by the inner tensors that it can be made to show.

An engine shows its outputs alone. TensorRT 10.11 and later show every tensor that no fusion has swallowed, for one more
build. Before that an inner tensor is marked as an output, at the price of a build, and may forbid a fusion: so few are
marked at once, and whether the engine's own outputs moved by it is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from pytest_trt.backends.backend import Shower, Showing
from pytest_trt.comparison.comparison import compare
from pytest_trt.comparison.tolerance import SLACK, floor
from pytest_trt.model.feeds import conform, is_float
from pytest_trt.model.graph import with_outputs
from pytest_trt.model.model import Model, tensor_names
from pytest_trt.model.onnx_session import open_session, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_trt.backends.backend import Backend, Engine
    from pytest_trt.backends.recipe import Recipe
    from pytest_trt.evidence.localise import Located
    from pytest_trt.model.feeds import Arrays

__all__ = ["Departure", "departure_of"]

_MARKED = 3
_SHOWN = 8  # tensors that are held at once where all are shown


@dataclass(frozen=True)
class Departure:
    """The first tensor that an engine computes otherwise than its simulation does.

    Attributes:
        tensor: its name.
        node: the node that makes it.
        op: that node's operator.
        after: the last tensor before it that the engine was seen to compute rightly; empty where there is none.
        rel_rms: of the engine's tensor against fp32.
        bound: what the simulation's own error would have allowed.
        nonfinite: whether the engine's tensor holds NaN or infinity where fp32 does not.
        shown: whether the engine showed its tensors itself, and was not built with other outputs.
        builds: how many engines it took.
        moved: the largest relative RMS by which the engine's own outputs moved when it was built so.
        marking_changed: whether that is more than rounding does, so that the marked engines are not quite the one in
            question.
    """

    tensor: str
    node: str
    op: str
    after: str
    rel_rms: float
    bound: float
    nonfinite: bool
    shown: bool
    builds: int
    moved: float
    marking_changed: bool

    def __str__(self) -> str:
        what = "is first NaN or infinite" if self.nonfinite else "first leaves its simulation"
        seen = "shown by the engine itself" if self.shown else f"by {self.builds} builds with inner tensors as outputs"
        size = "" if self.nonfinite else f": {self.rel_rms:.2g} off fp32, where {self.bound:.2g} is the precision's"
        after = f", after {self.after!r} which is right" if self.after else ""
        changed = (
            f". Marking changed the engine: its own outputs moved by {self.moved:.2g}" if self.marking_changed else ""
        )
        return f"the engine {what} at tensor {self.tensor!r} of {self.op} {self.node!r}{after}{size} ({seen}){changed}"


def departure_of(
    backend: Backend,
    recipe: Recipe,
    reference: Model,
    located: Iterable[Located],
    runs: Sequence[Arrays],
    outputs: Sequence[Arrays],
    *,
    known: float = 1.0,
) -> Departure | None:
    """The first tensor that is outside what its simulation allows, by engines that show theirs.

    Where inner tensors have to be marked as outputs, three are at a time, and it is taken that errors do not vanish
    again on the way: what is after a tensor that is outside is outside too.

    Args:
        backend: that built the engine.
        recipe: of the engine.
        reference: the fp32 model.
        located: what :func:`pytest_trt.evidence.localise.localise` found of the simulation.
        runs: arrays by input name.
        outputs: of the engine without marks, one set a run.
        known: how many times the simulation's error a right engine is known to have: fp16 sums are not simulated.

    Returns:
        The departure; None where every tensor is inside, and the simulation explains the engine.

    Raises:
        BackendError, LoweringError, ModelError: the marked model can't be built.
    """
    named = tensor_names(recipe.model.proto)
    order = [one for one in sorted(located, key=lambda one: one.place) if one.node and one.tensor in named]
    search = _Search(backend, recipe, reference, runs, outputs, known)
    shows = isinstance(backend, Shower) and backend.shows
    return _shown(search, order) if shows else _bisected(search, order)


@dataclass
class _Search:
    """Engines that show inner tensors, and what they showed."""

    backend: Backend
    recipe: Recipe
    reference: Model
    runs: Sequence[Arrays]
    outputs: Sequence[Arrays]
    known: float
    builds: int = 0
    moved: float = 0.0
    seen: dict[str, float] = field(default_factory=dict)
    odd: set[str] = field(default_factory=set)

    def built(self, recipe: Recipe) -> Engine:
        """One more engine."""
        self.builds += 1
        return self.backend.build(recipe)

    def look(self, found: Sequence[Arrays], names: Sequence[str]) -> list[str]:
        """Compare an engine's tensors, one set a run, with fp32; the names that there were."""
        exact = Model(with_outputs(self.reference.proto, names), self.reference.source)
        session = open_session(exact.proto, exact.source)
        for arrays, shown in zip(self.runs, found, strict=True):
            right = run(session, exact, conform(arrays, exact.inputs, exact.source), self.recipe.batch)
            for name in (name for name in names if name in shown and shown[name].size == right[name].size):
                actual = shown[name].reshape(right[name].shape)
                self.seen[name] = max(self.seen.get(name, 0.0), compare(actual, right[name]).rel_rms)
                if not np.isfinite(actual.astype(np.float32)[np.isfinite(right[name])]).all():
                    self.odd.add(name)
        return [name for name in names if name in self.seen]

    def compare_outputs(self, found: Sequence[Arrays]) -> None:
        """See by how much the engine's own outputs moved."""
        for again, plain in zip(found, self.outputs, strict=True):
            moves = [compare(again[name], array).rel_rms for name, array in plain.items() if is_float(array.dtype)]
            self.moved = max([self.moved, *moves])

    def is_bad(self, one: Located) -> bool:
        """Whether a tensor is outside; NaN is, and one that could not be compared, of another shape, is not."""
        return one.tensor in self.odd or not self.seen.get(one.tensor, 0.0) <= self.bound(one)

    def bound(self, one: Located) -> float:
        """What a right engine's tensor may be off fp32 by."""
        simulated = 10 ** (-one.cumulative_db / 20)
        return SLACK * self.known * simulated + floor(self.recipe.precision.unit_roundoff, whole=False)

    def departure(self, one: Located, after: str, *, shown: bool) -> Departure:
        """What is told of the first one outside."""
        return Departure(
            tensor=one.tensor,
            node=one.node,
            op=one.op,
            after=after,
            rel_rms=self.seen[one.tensor],
            bound=self.bound(one),
            nonfinite=one.tensor in self.odd,
            shown=shown,
            builds=self.builds,
            moved=self.moved,
            marking_changed=self.moved > self.recipe.precision.unit_roundoff,
        )


def _shown(search: _Search, order: Sequence[Located]) -> Departure | None:
    """One build that shows all that fusions left, looked at from the first tensor on, a few at a time."""
    engine = search.built(replace(search.recipe, shown=True))
    assert isinstance(engine, Showing)
    search.compare_outputs([engine.run(arrays) for arrays in search.runs])
    after = ""
    for start in range(0, len(order), _SHOWN):
        some = {one.tensor: one for one in order[start : start + _SHOWN]}
        for name in search.look([engine.inner(arrays, some) for arrays in search.runs], list(some)):
            if search.is_bad(some[name]):
                return search.departure(some[name], after, shown=True)
            after = name
    return None


def _bisected(search: _Search, order: Sequence[Located]) -> Departure | None:
    """Engines with three tensors marked at a time, until the first one outside is known."""
    inside, outside = -1, len(order)
    while outside - inside > 1:
        places = _spread(inside, outside, last=outside == len(order))
        _mark(search, [order[place].tensor for place in places])
        bad = [place for place in places if search.is_bad(order[place])]
        if not bad and places[-1] == len(order) - 1:
            return None
        inside = max((place for place in places if not bad or place < bad[0]), default=inside)
        outside = bad[0] if bad else outside
    if outside == len(order):
        return None
    right = [one.tensor for one in order[: inside + 1] if one.tensor in search.seen]
    return search.departure(order[outside], right[-1] if right else "", shown=False)


def _mark(search: _Search, names: list[str]) -> None:
    model = search.recipe.model
    marked = Model(with_outputs(model.proto, names, TensorProto.FLOAT), model.source)
    engine = search.built(replace(search.recipe, model=marked))
    found = [engine.run(arrays) for arrays in search.runs]
    search.look(found, names)
    search.compare_outputs(found)


def _spread(inside: int, outside: int, *, last: bool) -> list[int]:
    """A few places between the two; the last of all where it is not known yet."""
    gap = outside - inside
    places = {inside + max(1, gap * part // (_MARKED + 1)) for part in range(1, _MARKED + 1)}
    if last:
        places.add(outside - 1)
    return sorted(place for place in places if inside < place < outside)
