"""Comparison: how far an array is from its reference, in a stream of blocks and a fixed memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.comparison.error_metrics import BINS, Block, Ranking, bins, blocks, dot, percentiles, rank, ratio
from pytest_trt.errors import DataError
from pytest_trt.model.feeds import is_float

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Comparison", "Element", "compare"]

_WORST = 5
_PERCENTILES = (0.99, 0.999)


@dataclass(frozen=True)
class Element:
    """One element where actual and reference differ.

    Attributes:
        index: its index in the arrays.
        actual: its value under test, as a Python number.
        reference: the golden value.
        difference: |actual - reference|; infinite where just one of them is NaN or infinite.
        relative: difference / |reference|; infinite where only the reference is zero.
        allowed: the largest difference that was allowed here; None when nothing was asked.
    """

    index: tuple[int, ...]
    actual: float
    reference: float
    difference: float
    relative: float
    allowed: float | None = None


@dataclass(frozen=True)
class Comparison:
    """How far ``actual`` is from ``reference``; every figure is of the two arrays alone.

    Attributes:
        actual_dtype, reference_dtype: names of the dtypes.
        shape: of both.
        count: number of elements; figures of an empty array say nothing.
        rel_rms: ||actual - reference|| / ||reference|| (Euclidean norms): 0 for equal arrays, infinite when a
            NaN or infinity stands where the reference has none, or when only the reference is zero.
        mean_error: mean of actual - reference, the bias; NaN when ``mismatched`` is not 0.
        cosine: of the angle between the two, flattened; 1 when both are zero, NaN as above.
        sqnr_db: signal to quantization noise ratio, -20 log10(rel_rms).
        p99, p999: exact percentiles of |actual - reference|, linearly interpolated.
        max_abs, max_rel: the elements of the largest difference, absolute and relative; None if empty.
        worst: the five elements furthest beyond what is allowed (or the largest differences), worst first.
        different: how many elements are not equal.
        beyond: how many differ by more than was allowed; None when nothing was asked.
        actual_nan, actual_inf, reference_nan, reference_inf: how many of each.
        mismatched: how many elements are NaN or infinite on one side only, or infinities of opposite sign.
        ranking: agreement of classes, when asked.
    """

    actual_dtype: str
    reference_dtype: str
    shape: tuple[int, ...]
    count: int
    rel_rms: float
    mean_error: float
    cosine: float
    sqnr_db: float
    p99: float
    p999: float
    max_abs: Element | None
    max_rel: Element | None
    worst: tuple[Element, ...]
    different: int
    beyond: int | None
    actual_nan: int
    actual_inf: int
    reference_nan: int
    reference_inf: int
    mismatched: int
    ranking: Ranking | None = None

    def error(self, *, whole: bool) -> float:
        """The one figure that bounds are of: relative RMS, or for whole numbers the share that differs."""
        return self.different / max(self.count, 1) if whole else self.rel_rms


def compare(
    actual: ArrayLike,
    reference: ArrayLike,
    *,
    atol: float | None = None,
    rtol: float | None = None,
    ranking: bool = False,
    sample_axis: int = 0,
) -> Comparison:
    """Compare an array with its golden reference.

    Args:
        actual: the array under test; any float (fp16, bf16 and fp8 of ml_dtypes too), integer or bool.
        reference: the golden array, of the same shape.
        atol: with ``rtol``, an element may differ by atol + rtol x |reference|; counted in ``beyond``.
        rtol: see ``atol``; giving one alone takes 0 for the other.
        ranking: also compare the best classes. The class axis is the last for one to three axes, axis 1
            for more (N, C, H, W); all others count as samples.
        sample_axis: of scores of three axes, 1 where positions come first (T, N, C).

    Returns:
        The figures. Where both arrays hold the same NaN or infinity, the element counts as equal.

    Raises:
        DataError: the shapes differ, or an array is not numeric.
    """
    a, r = _numeric(actual, "actual"), _numeric(reference, "reference")
    if a.shape != r.shape:
        raise DataError(f"shapes differ: actual {list(a.shape)}, reference {list(r.shape)}.")
    asked = atol is not None or rtol is not None
    tally = _Tally(atol or 0.0, rtol or 0.0, asked)
    for block in blocks(a, r):
        tally.add(block)
    if tally.extreme():
        tally.sum_scaled(a, r)
    p99, p999 = percentiles(a, r, tally.histogram, _PERCENTILES)
    return tally.figures(a, r, p99, p999, rank(a, r, sample_axis) if ranking else None)


@dataclass
class _Tally:
    """Sums and extremes over the blocks seen so far."""

    atol: float
    rtol: float
    asked: bool
    count: int = 0
    different: int = 0
    beyond: int = 0
    nonfinite: _NonFinite = field(default_factory=lambda: _NonFinite())
    error_sum: float = 0.0
    error_squares: float = 0.0
    actual_squares: float = 0.0
    reference_squares: float = 0.0
    product: float = 0.0
    worst: list[tuple[float, int]] = field(default_factory=list)
    absolute: tuple[float, int] = (-1.0, 0)
    relative: tuple[float, int] = (-1.0, 0)
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, block: Block) -> None:
        """Take in one block."""
        self.count += block.size.size
        self.different += int(np.count_nonzero(block.size))
        self.histogram += np.bincount(bins(block.size), minlength=BINS)
        if not block.finite:
            self.nonfinite.add(block)
        self._sum(block)
        self._keep_extremes(block)

    def _sum(self, block: Block) -> None:
        error, x, y = block.signed, block.actual, block.reference
        if not block.finite:
            plain = np.isfinite(x) & np.isfinite(y)
            error, x, y = error[plain], x[plain], y[plain]
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # sum_scaled() mends what is lost
            self.error_sum += float(error.sum())
            self.error_squares += dot(error, error)
            self.actual_squares += dot(x, x)
            self.reference_squares += dot(y, y)
            self.product += dot(x, y)

    def _keep_extremes(self, block: Block) -> None:
        size, scale = block.size, np.abs(block.reference)
        self.absolute = _larger(self.absolute, size, block.start)
        self.relative = _larger(self.relative, ratio(size, scale), block.start)
        allowed = self.atol + self.rtol * np.where(np.isfinite(scale), scale, 0.0) if self.rtol else self.atol
        self.beyond += int(np.count_nonzero(size > allowed))
        excess = ratio(size, np.asarray(allowed)) if self.rtol else size
        self._keep_worst(excess, block.start)

    def _keep_worst(self, excess: NDArray[np.float64], start: int) -> None:
        bar = self.worst[-1][0] if len(self.worst) == _WORST else 0.0
        over = np.flatnonzero(excess > bar)
        if over.size > _WORST:
            over = over[np.argsort(-excess[over], kind="stable")[:_WORST]]
        found = [(float(excess[i]), start + int(i)) for i in over]
        self.worst = sorted(self.worst + found, key=lambda pair: (-pair[0], pair[1]))[:_WORST]

    def extreme(self) -> bool:
        """Whether squares left float64's range: zero though elements differ, or infinite though none is."""
        sums = self.error_squares + self.actual_squares + self.reference_squares + abs(self.error_sum)
        lost = 0.0 in (self.error_squares, self.reference_squares) and self.different > 0
        return lost or not math.isfinite(sums)

    def sum_scaled(self, a: NDArray[Any], r: NDArray[Any]) -> None:
        """Take the sums again of values divided by the largest, so that their ratios are right."""
        scale = max((_finite_max(block) for block in blocks(a, r)), default=0.0)
        self.error_squares = self.actual_squares = self.reference_squares = self.product = 0.0
        for block in blocks(a, r) if scale else ():
            plain = np.isfinite(block.actual) & np.isfinite(block.reference)
            x, y = block.actual[plain] / scale, block.reference[plain] / scale
            error = x - y
            self.error_squares += dot(error, error)
            self.actual_squares += dot(x, x)
            self.reference_squares += dot(y, y)
            self.product += dot(x, y)

    def figures(self, a: NDArray[Any], r: NDArray[Any], p99: float, p999: float, ranking: Ranking | None) -> Comparison:
        """The figures of all blocks."""
        broken = self.nonfinite.mismatched > 0
        rel_rms = math.inf if broken else _relative(self.error_squares, self.reference_squares)
        return Comparison(
            actual_dtype=a.dtype.name,
            reference_dtype=r.dtype.name,
            shape=tuple(a.shape),
            count=self.count,
            rel_rms=rel_rms,
            mean_error=math.nan if broken or not self.count else self.error_sum / self.count,
            cosine=math.nan if broken else self._cosine(),
            sqnr_db=_decibel(rel_rms),
            p99=p99,
            p999=p999,
            max_abs=self._element(a, r, self.absolute[1]) if self.count else None,
            max_rel=self._element(a, r, self.relative[1]) if self.count else None,
            worst=tuple(self._element(a, r, index) for _, index in self.worst),
            different=self.different,
            beyond=self.beyond if self.asked else None,
            actual_nan=self.nonfinite.actual_nan,
            actual_inf=self.nonfinite.actual_inf,
            reference_nan=self.nonfinite.reference_nan,
            reference_inf=self.nonfinite.reference_inf,
            mismatched=self.nonfinite.mismatched,
            ranking=ranking,
        )

    def _cosine(self) -> float:
        if not self.different:
            return 1.0  # exactly: the quotient of equal norms may round to less
        norms = math.sqrt(self.actual_squares) * math.sqrt(self.reference_squares)
        if norms == 0:
            return 0.0
        return max(-1.0, min(1.0, self.product / norms))

    def _element(self, a: NDArray[Any], r: NDArray[Any], flat: int) -> Element:
        index = tuple(int(i) for i in np.unravel_index(flat, a.shape)) if a.ndim else ()
        one_a, one_r = a[index].reshape(1), r[index].reshape(1)
        block = next(blocks(one_a, one_r))
        scale = np.abs(block.reference)
        allowed = self.atol + self.rtol * (float(scale[0]) if math.isfinite(scale[0]) else 0.0)
        return Element(
            index=index,
            actual=_number(one_a),
            reference=_number(one_r),
            difference=float(block.size[0]),
            relative=float(ratio(block.size, scale)[0]),
            allowed=allowed if self.asked else None,
        )


