from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from places import DIGITS

from pytest_trt import Model, Precision, Ranges, lower
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.evidence._qdq_file import bypassed
from pytest_trt.evidence.evidence import Evidence
from pytest_trt.evidence.finding import Finding, Severity
from pytest_trt.evidence.quant_ranges import Quantised, likeness_of, quantised_evidence
from pytest_trt.findings.diagnosis import CALIBRATION_RULES as RULES
from pytest_trt.golden.envelope import simulate
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.model import checked, load

if TYPE_CHECKING:
    from pathlib import Path

NET = checked(networks.convolutional(), "net.onnx")
GOLDEN = {"x": networks.images(16)}
DATA = {"x": networks.images(32, seed=2)}
RANGES = {"x": 3.6, "r1": 14.0, "f": 6.0}


def found(quantised: Quantised | None, precision: Precision = Precision.INT8, held: str = "fp32") -> list[Finding]:
    evidence = Evidence(
        case="net", precision=precision, held=held, backend="onnxruntime", simulated=True, quantised=quantised
    )
    return [finding for rule in RULES for finding in rule(evidence)]


def of_ranges(amax: dict[str, float], precision: Precision = Precision.INT8, **more: Any) -> list[Finding]:
    ranges = Ranges(amax, "ranges.txt", made_by=more.pop("made_by", ""))
    return found(quantised_evidence(NET, None, precision, "fp32", ranges, [GOLDEN], None, **more), precision)


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
    return data  # type: ignore[no-any-return]


def calibrated_digits() -> dict[str, float]:
    model = load(DIGITS / "digits.onnx")
    data = {model.inputs[0].name: calibration_of_digits()}
    return dict(calibrate(model, quantised_activations(model.proto), [data], "calibration.npz").amax)


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


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


def test_what_is_neither_int8_nor_fp8_has_no_evidence() -> None:
    assert quantised_evidence(NET, None, Precision.FP16, "fp32", None, [GOLDEN], None) is None


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
    return networks.model(nodes, inputs, outputs, weights)  # type: ignore[arg-type]


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


# TRT103


