"""int4 weights alone: as ONNX reads them, to nearest, in blocks along what is summed."""

from __future__ import annotations

from typing import Any

import networks
import numpy as np
import onnx
import pytest
import weight_formats
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pytest_trt.errors import LoweringError
from pytest_trt.lowering.weight_only import WeightOnly, int4_weights
from pytest_trt.model.model import Model, checked
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
    assert lowered(product(300)).cut_short == ("w",)
    assert lowered(product(256)).cut_short == ()


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
