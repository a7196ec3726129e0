"""TensorRT-RTX's real parser and builder, which need no GPU where the config names the GPUs to build for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pytest_trt.backends.backend import choose
from pytest_trt.backends.build_options import merged
from pytest_trt.backends.recipe import Recipe, sampled
from pytest_trt.backends.tensorrt.backend import open_backend
from pytest_trt.cli._summary import kind_of, plan_facts
from pytest_trt.errors import BackendError, ModelError, PytestTrtError
from pytest_trt.lowering.lowering import at_opset, lower
from pytest_trt.model.graph import float_activations
from pytest_trt.model.model import Model, load
from pytest_trt.precision import Precision

EXAMPLES = Path(__file__).parents[2] / "examples"
PRECISIONS = ["fp32", "tf32", "fp16", "bf16", "int8", "fp8"]


def _why_not() -> str:
    try:
        choose("tensorrt-rtx")
    except PytestTrtError as error:
        return str(error)
    return ""


WHY_NOT = _why_not()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=f"needs TensorRT-RTX: {WHY_NOT}")


def recipe(model: Model, precision: str, feeds: dict[str, np.ndarray], target: str = "8.9") -> Recipe:
    asked = Precision.parse(precision)
    model = at_opset(model, asked)
    options = merged({"compute_capabilities": (target,)})
    return Recipe(model, asked, sampled(model, lambda _: [feeds], "samples"), feeds=(feeds,), options=options)


def test_a_real_plan_tells_its_release_in_its_header(tmp_path: Path) -> None:
    (tmp_path / "net.plan").write_bytes(plan(networks.convolutional()).data)

    facts = plan_facts(tmp_path / "net.plan")

    assert kind_of(tmp_path / "net.plan") == "plan"
    assert facts["release"].startswith(choose("tensorrt-rtx").version.split()[-1])


def plan(proto: onnx.ModelProto, precision: str = "fp32", target: str = "8.9") -> Any:
    return open_backend("tensorrt-rtx").plan(
        recipe(Model(proto, "net.onnx"), precision, {"x": networks.images(4)}, target)
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_digits_build_at_every_precision(precision: str) -> None:
    model = load(EXAMPLES / "digits" / "digits.onnx")
    feeds = dict(np.load(EXAMPLES / "digits" / "test.npz"))

    found = open_backend("tensorrt-rtx").plan(recipe(model, precision, feeds))

    assert len(found.data) > 100_000
    assert found.facts["typing"] == "strong"
    assert found.facts["compute_capability"] == "8.9"


@pytest.fixture(scope="module")
def resnet18() -> tuple[Model, dict[str, np.ndarray]]:
    """The example's network and four inputs."""
    pytest.importorskip("torch")
    from pytest_trt.case.case import Case
    from pytest_trt.case.reference import model_of

    shape = {"input": {"shape": [1, 3, 224, 224]}}
    case = Case.from_table({"torch": "model:factory", **shape}, EXAMPLES / "resnet18", "trt.toml")
    images = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    return model_of(case), {"input": images}


@pytest.mark.parametrize(
    ("precision", "megabytes"), [("fp32", 45), ("fp16", 23), ("bf16", 23), ("int8", 14), ("fp8", 14)]
)
def test_resnet18_builds_at_every_precision_in_its_size(
    resnet18: tuple[Model, dict[str, np.ndarray]], precision: str, megabytes: float
) -> None:
    model, feeds = resnet18

    found = open_backend("tensorrt-rtx").plan(recipe(model, precision, feeds))

    assert len(found.data) == pytest.approx(megabytes * 1e6, rel=0.1)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["convolutional", "embedding"])
def test_small_networks_build_at_every_precision(name: str, precision: str) -> None:
    proto = getattr(networks, name)()
    specs = Model(proto, "m").inputs
    shapes = {spec.name: [4 if not isinstance(a, int) else a for a in spec.shape or ()] for spec in specs}
    draw = np.random.default_rng(0)
    feeds = {spec.name: draw.integers(0, 5, shapes[spec.name]).astype(spec.dtype) for spec in specs}

    assert open_backend("tensorrt-rtx").plan(recipe(Model(proto, name), precision, feeds)).data


def quantised(element: int, opset: int = 19) -> onnx.ModelProto:
    """x -> Q -> DQ -> MatMul with a quantised weight, in int8 or fp8."""

    def pair(tensor: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("QuantizeLinear", [tensor, "scale", "zero"], [f"{tensor}_q"], f"{tensor}_q"),
            helper.make_node("DequantizeLinear", [f"{tensor}_q", "scale", "zero"], [f"{tensor}_dq"], f"{tensor}_dq"),
        ]

    nodes = [*pair("x"), *pair("w"), helper.make_node("MatMul", ["x_dq", "w_dq"], ["y"], "product")]
    shapes = {"x": (TensorProto.FLOAT, [16, 32])}, {"y": (TensorProto.FLOAT, [16, 64])}
    weights = {"w": np.ones((32, 64), np.float32), "scale": np.float32(0.1)}
    proto = networks.model(nodes, *shapes, weights, opset=opset)
    proto.graph.initializer.append(helper.make_tensor("zero", element, [], [0]))
    return proto


