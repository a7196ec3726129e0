"""TRT101, TRT102 and TRT104 to TRT107: ranges that are none, placeholders, stale, too small or too wide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networks
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from quantised import GOLDEN, NET, RANGES, calibrated_digits, codes, digits, found, of_file

from pytest_trt import Precision, Ranges, lower
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.evidence.evidence import Evidence
from pytest_trt.evidence.finding import Finding, Severity
from pytest_trt.evidence.hops import Hop
from pytest_trt.evidence.output_errors import Observed
from pytest_trt.evidence.quant_ranges import Quantised, QuantisedTensor, quantised_evidence
from pytest_trt.evidence.rounding import Grid, TensorStatistics
from pytest_trt.findings._calibration import saturated, too_wide
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.model import checked


def of_ranges(amax: dict[str, float], precision: Precision = Precision.INT8, **more: Any) -> list[Finding]:
    ranges = Ranges(amax, "ranges.txt", made_by=more.pop("made_by", ""))
    return found(quantised_evidence(NET, None, precision, "fp32", ranges, [GOLDEN], None, **more), precision)


# healthy twins


def test_calibrated_ranges_have_nothing_to_be_said_of() -> None:
    assert of_ranges(RANGES) == []


def test_the_same_ranges_in_a_file_have_nothing_to_be_said_of() -> None:
    assert of_file(lower(networks.convolutional(), "int8", Ranges(RANGES))) == []


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile", "mse"])
def test_no_calibrator_is_taken_for_a_defect(method: str) -> None:
    assert digits(method=method) == []


def test_fp8_has_nothing_to_be_said_of_either() -> None:
    assert of_ranges(RANGES, Precision.FP8) == []


# TRT101


def test_int8_without_any_scale_is_uncalibrated_and_the_builder_is_quoted() -> None:
    said = "no scaling factors detected"
    [finding] = found(quantised_evidence(NET, None, Precision.INT8, "fp32", None, [GOLDEN], None, said=said))

    assert (finding.code, finding.severity) == ("TRT101", Severity.ERROR)
    assert said in finding.message
    assert finding.evidence["said"] == said


def without_activations() -> onnx.ModelProto:
    """Weights alone are stored as integers."""
    proto = lower(networks.convolutional(), "int8", Ranges(RANGES))
    source = {node.output[0]: node.input[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    around = {n.output[0]: source[n.input[0]] for n in proto.graph.node if n.input[0] in source}
    kept = [n for n in proto.graph.node if n.output[0] not in source and n.output[0] not in around]
    for each in kept:
        each.input[:] = [around.get(name, name) for name in each.input]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    return proto


def test_int8_weights_alone_are_no_int8() -> None:
    assert codes(of_file(without_activations(), Precision.INT8)) == ["TRT101"]


def test_int8_weights_alone_are_noted_where_the_file_is_taken_as_it_is() -> None:
    [finding] = of_file(without_activations())

    assert (finding.code, finding.severity) == ("TRT101", Severity.NOTE)


# TRT102


@pytest.mark.parametrize("value", [1.0, 6.0, 20.0, 127.0])
def test_one_range_for_all_tensors_is_a_placeholder(value: float) -> None:
    first = digits(dict.fromkeys(calibrated_digits(), value))[0]

    assert (first.code, first.severity) == ("TRT102", Severity.ERROR)
    assert f"are {value:g}" in first.message
    assert "trtexec" not in first.message


def test_trtexecs_placeholders_are_called_so() -> None:
    names = list(calibrated_digits())
    first = digits({name: 4.0 if place else 2.0 for place, name in enumerate(names)})[0]

    assert first.code == "TRT102"
    assert "2 and 4, the placeholders that trtexec writes" in first.message
    assert first.evidence["trtexec"] is True


def test_placeholders_are_seen_in_a_file_too() -> None:
    proto = lower(networks.convolutional(), "int8", Ranges(dict.fromkeys(RANGES, 4.0)))

    assert codes(of_file(proto))[0] == "TRT102"


def test_placeholders_of_fp8_are_an_error_too_but_for_scales_of_one_that_cost_nothing() -> None:
    def severity(amax: float) -> Severity:
        [finding] = [f for f in of_ranges(dict.fromkeys(RANGES, amax), Precision.FP8) if f.code == "TRT102"]
        return finding.severity

    assert severity(40.0) is Severity.ERROR
    assert severity(448.0) is Severity.WARNING


def relu6(layers: int = 9) -> onnx.ModelProto:
    """Convolutions with ReLU6 between them, whose outputs fill 0 to 6."""
    draw = np.random.default_rng(0)
    weights: dict[str, Any] = {"low": np.float32(0), "high": np.float32(6)}
    nodes, last = [], "x"
    for layer in range(layers):
        weights[f"w{layer}"] = draw.standard_normal((4, 2 if not layer else 4, 3, 3)).astype(np.float32)
        nodes += [
            helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], f"conv{layer}", pads=[1, 1, 1, 1]),
            helper.make_node("Clip", [f"c{layer}", "low", "high"], [f"r{layer}"], f"relu{layer}"),
        ]
        last = f"r{layer}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"], "pool"))
    inputs, outputs = {"x": (networks.FLOAT, ["N", 2, 6, 6])}, {"y": (networks.FLOAT, ["N", 4, 1, 1])}
    return networks.model(nodes, inputs, outputs, weights)


def of_relu6(amax: float) -> list[Finding]:
    model = checked(relu6(), "relu6.onnx")
    ranges = dict.fromkeys(quantised_activations(model.proto), amax) | {"x": 3.6}
    return found(quantised_evidence(model, None, Precision.INT8, "fp32", Ranges(ranges), [GOLDEN], None))


def test_a_net_of_relu6_alone_has_one_range_for_a_reason() -> None:
    assert of_relu6(6.0) == []


def shifted(scale: float) -> list[Finding]:
    """Findings on normalised tensors of about one size, all with one scale."""
    weights = {"one": np.ones(8, np.float32), "zero": np.zeros(8, np.float32)}
    nodes, last = [], "x"
    for layer in range(4):
        weights[f"w{layer}"] = np.random.default_rng(layer).standard_normal((8, 8)).astype(np.float32)
        nodes += [
            helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"], f"fc{layer}"),
            helper.make_node("LayerNormalization", [f"m{layer}", "one", "zero"], [f"n{layer}"]),
        ]
        last = f"n{layer}"
    shape: list[Any] = ["N", 8]
    proto = networks.model(nodes, {"x": (networks.FLOAT, shape)}, {last: (networks.FLOAT, shape)}, weights)
    model, fed = checked(proto, "net.onnx"), np.random.default_rng(9).standard_normal((64, 8)).astype(np.float32)
    ranges = Ranges(dict.fromkeys(quantised_activations(model.proto), 127 * scale), "ranges.txt")
    return found(quantised_evidence(model, None, Precision.INT8, "fp32", ranges, [{"x": fed}], None))


def test_a_power_of_two_that_just_holds_all_tensors_is_measured_and_another_value_is_not() -> None:
    assert shifted(2**-5) == []
    assert codes(shifted(6.0 / 127)) == ["TRT102"]


def test_another_range_than_six_is_a_placeholder_there_too() -> None:
    assert codes(of_relu6(30.0))[0] == "TRT102"


# TRT104


def test_ranges_of_other_names_are_stale() -> None:
    [finding] = of_ranges({"x": 3.6, "r1": 14.0, "onnx::Gemm_12": 6.0})

    assert (finding.code, finding.severity) == ("TRT104", Severity.ERROR)
    assert finding.evidence["strange"] == ["onnx::Gemm_12"]
    assert finding.evidence["missing"] == ["f"]


def test_tensors_that_tensorrt_added_itself_make_no_cache_stale() -> None:
    assert of_ranges({**RANGES, "(Unnamed Layer* 3) [Constant]_output": 1.0}) == []


def test_ranges_of_other_weights_under_the_same_names_are_stale() -> None:
    amax = calibrated_digits()
    first, *others = amax
    first_finding = digits({first: amax[first], **{name: amax[name] * 0.1 for name in others}})[0]

    assert first_finding.code == "TRT104"
    assert first_finding.evidence["tensors"] == others


def test_ranges_under_each_others_names_are_stale() -> None:
    amax = calibrated_digits()
    first, *others = amax
    turned = dict(zip(others, [amax[name] for name in reversed(others)], strict=True))
    factors = {name: 0.1 if place % 2 else 10.0 for place, name in enumerate(others)}

    assert (
        digits({first: amax[first] * 10, **{name: turned[name] * factors[name] for name in others}})[0].code == "TRT104"
    )


@pytest.mark.parametrize(
    ("header", "release", "is_told"),
    [
        ("TRT-8600-EntropyCalibration2", "8.6.0", False),
        ("TRT-8600-EntropyCalibration2", "10.3.0", True),
        ("TRT-100300-EntropyCalibration2", "10.3.0.26", False),
        ("TRT-8XXX-EntropyCalibration2", "10.3.0", False),
        ("TRT-8600-EntropyCalibration2", None, False),
    ],
)
def test_a_cache_of_another_release_is_told(header: str, release: str | None, is_told: bool) -> None:
    findings = of_ranges(RANGES, made_by=header, release=release)

    assert [(f.code, f.severity) for f in findings] == ([("TRT104", Severity.WARNING)] if is_told else [])


# TRT105, TRT106


@pytest.mark.parametrize("place", range(6))
def test_a_range_ten_times_too_small_is_named_with_its_tensor(place: int) -> None:
    amax = calibrated_digits()
    name = list(amax)[place]
    [finding] = digits({**amax, name: amax[name] * 0.1})

    assert (finding.code, finding.severity, finding.evidence["tensor"]) == ("TRT105", Severity.ERROR, name)
    assert finding.evidence["saturation"] > 0.1


@pytest.mark.parametrize("place", range(6))
def test_a_range_ten_times_too_wide_is_named_with_its_tensor(place: int) -> None:
    amax = calibrated_digits()
    name = list(amax)[place]
    [finding] = digits({**amax, name: amax[name] * 10})

    assert (finding.code, finding.severity, finding.evidence["tensor"]) == ("TRT106", Severity.ERROR, name)


def test_the_message_names_tensor_reader_and_numbers() -> None:
    [finding] = of_ranges({**RANGES, "r1": 1.4})

    assert "tensor 'r1', read by conv2, has the range 1.4 for a largest |x| of" in finding.message
    assert "conv2" in finding.remedy


def test_a_range_that_is_wide_costs_fp8_nothing() -> None:
    assert of_ranges({**RANGES, "r1": 140.0}, Precision.FP8) == []


def test_values_less_than_half_a_step_beyond_the_range_are_not_saturated() -> None:
    amax = calibrated_digits()
    first = next(iter(amax))

    assert digits({**amax, first: 0.997}) == []


# TRT107


def outlier(range_of_x: float) -> list[Finding]:
    proto = networks.model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")],
        {"x": (networks.FLOAT, ["N", 64])},
        {"y": (networks.FLOAT, ["N", 4])},
        {"w": np.ones((64, 4), np.float32)},
    )
    x = np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)
    x[0, 0] = 150.0
    model = checked(proto, "outlier.onnx")
    golden = [{"x": x}]
    return found(quantised_evidence(model, None, Precision.INT8, "fp32", Ranges({"x": range_of_x}), golden, None))


def test_a_tensor_that_no_range_fits_is_a_warning() -> None:
    [finding] = outlier(150.0)

    assert (finding.code, finding.severity, finding.evidence["tensor"]) == ("TRT107", Severity.WARNING, "x")
    assert "matmul" in finding.remedy


def read_back(times: float) -> list[Finding]:
    """Findings on a file whose DQ of r1 has another scale than its Q."""
    proto = lower(networks.convolutional(), "int8", Ranges(RANGES))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(times * RANGES["r1"] / 127), "other"))
    dq = next(node for node in proto.graph.node if node.input[0] == "r1/int8")
    dq.input[1] = "other"
    return of_file(proto)


def test_a_dq_of_another_scale_than_its_q_keeps_its_tensor_badly() -> None:
    [finding] = read_back(1.2)

    assert (finding.code, finding.severity, finding.evidence["tensor"]) == ("TRT107", Severity.ERROR, "r1")
    assert "read back in steps of" in finding.message
    assert finding.remedy.startswith("Give the DequantizeLinear the scale of its QuantizeLinear")
    assert read_back(1.0) == []


# errors only where the output shows it, or no choice of samples explains it


def clipped(left_db: float, honest_db: float | None, hops: tuple[Hop, ...] = (), **observed: Any) -> list[Severity]:
    """What a range is called that leaves so much of a tensor whose best is 38 dB."""
    seen = TensorStatistics(1000, 0, 1.0, 0.3, 0.02, 0.6, left_db, 0.99, 38.0)
    tensor = QuantisedTensor("t", Grid(0.6 / 127), "conv", False, None, seen)
    quantised = Quantised((tensor,), "data.npz", honest_db=honest_db)
    shown = (Observed("y", **observed),) if observed else ()
    return [one.severity for one in saturated(replace(evidence_of(quantised), observed=shown, hops=hops))]


def evidence_of(quantised: Quantised) -> Evidence:
    return Evidence(
        case="net", precision=Precision.INT8, held="fp32", backend="onnxruntime", simulated=True, quantised=quantised
    )


def test_what_halves_of_the_golden_lose_as_well_is_a_warning_and_more_is_an_error() -> None:
    assert clipped(9.0, honest_db=14.0) == [Severity.WARNING]
    assert clipped(7.0, honest_db=14.0) == [Severity.ERROR]
    assert clipped(5.0, honest_db=1.0) == [Severity.ERROR]


@pytest.mark.parametrize("honest_db", [None, float("inf")])
def test_where_no_half_tells_anything_under_ten_decibels_are_an_error(honest_db: float | None) -> None:
    assert clipped(11.0, honest_db) == [Severity.WARNING]
    assert clipped(9.0, honest_db) == [Severity.ERROR]


@pytest.mark.parametrize(("times", "severity"), [(4, Severity.WARNING), (6, Severity.ERROR)])
def test_a_range_that_honest_samples_may_have_made_too_wide_is_a_warning(times: float, severity: Severity) -> None:
    seen = TensorStatistics(1000, 0, 1.0, 0.3, 0.0, times, 22.0, 0.0, 38.0)
    tensor = QuantisedTensor("t", Grid(times / 127), "conv", False, None, seen)

    [finding] = too_wide(evidence_of(Quantised((tensor,), "data.npz")))

    assert (finding.code, finding.severity) == ("TRT106", severity)


def test_the_same_loss_is_an_error_where_an_output_is_outside_its_bound() -> None:
    assert clipped(20.0, honest_db=None, error=0.17, bound=0.2) == [Severity.WARNING]
    assert clipped(20.0, honest_db=None, error=0.3, bound=0.2, reasons=("outside",)) == [Severity.ERROR]


def test_the_same_loss_is_a_warning_where_the_model_differs_in_fp32_already() -> None:
    outside = {"error": 0.3, "bound": 0.2, "reasons": ("outside",)}
    other, same = Hop("golden", "fp32", "y", 0.3, 1e-5), Hop("fp32", "simulated", "y", 0.3, 0.2)

    assert clipped(20.0, None, (other, same), **outside) == [Severity.WARNING]
    assert clipped(20.0, None, (same,), **outside) == [Severity.ERROR]


def test_halves_are_measured_only_where_they_decide_anything() -> None:
    x = networks.images(16)
    x[12:] *= 5
    half = {"x": x[:12]}
    net = checked(networks.convolutional(), "net")
    names = quantised_activations(net.proto)

    def honest(ranges: Ranges) -> float | None:
        evidence = quantised_evidence(net, None, Precision.INT8, "fp32", ranges, [{"x": x}], None)
        assert evidence is not None
        return evidence.honest_db

    assert honest(calibrate(net, names, [{"x": x}], "all")) is None
    found = honest(calibrate(net, names, [half], "the first"))
    assert found is not None
    assert 3 < found < 28
