from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_trt import Case
from pytest_trt.case.case import cases_of_file
from pytest_trt.errors import CaseError, SpecError

HERE = Path()


def read(**table: Any) -> Case:
    return Case.from_table(table, HERE, "trt.toml: model 1")


def test_a_case_is_named_after_its_file_or_factory() -> None:
    assert read(onnx="nets/digits.onnx").name == "digits"
    assert read(torch="package.module:factory").name == "factory"
    assert read(onnx="squeezenet/model.onnx").name == "squeezenet"


@pytest.mark.parametrize("table", [{}, {"onnx": "a.onnx", "torch": "m:f"}])
def test_the_model_is_named_exactly_once(table: dict[str, str]) -> None:
    with pytest.raises(CaseError, match="exactly one of `onnx` and `torch`"):
        read(**table)


@pytest.mark.parametrize(
    "table", [{"samples": 4}, {"samples": 8}, {"seed": 0}, {"input": {"x": {"low": 0, "high": 1}}}]
)
def test_what_says_how_to_draw_is_refused_beside_inputs(table: dict[str, Any]) -> None:
    with pytest.raises(CaseError, match=f"`{next(iter(table))}` would say how to draw them, .* drop"):
        read(onnx="a.onnx", inputs="x.npz", **table)


def test_a_torch_module_is_seeded_and_shaped_beside_inputs() -> None:
    assert read(torch="m:f", inputs="x.npz", seed=1, input={"x": {"shape": [1, 3]}}).seed == 1


def test_a_case_made_in_python_is_refused_what_is_no_default() -> None:
    with pytest.raises(CaseError, match="`samples` and `seed` would say how to draw them"):
        Case(onnx="a.onnx", inputs="x.npz", samples=4, seed=1)


@pytest.mark.parametrize("name", ["a/b", "..", "a:b", ".hidden", "a\n", " a", "a*"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(CaseError, match="can't be a golden's file name"):
        read(onnx="a.onnx", name=name)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"onxx": "a.onnx"}, "unknown key in trt.toml: model 1: 'onxx': did you mean 'onnx'"),
        ({"onnx": "a.onnx", "precisions": ["int9"]}, "unknown precision 'int9': did you mean 'int8'"),
        ({"onnx": "a.onnx", "tolerance": {"int9": {}}}, "unknown precision 'int9': did you mean 'int8'"),
        ({"onnx": "a.onnx", "tolerance": {"int8": {"rel": 1}}}, "'rel': did you mean 'rel_rms'"),
        ({"onnx": "a.onnx", "backend": "onxruntime"}, "unknown backend 'onxruntime': did you mean 'onnxruntime'"),
        ({"onnx": "a.onnx", "input": {"shap": [1]}}, "'shap': did you mean 'shape'"),
        ({"onnx": "a.onnx", "input": {"x": {"shap": [1]}}}, "'shap': did you mean 'shape'"),
    ],
)
def test_an_unknown_word_is_told_the_nearest(table: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read(**table)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("onnx", 3, "onnx = 3 must be a text"),
        ("calibration", "", "calibration = '' must be a text that is not empty"),
        ("precisions", [], r"precisions = \[\] must be a list of texts that is not empty"),
        ("precisions", 8, "precisions = 8 must be a list of texts"),
        ("samples", 0, "samples = 0 must be a whole number of at least 1"),
        ("samples", True, "samples = True must be a whole number"),
        ("seed", 1.5, "seed = 1.5 must be a whole number"),
        ("tolerance", 0.1, "tolerance = 0.1 must hold a table a precision"),
        ("tolerance", {"int8": 0.1}, "tolerance.int8 must be a table of limits"),
        ("input", [1], r"input = \[1\] must be a table"),
        ("input", {"shape": [0]}, r"input.shape = \[0\] must be a list of positive sizes"),
        ("input", {"low": 1}, "input: give both low and high"),
        ("input", {"low": 2, "high": 1}, "input: give both low and high, low not above high"),
        ("input", {"low": "a", "high": 1}, "input.low = 'a' must be a finite number"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_key(key: str, value: Any, message: str) -> None:
    with pytest.raises(CaseError, match=f"trt.toml: model 1: {message}"):
        read(**{"onnx": "a.onnx", key: value})


def test_one_precision_may_stand_alone() -> None:
    assert read(onnx="a.onnx", precisions="int8").precisions == ("int8",)


def test_cases_of_one_name_are_all_refused_and_others_kept() -> None:
    found = cases_of_file([{"onnx": "a/net.onnx"}, {"onnx": "b/net.onnx"}, {"onnx": "c.onnx"}], HERE, "trt.toml")

    assert [type(case) for case in found] == [CaseError, CaseError, Case]
    assert "another model of this file is called 'net' too" in str(found[0])


def test_a_case_that_can_not_be_read_leaves_the_others() -> None:
    found = cases_of_file([{"onnx": 3}, {"onnx": "b.onnx"}], HERE, "trt.toml")

    assert [type(case) for case in found] == [CaseError, Case]


def test_a_single_table_is_told_to_have_two_brackets() -> None:
    [error] = cases_of_file({"onnx": "a.onnx"}, HERE, "trt.toml")

    assert "[[model]] with two brackets" in str(error)
