"""NVIDIA ModelOpt itself, where it is installed."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest
import weight_formats
from onnx import TensorProto, helper, numpy_helper
from places import DIGITS, ROOT

from pytest_trt import Case, check
from pytest_trt.errors import LoweringError
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.lowering.modelopt import lower_by_modelopt, weights_by_modelopt
from pytest_trt.model.model import Model, checked, load
from pytest_trt.model.onnx_session import open_session

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("modelopt") is None,
    reason="needs NVIDIA ModelOpt, in an environment of its own: pip install -e '.[modelopt]'",
)


@pytest.fixture
def digits() -> Model:
    return load(DIGITS / "digits.onnx")


def samples(_: int | None = None, scaled: float = 1.0) -> list[dict[str, Any]]:
    with np.load(DIGITS / "calibration.npz") as data:
        return [{"image": np.float32(scaled) * data["image"]}]


def scale_of_input(model: Model) -> float:
    held = {tensor.name: tensor for tensor in model.proto.graph.initializer}
    nodes = [node for node in model.proto.graph.node if node.op_type == "QuantizeLinear"]
    return float(next(numpy_helper.to_array(held[node.input[1]]) for node in nodes if node.input[0] == "image"))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_digits_keeps_its_bounds_as_modelopt_lowers_it(precision: str) -> None:
    case = Case(onnx="digits.onnx", calibration="calibration.npz", inputs="test.npz", lowering="modelopt", base=DIGITS)
    verdict = check(case, precision, golden_dir=ROOT / "golden")
    assert (verdict.verdict, verdict.message) == ("passed", "")
    assert str(verdict.provenance["lowering"]).startswith("modelopt 0.")


@pytest.mark.parametrize("method", ["minmax", "entropy"])
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_the_result_holds_what_was_asked_and_nothing_is_printed_or_left(
    digits: Model, precision: str, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(Path(tempfile.gettempdir()).iterdir())
    found = lower_by_modelopt(digits, precision, samples, batch=8, method=method)
    assert held_precision(found.model.proto) == precision
    assert (found.model.inputs, found.model.outputs) == (digits.inputs, digits.outputs)
    assert capsys.readouterr() == ("", "")
    assert set(Path(tempfile.gettempdir()).iterdir()) <= before


def test_its_scales_are_those_of_our_samples(digits: Model) -> None:
    once = scale_of_input(lower_by_modelopt(digits, "int8", samples).model)
    twice = scale_of_input(lower_by_modelopt(digits, "int8", lambda _: samples(scaled=2.0)).model)
    assert once == pytest.approx(1 / 127, rel=1e-6)
    assert twice == pytest.approx(2 / 127, rel=1e-6)


def test_the_same_samples_give_the_same_model(digits: Model) -> None:
    one, other = (lower_by_modelopt(digits, "int8", samples, batch=16).model for _ in range(2))
    assert one.sha256 == other.sha256


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_kept_nodes_stay_in_fp32(digits: Model, precision: str) -> None:
    convs = [node.name for node in digits.proto.graph.node if node.op_type == "Conv"]
    free = lower_by_modelopt(digits, precision, samples).model.proto
    kept = lower_by_modelopt(digits, precision, samples, keep=convs[:1]).model.proto

    def stored(proto: onnx.ModelProto) -> bool:
        node = next(node for node in proto.graph.node if node.name == convs[0])
        held = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
        return held.get(node.input[1]) == TensorProto.FLOAT

    assert stored(kept)
    assert not stored(free)


def test_weights_beyond_fp16_stay_in_fp32() -> None:
    nodes = [helper.make_node("Mul", ["x", "large"], ["y"], "up"), helper.make_node("Relu", ["y"], ["z"], "relu")]
    ends = networks.FLOAT, ["N", 3]
    proto = networks.model(nodes, {"x": ends}, {"z": ends}, {"large": np.full(3, 1e6, np.float32)})
    found = lower_by_modelopt(checked(proto, "net.onnx"), "fp16").model.proto
    assert [t.data_type for t in found.graph.initializer] == [TensorProto.FLOAT]


@pytest.mark.parametrize(
    ("precision", "what"), [("int8", "left all 3 matrix operators in fp32"), ("fp8", "nothing in fp8")]
)
def test_a_network_too_small_for_it_is_refused(precision: str, what: str) -> None:
    model = checked(networks.convolutional(), "net.onnx")
    with pytest.raises(LoweringError, match=rf"{what}\. Its quantizer leaves out convolutions of few channels"):
        lower_by_modelopt(model, precision, lambda _: [{"x": networks.images(8)}])


def test_a_kind_of_operator_that_it_does_not_know_is_said(digits: Model) -> None:
    with pytest.raises(LoweringError, match=r"digits.onnx at fp8 by ModelOpt: it fails: .*Softmax"):
        lower_by_modelopt(digits, "fp8", samples, ops=("Softmax",))


@pytest.mark.parametrize(("precision", "most"), [("nvfp4", 0.2), ("mxfp8", 0.06)])
def test_weights_alone_are_near_as_modelopt_rounds_them(precision: str, most: float) -> None:
    lowered = weights_by_modelopt(Model(weight_formats.fp32(), "net.onnx"), precision).model.proto
    exact, low = (
        open_session(proto, "net.onnx").run(None, {"x": weight_formats.inputs()})[0]
        for proto in (weight_formats.fp32(), lowered)
    )

    assert np.linalg.norm(low - exact) / np.linalg.norm(exact) < most
