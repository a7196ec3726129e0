"""Parts: slices of one scale and sentinels, found in the golden's own values, each compared by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pytest_trt.comparison.parts import Part, apart, joined, parts_of, sentinels_beyond

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAW = np.random.default_rng(0)
LOGITS = DRAW.standard_normal((16, 10)).astype(np.float32)


def detector(samples: int = 8) -> NDArray[np.float32]:
    """Four rows of boxes to 320 and six of scores to 1, as one output."""
    boxes = 320 * DRAW.random((samples, 4, 20))
    return np.concatenate([boxes, DRAW.random((samples, 6, 20))], axis=1).astype(np.float32)


def names(array: NDArray[Any], least: float = 0.0) -> list[str]:
    return [part.name for part in parts_of("y", [array], least)]


def masked(low: float) -> NDArray[np.float32]:
    found = LOGITS.copy()
    found[:, ::5] = low
    return found


def test_an_output_of_one_scale_is_one_part() -> None:
    assert names(LOGITS) == ["y"]
    assert parts_of("y", [LOGITS])[0].whole


def test_boxes_and_scores_are_two_parts_along_their_axis() -> None:
    assert names(detector()) == ["y[:, 0:4]", "y[:, 4:10]"]


def test_columns_of_another_scale_are_found_on_the_last_axis() -> None:
    assert names(detector().transpose(0, 2, 1)) == ["y[:, :, 0:4]", "y[:, :, 4:10]"]


def test_a_flat_output_of_many_columns_is_parted_too() -> None:
    golden = detector(2).repeat(4000, axis=2).reshape(2, -1)

    assert names(golden) == ["y[:, 0:320000]", "y[:, 320000:800000]"]


def test_rows_that_lie_apart_are_named_one_by_one() -> None:
    order = [0, 4, 1, 5, 2, 6, 3, 7, 8, 9]

    assert names(detector()[:, order]) == ["y[:, {0, 2, 4, 6}]", "y[:, {1, 3, 5, 7:10}]"]


def test_samples_are_never_parted_by_their_scale() -> None:
    scales = np.array([1, 1000] * 8, np.float32)[:, None]

    assert names(LOGITS * scales) == ["y"]


def test_dead_slices_are_with_the_smallest() -> None:
    golden = detector()
    golden[:, 9] = 0

    assert names(golden) == ["y[:, 0:4]", "y[:, 4:10]"]


def test_there_are_eight_groups_at_most() -> None:
    golden = LOGITS * np.float32(20.0) ** -np.arange(10, dtype=np.float32) * 1e6

    assert len(names(golden)) <= 8


def test_whole_numbers_are_one_part() -> None:
    assert names(np.arange(20).reshape(2, 10) * 1000) == ["y"]


def test_runs_of_other_shapes_are_not_parted() -> None:
    assert [part.name for part in parts_of("y", [detector()[:, :, :5], detector()[:, :9]])] == ["y"]


@pytest.mark.parametrize("low", [-1000, -1e4, -1e30, float(np.finfo(np.float32).min), -np.inf, np.nan])
def test_what_stands_for_minus_infinity_is_a_part_by_itself(low: float) -> None:
    main, aside = parts_of("y", [masked(low)])

    assert (main.name, aside.name) == ("y", "y (sentinels)")
    assert aside.mask(masked(low)).sum() == 32
    assert main.mask(masked(low)).sum() == 128


def test_a_mask_that_is_added_is_found_too() -> None:
    golden = LOGITS.copy()
    golden[:, ::5] -= 1e4

    assert names(golden) == ["y", "y (sentinels)"]


@pytest.mark.parametrize("levels", [(-1e9, -2e9), (-1e4, -2e4), (-1000, -1e4)])
def test_masks_that_add_up_are_sentinels_of_two_levels(levels: tuple[float, float]) -> None:
    golden = masked(levels[0])
    golden[:, 1::5] = levels[1]

    main, aside = parts_of("y", [golden])

    assert (main.mask(golden).sum(), aside.mask(golden).sum()) == (96, 64)


@pytest.mark.parametrize(
    "values", [[1.0] * 10, [500.0, -500.0, *[0.1] * 8], [-5e3, *[2.0] * 9], [*[1e10] * 5, *[1.0] * 5]]
)
def test_a_large_value_is_no_sentinel_where_few_share_it_or_it_is_positive(values: list[float]) -> None:
    assert sentinels_beyond([np.array(values, np.float32)]) is None


def test_a_part_of_probabilities_compares_logarithms() -> None:
    golden = np.array([[0.9, 0.1], [0.5, 0.5]], np.float32)
    part = parts_of("p", [golden], 1e-6)[0]

    assert part.name == "p (log)"
    assert part.of(np.array([[1.0, 0.0], [1.0, 0.0]]), golden).min() == pytest.approx(np.log(1e-6))


def test_an_error_of_one_part_is_not_diluted_by_another() -> None:
    golden = detector()
    broken = golden.copy()
    broken[:, 4:] = 0
    boxes, scores = parts_of("y", [golden])

    assert boxes.compare(broken, golden).rel_rms == 0
    assert scores.compare(broken, golden).rel_rms == pytest.approx(1.0)


def test_the_worst_element_of_a_part_has_its_index_in_the_output() -> None:
    golden = detector()
    broken = golden.copy()
    broken[3, 7, 11] += 5

    worst = parts_of("y", [golden])[1].compare(broken, golden).max_abs

    assert worst is not None
    assert worst.index == (3, 7, 11)


@pytest.mark.parametrize("answer", [-65504, -np.inf, -3.4e38, -2e4])
def test_any_value_far_out_will_do_for_a_sentinel_without_end(answer: float) -> None:
    golden = masked(-1e30)

    assert parts_of("y", [golden])[1].compare(masked(answer), golden).rel_rms == 0


@pytest.mark.parametrize("answer", [0, -5, 65504, np.nan])
def test_a_lost_sentinel_is_an_error(answer: float) -> None:
    golden = masked(-1e30)

    assert parts_of("y", [golden])[1].compare(masked(answer), golden).rel_rms > 0.5


@pytest.mark.parametrize(("low", "answer"), [(-np.inf, -65504), (np.nan, 0)])
def test_an_infinity_and_a_nan_stand_for_themselves(low: float, answer: float) -> None:
    golden = masked(low)

    assert parts_of("y", [golden])[1].compare(golden, golden).mismatched == 0
    assert parts_of("y", [golden])[1].compare(masked(answer), golden).mismatched == 32


def test_outputs_are_told_apart_by_the_names_of_their_parts() -> None:
    golden = {"y": detector(), "z": LOGITS}
    parts = {"y": parts_of("y", [golden["y"]])}

    found = apart(golden, golden, parts)

    assert list(found) == ["y[:, 0:4]", "y[:, 4:10]", "z"]
    assert [array.size for array in found.values()] == [8 * 4 * 20, 8 * 6 * 20, 160]


def test_a_part_is_kept_as_a_table_and_read_again() -> None:
    for part in (*parts_of("y", [detector()]), *parts_of("y", [masked(-1e4)]), *parts_of("p", [LOGITS], 1e-4)):
        assert Part.of_table(part.as_table()) == part


def test_joined_groups_hold_the_rows_of_both() -> None:
    assert joined(*parts_of("y", [detector()])).rows == tuple(range(10))
