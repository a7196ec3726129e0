"""Error metrics: differences of two arrays without wrap-around, block by block; their exact percentiles; top-k."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "BINS",
    "Block",
    "Flip",
    "Ranking",
    "accuracy",
    "bins",
    "blocks",
    "dot",
    "percentiles",
    "rank",
    "ratio",
    "rms",
    "scores_of",
]

if TYPE_CHECKING:
    Doubles = NDArray[np.float64]


_SIZE = 1 << 16  # the float64 copies of a block stay in the processor's cache


@dataclass(frozen=True)
class Block:
    """A stretch of both arrays, flat, in float64.

    Attributes:
        start: flat index of its first element.
        actual: values under test.
        reference: golden values.
        signed: actual - reference.
        size: |signed|; 0 where both hold the same NaN or infinity, infinite where only one does.
        finite: whether every value of both is finite.
    """

    start: int
    actual: Doubles
    reference: Doubles
    signed: Doubles
    size: Doubles
    finite: bool


def blocks(actual: NDArray[Any], reference: NDArray[Any]) -> Iterator[Block]:
    """Both arrays, of one shape, stretch by stretch."""
    a, r = actual.reshape(-1), reference.reshape(-1)
    for start in range(0, a.size, _SIZE):
        yield _block(start, a[start : start + _SIZE], r[start : start + _SIZE])


def ratio(size: Doubles, scale: Doubles) -> Doubles:
    """Size over scale; infinite where only the scale is zero (or not finite), 0 where the size is."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found: Doubles = size / scale
    if not np.isfinite(found).all():
        found[~np.isfinite(scale) & (size > 0)] = math.inf
        found[size == 0] = 0.0
    return found


def dot(x: Doubles, y: Doubles) -> float:
    """Sum of products, without BLAS: its threads cost more than they gain on a block, and most of all under xdist."""
    return float(np.einsum("i,i->", x, y))


def rms(array: NDArray[Any]) -> float:
    """Root of the mean square of the finite values, in float64; 0.0 if there are none."""
    flat, total, count = array.reshape(-1), 0.0, 0
    for start in range(0, flat.size, _SIZE):
        values = flat[start : start + _SIZE].astype(np.float64)
        values = values[np.isfinite(values)]
        total, count = total + dot(values, values), count + values.size
    return math.sqrt(total / count) if count else 0.0


def _block(start: int, a: NDArray[Any], r: NDArray[Any]) -> Block:
    x, y = a.astype(np.float64), r.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf is looked at below
        signed = x - y
        if not math.isfinite(float(signed.sum())):
            return _odd_block(start, x, y, signed)
    if (_wide(a) or _wide(r)) and a.dtype.kind in "biu" and r.dtype.kind in "biu":
        signed = _exact(a, r, signed)
    return Block(start, x, y, signed, np.abs(signed), finite=True)


def _odd_block(start: int, x: Doubles, y: Doubles, signed: Doubles) -> Block:
    size = np.abs(signed)
    odd = ~(np.isfinite(x) & np.isfinite(y))
    same = odd & ((x == y) | (np.isnan(x) & np.isnan(y)))
    size[odd] = math.inf
    size[same] = 0.0
    return Block(start, x, y, signed, size, finite=not odd.any())