@dataclass
class _NonFinite:
    """How many NaN and infinities, on which side, and how many without their like on the other."""

    actual_nan: int = 0
    actual_inf: int = 0
    reference_nan: int = 0
    reference_inf: int = 0
    mismatched: int = 0

    def add(self, block: Block) -> None:
        x, y = block.actual, block.reference
        self.actual_nan += int(np.isnan(x).sum())
        self.actual_inf += int(np.isinf(x).sum())
        self.reference_nan += int(np.isnan(y).sum())
        self.reference_inf += int(np.isinf(y).sum())
        self.mismatched += int((~(np.isfinite(x) & np.isfinite(y)) & (block.size > 0)).sum())


def _finite_max(block: Block) -> float:
    values = np.abs(np.concatenate([block.actual, block.reference]))
    return float(values[np.isfinite(values)].max(initial=0.0))


def _numeric(values: ArrayLike, name: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind in "biu" or is_float(array.dtype):
        return array
    raise DataError(f"{name} is {array.dtype}: only float, integer and bool arrays are compared.")


def _number(one: NDArray[Any]) -> float:
    return int(one[0]) if one.dtype.kind in "biu" else float(one[0])


def _relative(error_squares: float, reference_squares: float) -> float:
    if error_squares == 0:
        return 0.0
    ratio_of_squares = error_squares / reference_squares if reference_squares else math.inf
    return math.inf if math.isnan(ratio_of_squares) else math.sqrt(ratio_of_squares)


def _decibel(rel_rms: float) -> float:
    if rel_rms == 0 or math.isinf(rel_rms):
        return -math.inf if rel_rms else math.inf
    return -20 * math.log10(rel_rms)


def _larger(best: tuple[float, int], values: NDArray[np.float64], start: int) -> tuple[float, int]:
    place = int(values.argmax())
    return (float(values[place]), start + place) if values[place] > best[0] else best
