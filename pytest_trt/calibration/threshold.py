"""Threshold: a histogram of one tensor, and where to clip it: entropy, percentile or mean squared error."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import LoweringError, SpecError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = [
    "BINS",
    "SMALLEST",
    "Histogram",
    "Method",
    "entropy",
    "mean_squared_error",
    "percentile",
    "read_method",
    "require_grid",
    "threshold",
    "too_few",
]

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


METHODS = ("minmax", "entropy", "percentile", "mse")

_LEVELS = 128
_FEW = 16
_OUTLIERS = 1e-5
_PERCENT = 99.99
_CANDIDATES = tuple(map(float, range(_LEVELS, BINS + 1, 8)))  # thresholds that mse tries, in bins


@dataclass(frozen=True)
class Method:
    """How samples become a range.

    Attributes:
        name: one of ``METHODS``.
        percent: of ``percentile``, the share of values that is not clipped, in percent.
    """

    name: str = "minmax"
    percent: float = _PERCENT

    def __str__(self) -> str:
        return f"{self.name}:{self.percent:g}" if self.name == "percentile" else self.name


def read_method(text: str) -> Method:
    """The method of this name: minmax, entropy, mse, percentile (99.99) or ``percentile:99.9``.

    Raises:
        SpecError: it is not one; the message names the nearest.
    """
    name, colon, number = text.partition(":")
    if name not in METHODS:
        raise unknown("calibration method", text, METHODS)
    if not colon:
        return Method(name)
    try:
        percent = float(number)
    except ValueError:
        percent = 0.0
    if name != "percentile" or not 50 <= percent <= 100:
        raise SpecError(
            f"calibration method {text!r}: only percentile takes a number, from 50 to 100 percent: percentile:99.9."
        )
    return Method(name, percent)


def require_grid(method: Method, precision: str) -> None:
    """Refuse entropy for fp8: its 128 levels of one width are int8's.

    E4M3 has steps that grow with the value, so that clipping buys small values nothing, and a divergence between
    histograms of equal levels says nothing of its error.

    Raises:
        LoweringError: it is asked for.
    """
    if method.name == "entropy" and precision == "fp8":
        raise LoweringError(
            "calibration by entropy weighs 128 levels of one width, which fp8 has not: take minmax, mse or percentile"
            " for fp8."
        )


def threshold(histogram: Histogram, method: Method, precision: str = "int8") -> float:
    """The range that a method takes for a tensor; in the tensor's own unit, at most its amax.

    Args:
        histogram: of a tensor's absolute values.
        method: how to choose; minmax takes all of it, and entropy clips no more than least squared error would, that
            of one value in 100 000 aside.
        precision: whose grid mse measures by, "int8" or "fp8".
    """
    counts = histogram.counts
    ways: dict[str, Callable[[], float]] = {
        "minmax": lambda: BINS,
        # information is not error: a divergence may gain by cutting off a tail that rounding would have kept
        "entropy": lambda: max(entropy(counts), mean_squared_error(_without_outliers(counts))),
        "percentile": lambda: percentile(counts, method.percent),
        "mse": lambda: mean_squared_error(counts, precision),
    }
    return min(ways[method.name]() / BINS, 1.0) * histogram.amax


def entropy(counts: NDArray[np.int64]) -> float:
    """The threshold, in bins, of least information lost when 2048 bins become 128 levels.

    TensorRT's published algorithm: Szymon Migacz, "8-bit Inference with TensorRT", GTC 2017. For each number of bins i
    from 128 to 2048, P is the first i bins with all that lies beyond put into its last one, Q the same bins without
    that, merged into 128 levels of (nearly) one width, each spread evenly over its bins that are not empty. The i of
    least Kullback-Leibler divergence KL(P || Q) gives the threshold (i + 0.5) bins.

    What the slides leave open is as in NVIDIA's pytorch-quantization (github.com/NVIDIA/TensorRT, tools,
    calib/histogram.py): bin k belongs to level floor(128 k / i), the largest i counts among equals, a Q that is empty
    where P is not is no candidate, and the first bin counts as much as the second, because a Relu's zeros are zero
    under every threshold. Our own addition is :func:`too_few`: then nothing is clipped.

    Args:
        counts: (2048,), how many values fell into each bin.
    """
    if too_few(counts):
        return float(BINS)
    kept = _without_zeros(counts)
    divergences = _divergences(kept)
    least = len(divergences) - 1 - int(np.argmin(divergences[::-1]))
    return _LEVELS + least + 0.5


def too_few(counts: NDArray[np.int64]) -> bool:
    """Whether a histogram is too thin for entropy: fewer than 16 values a bin, zeros aside.

    Then most bins of the tail hold one value or none, and the divergence follows that noise: of 4096 normal values the
    threshold errs 2 to 13 times as much as the largest one does, squared and on others of their kind; of 65536, 0.9
    times.
    """
    return bool(_without_zeros(counts).sum() < _FEW * BINS)


def _without_zeros(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    kept = counts.astype(np.float64)
    kept[0] = kept[1]
    return kept


def _without_outliers(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The counts but for the outermost bins that hold one value in 100 000 together."""
    beyond = np.cumsum(counts[::-1])[::-1]
    return np.where(beyond <= _OUTLIERS * counts.sum(), 0, counts)


