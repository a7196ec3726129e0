"""Bisection: where an engine leaves its simulation, by engines that give a few of their inner tensors out.

An engine shows its outputs alone. Marking an inner tensor as an output shows that too, at the price of a build, and may
forbid a fusion: so few are marked at once, and whether the engine's own outputs moved by it is told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto

from pytest_trt.comparison import compare
from pytest_trt.feeds import conform
from pytest_trt.model import Model, is_float, tensor_names
from pytest_trt.session import open_session, run
from pytest_trt.tolerance import SLACK, floor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_trt.backends import Backend
    from pytest_trt.feeds import Arrays
    from pytest_trt.localise import Located
    from pytest_trt.precision import Precision
    from pytest_trt.recipe import Recipe

__all__ = ["Departure", "departure_of", "with_outputs"]

_MARKED = 3


@dataclass(frozen=True)
class Departure:
    """The first tensor that an engine computes otherwise than its simulation does.

    Attributes:
        tensor: its name.
        node: the node that makes it.
        op: that node's operator.
        after: the last tensor before it that the engine computes rightly; empty where there is none.
        rel_rms: of the engine's tensor against fp32.
        bound: what the simulation's own error would have allowed.
        builds: how many engines it took.
        moved: the largest relative RMS by which marking moved the engine's own outputs.
        marking_changed: whether that is more than rounding does, so that the marked engines are not quite the one in
            question.
    """

    tensor: str
    node: str
    op: str
    after: str
    rel_rms: float
    bound: float
    builds: int
    moved: float
    marking_changed: bool


def departure_of(
    backend: Backend,
    recipe: Recipe,
    reference: Model,
    located: Iterable[Located],
    runs: list[Arrays],
    outputs: list[Arrays],
) -> Departure | None:
    """Build the recipe with three tensors marked at a time, until the first that is outside is known.

    It is taken that errors do not vanish again on the way: what is after a tensor that is outside is outside too.

    Args:
        backend: that built the engine.
        recipe: of the engine.
        reference: the fp32 model.
        located: what :func:`pytest_trt.localise.localise` found of the simulation.
        runs: arrays by input name.
        outputs: of the engine without marks, one set a run.

    Returns:
        The departure; None where every tensor is inside, and the simulation explains the engine.

    Raises:
        BackendError, LoweringError, ModelError: the marked model can't be built.
    """
    known = tensor_names(recipe.model.proto)
    order = [one for one in sorted(located, key=lambda one: one.place) if one.node and one.tensor in known]
    search = _Search(backend, recipe, reference, runs, outputs)
    inside, outside = -1, len(order)
    while outside - inside > 1:
        places = _spread(inside, outside, last=outside == len(order))
        errors = search.errors([order[place].tensor for place in places])
        bad = [place for place in places if not errors[order[place].tensor] <= _bound(order[place], recipe.precision)]
        if not bad and places[-1] == len(order) - 1:
            return None
        inside = max((place for place in places if not bad or place < bad[0]), default=inside)
        outside = bad[0] if bad else outside
    if outside == len(order):
        return None
    found = order[outside]
    return Departure(
        tensor=found.tensor,
        node=found.node,
        op=found.op,
        after=order[inside].tensor if inside >= 0 else "",
        rel_rms=search.seen[found.tensor],
        bound=_bound(found, recipe.precision),
        builds=search.builds,
        moved=search.moved,
        marking_changed=search.moved > recipe.precision.unit_roundoff,
    )


def with_outputs(model: Model, names: Iterable[str]) -> Model:
    """The model with these float tensors given out too."""
    copy = ModelProto.FromString(model.proto.SerializeToString())
    present = {value.name for value in copy.graph.output}
    kind = TypeProto(tensor_type=TypeProto.Tensor(elem_type=TensorProto.FLOAT))
    copy.graph.output.extend(ValueInfoProto(name=name, type=kind) for name in names if name not in present)
    return Model(copy, model.source)


@dataclass
class _Search:
    """Engines with marks, and what they showed."""

    backend: Backend
    recipe: Recipe
    reference: Model
    runs: list[Arrays]
    outputs: list[Arrays]

    def __post_init__(self) -> None:
        self.builds = 0
        self.moved = 0.0
        self.seen: dict[str, float] = {}

    def errors(self, names: list[str]) -> dict[str, float]:
        """Relative RMS of the engine's tensors against fp32, the largest of all runs."""
        engine = self.backend.build(replace(self.recipe, model=with_outputs(self.recipe.model, names)))
        self.builds += 1
        exact = with_outputs(self.reference, names)
        session = open_session(exact.proto, exact.source)
        for arrays, plain in zip(self.runs, self.outputs, strict=True):
            found = engine.run(arrays)
            right = run(session, exact, conform(arrays, exact.inputs, exact.source), self.recipe.batch)
            for name in names:
                self.seen[name] = max(self.seen.get(name, 0.0), compare(found[name], right[name]).rel_rms)
            moves = [compare(found[name], array).rel_rms for name, array in plain.items() if is_float(array.dtype)]
            self.moved = max([self.moved, *moves])
        return {name: self.seen[name] for name in names}


def _spread(inside: int, outside: int, *, last: bool) -> list[int]:
    """A few places between the two; the last of all where it is not known yet."""
    gap = outside - inside
    places = {inside + max(1, gap * part // (_MARKED + 1)) for part in range(1, _MARKED + 1)}
    if last:
        places.add(outside - 1)
    return sorted(place for place in places if inside < place < outside)


def _bound(one: Located, precision: Precision) -> float:
    simulated = 10 ** (-one.cumulative_db / 20)
    return SLACK * simulated + floor(precision.unit_roundoff, whole=False)