def with_bare_gemm(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The Gemm reads what the Flatten computed."""
    gemm = next(node for node in proto.graph.node if node.op_type == "Gemm")
    gemm.input[0] = "f"
    left = [n for n in proto.graph.node if "f/int8" not in (*n.input, *n.output)]
    del proto.graph.node[:]
    proto.graph.node.extend(left)
    return proto


def test_an_operator_left_out_at_the_end_is_noted_by_name() -> None:
    [finding] = of_file(with_bare_gemm(lower(networks.convolutional(), "int8", Ranges(RANGES))))

    assert (finding.code, finding.severity, finding.evidence["layers"]) == ("TRT103", Severity.NOTE, ["fc"])


def test_an_operator_that_is_kept_on_purpose_is_not() -> None:
    assert of_file(with_bare_gemm(lower(networks.convolutional(), "int8", Ranges(RANGES))), keep=["fc"]) == []


def test_int8_of_which_most_is_left_out_is_an_error() -> None:
    proto = lower(networks.convolutional(), "int8", Ranges(RANGES), keep=["conv2", "fc"])
    [finding] = of_file(proto, Precision.INT8)

    assert (finding.code, finding.severity) == ("TRT103", Severity.ERROR)
    assert finding.evidence["layers"] == ["conv2", "fc"]


def chain(layers: int, op: str = "Conv") -> onnx.ModelProto:
    """Convolutions in a row, each followed by a Relu; every second one in groups where ``op`` is "depthwise"."""
    draw = np.random.default_rng(0)
    weights: dict[str, Any] = {}
    nodes, last = [], "x"
    for layer in range(layers):
        groups = 2 if op == "depthwise" and layer % 2 else 1
        weights[f"w{layer}"] = draw.standard_normal((2, 2 // groups, 3, 3)).astype(np.float32)
        told = {"pads": [1, 1, 1, 1], "group": groups}
        nodes += [
            helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], f"conv{layer}", **told),
            helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"], f"relu{layer}"),
        ]
        last = f"r{layer}"
    shape: list[Any] = ["N", 2, 6, 6]
    return networks.model(nodes, {"x": (networks.FLOAT, shape)}, {last: (networks.FLOAT, shape)}, weights)


def without(layers: list[int], op: str = "Conv", **more: Any) -> list[Finding]:
    """Findings on a chain of eight whose Q/DQ leaves these out."""
    model = checked(chain(8, op), "chain.onnx")
    amax = calibrate(model, quantised_activations(model.proto), [GOLDEN], "golden").amax
    file = lower(model, "int8", Ranges(amax), keep=[f"conv{layer}" for layer in layers])
    return of_file(file.proto, **more)


def test_layers_that_are_left_out_among_their_like_are_an_error() -> None:
    [finding] = without([1, 3, 5])

    assert (finding.code, finding.severity) == ("TRT103", Severity.ERROR)
    assert finding.evidence["gaps"] == ["conv1", "conv3", "conv5"]
    assert "nothing says why" in finding.message


@pytest.mark.parametrize(
    ("layers", "op", "more"),
    [
        ([1, 3, 5], "Conv", {"keep": ["conv1", "conv3", "conv5"]}),
        ([0, 7], "Conv", {}),
        ([0, 3, 7], "Conv", {}),
        ([1, 3, 5, 7], "depthwise", {}),
    ],
    ids=["declared", "first and last", "with one between", "a kind"],
)
def test_layers_that_are_left_out_by_a_rule_or_on_purpose_are_none(
    layers: list[int], op: str, more: dict[str, Any]
) -> None:
    assert all(finding.severity is not Severity.ERROR for finding in without(layers, op, **more))


def excited(blocks: int = 3) -> onnx.ModelProto:
    """Convolutions, each gated by two more on its pooled map."""
    draw = np.random.default_rng(0)
    weights: dict[str, Any] = {}
    nodes, last = [], "x"
    for b in range(blocks):
        for word, side in (("conv", 3), ("down", 1), ("up", 1)):
            weights[f"{word}{b}"] = draw.standard_normal((2, 2, side, side)).astype(np.float32)
        nodes += [
            helper.make_node("Conv", [last, f"conv{b}"], [f"c{b}"], f"conv{b}", pads=[1, 1, 1, 1]),
            helper.make_node("GlobalAveragePool", [f"c{b}"], [f"p{b}"]),
            helper.make_node("Conv", [f"p{b}", f"down{b}"], [f"d{b}"], f"conv{b}.0"),
            helper.make_node("Relu", [f"d{b}"], [f"r{b}"]),
            helper.make_node("Conv", [f"r{b}", f"up{b}"], [f"u{b}"], f"conv{b}.1"),
            helper.make_node("Sigmoid", [f"u{b}"], [f"s{b}"]),
            helper.make_node("Mul", [f"c{b}", f"s{b}"], [f"y{b}"]),
        ]
        last = f"y{b}"
    shape: list[Any] = ["N", 2, 6, 6]
    return networks.model(nodes, {"x": (networks.FLOAT, shape)}, {last: (networks.FLOAT, shape)}, weights)


def lacking(proto: onnx.ModelProto, keep: list[str]) -> list[Finding]:
    """Findings on a network whose Q/DQ leaves these nodes out."""
    model = checked(proto, "net.onnx")
    amax = calibrate(model, quantised_activations(model.proto), [GOLDEN], "golden").amax
    return of_file(lower(model, "int8", Ranges(amax), keep=keep).proto)


def test_squeeze_and_excite_may_be_left_out_as_a_kind() -> None:
    finding = lacking(excited(), [f"conv{b}.{i}" for b in range(3) for i in (0, 1)])[-1]

    assert (finding.code, finding.severity, finding.evidence["gaps"]) == ("TRT103", Severity.WARNING, [])


def test_layers_that_are_left_out_by_their_name_are_no_gaps() -> None:
    proto = chain(8)
    for layer in (1, 3, 5):
        next(node for node in proto.graph.node if node.name == f"conv{layer}").name = f"block{layer}/attention/Conv"

    finding = lacking(proto, [f"block{layer}/attention/Conv" for layer in (1, 3, 5)])[-1]

    assert (finding.code, finding.severity, finding.evidence["gaps"]) == ("TRT103", Severity.WARNING, [])


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


# TRT108


def test_calibration_data_of_another_scale_are_named_before_their_signs() -> None:
    first, *signs = digits(samples=calibration_of_digits() * np.float32(255))

    assert (first.code, first.severity) == ("TRT108", Severity.ERROR)
    assert "as large" in first.message
    assert set(codes(signs)) == {"TRT106"}


def test_calibration_data_with_another_mean_are_named() -> None:
    first = digits(samples=calibration_of_digits() * np.float32(0.5) + np.float32(0.5))[0]

    assert first.code == "TRT108"
    assert "shifted" in first.message


def test_one_sample_whose_ranges_the_golden_exceeds_is_an_error() -> None:
    first = digits(samples=calibration_of_digits()[:1])[0]

    assert (first.code, first.severity, first.evidence["samples"]) == ("TRT108", Severity.ERROR, 1)


def test_ranges_of_data_of_another_scale_are_told_by_the_input_alone() -> None:
    first = digits({name: amax * 0.1 for name, amax in calibrated_digits().items()})[0]

    assert first.code == "TRT108"
    assert "0.1 times the largest |x|" in first.message


def colours(seed: int, order: list[int]) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    means = np.float32([0.5, 0.1, -0.4]).reshape(1, 3, 1, 1)
    shade = draw.normal(0, 0.2, (16, 1, 1, 1))
    return {"x": (means + shade + draw.standard_normal((16, 3, 8, 8))).astype(np.float32)[:, order]}


def of_colours(order: list[int]) -> list[Finding]:
    proto = networks.model(
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv")],
        {"x": (networks.FLOAT, ["N", 3, 8, 8])},
        {"y": (networks.FLOAT, ["N", 2, 6, 6])},
        {"w": np.ones((2, 3, 3, 3), np.float32)},
    )
    model, data = checked(proto, "net.onnx"), colours(1, order)
    ranges = calibrate(model, ["x"], [data], "calibration.npz")
    return found(
        quantised_evidence(model, None, Precision.INT8, "fp32", ranges, [colours(2, [0, 1, 2])], None, samples=[data])
    )


def test_calibration_data_in_bgr_are_named() -> None:
    [finding] = of_colours([2, 1, 0])

    assert (finding.code, finding.severity) == ("TRT108", Severity.ERROR)
    assert "BGR" in finding.message


def test_calibration_data_in_the_goldens_own_order_are_not() -> None:
    assert of_colours([0, 1, 2]) == []


def of_states(data: np.ndarray, golden: np.ndarray) -> list[Finding]:
    """Findings on (N, 4) times a matrix, calibrated on data."""
    proto = networks.model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")],
        {"x": (networks.FLOAT, ["N", 4])},
        {"y": (networks.FLOAT, ["N", 4])},
        {"w": np.eye(4, dtype=np.float32)},
    )
    model, runs = checked(proto, "net.onnx"), [{"x": data.astype(np.float32)}]
    ranges = calibrate(model, ["x"], runs, "calibration.npz")
    fed = [{"x": golden.astype(np.float32)}]
    return found(quantised_evidence(model, None, Precision.INT8, "fp32", ranges, fed, None, samples=runs))


def loud(seed: int, samples: int) -> np.ndarray:
    """Samples of very different sizes, as of sounds."""
    draw = np.random.default_rng(seed)
    return draw.standard_normal((samples, 4)) * np.exp(draw.normal(0, 0.7, (samples, 1)))


def test_one_sample_that_is_smaller_than_most_does_not_make_calibration_data_unlike() -> None:
    quiet = np.array([[0.5, -0.4, 0.4, -0.5]])

    assert "TRT108" not in codes(of_states(loud(1, 64), quiet))
    assert codes(of_states(255 * loud(1, 64), quiet))[0] == "TRT108"


def test_a_golden_of_zeros_tells_nothing_of_calibration_data() -> None:
    assert of_states(loud(1, 64), np.zeros((8, 4))) == []


def test_a_golden_that_stands_still_tells_nothing_of_how_calibration_data_vary() -> None:
    draw = np.random.default_rng(0)

    assert codes(of_states(draw.uniform(0.3, 0.8, (64, 4)), np.ones((8, 4))))[0] == "TRT105"


def test_samples_whose_second_axis_varies_are_no_colours() -> None:
    frames = [{"x": np.random.default_rng(0).standard_normal((2, count, 5, 8)).astype(np.float32)} for count in (4, 20)]
    proto = networks.model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")],
        {"x": (networks.FLOAT, ["N", "T", 5, 8])},
        {"y": (networks.FLOAT, ["N", "T", 5, 2])},
        {"w": np.ones((8, 2), np.float32)},
    )
    likeness = likeness_of(frames, frames, checked(proto, "net.onnx").inputs)

    assert len(likeness.inputs[0].calibration.channels) == 1
    assert likeness.inputs[0].calibration.samples == 4


def smooth(seed: int, samples: int = 16) -> np.ndarray:
    """Images that change slowly, as photographs do: sums of noise, of mean 0 and spread 1."""
    image = np.random.default_rng(seed).standard_normal((samples, 2, 24, 24)).cumsum(2).cumsum(3)
    image -= image.mean((2, 3), keepdims=True)
    return (image / image.std((2, 3), keepdims=True)).astype(np.float32)


def of_smooth(change: Any, weight: float = 1.0) -> list[Finding]:
    """Findings on a network that adds up 25 pixels, calibrated on changed images and judged on smooth ones."""
    proto = networks.model(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "sum"),
            helper.make_node("Conv", ["c", "v"], ["y"], "conv"),
        ],
        {"x": (networks.FLOAT, ["N", 2, 24, 24])},
        {"y": (networks.FLOAT, ["N", 2, 18, 18])},
        {"w": np.full((2, 2, 5, 5), weight, np.float32), "v": np.ones((2, 2, 3, 3), np.float32)},
    )
    model, data = checked(proto, "net.onnx"), {"x": change(smooth(1)).astype(np.float32)}
    ranges = calibrate(model, ["x", "c"], [data], "calibration.npz")
    runs = [{"x": smooth(2)}]
    return found(quantised_evidence(model, None, Precision.INT8, "fp32", ranges, runs, None, samples=[data]))


def test_calibration_data_that_vary_less_are_named_though_their_size_is_alike() -> None:
    first = of_smooth(lambda x: 0.25 * x + 0.48)[0]  # as images of 0 to 1, where the golden's are normalised

    assert (first.code, first.severity) == ("TRT108", Severity.ERROR)
    assert "varies 0.25 times as much within a sample" in first.message


def test_noise_is_told_from_images_by_its_texture_where_it_spoils_a_range() -> None:
    first = of_smooth(lambda x: np.random.default_rng(3).standard_normal(x.shape))[0]

    assert (first.code, first.severity) == ("TRT108", Severity.ERROR)
    assert "of another texture" in first.message


def test_data_that_vary_less_and_whose_ranges_fit_are_not() -> None:
    assert of_smooth(lambda x: np.concatenate([0.25 * x[:-1], 4 * x[-1:]])) == []


def test_images_of_the_same_kind_are_not() -> None:
    assert of_smooth(lambda x: x) == []


# TRT109


def asymmetric(kind: Any = np.int8, zero: int = 10) -> onnx.ModelProto:
    proto = lower(networks.convolutional(), "int8", Ranges(RANGES))
    networks.weight(proto, "x/int8/zero").CopyFrom(numpy_helper.from_array(np.array(zero, kind), "x/int8/zero"))
    return proto


@pytest.mark.parametrize(
    ("proto", "what", "why"),
    [
        (asymmetric(), "asymmetric", "has the zero point 10"),
        (asymmetric(np.uint8, 128), "asymmetric", "has the zero point 128"),
        (asymmetric(np.uint8, 0), "type", "quantises to uint8"),
    ],
)
def test_what_tensorrt_refuses_is_named_with_its_node(proto: onnx.ModelProto, what: str, why: str) -> None:
    first = of_file(proto)[0]

    assert (first.code, first.severity, first.evidence["kinds"]) == ("TRT109", Severity.ERROR, [what])
    assert why in first.message
    assert first.evidence["tensor"] == "x"


def test_integer_operators_are_refused_and_not_taken_for_uncalibrated() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "dynamic"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "dequant"),
    ]
    shape: list[Any] = ["N", 2, 6, 6]
    proto = networks.model(nodes, {"x": (networks.FLOAT, shape)}, {"y": (networks.FLOAT, shape)})
    [finding] = of_file(proto)

    assert (finding.code, finding.evidence["layer"]) == ("TRT109", "dynamic")
    assert "operator" in finding.evidence["kinds"]


def test_an_int32_bias_with_a_dq_is_refused() -> None:
    proto = lower(networks.convolutional(), "int8", Ranges(RANGES))
    proto.graph.initializer.extend(
        [
            numpy_helper.from_array(np.arange(4, dtype=np.int32), "bias"),
            numpy_helper.from_array(np.float32(0.01), "bias_scale"),
        ]
    )
    proto.graph.node.insert(0, helper.make_node("DequantizeLinear", ["bias", "bias_scale"], ["b1_dq"], "bias_dq"))
    conv = next(node for node in proto.graph.node if node.name == "conv1")
    conv.input[2] = "b1_dq"
    [finding] = of_file(proto)

    assert (finding.code, finding.evidence["layer"], finding.evidence["kinds"]) == ("TRT109", "bias_dq", ["bias"])


# evidence


def test_an_asymmetric_grid_is_measured_as_it_is() -> None:
    x = np.linspace(-1, 3, 576).reshape(8, 2, 6, 6).astype(np.float32)
    proto = asymmetric(np.int8, -64)
    networks.weight(proto, "x/int8/scale").CopyFrom(numpy_helper.from_array(np.float32(4 / 255), "x/int8/scale"))
    evidence = quantised_evidence(checked(proto, "net"), None, Precision.MODEL, "int8", None, [{"x": x}], None)

    assert evidence is not None
    [tensor] = [tensor for tensor in evidence.tensors if tensor.name == "x"]
    assert tensor.grid.ends == (-64 * np.float32(4 / 255), 191 * np.float32(4 / 255))
    assert tensor.statistics is not None
    assert tensor.statistics.saturation == 0
    assert tensor.statistics.sqnr_db == pytest.approx(
        20 * np.log10(np.sqrt(np.mean(x**2)) / (4 / 255 / 12**0.5)), abs=0.2
    )


def test_the_statistics_are_those_of_numpy() -> None:
    evidence = quantised_evidence(NET, None, Precision.INT8, "fp32", Ranges({**RANGES, "x": 2.0}), [GOLDEN], 4)

    assert evidence is not None
    seen, x, step = evidence.tensors[0].statistics, GOLDEN["x"], 2.0 / 127
    assert seen is not None
    wrong = x - np.clip(np.rint(x / step), -128, 127) * step
    assert seen.values == x.size
    assert seen.amax == np.abs(x).max()
    assert seen.rms == pytest.approx(np.sqrt(np.mean(x**2)))
    assert seen.saturation == np.mean((x > 127.5 * step) | (x < -128.5 * step))
    assert seen.utilisation == pytest.approx(2.0 / np.abs(x).max())
    assert seen.sqnr_db == pytest.approx(10 * np.log10(np.sum(x**2) / np.sum(wrong**2)), abs=1e-3)


def test_a_file_is_judged_by_itself_also_where_a_reference_has_other_names() -> None:
    proto = lower(networks.convolutional(), "int8", Ranges({**RANGES, "r1": 1.4}))
    for node in proto.graph.node:
        node.input[:] = [name.replace("r1", "renamed") for name in node.input]
        node.output[:] = [name.replace("r1", "renamed") for name in node.output]
    for tensor in proto.graph.initializer:
        tensor.name = tensor.name.replace("r1", "renamed")
    evidence = quantised_evidence(checked(proto, "q"), NET, Precision.MODEL, "int8", None, [GOLDEN], None)

    [finding] = found(evidence, Precision.MODEL, "int8")
    assert (finding.code, finding.evidence["tensor"]) == ("TRT105", "renamed")


def test_a_file_that_can_not_be_run_leaves_its_statistics_to_the_reference() -> None:
    proto = lower(networks.convolutional(), "int8", Ranges({**RANGES, "r1": 1.4}))
    relu = next(node for node in proto.graph.node if node.name == "relu2")
    relu.op_type, relu.domain = "Unheard", "somebody"
    proto.opset_import.append(helper.make_opsetid("somebody", 1))
    evidence = quantised_evidence(Model(proto, "q"), NET, Precision.MODEL, "int8", None, [GOLDEN], None)

    assert codes(found(evidence, Precision.MODEL, "int8")) == ["TRT105"]


def test_a_file_that_can_not_be_run_and_has_no_reference_says_why() -> None:
    proto = lower(networks.convolutional(), "int8", Ranges(RANGES))
    proto.graph.node[-1].op_type = "Unheard"
    evidence = quantised_evidence(Model(proto, "q"), None, Precision.MODEL, "int8", None, [GOLDEN], None)

    assert evidence is not None
    assert "Unheard" in evidence.unread
    assert all(tensor.statistics is None for tensor in evidence.tensors)


def test_values_that_are_not_finite_are_left_to_the_rules_of_numerics() -> None:
    evidence = quantised_evidence(NET, None, Precision.INT8, "fp32", Ranges(RANGES), [GOLDEN], None)
    assert evidence is not None
    first, *others = evidence.tensors
    assert first.statistics is not None
    spoiled = replace(first, statistics=replace(first.statistics, nonfinite=1, sqnr_db=0.0))

    assert found(replace(evidence, tensors=(spoiled, *others))) == []


def test_a_model_that_onnxruntime_quantised_by_default_is_refused_and_measured(tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{"x": DATA["x"]}]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    source = networks.save(networks.convolutional(), tmp_path / "net.onnx")
    quantize_static(source, tmp_path / "int8.onnx", Reader(), quant_format=QuantFormat.QDQ)
    model = load(tmp_path / "int8.onnx")
    evidence = quantised_evidence(model, None, Precision.MODEL, "int8", None, [GOLDEN], None)

    assert codes(found(evidence, Precision.MODEL, "int8")) == ["TRT109"]
    assert evidence is not None
    assert {fault.what for fault in evidence.refused} >= {"asymmetric", "bias"}
    measured = [tensor.statistics for tensor in evidence.tensors if tensor.grid.ends[0] < 0]
    assert measured
    assert all(seen is not None and seen.sqnr_db > 30 for seen in measured)


def test_a_file_of_opset_10_is_led_around_its_qdq_too() -> None:
    proto = networks.model(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "q"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "dq"),
            helper.make_node("MatMul", ["d", "w"], ["y"], "matmul"),
        ],
        {"x": (networks.FLOAT, ["N", 4])},
        {"y": (networks.FLOAT, ["N", 4])},
        {"scale": np.float32(0.01), "zero": np.uint8(0), "w": np.eye(4, dtype=np.float32)},
        opset=10,
    )
    x = np.float32([[-1, 0.5, 2, 9]])

    found = simulate(Model(bypassed(proto), "int8.onnx"), Precision.MODEL, {"x": x}, None)

    np.testing.assert_allclose(found["y"], [[0, 0.5, 2, 2.55]])


def test_fp8_files_are_described_too() -> None:
    proto = lower(networks.convolutional(), "fp8", Ranges({**RANGES, "r1": 1.4}))
    evidence = quantised_evidence(checked(proto, "fp8"), None, Precision.MODEL, "fp8", None, [GOLDEN], None)

    assert evidence is not None
    assert {tensor.grid.kind for tensor in evidence.tensors} == {"fp8"}
    assert codes(found(evidence, Precision.MODEL, "fp8")) == ["TRT105"]
    assert TensorProto.FLOAT8E4M3FN in {tensor.data_type for tensor in proto.graph.initializer}
