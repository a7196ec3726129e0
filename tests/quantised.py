"""Findings on small networks at int8: by their ranges, by their file, by the data that calibrated them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
from onnx import numpy_helper
from places import DIGITS

from pytest_trt import Precision, Ranges, lower
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.evidence.evidence import Evidence
from pytest_trt.evidence.quant_ranges import Quantised, quantised_evidence
from pytest_trt.findings.diagnosis import CALIBRATION_RULES as RULES
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.model import checked, load

if TYPE_CHECKING:
    from pytest_trt.evidence.finding import Finding

NET = checked(networks.convolutional(), "net.onnx")
GOLDEN = {"x": networks.images(16)}
RANGES = {"x": 3.6, "r1": 14.0, "f": 6.0}


def found(quantised: Quantised | None, precision: Precision = Precision.INT8, held: str = "fp32") -> list[Finding]:
    evidence = Evidence(
        case="net", precision=precision, held=held, backend="onnxruntime", simulated=True, quantised=quantised
    )
    return [finding for rule in RULES for finding in rule(evidence)]


def of_file(proto: onnx.ModelProto, precision: Precision = Precision.MODEL, **more: Any) -> list[Finding]:
    model = checked(proto, "int8.onnx")
    return found(quantised_evidence(model, None, precision, "int8", None, [GOLDEN], None, **more), precision, "int8")


def digits(amax: dict[str, float] | None = None, samples: np.ndarray | None = None, method: str = "minmax") -> Any:
    """Findings on the trained example: with ranges as a file gives them, or taken from samples."""
    model, golden = load(DIGITS / "digits.onnx"), dict(np.load(DIGITS / "test.npz"))
    if amax is not None:
        return found(quantised_evidence(model, None, Precision.INT8, "fp32", Ranges(amax), [golden], None))
    data = {model.inputs[0].name: calibration_of_digits() if samples is None else samples}
    ranges = calibrate(model, quantised_activations(model.proto), [data], "calibration.npz", None, method)
    return found(quantised_evidence(model, None, Precision.INT8, "fp32", ranges, [golden], None, samples=[data]))


def calibration_of_digits() -> np.ndarray:
    [data] = dict(np.load(DIGITS / "calibration.npz")).values()
    return data


def calibrated_digits() -> dict[str, float]:
    model = load(DIGITS / "digits.onnx")
    data = {model.inputs[0].name: calibration_of_digits()}
    return dict(calibrate(model, quantised_activations(model.proto), [data], "calibration.npz").amax)


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


def asymmetric(kind: Any = np.int8, zero: int = 10) -> onnx.ModelProto:
    proto = lower(networks.convolutional(), "int8", Ranges(RANGES))
    networks.weight(proto, "x/int8/zero").CopyFrom(numpy_helper.from_array(np.array(zero, kind), "x/int8/zero"))
    return proto
