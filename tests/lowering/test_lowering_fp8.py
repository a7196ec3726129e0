from __future__ import annotations

from typing import Any

import ml_dtypes
import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt import Precision, Ranges, compare, lower
from pytest_trt.errors import LoweringError
from pytest_trt.lowering.lowering import at_opset, held_precision, needs_ranges
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model import onnx_session as sessions
from pytest_trt.model.graph import opset
from pytest_trt.model.model import checked
from pytest_trt.model.onnx_session import open_session

FLOAT = networks.FLOAT
E4M3 = ml_dtypes.float8_e4m3fn


def run(proto: onnx.ModelProto, **feeds: Any) -> np.ndarray:
    found: np.ndarray = open_session(proto, "net").run(None, feeds)[0]
    return found


def emulated(x: np.ndarray, amax: Any) -> np.ndarray:
    """x on the grid of E4M3 whose largest value is amax: rounded to nearest even, saturated."""
    step = np.float32(np.asarray(amax) / 448.0)
    return np.clip(x / step, -448, 448).astype(E4M3).astype(np.float32) * step


def product(activation: list[onnx.NodeProto], weight: np.ndarray) -> onnx.ModelProto:
    nodes = [*activation, helper.make_node("MatMul", ["a", "w"], ["y"], "product")]
    rows, columns = weight.shape
    shapes = {"x": (FLOAT, ["N", rows])}, {"y": (FLOAT, ["N", columns])}
    limits = {"low": np.float32(0), "high": np.float32(6)} if activation[0].op_type == "Clip" else {}
    return networks.model(nodes, *shapes, {"w": weight, **limits})


ACTIVATIONS = {
    "Relu": ([helper.make_node("Relu", ["x"], ["a"])], lambda x: np.maximum(x, 0)),
    "Clip": ([helper.make_node("Clip", ["x", "low", "high"], ["a"])], lambda x: np.clip(x, 0, 6)),
    "Identity": ([helper.make_node("Identity", ["x"], ["a"])], lambda x: x),
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_what_is_simulated_is_what_e4m3_gives(kind: str) -> None:
    draw = np.random.default_rng(0)
    nodes, function = ACTIVATIONS[kind]
    w = draw.standard_normal((16, 8)).astype(np.float32)
    x = (4 * draw.standard_normal((32, 16))).astype(np.float32)

    found = run(lower(product(nodes, w), "fp8", Ranges({"a": 5.0})), x=x)

    expected = emulated(function(x), 5.0) @ emulated(w, np.abs(w).max(axis=0))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["Relu", "Clip"])
def test_higher_levels_of_our_session_would_leave_the_activation_too(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes, function = ACTIVATIONS[kind]
    w = np.eye(4, dtype=np.float32)
    x = np.array([[-3.0, -1.0, 0.5, 2.0]], np.float32)
    written = sessions._as_written

    def raised(onnxruntime: Any) -> Any:
        options = written(onnxruntime)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        return options

    monkeypatch.setattr(sessions, "_as_written", raised)

    found = run(lower(product(nodes, w), "fp8", Ranges({"a": 3.0})), x=x)

    np.testing.assert_allclose(found, emulated(function(x), 3.0), rtol=1e-6)
    assert found[0, 0] == found[0, 1] == 0


def test_the_pair_before_the_session_is_fp8s_own() -> None:
    lowered = lower(networks.convolutional(), "fp8", Ranges({"x": 4.0, "r1": 19.0, "f": 9.0}))

    onnx.checker.check_model(lowered, full_check=True)
    kinds = {tensor.name: tensor.data_type for tensor in lowered.graph.initializer}
    assert kinds["x/fp8/zero"] == kinds["w1/fp8"] == TensorProto.FLOAT8E4M3FN
    assert numpy_helper.to_array(networks.weight(lowered, "x/fp8/scale")) == np.float32(4.0 / 448)
    assert numpy_helper.to_array(networks.weight(lowered, "w1/fp8/scale")).shape == (4,)
    assert held_precision(lowered) == "fp8"


def test_a_whole_network_errs_as_three_bits_do() -> None:
    proto, x = networks.convolutional(), networks.images(32)
    ranges = Ranges({"x": 4.0, "r1": 19.0, "f": 9.0})

    error = compare(run(lower(proto, "fp8", ranges), x=x), run(proto, x=x)).rel_rms

    assert 5e-3 < error < Precision.FP8.unit_roundoff


def test_fp8_saturates_where_it_can_hold_no_more() -> None:
    proto = product(ACTIVATIONS["Identity"][0], np.eye(2, dtype=np.float32))

    found = run(lower(proto, "fp8", Ranges({"a": 2.0})), x=np.array([[9.0, -np.inf]], np.float32))

    np.testing.assert_allclose(found, [[2.0, -2.0]], rtol=1e-6)


def test_a_weight_at_the_end_of_the_grid_is_no_nan() -> None:
    w = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)

    lowered = lower(product(ACTIVATIONS["Identity"][0], w), "fp8", Ranges({"a": 1.0}))

    levels = numpy_helper.to_array(networks.weight(lowered, "w/fp8")).astype(np.float32)
    assert np.abs(levels).max(axis=0).tolist() == [448.0] * 64


def test_a_channel_of_zeros_stays_zero() -> None:
    w = np.zeros((2, 2), np.float32)

    found = run(lower(product(ACTIVATIONS["Identity"][0], w), "fp8", Ranges({"a": 0.0})), x=np.ones((1, 2), np.float32))

    assert not found.any()


def test_the_opset_is_raised_by_onnxs_own_converter() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("ReduceMean", ["p"], ["y"], axes=[1], keepdims=0),
    ]
    proto = networks.model(
        nodes, {"x": (FLOAT, ["N", 2])}, {"y": (FLOAT, ["N"])}, {"w": np.eye(2, dtype=np.float32)}, opset=13
    )

    model = at_opset(checked(proto, "net"), Precision.FP8)
    found = run(lower(proto, "fp8", Ranges({"x": 1.0})), x=np.ones((3, 2), np.float32))

    assert opset(model.proto) == 19
    assert [len(node.input) for node in model.proto.graph.node if node.op_type == "ReduceMean"] == [2]
    np.testing.assert_allclose(found, [1.0] * 3)


def test_fp8_needs_ranges_as_int8_does() -> None:
    model = checked(networks.convolutional(), "net")

    assert needs_ranges(model, Precision.FP8)
    with pytest.raises(LoweringError, match="net at fp8: fp8 needs ranges, and there are none"):
        lower(model, "fp8")
    with pytest.raises(LoweringError, match="fp8 needs a range for 3 tensors, and 2 have none: 'r1', 'f'"):
        lower(model, "fp8", Ranges({"x": 1.0}))


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused(odd: float) -> None:
    proto = networks.with_weight(networks.convolutional(), "w2", lambda w: np.where(w == w.max(), odd, w).astype("f"))

    with pytest.raises(LoweringError, match="weight 'w2' holds NaN or infinity: fp8 has no value for it"):
        lower(proto, "fp8", Ranges({"x": 1.0, "r1": 1.0, "f": 1.0}))


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16", "int8", "fp8"])
@pytest.mark.parametrize("network", [networks.convolutional, networks.embedding])
def test_every_lowered_graph_is_valid_and_lowered(network: Any, precision: str, *, typed: bool) -> None:
    proto = network()
    ranges = Ranges(dict.fromkeys(quantised_activations(proto), 4.0))

    lowered = lower(proto, precision, ranges, typed=typed)

    onnx.checker.check_model(lowered, full_check=True)
    assert held_precision(lowered) == ("fp32" if precision == "tf32" else precision)