def percentile(counts: NDArray[np.int64], percent: float) -> float:
    """The threshold, in bins, under which this share of the values lies; linear within a bin.

    Args:
        counts: (2048,), how many values fell into each bin.
        percent: share in percent.
    """
    cumulated = np.concatenate([[0], np.cumsum(counts)])
    wanted = percent / 100 * cumulated[-1]
    last = int(np.searchsorted(cumulated, wanted))
    if last == 0:
        return 0.0
    before, after = cumulated[last - 1], cumulated[last]
    return float(last - 1 + (wanted - before) / (after - before))


def mean_squared_error(counts: NDArray[np.int64], precision: str = "int8") -> float:
    """The threshold, in bins, of least mean squared error after rounding and clipping the middles of all bins.

    As in NVIDIA's pytorch-quantization (calib/histogram.py), for every eighth bin from 128 on.

    Args:
        counts: (2048,), how many values fell into each bin.
        precision: "int8" rounds to 127 steps of threshold / 127, "fp8" to E4M3 (OCP 8-bit Floating Point
            Specification 1.0) in units of threshold / 448.
    """
    if not counts.any():
        return float(BINS)
    return _CANDIDATES[int(np.argmin([_squared_error(counts, bins, precision) for bins in _CANDIDATES]))]


def _squared_error(counts: NDArray[np.int64], bins: float, precision: str) -> float:
    """Of the middles of all bins, rounded and clipped at this threshold; summed, in bins squared."""
    used = np.flatnonzero(counts)
    middles = used.astype(np.float64) + 0.5
    return float(counts[used] @ (_rounded(middles, bins, precision) - middles) ** 2)


def _rounded(values: NDArray[np.float64], largest: float, precision: str) -> NDArray[np.float64]:
    if precision == "fp8":
        import ml_dtypes

        step = largest / 448
        levels = np.minimum(values / step, 448).astype(ml_dtypes.float8_e4m3fn)
        return np.asarray(levels.astype(np.float64) * step)
    step = largest / 127
    return np.asarray(np.minimum(np.rint(values / step), 127) * step)


def _divergences(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(P || Q) for 128 to 2048 bins, but for log of the sum of P, which is the same for all; inf where Q misses P.

    Of counts c, with C the sum of a level, n its bins that are not empty and S the sum of all bins but the outliers':
    sum p log p - sum p log q, where q = C / (n S), so that sums over bins are differences of running sums.
    """
    edges = _edges()
    sums = np.concatenate([[0.0], np.cumsum(counts)])
    filled = np.concatenate([[0], np.cumsum(counts > 0)])
    own = np.concatenate([[0.0], np.cumsum(_x_log_x(counts))])
    levels, bins = np.diff(sums[edges]), np.diff(filled[edges])
    shares = np.log(np.divide(levels, bins, out=np.ones_like(levels), where=bins > 0))
    candidates = edges[:, -1]
    last, inside = counts[candidates - 1], sums[candidates]
    outliers = sums[-1] - inside
    p_log_p = own[candidates - 1] + _x_log_x(last + outliers)
    p_log_q = (levels * shares).sum(axis=1) + outliers * shares[:, -1]
    with np.errstate(divide="ignore"):
        p_log_q = p_log_q - sums[-1] * np.log(inside)
    missed = (last == 0) & (outliers > 0)
    return np.where(missed | (inside == 0), np.inf, (p_log_p - p_log_q) / sums[-1])


@cache
def _edges() -> NDArray[np.int32]:
    """(1921, 129): the first bin of each level, and the end, for 128 to 2048 bins."""
    candidates = np.arange(_LEVELS, BINS + 1, dtype=np.int32)[:, None]
    return np.asarray(-(-candidates * np.arange(_LEVELS + 1, dtype=np.int32) // _LEVELS))


def _x_log_x(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values * np.log(np.maximum(values, 1.0))  # counts are whole: 0 and 1 make 0
