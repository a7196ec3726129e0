"""Histogram: how often the values of one tensor have which size, counted batch after batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BINS", "SMALLEST", "Histogram"]

BINS = 2048
SMALLEST = 2.0**-100
"""The least amax that is cut into bins; a smaller one is zero for every use of a range."""

_BLOCK = 1 << 16  # values at once: what is made of them stays in the CPU's cache
_BEYOND = BINS + 1  # a value in bin 2048 is amax itself, or amax in another rounding


@dataclass(eq=False)
class Histogram:
    """Counts of |x| in 2048 bins of one width over [0, amax].

    Attributes:
        amax: largest absolute value, of a pass before; at least ``SMALLEST``.
        counts: int64 (2048,), how many values fell into each bin.
        beyond: how many were larger than amax, NaN included: the samples are not those of the pass before.
    """

    amax: float
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    beyond: int = 0

    def add(self, values: NDArray[Any]) -> None:
        """Count all values of an array of any shape, in float32."""
        flat = values.reshape(-1)
        scale = np.float32(BINS / self.amax)
        sizes = np.empty(min(_BLOCK, flat.size), np.float32)
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK].astype(np.float32, copy=False)
            self._count(block, sizes[: block.size], scale)

    def _count(self, block: NDArray[np.float32], sizes: NDArray[np.float32], scale: np.float32) -> None:
        np.abs(block, out=sizes)
        np.multiply(sizes, scale, out=sizes)
        np.fmin(sizes, _BEYOND, out=sizes)  # of NaN and a number the number
        found = np.bincount(sizes.astype(np.intp), minlength=_BEYOND + 1)
        self.beyond += int(found[_BEYOND])
        self.counts += found[:BINS]
        self.counts[-1] += found[BINS]
