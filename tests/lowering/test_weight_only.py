"""int4 weights alone: as ONNX reads them, to nearest, in blocks along what is summed."""

from __future__ import annotations

import sys
from typing import Any

import networks
import numpy as np
import onnx
import pytest
import weight_formats
from fakes.modelopt import FakeModelopt
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pytest_trt.errors import LoweringError
from pytest_trt.lowering.modelopt import weights_by_modelopt
from pytest_trt.lowering.weight_only import WeightOnly, int4_weights
from pytest_trt.model.model import Model, checked
from pytest_trt.model.onnx_session import open_session
from pytest_trt.model.quantised_weights import quantised_weights

DRAW = np.random.default_rng(2)


def product(rows: int, columns: int = 8, **told: Any) -> onnx.ModelProto:
    weight = DRAW.standard_normal((rows, columns)).astype(np.float32)
    kind = "Gemm" if told else "MatMul"
    weights = {"w": weight.T.copy() if told.get("transB") else weight}
    node = helper.make_node(kind, ["x", "w"], ["y"], "fc", **told)
    return networks.model([node], {"x": (1, ["N", rows])}, {"y": (1, ["N", columns])}, weights)


def lowered(proto: onnx.ModelProto, **told: Any) -> WeightOnly:
    return int4_weights(checked(proto, "net.onnx"), **told)


def dequantised(found: WeightOnly, rows: int) -> np.ndarray:
    [weight] = list(ReferenceEvaluator(found.model.proto).run(None, {"x": np.eye(rows, dtype=np.float32)}))
    return np.asarray(weight)


def nearest(weight: np.ndarray, block: int) -> np.ndarray:
    """Written out, a block at a time."""
    parts = [weight[at : at + block] for at in range(0, len(weight), block)]
    scales = [np.float32(1) * (np.abs(part).max(0) / np.float32(7)) for part in parts]
    return np.concatenate([np.rint(part / scale) * scale for part, scale in zip(parts, scales, strict=True)])


@pytest.mark.parametrize("told", [{}, {"transB": 1}, {"transB": 0}], ids=["MatMul", "Gemm transposed", "Gemm"])
@pytest.mark.parametrize(("rows", "block"), [(256, 128), (300, 128), (40, 40)], ids=["whole", "cut short", "small"])
def test_each_weight_is_the_nearest_of_its_block(told: Any, rows: int, block: int) -> None:
    proto = product(rows, **told)
    weight = numpy_helper.to_array(networks.weight(proto, "w"))
    found = lowered(proto)

    exact = weight.T if told.get("transB") else weight
    np.testing.assert_allclose(dequantised(found, rows), nearest(exact, block), rtol=1e-6, atol=1e-7)
    onnx.checker.check_model(found.model.proto, full_check=True)


def test_a_last_block_that_is_shorter_is_told() -> None:
    assert lowered(product(300)).odd == ("w",)
    assert lowered(product(256)).odd == ()


def test_the_lowered_file_says_its_format() -> None:
    [weight] = quantised_weights(lowered(product(256)).model.proto)

    assert weight.format == "int4 in blocks of 128"


def test_a_kept_node_keeps_its_weight() -> None:
    found = lowered(weight_formats.fp32(), keep=["fc2"])

    assert found.weights == ("w",)


@pytest.mark.parametrize(
    ("proto", "keep", "message"),
    [
        (networks.with_weight(product(32), "w", lambda w: w * np.float32("nan")), (), "'w' holds NaN"),
        (product(32), ("fc",), "nothing would change"),
        (product(32), ("other",), "no node 'other'"),
        (weight_formats.int4(), (), "already holds int4"),
    ],
    ids=["NaN", "all kept", "an unknown node", "int4 already"],
)
def test_what_cannot_be_lowered_is_refused(proto: onnx.ModelProto, keep: Any, message: str) -> None:
    with pytest.raises(LoweringError, match=message) as raised:
        int4_weights(Model(proto, "net.onnx"), keep)

    assert str(raised.value).startswith("net.onnx")


def test_zeros_stay_zero() -> None:
    found = lowered(networks.with_weight(product(256), "w", lambda w: w * 0))

    assert not dequantised(found, 256).any()


BY_MODELOPT = {"nvfp4": "nvfp4 in blocks of 16", "mxfp8": "mxfp8 in blocks of 32"}


@pytest.fixture
def modelopt(monkeypatch: pytest.MonkeyPatch) -> FakeModelopt:
    fake = FakeModelopt()
    fake.install(monkeypatch)
    return fake


@pytest.mark.usefixtures("modelopt")
@pytest.mark.parametrize("told", [{}, {"transB": 1}], ids=["MatMul", "Gemm"])
@pytest.mark.parametrize("precision", list(BY_MODELOPT))
def test_modelopts_levels_and_scales_are_simulated(precision: str, told: Any) -> None:
    proto = product(64, **told)
    found = weights_by_modelopt(checked(proto, "net.onnx"), precision)

    [weight] = quantised_weights(found.model.proto)
    session = open_session(checked(found.model.proto, "low.onnx").proto, "low.onnx")
    [low] = session.run(None, {"x": np.eye(64, dtype=np.float32)})
    exact = numpy_helper.to_array(networks.weight(proto, "w"))
    exact = exact.T if told else exact
    assert weight.format == BY_MODELOPT[precision]
    assert np.linalg.norm(low - exact) / np.linalg.norm(exact) < {"nvfp4": 0.13, "mxfp8": 0.05}[precision]


@pytest.mark.usefixtures("modelopt")
@pytest.mark.parametrize("precision", list(BY_MODELOPT))
def test_a_weight_that_no_block_divides_stays_in_fp32_and_is_told(precision: str) -> None:
    found = weights_by_modelopt(checked(two(64, 24), "net.onnx"), precision)

    assert (found.weights, found.odd) == (("w1",), ("w2",))


def two(first: int, second: int) -> onnx.ModelProto:
    weights = {
        "w1": DRAW.standard_normal((first, second)).astype(np.float32),
        "w2": DRAW.standard_normal((second, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "fc1"),
        helper.make_node("MatMul", ["h", "w2"], ["y"], "fc2"),
    ]
    return networks.model(nodes, {"x": (1, ["N", first])}, {"y": (1, ["N", 8])}, weights)


def test_what_is_missing_of_modelopt_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)

    with pytest.raises(LoweringError, match=r"net.onnx at nvfp4 by ModelOpt: it can't be imported.*pip install"):
        weights_by_modelopt(checked(product(64), "net.onnx"), "nvfp4")


def test_a_fault_of_modelopts_exporter_is_told(modelopt: FakeModelopt) -> None:
    modelopt.fault = broken

    with pytest.raises(LoweringError, match=r"net.onnx at mxfp8: ModelOpt's exporter fails: .*broken"):
        weights_by_modelopt(checked(product(64), "net.onnx"), "mxfp8")


def broken() -> None:
    raise RuntimeError("broken")
