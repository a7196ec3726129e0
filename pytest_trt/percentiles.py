"""Exact percentiles of |difference| without keeping the differences.

A float32 of a non-negative number sorts like its bits, so the leading 15 of them after the sign make a
histogram that tells which bins hold a percentile; a second pass sorts the values of those bins alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.difference import blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BINS", "bins", "percentiles"]

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
