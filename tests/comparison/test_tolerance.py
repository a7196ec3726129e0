from __future__ import annotations

import math

import pytest

from pytest_trt import Tolerance, compare
from pytest_trt.comparison.tolerance import allowance, bounded, floor, rank_violations, violations
from pytest_trt.errors import CaseError, SpecError


def test_inside_every_limit_there_is_no_violation() -> None:
    limits = Tolerance(rel_rms=0.1, max_abs=0.1, cosine=0.9, sqnr_db=10, atol=0.1, top1=1.0, top5=1.0)

    assert violations(compare([[1.0, 2.0]], [[1.0, 2.01]], atol=0.1, ranking=True), limits) == []


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Tolerance(rel_rms=0.1), "relative RMS 0.5 is over the bound 0.1 (5 times)"),
        (Tolerance(max_abs=0.9), "largest difference 1 is over the bound 0.9"),
        (Tolerance(mismatch=0.4), "share of unequal elements 0.5 is over the bound 0.4"),
        (Tolerance(cosine=0.9999), "cosine 0.948683 is under the bound 0.9999"),
        (Tolerance(sqnr_db=7), "SQNR in dB 6.0206 is under the bound 7"),
        (Tolerance(atol=0.5, outliers=0.4), "share beyond atol and rtol 0.5 is over the bound 0.4"),
    ],
)
def test_each_limit_finds_its_fault(limits: Tolerance, reason: str) -> None:
    comparison = compare([2.0, 1.0], [2.0, 0.0], atol=0.5)
    if limits.cosine:
        comparison = compare([3.0, 1.0], [1.0, 0.0], atol=0.5)

    assert any(reason in found for found in violations(comparison, limits))


def test_classes_that_were_not_ranked_are_under_every_limit() -> None:
    comparison = compare([2.0, 1.0], [2.0, 0.0])

    assert rank_violations(comparison, Tolerance(top1=1.0)) == ["top-1 agreement nan is under the bound 1"]


@pytest.mark.parametrize("limits", [Tolerance(rel_rms=1e9), Tolerance(cosine=0.0), Tolerance(max_abs=1e9), Tolerance()])
@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_nan_is_outside_of_every_tolerance(limits: Tolerance, odd: float) -> None:
    assert violations(compare([odd, 1.0], [1.0, 1.0]), limits)


def test_an_empty_output_is_outside() -> None:
    assert violations(compare([], []), Tolerance(rel_rms=1.0)) == ["no element was compared: the output is empty"]


def test_a_bound_of_zero_takes_equal_values() -> None:
    assert violations(compare([1], [1]), Tolerance(mismatch=0.0)) == []


def test_the_floor_is_one_rounding_of_the_precision_and_never_under_1e_5() -> None:
    assert floor(2.0**-24, whole=False) == 1e-5
    assert floor(2.0**-11, whole=False) == 2.0**-11


def test_whole_numbers_are_exact_in_fp32_alone() -> None:
    assert floor(2.0**-24, whole=True) == 0.0
    assert floor(2.0**-11, whole=True) == 0.01


def test_the_users_word_on_the_size_of_the_error_replaces_the_envelope() -> None:
    assert bounded(Tolerance(cosine=0.9), 0.1, whole=False).rel_rms is None
    assert bounded(Tolerance(rel_rms=0.5), 0.1, whole=False).rel_rms == 0.5


def test_a_limit_on_classes_leaves_the_envelope_in_force() -> None:
    assert bounded(Tolerance(top1=0.9), 0.1, whole=False).rel_rms == 0.1


def test_an_element_may_be_off_by_the_bound_times_the_rms() -> None:
    assert allowance(Tolerance(rel_rms=0.1), rms=5.0) == (0.5, 0.0)
    assert allowance(Tolerance(atol=0.2, rtol=0.3), rms=5.0) == (0.2, 0.3)


def test_an_outputs_own_limits_replace_the_common_ones_one_by_one() -> None:
    limits = Tolerance.from_table({"rel_rms": 0.1, "top1": 0.9, "outputs": {"a": {"rel_rms": 0.2}}}, "t")

    a, b = limits.of("a", whole=False), limits.of("b", whole=False)
    assert (a.rel_rms, a.top1, b.rel_rms) == (0.2, 0.9, 0.1)


def test_an_unknown_limit_is_told_the_nearest() -> None:
    with pytest.raises(SpecError, match="'rel_rsm': did you mean 'rel_rms'"):
        Tolerance.from_table({"rel_rsm": 0.1}, "tolerance.int8")


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, "0.1", True, None, [0.1]])
def test_a_limit_must_be_a_finite_number(value: object) -> None:
    with pytest.raises(CaseError, match=r"tolerance.int8.rel_rms = .* is no limit"):
        Tolerance.from_table({"rel_rms": value}, "tolerance.int8")
