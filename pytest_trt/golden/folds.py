"""Folds: parts of the golden's inputs that calibrate by themselves, since honest samples are never the golden's own.

What a network errs by moves with the samples that its ranges were taken from: little for most, several times for one
that saturates or that few values decide. A precision that takes ranges is simulated with those of each half, too.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_trt.calibration.activations import PIECE
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.errors import PytestTrtError
from pytest_trt.golden.index_outputs import Simulation
from pytest_trt.lowering.casts import fp32_ends
from pytest_trt.lowering.lowering import lower, needs_ranges
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.feeds import samples_in, split
from pytest_trt.model.onnx_session import open_session, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pytest_trt.model.feeds import Arrays, TensorSpec
    from pytest_trt.model.model import Model
    from pytest_trt.precision import Precision
    from pytest_trt.ranges.amax import Ranges

__all__ = ["folded", "halves", "widened"]

_MOST = 3.0
"""How many times its own error a fold may make of a bound: what lies further off is no choice of samples any more."""
_LARGEST = 0.5  # a bound that takes half of an output's size is opened no further


def halves(runs: Sequence[Arrays], specs: tuple[TensorSpec, ...], *, by_turns: bool = False) -> list[list[Arrays]]:
    """The first and the second half of the samples; none where they can't be cut.

    Args:
        runs: of arrays by input name.
        specs: the model's inputs; an axis of the samples' own name is cut wherever it stands.
        by_turns: whether every other sample makes a half.
    """
    parts = [part for arrays in runs for part in split(arrays, specs)]
    if len(parts) > 1:
        return [parts[span] for span in _spans(len(parts), by_turns=by_turns)]
    return [[half] for half in _cut(parts[0], specs, by_turns=by_turns)]


def _spans(count: int, *, by_turns: bool) -> tuple[slice, slice]:
    if by_turns:
        return slice(0, None, 2), slice(1, None, 2)
    return slice(count // 2), slice(count // 2, None)


def _cut(arrays: Arrays, specs: tuple[TensorSpec, ...], *, by_turns: bool) -> list[Arrays]:
    leading = next((spec for spec in specs if _leads(spec) and arrays[spec.name].ndim), None)
    count = len(arrays[leading.name]) if leading else 0
    if leading is None or count < 2:
        return []
    symbol = leading.shape[0] if leading.shape else None
    axes = {spec.name: _axis(spec, arrays, symbol, count) for spec in specs}
    return [
        {name: _part(array, axes[name], span) for name, array in arrays.items()}
        for span in _spans(count, by_turns=by_turns)
    ]


def _leads(spec: TensorSpec) -> bool:
    """Whether its first axis takes any number of samples."""
    return spec.shape is None or bool(spec.shape and not isinstance(spec.shape[0], int))


def _axis(spec: TensorSpec, arrays: Arrays, symbol: object, count: int) -> int | None:
    shape = arrays[spec.name].shape
    if isinstance(symbol, str) and symbol in (spec.shape or ()):
        return (spec.shape or ()).index(symbol)
    return 0 if _leads(spec) and shape[:1] == (count,) else None


def _part(array: NDArray[Any], axis: int | None, span: slice) -> NDArray[Any]:
    return array if axis is None else array[(slice(None),) * axis + (span,)]


def folded(
    model: Model,
    precision: Precision,
    inputs: Sequence[Arrays],
    batch: int | None,
    keep: tuple[str, ...],
    ops: tuple[str, ...],
    taken: dict[tuple[str, ...], list[Ranges]],
) -> Iterator[Simulation]:
    """Simulations on all of the inputs with the ranges of each half of them; none where the precision takes no ranges.

    A half that does not calibrate, since it never moves for example, is left out.

    Args:
        model: fp32, in operators new enough for the precision.
        precision: what to simulate.
        inputs: the golden's runs.
        batch: the most samples at once where the first axis is dynamic.
        keep: nodes that stay in fp32.
        ops: kinds of operators that are lowered, all if none is named.
        taken: the halves' ranges by what they are of, which int8 and fp8 share; filled here.
    """
    if not needs_ranges(model, precision):
        return
    tensors = tuple(quantised_activations(model.proto, keep, ops))
    if tensors not in taken:
        taken[tensors] = list(_ranges(model, tensors, inputs, batch))
    for ranges in taken[tensors]:
        with suppress(PytestTrtError):
            lowered = lower(model, precision, ranges, keep=keep, ops=ops)
            session = open_session(fp32_ends(lowered.proto), lowered.source)
            yield Simulation(precision, lowered, [run(session, lowered, feeds, batch) for feeds in inputs])


def _ranges(model: Model, tensors: tuple[str, ...], inputs: Sequence[Arrays], batch: int | None) -> Iterator[Ranges]:
    for half in halves(inputs, model.inputs):
        few = len(half) == 1 and samples_in(half[0], model.inputs)
        # a few are run at once: to find out whether they may be cut would run as many
        at_once = batch or (few if few and few <= PIECE else None)
        with suppress(PytestTrtError):
            yield calibrate(model, list(tensors), half, "a half of the golden's inputs", at_once)


def widened(entry: Mapping[str, Any], folds: Sequence[float]) -> dict[str, Any]:
    """The entry of an output, its bound as wide as that of the worst fold, and no more than three times its own.

    Args:
        entry: ``error`` and ``bound`` of an output or its part, calibrated on all of the inputs.
        folds: its bound, calibrated on a half.
    """
    own = entry["bound"]
    widest = max([own, *folds])
    return {**entry, "bound": min(widest, _MOST * own, max(own, _LARGEST))}