def _wide(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "iu" and array.dtype.itemsize == 8


def _exact(a: NDArray[Any], r: NDArray[Any], rough: Doubles) -> Doubles:
    """Differences of 64-bit integers, taken in int64 where they fit it (uint64 wraps there and back)."""
    whole = a.astype(np.int64) - r.astype(np.int64)
    return np.where(np.abs(rough) < 2.0**62, whole.astype(np.float64), rough)


BINS = 1 << 15


def bins(size: NDArray[np.float64]) -> NDArray[np.uint32]:
    """The bin of each non-negative value, in the values' order."""
    with np.errstate(over="ignore", under="ignore"):
        found: NDArray[np.uint32] = size.astype(np.float32).view(np.uint32) >> np.uint32(16)
    return found


def percentiles(
    a: NDArray[Any], r: NDArray[Any], histogram: NDArray[np.int64], quantiles: tuple[float, ...]
) -> tuple[float, ...]:
    """Percentiles of |a - r|, interpolated linearly as numpy.quantile does.

    Args:
        a: actual values.
        r: reference values, of the same shape.
        histogram: counts of :func:`bins` over all elements.
        quantiles: each in 0..1.

    Returns:
        One value a quantile; NaN for empty arrays.
    """
    ends = np.cumsum(histogram)
    count = int(ends[-1])
    if not count:
        return tuple(math.nan for _ in quantiles)
    places = [(q * (count - 1), int(q * (count - 1))) for q in quantiles]
    ranks = {min(rank + step, count - 1) for _, rank in places for step in (0, 1)}
    value = _order_statistics(a, r, histogram, ends, sorted(ranks))
    return tuple(_between(value[rank], value[min(rank + 1, count - 1)], place - rank) for place, rank in places)


def _order_statistics(
    a: NDArray[Any], r: NDArray[Any], histogram: NDArray[np.int64], ends: NDArray[np.int64], ranks: list[int]
) -> dict[int, float]:
    bin_of = {rank: int(np.searchsorted(ends, rank, side="right")) for rank in ranks}
    wanted = np.zeros(BINS, bool)
    wanted[list(bin_of.values())] = True
    ordered = np.sort(np.concatenate([b.size[wanted[bins(b.size)]] for b in blocks(a, r)]))
    kept_below = {b: int(histogram[:b][wanted[:b]].sum()) for b in bin_of.values()}
    all_below = {b: int(ends[b] - histogram[b]) for b in bin_of.values()}
    return {rank: float(ordered[kept_below[b] + rank - all_below[b]]) for rank, b in bin_of.items()}


def _between(low: float, high: float, share: float) -> float:
    return low if low == high or share == 0 else low + (high - low) * share


_FLIPS = 5


@dataclass(frozen=True)
class Flip:
    """A sample whose best class changed: the class of the reference, then the actual one."""

    sample: int
    reference: int
    actual: int


@dataclass(frozen=True)
class Ranking:
    """Agreement of the class scores over the samples.

    Attributes:
        samples: how many were ranked; every position of a sequence (N, T, C) and every place of a map of scores
            (N, C, H, W) is one.
        top1: share of samples whose best class is the reference's best class.
        top5: share of samples whose five best classes hold the reference's best class.
        flips: the first samples whose best class changed, five at most.
        sequences: of scores of three axes, how many sequences of positions these are; None of others.
        top1_all: share of the sequences that keep the best class at every position; None as above.
    """

    samples: int
    top1: float
    top5: float
    flips: tuple[Flip, ...]
    sequences: int | None = None
    top1_all: float | None = None


def rank(actual: NDArray[Any], reference: NDArray[Any], sample_axis: int = 0) -> Ranking:
    """Compare best classes; the class axis is the last of one to three axes, axis 1 of more.

    A sample whose actual scores hold a NaN agrees with nothing.

    Args:
        actual: scores under test.
        reference: of the golden.
        sample_axis: of scores of three axes, 1 where the positions come first (T, N, C).

    Raises:
        DataError: there is no class axis, or it is empty.
    """
    a, r = scores_of(actual), scores_of(reference)
    best = r.argmax(axis=1)
    blind = np.isnan(a).any(axis=1)
    first = np.where(blind, -1, a.argmax(axis=1))
    scores_of_best = np.take_along_axis(a, best[:, None], axis=1)
    above = (a >= scores_of_best).sum(axis=1) - 1  # a tie is not known to be won
    flipped = np.flatnonzero(first != best)
    kept = (first == best).reshape(reference.shape[:2]).all(axis=1 - sample_axis) if reference.ndim == 3 else None
    return Ranking(
        samples=len(best),
        top1=float((first == best).mean()),
        top5=float(((above < 5) & ~blind).mean()),
        flips=tuple(Flip(int(i), int(best[i]), int(first[i])) for i in flipped[:_FLIPS]),
        sequences=None if kept is None else len(kept),
        top1_all=None if kept is None else float(kept.mean()),
    )


def accuracy(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Share of samples (positions of sequences) whose best class is the label; NaN scores are wrong.

    Raises:
        DataError: there is not one label a sample.
    """
    s = scores_of(scores)
    wanted = labels.reshape(-1)
    if len(wanted) != len(s):
        raise DataError(f"{len(wanted)} labels for {len(s)} samples of scores {list(scores.shape)}.")
    right = (s.argmax(axis=1) == wanted) & ~np.isnan(s).any(axis=1)
    return float(right.mean())


def scores_of(array: NDArray[Any]) -> NDArray[Any]:
    """Samples by classes, in float32, which holds narrower floats exactly; whole numbers in float64.

    Raises:
        DataError: there is no class axis, or it is empty.
    """
    if not array.ndim or not array.size:
        raise DataError(f"shape {list(array.shape)} has no classes to rank.")
    classes = array.ndim - 1 if array.ndim <= 3 else 1
    wide = array.dtype.kind in "biu" or array.dtype == np.float64
    moved = np.moveaxis(array, classes, -1).astype(np.float64 if wide else np.float32, copy=False)
    return moved.reshape(-1, array.shape[classes])
