"""Percentiles of latency: measured values as trtexec takes them, and none that the samples do not carry."""

from __future__ import annotations

from functools import cache
from math import floor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["least_samples", "percentile"]

_DOUBT = 0.01


@cache
def least_samples(percent: float) -> int:
    """How many samples a percentile above the median needs: 64 for p90, 130 for p95, 662 for p99.

    The least n of which, 99 times in 100, at least two lie above the true percentile, so that the second largest
    bounds it: q^n + n (1 - q) q^(n-1) <= 0.01 with q = percent / 100. MLPerf's early stopping has the same counts.

    Raises:
        ValueError: it is not above 50 and under 100.
    """
    if not 50 < percent < 100:
        raise ValueError(f"a percentile above the median lies between 50 and 100, not at {percent}")
    q, n = percent / 100, 2
    while q**n + n * (1 - q) * q ** (n - 1) > _DOUBT:
        n += 1
    return n


def percentile(samples: NDArray[np.float64], percent: float) -> float | None:
    """A percentile; None where there are too few samples for it.

    As trtexec has it: the median is the usual one; any other is a sample, ``sorted[n - 1 - int((1 - p) n)]``, not
    interpolated.

    Args:
        samples: float64[n], in any order.
        percent: 50 or more, less than 100.
    """
    if percent == 50:
        return float(np.median(samples)) if len(samples) else None
    if len(samples) < least_samples(percent):
        return None
    # rounded, since 0.1 of 10 is 0.99... in binary
    above = floor(round((100 - percent) / 100 * len(samples), 6))
    return float(np.sort(samples)[len(samples) - 1 - above])
