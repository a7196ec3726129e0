from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pytest_trt.backends.recipe import Span, profile_of_feeds, require_fit
from pytest_trt.case.case import Case
from pytest_trt.errors import CaseError
from pytest_trt.model.feeds import TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = TensorSpec("x", np.dtype(np.float32), ("n", 3, "h", "w"))
FIXED = TensorSpec("m", np.dtype(np.float32), (1, 4))


def feeds(*shapes: tuple[int, ...]) -> list[dict[str, np.ndarray]]:
    return [{"x": np.zeros(shape, np.float32), "m": np.zeros((1, 4), np.float32)} for shape in shapes]


def test_a_profile_covers_the_least_and_the_largest_size_of_each_axis_and_is_best_at_the_usual_shape() -> None:
    profile = profile_of_feeds(feeds((8, 3, 32, 64), (8, 3, 32, 64), (2, 3, 64, 32)), [IMAGE, FIXED])

    assert profile == {"x": Span((2, 3, 32, 32), (8, 3, 32, 64), (8, 3, 64, 64))}


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"z": Span((1,), (1,), (1,))}, "'z' is no input"),
        ({}, "'x' has no shapes"),
        ({"x": Span((1, 3, 32), (1, 3, 32), (1, 3, 32))}, "do not fit"),
        ({"x": Span((1, 1, 32, 32), (1, 3, 32, 32), (1, 3, 32, 32))}, "do not fit"),
    ],
)
def test_a_profile_that_is_not_of_the_models_inputs_is_refused(profile: dict[str, Span], words: str) -> None:
    with pytest.raises(CaseError, match=words):
        require_fit(profile, [IMAGE, FIXED], "net.onnx: profile 1")


def test_a_case_reads_one_profile_or_several(tmp_path: Path) -> None:
    span = {"min": [1, 3], "opt": [2, 3], "max": [4, 3]}

    one = Case.from_table({"onnx": "n.onnx", "profiles": {"x": span}}, tmp_path, "trt.toml")
    two = Case.from_table({"onnx": "n.onnx", "profiles": [{"x": span}, {"x": span}]}, tmp_path, "trt.toml")

    assert one.profiles == ({"x": Span((1, 3), (2, 3), (4, 3))},)
    assert two.profiles == one.profiles * 2


@pytest.mark.parametrize(
    "span",
    [
        {"min": [1], "opt": [1]},
        {"min": [1], "opt": [1], "max": [1, 1]},
        {"min": [2], "opt": [1], "max": [1]},
        {"min": [1], "opt": [1], "max": [-1]},
        {"min": 1, "opt": 1, "max": 1},
        [1, 2, 3],
    ],
)
def test_a_span_that_can_not_be_is_refused(tmp_path: Path, span: object) -> None:
    with pytest.raises(CaseError, match=r"profiles\.x"):
        Case.from_table({"onnx": "n.onnx", "profiles": [{"x": span}]}, tmp_path, "trt.toml")
