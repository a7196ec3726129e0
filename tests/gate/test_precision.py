from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from pytest_trt import Precision
from pytest_trt.errors import SpecError


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [(Precision.FP32, np.float32), (Precision.FP16, np.float16), (Precision.BF16, ml_dtypes.bfloat16)],
)
def test_facts_are_those_of_the_format(precision: Precision, dtype: type) -> None:
    info = ml_dtypes.finfo(dtype)

    assert precision.largest == float(info.max)
    assert precision.unit_roundoff == float(info.eps) / 2
    assert precision.bits == info.bits


def test_a_list_is_parsed_in_order_each_once() -> None:
    assert Precision.parse_list("int8, fp16,int8") == (Precision.INT8, Precision.FP16)


@pytest.mark.parametrize(("wrong", "meant"), [("int9", "int8"), ("fp61", "fp16"), ("modle", "model")])
def test_an_unknown_name_is_told_the_nearest(wrong: str, meant: str) -> None:
    with pytest.raises(SpecError, match=f"unknown precision {wrong!r}: did you mean {meant!r}"):
        Precision.parse(wrong)


@pytest.mark.parametrize("text", ["", " ", ",", "int8,,x"])
def test_a_list_without_a_name_or_with_a_wrong_one_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        Precision.parse_list(text)
