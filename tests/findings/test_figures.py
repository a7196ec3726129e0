"""Figures that reports draw: every finite element counted, the worst among those shown, a bounded size."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest
from networks import images

from pytest_trt.comparison.comparison import compare
from pytest_trt.comparison.tolerance import Tolerance
from pytest_trt.evidence.finding import Scrutiny
from pytest_trt.evidence.judgement import Judgement
from pytest_trt.findings.verdict import OutputFigures, figures_of
from pytest_trt.gate import check
from pytest_trt.golden.golden import Run

if TYPE_CHECKING:
    from typing import Any

    from pytest_trt.case.case import Case


def drawn(actual: Any, golden: Any) -> OutputFigures:
    a, r = np.asarray(actual), np.asarray(golden)
    judgement = Judgement("y", compare(a, r), Tolerance(), "envelope", ())
    return figures_of([judgement], [Run({}, {"y": r})], [{"y": a}]).outputs["y"]


def test_the_histogram_counts_every_element_with_the_sign_of_its_error() -> None:
    errors = drawn([1.0, 2.0, 3.0, 4.5], [1.0, 2.0, 4.0, 4.0]).errors

    assert len(errors.edges) == len(errors.counts) + 1
    assert (errors.edges[0], errors.edges[-1]) == (-1.0, 1.0)
    assert sum(errors.counts) == 4
    assert (errors.counts[0], errors.counts[25], errors.counts[-1]) == (1, 2, 0)
    assert errors.counts[38] == 1
    assert errors.edges[38] < 0.5 < errors.edges[39]


def test_the_histogram_is_numpys() -> None:
    draw = np.random.default_rng(0)
    golden = draw.standard_normal(200_000)
    actual = golden + draw.standard_normal(200_000)

    errors = drawn(actual, golden).errors
    half = np.abs(actual - golden).max()

    assert np.abs(np.histogram(actual - golden, 51, (-half, half))[0] - np.array(errors.counts)).max() <= 2


def test_equal_arrays_have_all_their_errors_around_zero() -> None:
    errors = drawn([1.0, 2.0], [1.0, 2.0]).errors

    assert errors.counts[25] == sum(errors.counts) == 2
    assert errors.edges[-1] == pytest.approx(2 * 2.0**-24, rel=1e-5)


def test_zeros_alone_are_drawn_too() -> None:
    assert drawn([0.0, 0.0], [0.0, 0.0]).errors.counts[25] == 2


def test_what_is_not_finite_is_left_out_of_both() -> None:
    found = drawn([math.nan, 2.0, 3.5, math.inf], [1.0, 2.0, 3.0, math.inf])

    assert sum(found.errors.counts) == 2
    assert found.errors.edges[-1] == 0.5
    assert (found.scatter.golden, found.scatter.actual, found.scatter.sampled_of) == ((2.0, 3.0), (2.0, 3.5), 4)


def test_nothing_finite_at_all_is_drawn_empty() -> None:
    found = drawn([math.nan] * 3, [1.0, 2.0, 3.0])

    assert (sum(found.errors.counts), found.scatter.golden) == (0, ())


def test_the_largest_doubles_stay_inside_double() -> None:
    found = drawn(np.array([1.7e308, 1.0]), np.array([-1.7e308, 1.0]))

    assert all(math.isfinite(edge) for edge in found.errors.edges)
    assert sum(found.errors.counts) == 1


def test_the_worst_elements_are_among_those_shown() -> None:
    golden = np.arange(100_000, dtype=np.float32)
    actual = golden.copy()
    actual[[17, 4_711, 99_998]] += 7

    scatter = drawn(actual, golden).scatter

    assert len(scatter.golden) <= 512
    assert {17.0, 4711.0, 99998.0} <= set(scatter.golden)
    assert scatter.actual[scatter.golden.index(4711.0)] == 4718.0
    assert scatter.sampled_of == 100_000


def test_the_elements_are_the_same_each_time_and_spread_over_the_output() -> None:
    golden = np.arange(10_000, dtype=np.float32)

    first, second = drawn(golden, golden).scatter, drawn(golden, golden).scatter

    assert first == second
    assert (first.golden[0], first.golden[-1]) == (0.0, 9999.0)
    assert max(np.diff(first.golden)) <= 20


def test_a_scalar_an_integer_and_a_bf16_output_are_drawn() -> None:
    assert drawn(np.float32(2), np.float32(1)).scatter.golden == (1.0,)
    assert drawn(np.array([127], np.int8), np.array([-128], np.int8)).errors.edges[-1] == 255.0
    assert drawn(np.array([1, 2], ml_dtypes.bfloat16), np.array([1, 1], np.float32)).scatter.actual == (1.0, 2.0)


def test_an_output_without_elements_has_no_figures() -> None:
    empty = np.zeros((0, 3), np.float32)
    judgement = Judgement("y", compare(empty, empty), Tolerance(), "envelope", ())

    assert figures_of([judgement], [Run({}, {"y": empty})], [{"y": empty}]).outputs == {}


def test_the_figures_are_of_the_data_set_that_was_judged() -> None:
    first, second = np.array([1.0]), np.array([2.0])
    judgement = Judgement("y", compare(second + 1, second), Tolerance(), "envelope", (), run="b")

    found = figures_of(
        [judgement], [Run({}, {"y": first}, "a"), Run({}, {"y": second}, "b")], [{"y": first}, {"y": second + 1}]
    )

    assert found.outputs["y"].scatter.actual == (3.0,)


@pytest.mark.parametrize("outputs", [1, 3, 30])
def test_a_case_takes_a_bounded_size(outputs: int) -> None:
    draw = np.random.default_rng(0)
    arrays = {f"y{i}": draw.standard_normal((64, 1000)).astype(np.float32) for i in range(outputs)}
    off = {name: array + 0.01 * draw.standard_normal(array.shape) for name, array in arrays.items()}
    judgements = [Judgement(n, compare(off[n], arrays[n]), Tolerance(), "envelope", ()) for n in arrays]

    size = len(json.dumps(asdict(figures_of(judgements, [Run({}, arrays)], [off]))))

    assert size < 60_000 if outputs == 30 else size < 40_000


def test_a_case_shows_its_ranges_against_the_activations(case: Case) -> None:
    figures = check(case, "int8", golden_dir=case.base / "golden").figures

    assert figures is not None
    assert [one.tensor for one in figures.ranges][:2] == ["x", "r1"]
    assert figures.ranges[0].range == pytest.approx(np.abs(images(64, seed=2)).max(), rel=1e-5)
    assert 20 < (figures.ranges[0].sqnr_db or 0) < 60
    assert figures.tensors == ()


def test_a_localised_case_shows_all_its_tensors_along_the_network(case: Case) -> None:
    figures = check(case, "int8", golden_dir=case.base / "golden", scrutiny=Scrutiny(localise=True)).figures

    assert figures is not None
    assert [(one.tensor, one.op, one.position) for one in figures.tensors][:3] == [
        ("x", "", 0), ("c1", "Conv", 1), ("r1", "Relu", 2),
    ]  # fmt: skip
    assert figures.tensors[0].local_sqnr_db == pytest.approx(figures.ranges[0].sqnr_db, abs=0.1)
    assert figures.tensors[0].cumulative_sqnr_db is None


def test_what_could_not_be_judged_has_no_figures(case: Case) -> None:
    assert check(case, "int8", golden_dir=case.base / "nowhere").figures is None
