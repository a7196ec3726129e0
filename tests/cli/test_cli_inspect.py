"""``pytest-trt inspect``: told by content, and nothing is loaded unless it is asked for."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from fakes.tensorrt import install
from onnx import helper
from weight_formats import FORMATS

from pytest_trt.backends.recipe import Recipe, sampled
from pytest_trt.backends.tensorrt.backend import open_backend
from pytest_trt.case.case import Case
from pytest_trt.cli.main import main
from pytest_trt.golden.diff import propose
from pytest_trt.lowering.lowering import at_opset, lower
from pytest_trt.model.model import Model
from pytest_trt.precision import Precision
from pytest_trt.ranges.amax import Ranges
from pytest_trt.report.record import document, environment, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(*words: str) -> Result:
    return CliRunner().invoke(main, ["inspect", *words])


def told(*words: str) -> dict[str, Any]:
    found = ran(*words, "--json")
    assert found.exit_code == 0, found.output
    facts: dict[str, Any] = json.loads(found.output)
    return facts


def plan_header(*release: int) -> bytes:
    return b"ftrt" + struct.pack("<I", 0) + bytes(16) + bytes(release) + b"the engine"


def test_a_model_tells_its_ends_its_operators_and_what_each_precision_lowers() -> None:
    facts = told("net.onnx")

    assert facts["kind"] == "onnx"
    assert facts["inputs"] == ["'x' float32[N, 2, 6, 6]"]
    assert facts["ops"]["Conv"] == 2
    assert facts["held"] == "fp32"
    assert facts["lowered"]["tf32"] == {"nodes": 3, "matrix_nodes": 3}
    assert facts["lowered"]["int8"]["nodes"] == 4
    assert facts["lowered"]["int8"]["ranges"] >= 3
    assert facts["lowered"]["fp16"]["nodes"] == facts["nodes"]


def test_a_model_is_told_by_its_content_whatever_it_is_called(folder: Path) -> None:
    (folder / "net.onnx").rename(folder / "net.plan")

    assert told("net.plan")["kind"] == "onnx"


def test_a_quantised_model_tells_its_ranges(folder: Path) -> None:
    model = Model(networks.convolutional(), "net")
    tensors = ("x", *(name for node in model.proto.graph.node for name in node.output))
    amax = {name: 2.0 + place for place, name in enumerate(tensors)}
    networks.save(lower(model, Precision.INT8, Ranges(amax, "ours")).proto, folder / "q.onnx")

    facts = told("q.onnx")

    assert facts["held"] == "int8"
    assert facts["qdq"]["narrowest"] == {"x": pytest.approx(2.0)}
    assert facts["qdq"]["dequantize"] > facts["qdq"]["quantize"] == facts["qdq"]["ranges"] == 3
    assert facts["lowered"] == {}


def test_weights_that_fp16_can_not_hold_are_counted(folder: Path) -> None:
    weights = {"w": np.array([[1e5, 1e-9], [1, 1]], np.float32)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = {"x": (networks.FLOAT, ["N", 2])}, {"y": (networks.FLOAT, ["N", 2])}
    networks.save(networks.model([node], *ends, weights), folder / "wide.onnx")

    half = told("wide.onnx")["lowered"]["fp16"]

    assert (half["weights_beyond"], half["weights_zeroed"]) == (1, 1)
    assert "1 weights become infinite" in ran("wide.onnx").output


def test_a_model_without_matrix_products_says_why_int8_is_refused(folder: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    ends = {"x": (networks.FLOAT, ["N", 2])}, {"y": (networks.FLOAT, ["N", 2])}
    networks.save(networks.model([node], *ends, {}), folder / "relu.onnx")

    assert "quantising would change nothing" in ran("relu.onnx").output


def test_a_plan_tells_the_release_that_built_it_without_tensorrt(folder: Path) -> None:
    (folder / "net.engine").write_bytes(plan_header(10, 3, 0, 26))

    facts = told("net.engine")

    assert (facts["product"], facts["release"]) == ("TensorRT", "10.3.0.26")
    assert len(facts["sha256"]) == 64
    assert "layers: --load" in ran("net.engine").output


def test_a_plan_of_tensorrt_rtx_has_a_tag_of_its_own(folder: Path) -> None:
    # as TensorRT-RTX 1.7.1.116 writes it
    head = "76747274 00000000 02000000 00000000 84d60600 00000000 01070174 76747274 08000000"
    (folder / "net.plan").write_bytes(bytes.fromhex(head))

    facts = told("net.plan")

    assert (facts["product"], facts["release"]) == ("TensorRT-RTX", "1.7.1.116")
    assert "net.plan: TensorRT-RTX plan" in ran("net.plan").output


@pytest.mark.parametrize("header", [plan_header(0, 0, 0, 0), b"ftrt", b"ftrt" + struct.pack("<I", 7) + bytes(30)])
def test_a_plan_whose_header_tells_no_release_is_said_to_tell_none(folder: Path, header: bytes) -> None:
    (folder / "net.plan").write_bytes(header)

    assert told("net.plan")["release"] is None
    assert "TensorRT of a release that its header does not tell" in ran("net.plan").output


def test_a_plan_is_loaded_for_its_layers_where_that_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16")
    model = at_opset(Model(networks.convolutional(), "net.onnx"), Precision.FP16)
    feeds = {"x": networks.images(8)}
    recipe = Recipe(model, Precision.FP16, sampled(model, lambda _: [feeds], "samples"), feeds=(feeds,))
    (folder / "net.plan").write_bytes(open_backend().plan(recipe).data)

    facts = told("net.plan", "--load")["loaded"]

    assert facts["release"].startswith("TensorRT 10")
    assert [one["precision"] for one in facts["layers"] if one["computes"]] == ["fp16"] * 3
    assert any("logits" in end for end in facts["ends"])
    assert "3 in fp16" in ran("net.plan", "--load").output


def test_a_damaged_plan_can_not_be_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16")
    (folder / "net.plan").write_bytes(plan_header(10, 3, 0, 26))

    found = ran("net.plan", "--load")

    assert found.exit_code == 2
    assert "can't be loaded by TensorRT" in found.output


def test_loading_is_for_plans_alone() -> None:
    assert "--load is for plans" in ran("net.onnx", "--load").output


def test_a_golden_is_shown_as_golden_show_does(folder: Path) -> None:
    propose(Case(onnx="net.onnx", base=folder), folder)

    facts = told("net.candidate.safetensors")

    assert facts["kind"] == "golden"
    assert facts["provenance"]["candidate"]


def test_a_record_tells_its_verdicts_and_that_it_is_partial(folder: Path) -> None:
    result = {"case": "net", "precision": "int8", "backend": "onnxruntime", "verdict": "error"}
    plain = {"simulated": True, "outputs": {}, "worst_output": None, "kind": "DataError", "layers": {}, "findings": []}
    told_of = {**result, **plain, "provenance": {}, "latency": None}
    write(folder / "run.json", document([told_of], environment(folder), partial=True, exit_status=1))

    facts = told("run.json")

    assert facts["verdicts"] == {"error": 1}
    assert facts["partial"]
    assert "the run was cut short" in ran("run.json").output


@pytest.mark.parametrize(("content", "said"), [
    (b"", "is empty"),
    (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
    (b"TRT-100300-EntropyCalibration2\nx: 3c010a14\n", "pytest-trt ranges show"),
    (b"PK\x03\x04...", "zip archive"),
    (b"\x93NUMPY\x01\x00", "a numpy array"),
    (b'{"a": 1}', "no record of --trt-report"),
    (b'{"schema": 1, "results": [', "can't be read"),
    (b"hello, world", "by its content"),
    (b"\x08\x07", "by its content"),
])  # fmt: skip
def test_a_file_of_another_kind_is_told_for_what_it_is(folder: Path, content: bytes, said: str) -> None:
    (folder / "file").write_bytes(content)

    found = ran("file")

    assert found.exit_code == 2
    assert said in found.output


def test_a_model_that_was_cut_short_is_no_model(folder: Path) -> None:
    whole = (folder / "net.onnx").read_bytes()
    onnx.load_from_string(whole)
    (folder / "net.onnx").write_bytes(whole[: len(whole) // 2])

    assert ran("net.onnx").exit_code == 2


def test_a_file_that_is_not_there_is_told() -> None:
    found = ran("none.onnx")

    assert found.exit_code == 2
    assert "none.onnx can't be read: No such file" in found.output


@pytest.mark.parametrize("name", ["int4", "nvfp4", "mxfp8", "MatMulNBits", "uint4"])
def test_weights_of_few_bits_are_told_by_their_format(folder: Path, name: str) -> None:
    write, format_ = FORMATS[name]
    networks.save(write(), folder / "small.onnx")

    assert told("small.onnx")["formats"] == {format_: 1}
    assert f"1 weight in {format_}" in ran("small.onnx").output


def test_a_file_of_weights_alone_is_not_asked_for_ranges_of_activations(folder: Path) -> None:
    networks.save(FORMATS["nvfp4"][0](), folder / "small.onnx")

    assert "2 DequantizeLinear; 0 ranges: no activation is quantised" in ran("small.onnx").output
