"""How much of a network runs at the precision that it is judged at."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from onnx import helper

from pytest_trt import Case, check, lower
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.evidence.coverage import coverage_at
from pytest_trt.golden.create import update
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.model import Model, checked
from pytest_trt.precision import Precision
from pytest_trt.report import html, markdown
from pytest_trt.report.record import document, record_of
from pytest_trt.report.terminal import table

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_trt.evidence.coverage import Coverage

INT8, FP16 = Precision.INT8, Precision.FP16


def recurrent() -> onnx.ModelProto:
    """Sequences of five steps of four (N, 5, 4) through an LSTM of eight to two scores (N, 2)."""
    draw = np.random.default_rng(0)
    weights = {
        "w": draw.standard_normal((1, 32, 4)).astype(np.float32),
        "r": (0.3 * draw.standard_normal((1, 32, 8))).astype(np.float32),
        "zero": np.array([0]),
        "m": draw.standard_normal((8, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "w", "r"], ["", "h"], "lstm", hidden_size=8),
        helper.make_node("Squeeze", ["h", "zero"], ["s"], "squeeze"),
        helper.make_node("MatMul", ["s", "m"], ["y"], "score"),
    ]
    float_ = networks.FLOAT
    return networks.model(nodes, {"x": (float_, ["N", 5, 4])}, {"y": (float_, ["N", 2])}, weights)


def sequences(samples: int = 8, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((samples, 5, 4)).astype(np.float32)


def convolutions(precision: Precision = INT8, keep: tuple[str, ...] = (), ops: tuple[str, ...] = ()) -> Coverage:
    found = coverage_at(checked(networks.convolutional(), "net"), precision, {"x": networks.images()}, keep, ops)
    assert found is not None
    return found


@pytest.fixture
def case(tmp_path: Path) -> Case:
    networks.save(recurrent(), tmp_path / "net.onnx")
    np.savez(tmp_path / "test.npz", x=sequences())
    np.savez(tmp_path / "calibration.npz", x=sequences(32, 2))
    told = Case(onnx="net.onnx", inputs="test.npz", calibration="calibration.npz", base=tmp_path, where="trt.toml")
    update(told, tmp_path / "golden")
    return told


def judged(case: Case, precision: str = "int8") -> tuple[str, list[str]]:
    verdict = check(case, precision, golden_dir=case.base / "golden")
    return verdict.verdict, [finding.code for finding in verdict.findings if finding.severity.value == "error"]


def test_multiply_adds_and_weights_are_counted() -> None:
    found = convolutions()

    assert (found.operators, found.reached) == (3, 3)
    assert found.weights == found.reached_weights == 4 * 2 * 9 + 4 * 4 * 9 + 3 * 4
    assert found.macs == found.reached_macs == 8 * (4 * 36 * 18 + 4 * 36 * 36 + 3 * 4)
    assert (found.share, found.share_of_weights, found.left_out) == (1, 1, ())


@pytest.mark.parametrize("precision", [INT8, FP16, Precision.BF16, Precision.TF32, Precision.FP8])
def test_a_node_that_is_kept_does_not_run_at_the_precision(precision: Precision) -> None:
    found = convolutions(precision, keep=("conv2",))

    assert found.left_out == ("conv2",)
    assert found.share == pytest.approx(1 - found.kept) == pytest.approx(8 * (4 * 36 * 18 + 12) / 62304)
    assert found.share_of_asked == pytest.approx(1)


def test_kinds_that_are_not_lowered_do_not_run_at_the_precision() -> None:
    assert convolutions(ops=("Conv",)).left_out == ("fc",)


def test_int8_does_not_reach_an_lstm_and_fp16_does() -> None:
    model = checked(recurrent(), "net")

    int8, fp16 = (coverage_at(model, precision, {"x": sequences()}) for precision in (INT8, FP16))

    assert int8 is not None
    assert fp16 is not None
    assert (int8.reached_weights, int8.weights) == (16, 32 * 12 + 16)
    assert (int8.reached_macs, int8.macs) == (8 * 16, 8 * (5 * 32 * 12 + 16))
    assert int8.left_out == ("lstm",)
    assert fp16.share == 1


def test_fp32_has_none() -> None:
    assert coverage_at(checked(recurrent(), "net"), Precision.FP32, {"x": sequences()}) is None


def quantised(keep: tuple[str, ...] = ()) -> Model:
    model = checked(networks.convolutional(), "net")
    return lower(
        model,
        "int8",
        calibrate(model, quantised_activations(model.proto), [{"x": networks.images()}], "images"),
        keep=keep,
    )


def test_a_file_is_counted_by_the_qdq_that_it_holds() -> None:
    whole = coverage_at(quantised(), Precision.MODEL, {"x": networks.images()})
    part = coverage_at(quantised(("conv2",)), Precision.MODEL, {"x": networks.images()})

    assert whole is not None
    assert part is not None
    assert (whole.share, whole.weights) == (1, 228)
    assert part.left_out == ("conv2",)
    assert part.share == pytest.approx(20832 / 62304)


def test_an_fp16_file_is_counted_by_its_types() -> None:
    typed = lower(checked(networks.convolutional(), "net"), "fp16", typed=True)

    found = coverage_at(typed, Precision.MODEL, {"x": networks.images()})

    assert found is not None
    assert (found.precision, found.share, found.weights) == ("fp16", 1, 228)


def test_weights_tell_where_shapes_do_not() -> None:
    proto = networks.convolutional()
    proto.graph.node.insert(2, helper.make_node("Riddle", ["r1"], ["u"], domain="of.another"))
    proto.graph.node[3].input[0] = "u"
    proto.opset_import.append(helper.make_opsetid("of.another", 1))

    found = coverage_at(Model(proto, "net"), FP16, {"x": networks.images()})

    assert found is not None
    assert (found.macs, found.share, found.weights) == (None, 1, 228)


def test_a_network_that_is_hardly_int8_fails_and_says_what_is_left_out(case: Case) -> None:
    verdict = check(case, "int8", golden_dir=case.base / "golden")

    assert not [judgement for judgement in verdict.judgements if judgement.reasons]
    [finding] = [finding for finding in verdict.findings if finding.code == "TRT206"]
    assert verdict.verdict == "failed"
    assert "16 of 400 weights (4.0%)" in finding.message
    assert "not 'lstm'" in finding.message
    assert verdict.coverage is not None
    assert verdict.coverage.share == pytest.approx(16 / 1936)


def test_each_advice_lets_it_pass(case: Case) -> None:
    assert judged(case) == ("failed", ["TRT206"])

    assert judged(case, "fp16") == ("passed", [])
    assert judged(replace(case, build={"honoured": 0.0})) == ("passed", [])
    assert judged(replace(case, build={"honoured": 0.005})) == ("passed", [])
    assert judged(replace(case, keep=("lstm",))) == ("passed", [])


def test_more_may_be_asked(tmp_path: Path) -> None:
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    plain = Case(onnx="net.onnx", calibration="golden", base=tmp_path, where="trt.toml")
    update(plain, tmp_path / "golden")

    assert judged(plain) == ("passed", [])
    assert judged(replace(plain, build={"honoured": 1.0})) == ("passed", [])


def test_the_record_and_every_report_tell_it(case: Case, record_schema: Any) -> None:
    verdict = check(case, "int8", golden_dir=case.base / "golden")
    record = {"nodeid": "t", "file": "trt.toml", "line": 1, **record_of(verdict)}
    told = document([record], {"python": "3", "packages": {}, "options": []}, partial=False, exit_status=1)

    assert record["coverage"]["share_of_weights"] == pytest.approx(0.04)
    part = {"$defs": record_schema.schema["$defs"], "$ref": "#/$defs/coverage"}
    record_schema.evolve(schema=part).validate(record["coverage"])
    assert "1% MACs, 4% weights int8" in table([record], 1)[1][0]
    assert "weights" not in table([record])[1][0]
    assert "| weights | 16 | 400 | 4.0% |" in markdown.render(told)
    assert "weights in int8" in html.render(told)
    assert "16 of 400" in html.render(told)
