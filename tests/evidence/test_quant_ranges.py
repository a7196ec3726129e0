"""What is measured of quantised tensors, by ranges and by a file's own Q/DQ."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantised import GOLDEN, NET, RANGES, asymmetric, codes, found

from pytest_trt import Model, Precision, Ranges, lower
from pytest_trt.evidence._qdq_file import bypassed
from pytest_trt.evidence.quant_ranges import quantised_evidence
from pytest_trt.golden.envelope import simulate
from pytest_trt.model.model import checked, load

if TYPE_CHECKING:
    from pathlib import Path

DATA = {"x": networks.images(32, seed=2)}


def test_what_is_neither_int8_nor_fp8_has_no_evidence() -> None:
    assert quantised_evidence(NET, None, Precision.FP16, "fp32", None, [GOLDEN], None) is None


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

    class Reader(CalibrationDataReader):
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
    x = np.array([[-1, 0.5, 2, 9]], np.float32)

    found = simulate(Model(bypassed(proto), "int8.onnx"), Precision.MODEL, {"x": x}, None)

    np.testing.assert_allclose(found["y"], [[0, 0.5, 2, 2.55]])


def test_fp8_files_are_described_too() -> None:
    proto = lower(networks.convolutional(), "fp8", Ranges({**RANGES, "r1": 1.4}))
    evidence = quantised_evidence(checked(proto, "fp8"), None, Precision.MODEL, "fp8", None, [GOLDEN], None)

    assert evidence is not None
    assert {tensor.grid.kind for tensor in evidence.tensors} == {"fp8"}
    assert codes(found(evidence, Precision.MODEL, "fp8")) == ["TRT105"]
    assert TensorProto.FLOAT8E4M3FN in {tensor.data_type for tensor in proto.graph.initializer}
