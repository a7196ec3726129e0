from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from pytest_trt.calibration.threshold import (
    BINS,
    Histogram,
    Method,
    entropy,
    mean_squared_error,
    percentile,
    read_method,
    require_grid,
    threshold,
)
from pytest_trt.errors import LoweringError, SpecError

DRAW = np.random.default_rng(0)


def histogram_of(values: np.ndarray) -> Histogram:
    histogram = Histogram(float(np.abs(values).max()))
    histogram.add(values)
    return histogram


def published(counts: np.ndarray) -> float:
    """The entropy threshold in bins, candidate by candidate, as the algorithm is written down."""
    counts = counts.astype(float)
    counts[0] = counts[1]
    divergences = []
    for i in range(128, BINS + 1):
        p, level, filled = counts[:i].copy(), np.arange(i) * 128 // i, counts[:i] > 0
        sums = np.bincount(level, weights=counts[:i], minlength=128)
        bins = np.bincount(level, weights=filled, minlength=128)
        q = np.where(filled, sums[level] / np.maximum(bins[level], 1), 0)
        p[-1] += counts[i:].sum()
        p, q = p / p.sum(), q / max(q.sum(), 1e-300)
        if (q[p > 0] == 0).any():
            divergences.append(np.inf)
        else:
            divergences.append(float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0]))))
    nearly = min(divergences) + 1e-12
    return 128 + max(n for n, value in enumerate(divergences) if value <= nearly) + 0.5


@pytest.mark.parametrize("values", [
    DRAW.standard_normal(50_000),
    np.maximum(DRAW.standard_normal(90_000), 0),
    DRAW.laplace(size=50_000),
    DRAW.uniform(-3, 3, 40_000),
    DRAW.standard_t(3, 50_000),
    DRAW.integers(0, 17, 50_000) / 16,
])  # fmt: skip
def test_entropy_is_the_published_algorithm(values: np.ndarray) -> None:
    counts = histogram_of(values.astype(np.float32)).counts

    assert entropy(counts) == published(counts)


def test_entropy_clips_a_long_tail_and_no_flat_distribution() -> None:
    tail = histogram_of(np.append(DRAW.standard_normal(100_000), 50).astype(np.float32))
    flat = histogram_of(DRAW.uniform(-1, 1, 100_000).astype(np.float32))

    assert threshold(tail, Method("entropy")) < 10
    assert threshold(flat, Method("entropy")) > 0.95


def test_entropy_clips_no_more_than_squared_error_would_but_for_a_lone_outlier() -> None:
    tail = histogram_of(DRAW.standard_t(3, 200_000).astype(np.float32))
    lone = histogram_of(np.append(DRAW.standard_normal(200_000), 50).astype(np.float32))

    by_entropy, by_error = (threshold(tail, Method(name)) for name in ("entropy", "mse"))

    assert entropy(tail.counts) / BINS * tail.amax < 0.8 * by_error <= by_entropy
    assert threshold(lone, Method("entropy")) < 0.2 * threshold(lone, Method("mse"))


def test_a_tensor_of_one_size_is_not_clipped() -> None:
    signs = histogram_of(np.where(DRAW.random(100) < 0.5, -2, 2).astype(np.float32))

    for name in ("entropy", "percentile", "mse"):
        assert threshold(signs, Method(name)) == pytest.approx(2.0, rel=1e-3)


def test_few_values_are_not_clipped_by_entropy_which_would_follow_their_noise() -> None:
    few = histogram_of(np.random.default_rng(0).standard_normal(4096).astype(np.float32))

    assert threshold(few, Method("entropy")) == few.amax


def test_zeros_do_not_pull_the_entropy_threshold_down() -> None:
    values = np.abs(DRAW.standard_normal(50_000)).astype(np.float32)
    sparse = np.concatenate([values, np.zeros(450_000, np.float32)])

    assert entropy(histogram_of(sparse).counts) == entropy(histogram_of(values).counts)


@pytest.mark.parametrize("percent", [90, 99, 99.9])
def test_percentile_leaves_that_share_under_it_within_a_bin(percent: float) -> None:
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    histogram = histogram_of(values)

    found = threshold(histogram, Method("percentile", percent))
    fullest = histogram.counts[int(found / histogram.amax * BINS)] / values.size

    assert np.mean(np.abs(values) <= found) == pytest.approx(percent / 100, abs=fullest)


def test_a_hundred_percent_clips_nothing() -> None:
    assert percentile(histogram_of(DRAW.standard_normal(999).astype(np.float32)).counts, 100) == BINS


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_mse_errs_as_little_as_the_best_of_all_thresholds(precision: str) -> None:
    values = np.random.default_rng(1).laplace(size=50_000).astype(np.float32)
    histogram = histogram_of(values)

    def error(amax: float) -> float:
        step = amax / (127 if precision == "int8" else 448)
        if precision == "int8":
            back = np.clip(np.rint(values / step), -127, 127) * step
        else:
            back = np.clip(values / step, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(float) * step
        return float(((back - values) ** 2).mean())

    best = min(error(histogram.amax * n / 200) for n in range(13, 201))

    assert error(threshold(histogram, Method("mse"), precision)) < 1.05 * best
    assert precision == "fp8" or error(histogram.amax) > 1.1 * best


def test_a_grid_of_its_own_gives_fp8_a_threshold_of_its_own() -> None:
    counts = histogram_of(DRAW.standard_normal(50_000).astype(np.float32)).counts

    assert mean_squared_error(counts, "fp8") != mean_squared_error(counts, "int8")


def test_entropy_is_refused_for_fp8_with_what_to_take() -> None:
    with pytest.raises(LoweringError, match="take minmax, mse or percentile"):
        require_grid(Method("entropy"), "fp8")


def test_values_are_counted_where_they_lie() -> None:
    histogram = Histogram(2.0)

    histogram.add(np.array([[0.0, -2.0], [1.0, -0.9999]], np.float32))

    assert np.flatnonzero(histogram.counts).tolist() == [0, 1023, 1024, BINS - 1]
    assert histogram.counts.sum() == 4
    assert histogram.beyond == 0


@pytest.mark.parametrize("odd", [2.01, -1e30, np.inf, np.nan])
def test_a_value_beyond_the_range_is_counted_apart(odd: float) -> None:
    histogram = Histogram(2.0)

    histogram.add(np.array([1.0, odd], np.float32))

    assert (histogram.counts.sum(), histogram.beyond) == (1, 1)


def test_blocks_add_up() -> None:
    values = DRAW.standard_normal((3, 70_001)).astype(np.float32)
    whole, parts = histogram_of(values), Histogram(float(np.abs(values).max()))

    for part in values:
        parts.add(part)

    np.testing.assert_array_equal(whole.counts, parts.counts)
    assert whole.counts.sum() == values.size


def test_methods_are_read_by_name() -> None:
    assert read_method("percentile:99.9") == Method("percentile", 99.9)
    assert str(read_method("percentile")) == "percentile:99.99"
    assert str(read_method("entropy")) == "entropy"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entropie", "did you mean 'entropy'"),
        ("percentile:x", "only percentile takes a number"),
        ("percentile:101", "from 50 to 100"),
        ("percentile:nan", "from 50 to 100"),
        ("mse:3", "only percentile"),
    ],
)
def test_a_method_that_is_not_known_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read_method(text)
