"""Partition: parts are as fine as a bound can prove something of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networks
import numpy as np
import pytest
from onnx import TensorProto, helper

from pytest_trt.golden._partition import partition, saturating
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto

DRAW = np.random.default_rng(0)


def rows(*scales: float) -> NDArray[np.float32]:
    """Rows of the largest value given, (16, rows, 30)."""
    found = DRAW.random((16, len(scales), 30)).astype(np.float32)
    found[0, :, 0] = 1
    return found * np.array(scales, np.float32)[:, None]


def erring(golden: NDArray[np.float32], *errors: float) -> NDArray[np.float32]:
    """Each row off by a share of its own size."""
    noise = DRAW.standard_normal(golden.shape) * np.array(errors)[:, None] * np.abs(golden)
    return (golden + noise).astype(np.float32)


def names(golden: NDArray[np.float32], *errors: float, least: float = 0.0) -> list[str]:
    return [one.part.name for one in partition("y", [[erring(golden, *errors)]], [golden], least)]


def test_parts_that_err_by_little_stand_by_themselves() -> None:
    assert names(rows(300, 1), 0.01, 0.01) == ["y[:, 0]", "y[:, 1]"]


def test_a_part_without_a_bound_that_proves_something_is_judged_with_the_one_above() -> None:
    assert names(rows(300, 300, 1), 0.01, 0.01, 0.9) == ["y"]


def test_of_three_scales_the_one_that_is_noise_joins_the_next() -> None:
    assert names(rows(300, 1, 0.01), 0.01, 0.01, 0.02) == ["y[:, 0]", "y[:, 1:3]"]


def test_scores_under_boxes_in_thousands_of_pixels_are_a_part_still() -> None:
    assert names(rows(1280, 0.5), 0.01, 0.05) == ["y[:, 0]", "y[:, 1]"]


def test_the_error_of_a_part_is_the_largest_of_all_simulations() -> None:
    golden = rows(300, 1)
    roads = [[erring(golden, 0.01, 0.001)], [erring(golden, 0.001, 0.01)]]

    found = partition("y", roads, [golden], 0.0)

    assert [one.error for one in found] == pytest.approx([0.01, 0.01], rel=0.2)


def test_probabilities_are_judged_by_value_and_by_logarithm() -> None:
    probabilities = DRAW.dirichlet([0.2] * 4, 64).astype(np.float32)
    nearby = np.clip(probabilities * (1 + 0.01 * DRAW.standard_normal((64, 4))), 0, 1).astype(np.float32)

    assert [one.part.name for one in partition("p", [[nearby]], [probabilities], 1e-6)] == ["p", "p (log)"]


def test_probabilities_whose_logarithms_hardly_move_are_judged_by_value() -> None:
    fires = np.full((64, 40), 1e-5, np.float32)
    fires[::2, 0] = 0.9
    nearby = np.where(fires < 0.5, fires * np.exp(DRAW.standard_normal(fires.shape)), fires).astype(np.float32)

    found = partition("p", [[nearby]], [fires], 1e-6)

    assert [one.part.name for one in found] == ["p"]


def ending(*ops: str) -> ModelProto:
    names_ = [f"t{at}" for at in range(len(ops))]
    nodes = [
        helper.make_node(op, [before], [after])
        for op, before, after in zip(ops, ["x", *names_], [*names_[:-1], "y"], strict=False)
    ]
    value = (TensorProto.FLOAT, ["N", 4])
    return networks.model(nodes, {"x": value}, {"y": value})


@pytest.mark.parametrize(
    ("ops", "precision", "least"),
    [
        (("Softmax",), Precision.INT8, 1e-6),
        (("Softmax", "Identity"), Precision.FP16, 1e-4),
        (("Sigmoid",), Precision.BF16, 1e-4),
        (("Softmax",), Precision.FP32, None),
        (("Softmax", "Relu"), Precision.INT8, None),
    ],
)
def test_an_output_of_softmax_or_sigmoid_holds_probabilities(
    ops: tuple[str, ...], precision: Precision, least: float | None
) -> None:
    assert saturating(ending(*ops), precision).get("y") == least
