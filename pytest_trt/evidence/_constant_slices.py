"""Constant slices: what of an output is the same for every sample."""

from __future__ import annotations

from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.comparison.error_metrics import rms
from pytest_trt.comparison.parts import Part
from pytest_trt.model.feeds import is_float

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pytest_trt.evidence.judgement import Judgement

    Doubles = NDArray[np.float64]
    Flags = NDArray[np.bool_]

__all__ = ["by_sample", "constant_slices", "is_constant"]

_STILL = 1e-6
_CLEARLY = 3.0
_AT_ONCE = 1 << 20  # elements that are taken to float64
_LOOSE = 0.1  # where the user's limits are no relative RMS
_LEAST_BOUND = 1e-3  # what moves by less moves as little as an output that proves nothing


def is_constant(array: NDArray[Any]) -> bool:
    """Whether all samples are the first one, to a millionth of its largest value; sample by sample, for the memory."""
    if not is_float(array.dtype) or array.ndim < 1 or len(array) < 2 or not array.size:
        return False
    first = array[0].astype(np.float64)
    if not np.isfinite(first).all():
        return False
    width = _STILL * float(np.abs(first).max())
    return all(float(np.abs(part.astype(np.float64) - first).max()) <= width for part in array[1:])


def by_sample(array: NDArray[Any], period: int) -> NDArray[Any]:
    """Samples along the first axis, each with its slices along the second where it has several."""
    return array if period == 1 or len(array) % period else array.reshape(-1, period, *array.shape[1:])


def constant_slices(actual: NDArray[Any], reference: NDArray[Any], judgement: Judgement, period: int) -> Part | None:
    """Slices that stand still over the samples, along the axis that has the most of them.

    The golden's must move somewhere by three times what the part that they are in may err by: less can be rounding.
    A slice that holds nothing but the golden's own background may have lost that much over all of the slice: what is
    seen in a picture moves by a pixel and is gone from its outermost row.

    Args:
        actual: what was given.
        reference: the golden's, of the same shape.
        judgement: of the output.
        period: slices of a sample along the first axis.

    Returns:
        The slices; None where no slice stands still.
    """
    golden, given = by_sample(reference, period), by_sample(actual, period)
    if golden.ndim < 2 or len(golden) < 2 or not reference.size:
        return None
    first = int(period == 1)
    bounds, low, stands = _extremes(golden), *_standing(given)
    allowed = _allowed(reference, judgement, bounds[0].shape, first)
    moves = bounds[1] - bounds[0] > _CLEARLY * allowed
    ground = _Background(golden, *bounds, allowed)
    found: list[tuple[float, Part]] = []
    for axis, count in enumerate(moves.shape):
        others = tuple(one for one in range(moves.ndim) if one != axis)
        rows = np.flatnonzero(stands.all(axis=others) & moves.any(axis=others))
        dead = tuple(int(row) for row in rows if not ground.explains(low, axis, int(row)))
        if count >= 2 and dead:
            lying = Part(judgement.output, axis + first, dead, period=0 if axis + first else period)
            found.append((len(dead) / count, lying))
    return max(found, key=itemgetter(0), default=(0.0, None))[1]


class _Background:
    """The values at which slices of a golden stand still, and how much a slice may lose to them."""

    def __init__(self, golden: NDArray[Any], low: Doubles, high: Doubles, allowed: Doubles) -> None:
        self._golden, self._low, self._high, self._allowed = golden, low, high, allowed
        self._width = _STILL * float(max(np.abs(low).max(), np.abs(high).max()))

    def explains(self, standing: Doubles, axis: int, row: int) -> bool:
        """Whether a slice stands at a value that a slice of the golden stands at, and has lost little to it.

        Args:
            standing: the values of the slices that stand still, by their place in a sample.
            axis: of a sample.
            row: which slice of it.
        """
        values = np.take(standing, row, axis)
        value = float(values.flat[0])
        if not self._is_at(values, values, value).all() or not self._has(axis, value):
            return False
        lost = np.take(self._golden, row, axis + 1).astype(np.float64) - value
        return rms(lost) <= _CLEARLY * rms(np.take(self._allowed, row, axis))

    def _has(self, axis: int, value: float) -> bool:
        others = tuple(one for one in range(self._low.ndim) if one != axis)
        return bool(self._is_at(self._low, self._high, value).all(axis=others).any())

    def _is_at(self, low: Doubles, high: Doubles, value: float) -> Flags:
        there: Flags = (np.abs(low - value) <= self._width) & (np.abs(high - value) <= self._width)
        return there


def _standing(actual: NDArray[Any]) -> tuple[Doubles, Flags]:
    """The smallest values over the samples, and where the largest are the same."""
    low, high = _extremes(actual)
    still: Flags = high - low <= _STILL * np.maximum(np.abs(low), np.abs(high))
    return low, still & np.isfinite(actual).all(axis=0)


def _allowed(r: NDArray[Any], judgement: Judgement, shape: tuple[int, ...], first: int) -> Doubles:
    """What each position of a sample may err by, absolutely, for the part that it is in.

    Args:
        r: the golden's output.
        judgement: of it, whose parts have the bounds.
        shape: of a sample.
        first: the output's axis that is a sample's first.
    """
    allowed = np.zeros(shape)
    for one in judgement.parts:
        if one.part.sentinels:
            continue
        size = max(_LOOSE if one.bound is None else one.bound, _LEAST_BOUND) * _size_of(one.part, r)
        if one.part.axis is None:
            allowed[...] = size
        else:
            np.moveaxis(allowed, one.part.axis - first, 0)[list(one.part.rows)] = size
    return allowed


def _size_of(part: Part, r: NDArray[Any]) -> float:
    """RMS of a part's values, also of one whose logarithms are compared."""
    return rms(r if part.whole else replace(part, least=0.0).of(r, r))


def _pieces(array: NDArray[Any]) -> Iterator[Doubles]:
    """Some samples at a time, in float64, for the memory; what is not finite is 0."""
    step = max(1, _AT_ONCE // max(array[0].size, 1))
    for start in range(0, len(array), step):
        values = array[start : start + step].astype(np.float64)
        yield np.where(np.isfinite(values), values, 0.0)


def _extremes(array: NDArray[Any]) -> tuple[Doubles, Doubles]:
    """The smallest and the largest value over the samples, position by position."""
    low, high = np.full(array.shape[1:], np.inf), np.full(array.shape[1:], -np.inf)
    for piece in _pieces(array):
        np.minimum(low, piece.min(axis=0), out=low)
        np.maximum(high, piece.max(axis=0), out=high)
    return low, high
