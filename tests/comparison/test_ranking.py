from __future__ import annotations

import math

import numpy as np
import pytest

from pytest_trt import compare
from pytest_trt.comparison.error_metrics import Flip, accuracy, rank
from pytest_trt.errors import DataError


def test_top1_counts_samples_that_keep_their_best_class() -> None:
    found = rank(np.array([[1.0, 2.0], [3.0, 1.0]]), np.array([[1.0, 2.0], [1.0, 3.0]]))

    assert (found.samples, found.top1, found.flips) == (2, 0.5, (Flip(1, 1, 0),))


def test_top5_takes_the_references_best_class_among_five() -> None:
    reference = np.eye(7)[[0]]
    fifth = np.array([[3.0, 7, 6, 5, 4, 2, 1]])
    sixth = np.array([[2.0, 7, 6, 5, 4, 3, 1]])

    assert rank(fifth, reference).top5 == 1.0
    assert rank(sixth, reference).top5 == 0.0


def test_scores_with_nan_agree_with_nothing() -> None:
    found = rank(np.array([[math.nan, 1.0]]), np.array([[1.0, 0.0]]))

    assert (found.top1, found.top5) == (0.0, 0.0)


def test_a_map_of_scores_is_ranked_at_each_place_over_axis_1() -> None:
    reference = np.zeros((1, 3, 2, 2))
    reference[0, 2] = 1.0

    assert rank(reference, reference).samples == 4


def test_ranking_is_only_done_when_asked() -> None:
    assert compare([[1.0, 0.0]], [[1.0, 0.0]]).ranking is None
    assert compare([[1.0, 0.0]], [[1.0, 0.0]], ranking=True).ranking is not None


def test_accuracy_counts_true_classes_and_never_nan() -> None:
    scores = np.array([[0.0, 1.0], [1.0, 0.0], [math.nan, 1.0]])

    assert accuracy(scores, np.array([1, 1, 1])) == pytest.approx(1 / 3)


def test_one_label_a_sample_is_needed() -> None:
    with pytest.raises(DataError, match="2 labels for 3 samples"):
        accuracy(np.zeros((3, 2)), np.array([0, 1]))


def test_a_scalar_has_no_classes() -> None:
    with pytest.raises(DataError, match="no classes"):
        rank(np.array(1.0), np.array(1.0))


def test_sequences_are_ranked_at_each_position_and_as_wholes() -> None:
    reference = np.eye(3)[[[0, 1], [2, 2], [1, 0]]]
    actual = np.eye(3)[[[0, 1], [2, 1], [1, 0]]]

    found = rank(actual, reference)

    assert (found.samples, found.sequences) == (6, 3)
    assert found.top1 == pytest.approx(5 / 6)
    assert found.top1_all == pytest.approx(2 / 3)


def test_positions_may_come_first() -> None:
    reference = np.eye(3)[[[0, 1], [2, 2], [1, 0]]]
    actual = np.eye(3)[[[0, 1], [2, 1], [1, 0]]]

    found = rank(actual, reference, sample_axis=1)

    assert (found.sequences, found.top1_all) == (2, 0.5)


def test_scores_of_two_axes_are_no_sequences() -> None:
    assert rank(np.eye(3), np.eye(3)).sequences is None


def test_labels_of_positions_are_counted_each() -> None:
    assert accuracy(np.eye(3)[[[0, 1], [2, 2]]], np.array([[0, 1], [2, 0]])) == 0.75
