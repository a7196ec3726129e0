from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from pytest_trt import compare
from pytest_trt.errors import DataError

DRAW = np.random.default_rng(0)


def test_equal_arrays_have_no_error() -> None:
    found = compare([1.0, -2.0], [1.0, -2.0])

    assert (found.rel_rms, found.different, found.cosine, found.sqnr_db) == (0.0, 0, 1.0, math.inf)
    assert found.worst == ()


def test_relative_rms_is_of_the_reference() -> None:
    assert compare([2.0, 0.0], [1.0, 0.0]).rel_rms == 1.0
    assert compare([1.0, 0.0], [2.0, 0.0]).rel_rms == 0.5


def test_bias_is_the_mean_of_signed_errors() -> None:
    assert compare([1.5, 2.0, 3.0], [1.0, 2.0, 4.0]).mean_error == pytest.approx(-1 / 6)


def test_largest_differences_carry_index_and_both_values() -> None:
    found = compare([[1.0, 2.0], [3.0, 9.0]], [[1.0, 1.0], [3.0, 10.0]])

    assert found.max_abs is not None
    assert found.max_rel is not None
    assert (found.max_abs.index, found.max_abs.actual, found.max_abs.reference) == ((0, 1), 2.0, 1.0)
    assert (found.max_rel.index, found.max_rel.relative) == ((0, 1), 1.0)


def test_figures_do_not_depend_on_the_blocks() -> None:
    reference = DRAW.standard_normal((3, 70_001)).astype(np.float32)
    actual = reference + 0.01 * DRAW.standard_normal(reference.shape).astype(np.float32)
    error = np.abs(actual.astype(np.float64) - reference)

    found = compare(actual, reference)

    assert found.rel_rms == pytest.approx(np.linalg.norm(error) / np.linalg.norm(reference.astype(np.float64)))
    assert (found.p99, found.p999) == pytest.approx(tuple(np.quantile(error, [0.99, 0.999])), rel=1e-12)
    assert found.max_abs is not None
    assert found.max_abs.index == np.unravel_index(error.argmax(), error.shape)
    assert [e.difference for e in found.worst] == sorted(error.ravel())[:-6:-1]


@pytest.mark.parametrize("values", [[0.0], [1.0, 1.0, 1.0], [0.0, 5.0], list(range(1000)), [1e-40, 1e40]])
def test_percentiles_are_numpys(values: list[float]) -> None:
    array = np.array(values)

    found = compare(array, np.zeros_like(array))

    assert (found.p99, found.p999) == pytest.approx(tuple(np.quantile(array, [0.99, 0.999])), rel=1e-12)


def test_int8_does_not_wrap_around() -> None:
    found = compare(np.array([127], np.int8), np.array([-128], np.int8))

    assert found.max_abs is not None
    assert found.max_abs.difference == 255
    assert found.mean_error == 255


def test_uint8_does_not_wrap_around() -> None:
    assert compare(np.array([9], np.uint8), np.array([10], np.uint8)).mean_error == -1


def test_bools_differ_by_one() -> None:
    assert compare([True, False], [False, False]).different == 1


def test_large_integers_are_exact() -> None:
    found = compare(np.array([2**62 + 1], np.int64), np.array([2**62], np.int64))

    assert found.max_abs is not None
    assert found.max_abs.difference == 1


def test_extreme_integers_do_not_overflow() -> None:
    found = compare(np.array([2**63 - 1], np.int64), np.array([-(2**63)], np.int64))

    assert found.max_abs is not None
    assert found.max_abs.difference == pytest.approx(2.0**64)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_small_floats_are_compared_in_float64(dtype: type) -> None:
    found = compare(np.array([1, 2], dtype), np.array([1, 4], dtype))

    assert found.max_abs is not None
    assert found.max_abs.difference == 2.0
    assert found.rel_rms == pytest.approx(2 / math.sqrt(17))


def test_fp16_squares_do_not_overflow() -> None:
    assert compare(np.array([60000], np.float16), np.array([30000], np.float16)).rel_rms == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_nonfinite_value_without_its_like_is_infinitely_far(odd: float) -> None:
    found = compare([1.0, odd, 2.0], [1.0, 3.0, 2.0])

    assert (found.rel_rms, found.mismatched, found.sqnr_db) == (math.inf, 1, -math.inf)
    assert math.isnan(found.cosine)
    assert found.max_abs is not None
    assert found.max_abs.index == (1,)


def test_a_nan_in_the_reference_alone_is_infinitely_far_too() -> None:
    found = compare([1.0], [math.nan])

    assert (found.rel_rms, found.reference_nan, found.actual_nan) == (math.inf, 1, 0)


def test_the_same_infinity_on_both_sides_is_equal() -> None:
    found = compare([math.inf, -math.inf, 1.0], [math.inf, -math.inf, 1.0])

    assert (found.rel_rms, found.mismatched, found.actual_inf, found.reference_inf) == (0.0, 0, 2, 2)


def test_infinities_of_opposite_sign_are_not_equal() -> None:
    assert compare([math.inf], [-math.inf]).mismatched == 1


def test_only_the_reference_zero_is_infinitely_far() -> None:
    found = compare([1.0, 0.0], [0.0, 0.0])

    assert (found.rel_rms, found.cosine) == (math.inf, 0.0)


def test_zero_against_zero_is_equal() -> None:
    assert (compare([0.0], [0.0]).rel_rms, compare([0.0], [0.0]).cosine) == (0.0, 1.0)


def test_an_empty_array_has_no_figures() -> None:
    found = compare(np.zeros((0, 3)), np.zeros((0, 3)))

    assert (found.count, found.max_abs, found.max_rel) == (0, None, None)
    assert math.isnan(found.mean_error)


def test_a_scalar_has_an_empty_index() -> None:
    found = compare(np.float32(1), np.float32(2))

    assert found.max_abs is not None
    assert found.max_abs.index == ()


def test_elements_beyond_atol_and_rtol_are_counted_and_told_what_was_allowed() -> None:
    found = compare([1.0, 10.2, 0.0], [1.0, 10.0, 0.5], atol=0.1, rtol=0.02)

    assert found.beyond == 1
    assert found.worst[0].index == (2,)
    assert found.worst[0].allowed == pytest.approx(0.11)


def test_without_a_limit_nothing_is_counted_beyond() -> None:
    assert compare([1.0], [2.0]).beyond is None


def test_the_worst_are_worst_first_and_at_most_five() -> None:
    found = compare(np.arange(10.0), np.zeros(10))

    assert [e.difference for e in found.worst] == [9.0, 8.0, 7.0, 6.0, 5.0]


def test_shapes_must_agree() -> None:
    with pytest.raises(DataError, match=r"shapes differ: actual \[2\], reference \[1, 2\]"):
        compare([1.0, 2.0], [[1.0, 2.0]])


@pytest.mark.parametrize("values", [["a"], [1j], [object()]])
def test_only_numbers_are_compared(values: list[object]) -> None:
    with pytest.raises(DataError, match="only float, integer and bool"):
        compare(np.array(values), np.array(values))


def test_the_arrays_are_left_alone() -> None:
    actual, reference = np.array([math.nan, 1.0]), np.array([1.0, 2.0])

    compare(actual, reference)

    np.testing.assert_array_equal(actual, [math.nan, 1.0])
    np.testing.assert_array_equal(reference, [1.0, 2.0])
