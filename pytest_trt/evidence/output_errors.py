"""Output errors: what outputs show beyond the size of their error: where it is, how it leans, what it is like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.comparison.error_metrics import rms, scores_of
from pytest_trt.evidence._constant_slices import by_sample, constant_slices, is_constant
from pytest_trt.model.feeds import period_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from pytest_trt.comparison.parts import Part
    from pytest_trt.evidence.judgement import Judgement
    from pytest_trt.golden.golden import Run
    from pytest_trt.model.feeds import Arrays, TensorSpec

__all__ = ["Flips", "Observed", "Place", "observe"]

if TYPE_CHECKING:
    Doubles = NDArray[np.float64]


_LEFT = 0.1
_CLASSES = 4096
_ELEMENTS = 1 << 22


def resemblance_of(name: str, actual: Mapping[str, Any], reference: Arrays) -> str:
    """What the actual output is, if it is a plain change of the reference; empty where no change explains it.

    A change explains an output where less than a tenth of the error (as a norm) is left after it.

    Args:
        name: of the output.
        actual: all outputs, by name.
        reference: the golden's, by name; what is not finite is so on both sides, and left out.
    """
    finite = np.isfinite(reference[name].astype(np.float64))
    a, r = (np.where(finite, array, 0).astype(np.float64) for array in (np.asarray(actual[name]), reference[name]))
    error = _norm(a - r)
    if not error or a.size > _ELEMENTS or not np.isfinite(error):
        return ""
    for look in (_swapped(name, reference), _stepped, _permuted, _zeroed, _flipped, _scaled):
        told = look(a, r, _LEFT * error)
        if told:
            return told
    return ""


def _norm(values: Doubles) -> float:
    return float(np.linalg.norm(values.reshape(-1)))


def _swapped(name: str, reference: Arrays) -> Callable[[Doubles, Doubles, float], str]:
    def look(a: Doubles, _: Doubles, left: float) -> str:
        for other, array in reference.items():
            if other != name and array.shape == a.shape and _norm(a - array.astype(np.float64)) <= left:
                return f"it is the golden's output {other!r}: outputs changed places"
        return ""

    return look


def _stepped(a: Doubles, r: Doubles, left: float) -> str:
    """Whole numbers that are all off by the same step."""
    step = float(np.median(a - r))
    whole = step and step.is_integer() and np.array_equal(a, np.round(a)) and np.array_equal(r, np.round(r))
    return f"every value is off by {step:+g}" if whole and _norm(a - r - step) <= left else ""


def _permuted(a: Doubles, r: Doubles, left: float) -> str:
    if a.ndim < 2:
        return ""
    axis, kind = (a.ndim - 1, "classes") if a.ndim <= 3 else (1, "channels")
    size = a.shape[axis]
    if not 2 <= size <= _CLASSES:
        return ""
    for shift in (1, -1):
        if _norm(a - np.roll(r, shift, axis)) <= left:
            return f"its {kind} are shifted by {shift:+d}"
    if _norm(a - np.flip(r, axis)) <= left:
        return f"its {kind} are in reversed order"
    order = _matched(np.moveaxis(a, axis, 0).reshape(size, -1), np.moveaxis(r, axis, 0).reshape(size, -1))
    moved = [i for i in range(size) if order[i] != i]
    if moved and len(set(order)) == size and _norm(a - np.take(r, order, axis)) <= left:
        listing = ", ".join(f"{i} holds {order[i]}" for i in moved[:3])
        return f"its {kind} changed places ({listing}{', ...' if len(moved) > 3 else ''})"
    return ""


def _matched(a: Doubles, r: Doubles) -> list[int]:
    """For each row of ``a`` the nearest of ``r``."""
    distance = (a**2).sum(1)[:, None] + (r**2).sum(1)[None] - 2 * np.einsum("ik,jk->ij", a, r)
    return [int(i) for i in distance.argmin(axis=1)]


def _zeroed(a: Doubles, r: Doubles, left: float) -> str:
    if a.ndim < 2:
        return ""
    axis, kind = (a.ndim - 1, "class") if a.ndim <= 3 else (1, "channel")
    others = tuple(i for i in range(a.ndim) if i != axis)
    dead = np.flatnonzero(~np.abs(a).any(axis=others) & np.abs(r).any(axis=others))
    if not len(dead) or len(dead) == a.shape[axis]:
        return ""
    kept = np.delete(a - r, dead, axis)
    return f"{kind} {int(dead[0])} is zero throughout" if len(dead) == 1 and _norm(kept) <= left else ""


def _flipped(a: Doubles, r: Doubles, left: float) -> str:
    if a.ndim != 4:
        return ""
    for axis, told in ((3, "left and right"), (2, "up and down")):
        if _norm(a - np.flip(r, axis)) <= left:
            return f"it is mirrored, {told}"
    if a.shape[2] == a.shape[3] and _norm(a - r.swapaxes(2, 3)) <= left:
        return "it is transposed: rows became columns"
    return ""


def _scaled(a: Doubles, r: Doubles, left: float) -> str:
    square = float((r**2).sum())
    factor = float((a * r).sum()) / square if square else 0.0
    if not factor or _norm(a - factor * r) > left:
        return ""
    return "its sign is changed" if abs(factor + 1) < 1e-3 else f"it is the golden's times {factor:.4g}"


_WIDTH = 4.0


@dataclass(frozen=True)
class Place:
    """A part of an output and how much of the squared error it holds.

    Attributes:
        kind: "sample", "channel", "class", "column", "border" or "corner".
        index: which one along its axis; -1 for a border, 0 to 3 for a corner (upper left to lower right).
        of: how many there are.
        share: of the squared error that it holds, 0 to 1.
        fair: the larger one of its shares of the elements and of the reference's own squares, 0 to 1.
    """

    kind: str
    index: int
    of: int
    share: float
    fair: float


@dataclass(frozen=True)
class Lean:
    """Which way the error leans.

    Attributes:
        mean: of actual - reference, in the output's unit.
        spread: standard deviation of the same.
        share: of the squared error that its mean over all elements explains, 0 to 1.
        by_position: the same of its means over the samples, one a position; what chance explains is taken off.
    """

    mean: float
    spread: float
    share: float
    by_position: float


@dataclass(frozen=True)
class Flips:
    """Samples whose best class changed.

    Attributes:
        samples: how many were ranked.
        flipped: how many changed.
        sound: of these, how many were no near tie: the reference's margin was over four allowed errors.
        margins: of the flipped samples, the reference's lead of the best class over the second, the widest first,
            five at most.
        first: (sample, reference's class, actual class) of as many.
        sequences: of scores of three axes, how many sequences of positions these are; None of others.
        changed: how many of them change a best class anywhere.
        accepted: whether a limit of the user's own says how many may.
    """

    samples: int
    flipped: int
    sound: int
    margins: tuple[float, ...]
    first: tuple[tuple[int, int, int], ...]
    sequences: int | None = None
    changed: int = 0
    accepted: bool = False


@dataclass(frozen=True)
class Observed:
    """One output against its golden.

    Attributes:
        output: its name.
        reasons: why it is outside its bound; none where it is inside.
        error: relative RMS, or the share that differs of whole numbers.
        most: the largest error of its parts.
        bound: what it may be; None where the user's limits are of another kind.
        whole: whether it is integer or boolean.
        nonfinite: NaN and infinities of the output that the golden has not, and of the golden that the output has not.
        lacking: of these, where the output is finite and the golden is not.
        first: index of the first of them: of those that the golden has not, else of those that the output lacks.
        constant: whether all samples have the same values, and the golden's have not.
        part: name of the part that error and bound are of; empty where that is all of the output.
        still: the slices of an axis that have the same values in all samples, and in the golden move by more than an
            error may; None where no slice does, or all do.
        lean: which way the error leans; None where the output is inside, not finite or whole.
        place: the part that holds nearly all of the error; None as above, or where no part does.
        flips: of the best class, where classes are ranked.
        resemblance: what the output is a plain change of, in words; empty where nothing fits.
    """

    output: str
    reasons: tuple[str, ...] = ()
    error: float = 0.0
    most: float = 0.0
    bound: float | None = None
    whole: bool = False
    nonfinite: int = 0
    lacking: int = 0
    first: tuple[int, ...] = ()
    constant: bool = False
    part: str = ""
    still: Part | None = None
    lean: Lean | None = None
    place: Place | None = None
    flips: Flips | None = None
    resemblance: str = ""

    @property
    def name(self) -> str:
        """Of the part that error and bound are of, or of the output."""
        return self.part or self.output


def observe(
    judgements: Sequence[Judgement],
    runs: Sequence[Run],
    outputs: Sequence[Arrays],
    still: Sequence[str] = (),
    specs: tuple[TensorSpec, ...] = (),
) -> tuple[Observed, ...]:
    """What each output shows; those inside their bounds are looked at in passing.

    Args:
        judgements: one an output, each of the run that it names.
        runs: of the golden.
        outputs: arrays by output name, one set a run.
        still: outputs that may stand still.
        specs: the model's inputs, which tell what of an output is a sample's.
    """
    names = [run.name for run in runs]
    return tuple(
        _of_output(judgement, runs[at], outputs[at], specs, judgement.output in still)
        for judgement in judgements
        for at in [names.index(judgement.run)]
    )


def _of_output(
    judgement: Judgement, run: Run, actual: Mapping[str, Any], specs: tuple[TensorSpec, ...], still: bool
) -> Observed:
    a, r = np.asarray(actual[judgement.output]), run.outputs[judgement.output]
    period = period_of([r], [run.inputs], specs)
    comparison = judgement.comparison
    measured = bool(judgement.reasons) and not comparison.mismatched and a.size > 0
    floats = measured and not judgement.whole
    error = _error(a, r) if floats else None
    part = judgement.part
    stands, stood = (is_constant(by_sample(array, period)) for array in (a, r))
    constant = stands and not (still or stood or judgement.whole)
    return Observed(
        output=judgement.output,
        reasons=judgement.reasons,
        error=judgement.error,
        most=max(one.error for one in judgement.parts),
        bound=judgement.bound,
        whole=judgement.whole,
        nonfinite=comparison.mismatched,
        lacking=int(_odd(r, a).sum()) if comparison.mismatched else 0,
        first=_first_odd(a, r) if comparison.mismatched else (),
        constant=constant,
        part="" if part.whole else part.name,
        still=None if still or constant or judgement.whole else constant_slices(a, r, judgement, period),
        lean=_lean(part.slices(error)) if error is not None else None,
        place=_place(np.where(part.mask(r), error, 0.0), r) if error is not None else None,
        flips=_flips(a, r, judgement) if comparison.ranking else None,
        resemblance=resemblance_of(judgement.output, actual, run.outputs) if measured else "",
    )


def _error(a: NDArray[Any], r: NDArray[Any]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        error = a.astype(np.float64) - r.astype(np.float64)
    return np.where(np.isfinite(error), error, 0.0)


def _first_odd(a: NDArray[Any], r: NDArray[Any]) -> tuple[int, ...]:
    odd = next((found for found in (_odd(a, r), _odd(r, a)) if found.any()), None)
    return () if odd is None else tuple(int(i) for i in np.unravel_index(int(odd.argmax()), odd.shape))


def _odd(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.bool_]:
    """Where the first is NaN or infinite, and the second is not."""
    odd: NDArray[np.bool_] = ~np.isfinite(first.astype(np.float64)) & np.isfinite(second.astype(np.float64))
    return odd


def _lean(error: NDArray[np.float64]) -> Lean:
    mean, square = float(error.mean()), float(np.mean(error**2))
    spread = math.sqrt(max(square - mean**2, 0.0))
    if not square:
        return Lean(mean, spread, 0.0, 0.0)
    samples = len(error) if error.ndim > 1 else 1
    raw = float(np.mean(error.mean(axis=0) ** 2)) / square
    chance = 1 / samples
    by_position = max(raw - chance, 0.0) / (1 - chance) if samples > 1 else 0.0
    return Lean(mean, spread, mean**2 / square, by_position)


def _place(error: NDArray[np.float64], reference: NDArray[Any]) -> Place | None:
    """The part that is most surprising: it holds most, beyond its share."""
    energy = _squares(reference)
    parts = [*_slices(error**2, energy), *_regions(error**2, energy)]
    return max(parts, key=lambda place: place.share - place.fair, default=None)


def _squares(array: NDArray[Any]) -> NDArray[np.float64]:
    values = array.astype(np.float64)
    return np.where(np.isfinite(values), values, 0.0) ** 2


def _slices(error: NDArray[np.float64], energy: NDArray[np.float64]) -> list[Place]:
    places = []
    for axis, size in enumerate(error.shape):
        if size < 3 or error.ndim < 2 or (error.ndim == 4 and axis > 1):
            continue
        others = tuple(i for i in range(error.ndim) if i != axis)
        held, own = error.sum(axis=others), energy.sum(axis=others)
        at = int(held.argmax())
        fair = max(1 / size, _share(own[at], own.sum()))
        places.append(Place(_kind(axis, error.ndim), at, size, _share(held[at], held.sum()), fair))
    return places


def _regions(error: NDArray[np.float64], energy: NDArray[np.float64]) -> list[Place]:
    """The border and the four corners of maps (N, C, H, W)."""
    if error.ndim != 4 or min(error.shape[2:]) < 6:
        return []
    height, width = error.shape[2:]
    rim = np.ones((height, width), bool)
    rim[1:-1, 1:-1] = False
    masks = [("border", -1, 1, rim)]
    for number in range(4):
        corner = np.zeros((height, width), bool)
        down, right = divmod(number, 2)
        rows = slice(height // 2, None) if down else slice(None, height // 2)
        corner[rows, slice(width // 2, None) if right else slice(None, width // 2)] = True
        masks.append(("corner", number, 4, corner))
    maps, own = error.sum(axis=(0, 1)), energy.sum(axis=(0, 1))
    return [
        Place(
            kind, index, of, _share(maps[mask].sum(), maps.sum()), max(mask.mean(), _share(own[mask].sum(), own.sum()))
        )
        for kind, index, of, mask in masks
    ]


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _kind(axis: int, axes: int) -> str:
    if axis == 0:
        return "sample"
    if axes == 2:
        return "class"
    return "channel" if axis == 1 and axes == 4 else f"slice of axis {axis}"


def _flips(a: NDArray[Any], r: NDArray[Any], judgement: Judgement) -> Flips:
    actual, reference = scores_of(a), scores_of(r)
    best = reference.argmax(axis=1)
    first = np.where(np.isnan(actual).any(axis=1), -1, actual.argmax(axis=1))
    flipped = np.flatnonzero(first != best)
    if reference.shape[1] < 2:
        return Flips(len(best), 0, 0, (), ())
    top = np.sort(reference[flipped], axis=1)
    margins = top[:, -1] - top[:, -2]
    width = _WIDTH * rms(r) * (judgement.bound if judgement.bound is not None else 0.0)
    order = np.argsort(-margins, kind="stable")[:5]
    ranking, limits = judgement.comparison.ranking, judgement.tolerance
    sequences = ranking.sequences if ranking else None
    return Flips(
        sequences=sequences,
        changed=round((1 - (ranking.top1_all or 0.0)) * sequences) if ranking and sequences else 0,
        accepted=limits.top1 is not None or limits.top1_all is not None,
        samples=len(best),
        flipped=len(flipped),
        sound=int((margins > width).sum()),
        margins=tuple(float(margins[i]) for i in order),
        first=tuple((int(flipped[i]), int(best[flipped[i]]), int(first[flipped[i]])) for i in order),
    )
