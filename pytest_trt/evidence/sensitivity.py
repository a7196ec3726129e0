"""Sensitivity: what the outputs gain when one layer alone stays in fp32, and the fewest layers that have to."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

from pytest_trt.backends.onnxruntime import open_backend
from pytest_trt.backends.recipe import Calibration, Recipe
from pytest_trt.comparison.comparison import compare
from pytest_trt.comparison.parts import apart
from pytest_trt.errors import LoweringError
from pytest_trt.golden.envelope import Kept, simulate
from pytest_trt.lowering.lowering import at_opset
from pytest_trt.model.feeds import is_float
from pytest_trt.model.graph import MATRIX_OPERANDS, is_standard
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_trt.calibration.calibration import Progress
    from pytest_trt.comparison.parts import Part
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model
    from pytest_trt.ranges.amax import Ranges

__all__ = ["Sensitivity", "matrix_layers", "sensitivity"]

_FEW = 4
_OTHERS = 3


@dataclass(frozen=True)
class Gain:
    """One layer, and what keeping it alone in fp32 does.

    Attributes:
        node: its name, or that of its output where it has none: what ``keep`` takes.
        op: its operator.
        error: of the model with this layer in fp32, as :attr:`Sensitivity.error`.
        gain: by how much that is less than with every layer lowered; negative where it is more.
    """

    node: str
    op: str
    error: float
    gain: float


@dataclass(frozen=True)
class Sensitivity:
    """Which layers a precision costs most.

    Attributes:
        precision: its label.
        bounded: whether errors are told as shares of their bounds.
        error: of the model with every layer lowered: the worst output's relative RMS (of integers the share that
            differs), over that output's bound where there are bounds.
        layers: the layer that gains most first.
        keep: the layers to keep in fp32 for every output to be inside its bound, in order of gain; none of them can be
            left out. None where there is no bound, or no such list short of all layers.
        kept_error: of the model with these in fp32; None where ``keep`` is.
    """

    precision: str
    bounded: bool
    error: float
    layers: tuple[Gain, ...]
    keep: tuple[str, ...] | None
    kept_error: float | None


def sensitivity(
    model: Model,
    precision: Precision | str,
    inputs: list[Arrays],
    ranges: Ranges | None = None,
    *,
    exact: list[Arrays] | None = None,
    bounds: Mapping[str, float] | None = None,
    batch: int | None = None,
    kept: Kept | None = None,
    parts: Mapping[str, Sequence[Part]] | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """Lower the model once for each layer, with that layer kept in fp32, and simulate it.

    The list is the shortest that is found by two orders (by gain, and by what each layer does when it alone is
    lowered), less what it can do without, and with one layer for two where that will do. Errors do not add up exactly,
    so that no search but that of all lists could be sure of the fewest.

    Args:
        model: fp32.
        precision: what to lower to.
        inputs: runs of arrays by input name.
        ranges: for int8 and fp8, taken once: of the tensors that are quantised, whichever layers are kept.
        exact: right outputs, one set a run; the fp32 model's own if not given.
        bounds: by output, or by part of one, the relative RMS that is allowed (of integers the share that differs).
            What is not named may err as it likes.
        batch: the most samples at once where the first axis is dynamic.
        kept: what stays in fp32 in any case, as the golden was made for.
        parts: by output, the parts that ``bounds`` are of; outputs without are whole.
        progress: told what is going on.

    Raises:
        SpecError: no such precision.
        LoweringError: the model has no layer that can be kept, or can't be lowered.
        DataError: the inputs do not fit.
    """
    precision = Precision.parse(precision) if isinstance(precision, str) else precision
    converted = at_opset(model, precision)
    exact = exact or [simulate(model, Precision.FP32, arrays, batch) for arrays in inputs]
    trial = _Trial(converted, precision, ranges, inputs, exact, bounds, batch, kept or Kept(), parts or {})
    layers = _require_layers(converted, trial.kept)
    tell: Progress = progress or (lambda _phase, _share: None)
    try:
        tell(f"{precision}: all layers lowered", None)
        error = trial.error(())
        found = []
        for place, (node, op) in enumerate(layers.items()):
            tell(f"{precision}: {node} in fp32", place / len(layers))
            without = trial.error((node,))
            found.append(Gain(node, op, without, error - without))
        ranking = tuple(sorted(found, key=lambda gain: gain.error))
        keep = _shortest(trial, [gain.node for gain in ranking], tell) if bounds else None
    finally:
        tell("", None)
    return Sensitivity(precision.label, bool(bounds), error, ranking, keep, None if keep is None else trial.error(keep))


def matrix_layers(model: Model) -> dict[str, str]:
    """The nodes that multiply matrices, subgraphs left out: what ``keep`` calls each, and its operator."""
    nodes = [node for node in model.proto.graph.node if node.op_type in MATRIX_OPERANDS and is_standard(node)]
    names = [node.name for node in nodes]
    return {
        (node.name if names.count(node.name) == 1 and node.name else node.output[0]): node.op_type for node in nodes
    }


def _require_layers(model: Model, kept: Kept) -> dict[str, str]:
    layers = {node: op for node, op in matrix_layers(model).items() if _is_lowered(node, op, model, kept)}
    if len(layers) < 2:
        raise LoweringError(
            f"{model.source} has fewer than two layers of {', '.join(MATRIX_OPERANDS)}: there is nothing to choose"
            " between."
        )
    return layers


def _is_lowered(node: str, op: str, model: Model, kept: Kept) -> bool:
    outputs = next((list(one.output) for one in model.proto.graph.node if node in (one.name, *one.output)), [])
    return not {node, *outputs}.intersection(kept.keep) and (not kept.ops or op in kept.ops)


@dataclass
class _Trial:
    """The model, lowered with some layers in fp32 and compared; what was tried is not tried again."""

    model: Model
    precision: Precision
    ranges: Ranges | None
    inputs: list[Arrays]
    exact: list[Arrays]
    bounds: Mapping[str, float] | None
    batch: int | None
    kept: Kept
    parts: Mapping[str, Sequence[Part]]
    _known: dict[frozenset[str], float] = field(default_factory=dict)

    def error(self, keep: tuple[str, ...]) -> float:
        """Of the worst output, over its bound where there are bounds."""
        if frozenset(keep) not in self._known:
            self._known[frozenset(keep)] = max(map(self._worst, self._simulated(keep), self.exact))
        return self._known[frozenset(keep)]

    def _simulated(self, keep: tuple[str, ...]) -> list[Arrays]:
        """As the gate simulates it, to the last digit."""
        ranges = None if self.ranges is None else _as_given(self.ranges)
        kept = (*self.kept.keep, *keep)
        recipe = Recipe(self.model, self.precision, ranges, self.batch, keep=kept, ops=self.kept.ops)
        engine = open_backend().build(recipe)
        return [engine.run(arrays) for arrays in self.inputs]

    def inside(self, keep: tuple[str, ...]) -> bool:
        return self.error(keep) <= 1

    def _worst(self, found: Arrays, exact: Arrays) -> float:
        low, high = apart(found, exact, self.parts), apart(exact, exact, self.parts)
        judged = self.bounds or dict.fromkeys(high, 1.0)
        return max(_error_of(name, low, high) / max(bound, 1e-30) for name, bound in judged.items())


def _as_given(ranges: Ranges) -> Calibration:
    return Calibration(lambda _: ranges, None, ranges.source, [])


def _error_of(name: str, found: Arrays, exact: Arrays) -> float:
    return compare(found[name], exact[name]).error(whole=not is_float(exact[name].dtype))


def _shortest(trial: _Trial, ranking: list[str], tell: Progress) -> tuple[str, ...] | None:
    """The shortest list that two orders lead to, without the layers that it can spare or exchange.

    The first order is that of the gains. They say little where many layers are bad: the others' errors then hide what
    one of them gains. So unless a few layers will do, the second order is tried too: what each does when it alone is
    lowered.
    """
    keep, harmful = _beginning(trial, ranking, tell), []
    if keep is None or len(keep) > _FEW:
        harmful = _by_harm(trial, ranking, tell)
        other = _beginning(trial, harmful, tell)
        keep = min((found for found in (keep, other) if found is not None), key=len, default=None)
    if keep is None:
        return None
    keep = _exchanged(trial, _spared(trial, keep, tell), harmful, len(harmful), tell)
    return tuple(node for node in ranking if node in keep)


def _spared(trial: _Trial, keep: list[str], tell: Progress) -> list[str]:
    """The list without the layers that it can do without, one after the other."""
    for node in reversed(keep):
        without = [kept for kept in keep if kept != node]
        if _told_inside(trial, without, tell):
            keep = without
    return keep


def _exchanged(trial: _Trial, keep: list[str], harmful: list[str], left: int, tell: Progress) -> list[str]:
    """The list with one of the most harmful others in place of two of its own, as often as that will do.

    ``left``: how many lists may be tried: as many as there are layers, so that it costs no more than an order does.
    """
    for pair in combinations(reversed(keep), 2):
        for node in [other for other in harmful if other not in keep][:_OTHERS]:
            if not left:
                return keep
            left -= 1
            changed = [kept for kept in keep if kept not in pair] + [node]
            if _told_inside(trial, changed, tell):
                return _exchanged(trial, _spared(trial, changed, tell), harmful, left, tell)
    return keep


def _by_harm(trial: _Trial, layers: list[str], tell: Progress) -> list[str]:
    """The layer first that costs most when all others stay in fp32."""
    harm = {}
    for place, node in enumerate(layers):
        tell(f"{trial.precision}: {node} alone lowered", place / len(layers))
        harm[node] = trial.error(tuple(layer for layer in layers if layer != node))
    return sorted(layers, key=lambda node: -harm[node])


def _beginning(trial: _Trial, order: list[str], tell: Progress) -> list[str] | None:
    """The shortest beginning of an order that is inside the bounds: the first few one by one, then by halving."""
    for length in range(min(_FEW + 1, len(order))):
        if _told_inside(trial, order[:length], tell):
            return order[:length]
    outside, inside = _FEW, len(order) - 1
    if inside <= outside or not _told_inside(trial, order[:inside], tell):
        return None
    while inside - outside > 1:
        middle = (outside + inside) // 2
        if _told_inside(trial, order[:middle], tell):
            inside = middle
        else:
            outside = middle
    return order[:inside]


def _told_inside(trial: _Trial, keep: list[str], tell: Progress) -> bool:
    tell(f"{trial.precision}: {len(keep)} layers in fp32", None)
    return trial.inside(tuple(keep))