def test_fp8_builds_for_ada_and_is_refused_for_ampere_in_the_builders_own_words() -> None:
    fp8 = replace(
        recipe(Model(quantised(TensorProto.FLOAT8E4M3FN), "fp8.onnx"), "model", {"x": np.ones((16, 32), np.float32)}),
        calibration=None,
    )

    assert open_backend("tensorrt-rtx").plan(fp8).data
    with pytest.raises(BackendError, match=r"fp8\.onnx at model: TensorRT-RTX .* builds no engine\. .*\n.*fp8_e4m3"):
        open_backend("tensorrt-rtx").plan(replace(fp8, options=merged({"compute_capabilities": ("8.6",)})))


def test_an_fp32_model_at_fp8_is_refused_for_ampere_in_the_builders_own_words() -> None:
    with pytest.raises(BackendError, match=r"net\.onnx at fp8: TensorRT-RTX .* builds no engine\. .*\n.*fp8_e4m3"):
        plan(networks.convolutional(), "fp8", "8.6")


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_kept_nodes_build(precision: str) -> None:
    asked = recipe(Model(networks.convolutional(), "net.onnx"), precision, {"x": networks.images(4)})
    plans = [open_backend("tensorrt-rtx").plan(replace(asked, keep=keep)).data for keep in ((), ("conv1", "add"))]

    assert plans[0] != plans[1]


def test_a_zero_point_that_is_not_zero_is_refused_with_its_node_and_operator() -> None:
    proto = quantised(TensorProto.INT8)
    (zero,) = [tensor for tensor in proto.graph.initializer if tensor.name == "zero"]
    zero.int32_data[0] = 10

    with pytest.raises(ModelError) as told:
        open_backend("tensorrt-rtx").plan(
            replace(recipe(Model(proto, "q.onnx"), "model", {"x": np.ones((16, 32), np.float32)}), calibration=None)
        )

    assert "q.onnx" in str(told.value)
    assert "'x_q' (QuantizeLinear)" in str(told.value)
    assert "Non-zero zero point" in str(told.value)


def test_two_operators_that_it_has_not_are_both_told() -> None:
    nodes = [
        helper.make_node("Mine", ["x"], ["a"], "first", domain="my.domain"),
        helper.make_node("Mine", ["a"], ["y"], "second", domain="my.domain"),
    ]
    shapes = {"x": (TensorProto.FLOAT, [2, 2])}, {"y": (TensorProto.FLOAT, [2, 2])}
    proto = networks.model(nodes, *shapes)
    proto.opset_import.append(helper.make_opsetid("my.domain", 1))

    with pytest.raises(ModelError, match="2 error") as told:
        plan(proto)

    assert "'first' (Mine)" in str(told.value)
    assert "'second' (Mine)" in str(told.value)


def test_a_file_that_parses_to_nothing_is_no_success() -> None:
    with pytest.raises(ModelError, match="makes no network of it"):
        open_backend("tensorrt-rtx").plan(replace(recipe(Model(onnx.ModelProto(), "empty.onnx"), "fp32", {}), feeds=()))


def test_an_operator_that_parses_and_does_not_build_says_so() -> None:
    nodes = [helper.make_node("NonMaxSuppression", ["boxes", "scores", "most"], ["kept"], "nms")]
    proto = networks.model(
        nodes,
        {"boxes": (TensorProto.FLOAT, [1, 8, 4]), "scores": (TensorProto.FLOAT, [1, 2, 8])},
        {"kept": (TensorProto.INT64, ["n", 3])},
        {"most": np.array([3], np.int64)},
    )
    feeds = {"boxes": np.ones((1, 8, 4), np.float32), "scores": np.ones((1, 2, 8), np.float32)}

    with pytest.raises(BackendError, match=r"builds no engine. TensorRT says:\n.*nms"):
        open_backend("tensorrt-rtx").plan(recipe(Model(proto, "nms.onnx"), "fp32", feeds))


def test_a_precision_that_turing_lacks_is_refused_in_the_builders_own_words() -> None:
    with pytest.raises(BackendError, match="TensorRT says:"):
        plan(networks.convolutional(), "bf16", "7.5")


def test_one_plan_serves_several_gpus() -> None:
    several = replace(
        recipe(Model(networks.convolutional(), "net.onnx"), "fp16", {"x": networks.images(4)}),
        options=merged({"compute_capabilities": ("8.6", "8.9")}),
    )

    assert open_backend("tensorrt-rtx").plan(several).facts["compute_capability"] == "8.6,8.9"


def test_the_same_int8_graph_that_is_simulated_is_built() -> None:
    model = Model(networks.convolutional(), "net.onnx")
    feeds = {"x": networks.images(4)}
    wanted = recipe(model, "int8", feeds)
    assert wanted.calibration is not None
    held = lower(wanted.model, "int8", wanted.calibration.ranges(float_activations(wanted.model.proto)))

    by_file = open_backend("tensorrt-rtx").plan(replace(recipe(held, "model", feeds), calibration=None))

    assert by_file.facts["plan_sha256"] == open_backend("tensorrt-rtx").plan(wanted).facts["plan_sha256"]


def test_a_model_is_built_only_from_the_command_line(pytester: pytest.Pytester) -> None:
    networks.save(networks.convolutional(batch=2), pytester.path / "net.onnx")
    words = ["--trt-backend=tensorrt-rtx", "--trt-build-only", "--trt-build=compute_capabilities=8.9"]

    found = pytester.runpytest("--trt-model=net.onnx", "--trt-precision=fp16", "--trt-store=plans", *words)

    assert found.ret == 0
    found.stdout.fnmatch_lines(["net *fp16 *tensorrt-rtx *built, not judged"])
