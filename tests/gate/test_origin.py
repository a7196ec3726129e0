"""The outputs printed in the note that the project grew from: PyTorch, ONNX, TensorRT fp16, uncalibrated int8."""

from __future__ import annotations

import pytest

from pytest_trt import Precision, compare
from pytest_trt.comparison.error_metrics import Flip
from pytest_trt.comparison.tolerance import SLACK, Tolerance, floor, violations

PYTORCH = [[4.7960, -1.9805, 7.9566, 2.4818, -13.3275]]
ONNX = [[4.796035, -1.9805057, 7.9566107, 2.4817739, -13.327486]]
FP16 = [[4.53114319, -1.66334152, 7.31781292, 2.51477814, -12.7687111]]
INT8 = [[21.9405861, -2.17396450, 15.4984961, -12.8306799, -22.7700291]]

# Simulated errors of ResNet-18 (the figures that the lowering tests hold to), and the bounds that follow.
SIMULATED = {"fp32": 0.0, "fp16": 6.7e-4, "int8": 2.3e-2}


def outside(actual: list[list[float]], precision: str) -> list[str]:
    bound = SLACK * SIMULATED[precision] + floor(Precision.parse(precision).unit_roundoff, whole=False)
    return violations(compare(actual, PYTORCH), Tolerance(rel_rms=bound))


def test_onnx_is_inside_the_fp32_bound() -> None:
    assert compare(ONNX, PYTORCH).rel_rms == pytest.approx(2.9e-6, rel=0.02)
    assert outside(ONNX, "fp32") == []


def test_fp16_is_outside_its_bound_which_nobody_saw() -> None:
    assert compare(FP16, PYTORCH).rel_rms == pytest.approx(5.7e-2, rel=0.01)
    assert "relative RMS 0.0571 is over the bound" in outside(FP16, "fp16")[0]


def test_uncalibrated_int8_is_outside_its_bound() -> None:
    assert compare(INT8, PYTORCH).rel_rms == pytest.approx(1.57, rel=0.01)
    assert "relative RMS 1.57 is over the bound" in outside(INT8, "int8")[0]


def test_uncalibrated_int8_moves_the_best_class_from_2_to_0() -> None:
    found = compare(INT8, PYTORCH, ranking=True).ranking

    assert found is not None
    assert (found.top1, found.flips) == (0.0, (Flip(sample=0, reference=2, actual=0),))
