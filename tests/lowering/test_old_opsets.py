"""Old operators: raised when a file is read or lowered, or refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt import Case, check
from pytest_trt.errors import ModelError
from pytest_trt.golden.create import update
from pytest_trt.lowering.lowering import lower
from pytest_trt.model.model import Model, checked
from pytest_trt.model.onnx_session import open_session

if TYPE_CHECKING:
    from pathlib import Path

DRAW = np.random.default_rng(0)
FLOAT = networks.FLOAT


def gemm(version: int) -> onnx.ModelProto:
    more: dict[str, Any] = {"broadcast": 1} if version < 7 else {}
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], **more)
    held = {"w": DRAW.standard_normal((8, 5)).astype(np.float32), "b": DRAW.standard_normal(5).astype(np.float32)}
    proto = networks.model([node], {"x": (FLOAT, [4, 8])}, {"y": (FLOAT, [4, 5])}, held)
    proto.opset_import[0].version = version
    return proto


def upsampled() -> onnx.ModelProto:
    """As exporters wrote it for opset 9 and IR version 3: every stored tensor is an input too."""
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Upsample", ["r", "scales"], ["y"])]
    scales = np.array([1, 1, 1.7, 53.0 / 31], np.float32)
    proto = networks.model(nodes, {"x": (FLOAT, ["N", 2, 7, 31])}, {"y": (FLOAT, None)}, {"scales": scales})
    proto.graph.input.append(helper.make_tensor_value_info("scales", TensorProto.FLOAT, [4]))
    proto.opset_import[0].version, proto.ir_version = 9, 3
    return proto


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("version", [6, 7, 9, 10, 11])
def test_a_gemm_of_any_age_is_judged(tmp_path: Path, version: int, precision: str) -> None:
    networks.save(gemm(version), tmp_path / "net.onnx")
    np.savez(tmp_path / "in.npz", x=DRAW.standard_normal((16, 8)).astype(np.float32))
    case = Case(onnx="net.onnx", inputs="in.npz", calibration="golden", base=tmp_path, precisions=(precision,))
    update(case, tmp_path / "golden")

    assert check(case, precision, golden_dir=tmp_path / "golden").verdict == "passed"


def test_a_raised_file_is_known_by_its_own_hash() -> None:
    proto = gemm(6)
    own = Model(type(proto).FromString(proto.SerializeToString()), "net").sha256

    found = checked(proto, "net")

    assert found.proto.opset_import[0].version == 7
    assert found.sha256 == own


def test_what_the_converter_cannot_raise_is_refused_by_its_opset() -> None:
    proto = gemm(6)
    proto.graph.node[0].op_type = "Affine"
    del proto.graph.node[0].attribute[:]
    del proto.graph.node[0].input[1:]

    with pytest.raises(ModelError, match=r"net .*opset 6|net is not a valid ONNX model"):
        checked(proto, "net")


def test_stored_tensors_are_no_inputs() -> None:
    proto = upsampled()

    found = checked(proto, "net").proto

    assert [value.name for value in found.graph.input] == ["x"]
    assert found.ir_version == 4


def test_the_scales_of_an_old_upsample_stay_fp32_in_a_typed_graph() -> None:
    x = DRAW.standard_normal((1, 2, 7, 31)).astype(np.float32)
    exact = open_session(checked(upsampled(), "net").proto, "net").run(None, {"x": x})[0]

    typed = lower(checked(upsampled(), "net"), "fp16", typed=True).proto

    scales = [numpy_helper.to_array(t) for t in typed.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert any(np.float32(1.7) in values for values in scales)
    assert open_session(typed, "net").run(None, {"x": x})[0].shape == exact.shape
