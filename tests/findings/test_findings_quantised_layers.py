"""TRT103 and TRT109: layers that are left out of int8, and Q/DQ that TensorRT refuses."""

from __future__ import annotations

from typing import Any

import networks
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from quantised import GOLDEN, RANGES, asymmetric, of_file

from pytest_trt import Precision, Ranges, lower
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.evidence.finding import Finding, Severity
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.model import checked

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
        told: dict[str, Any] = {"pads": [1, 1, 1, 1], "group": groups}
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
