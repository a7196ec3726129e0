from __future__ import annotations

from typing import Any

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt import Ranges, compare, lower
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.errors import DataError, LoweringError
from pytest_trt.lowering.qdq import int8_qdq, quantised_activations
from pytest_trt.model.model import checked
from pytest_trt.model.onnx_session import open_session

FLOAT = networks.FLOAT


def run(proto: onnx.ModelProto, **feeds: Any) -> np.ndarray:
    found: np.ndarray = open_session(proto, "net").run(None, feeds)[0]
    return found


def amax(proto: onnx.ModelProto, x: np.ndarray) -> dict[str, float]:
    ranges = calibrate(checked(proto, "net"), quantised_activations(proto), [{"x": x}], "x")
    return dict(ranges.amax)


def stored(proto: onnx.ModelProto, suffix: str) -> np.ndarray:
    return numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name.endswith(suffix)))


def test_the_inputs_of_matrix_operators_need_ranges() -> None:
    assert quantised_activations(networks.convolutional()) == ["x", "r1", "f"]


def test_ranges_are_the_largest_absolute_values_over_all_batches() -> None:
    proto, x = networks.convolutional(), networks.images(32)
    model = checked(proto, "net")
    tensors = quantised_activations(proto)

    whole = calibrate(model, tensors, [{"x": x}], "x")
    streamed = calibrate(model, tensors, ({"x": part} for part in np.split(x, 8)), "x")

    assert whole.amax["x"] == float(np.abs(x).max())
    assert streamed.amax == whole.amax


def test_no_samples_are_no_calibration() -> None:
    with pytest.raises(DataError, match="holds no samples"):
        calibrate(checked(networks.convolutional(), "net"), ["x"], [], "nothing")


def test_nan_samples_are_no_calibration() -> None:
    x = networks.images()
    x[3, 0, 0, 0] = np.nan

    with pytest.raises(DataError, match=r"'x' has 1 NaN or infinite value\(s\), the first in sample 3"):
        calibrate(checked(networks.convolutional(), "net"), ["x"], [{"x": x}], "x")


def test_a_model_that_makes_nan_has_no_ranges() -> None:
    proto = networks.with_weight(networks.convolutional(), "b1", lambda b: b * np.nan)

    with pytest.raises(LoweringError, match="tensor 'r1' is NaN or infinite in fp32"):
        amax(proto, networks.images())


def test_the_argument_is_left_alone() -> None:
    proto = networks.convolutional()
    before = proto.SerializeToString(deterministic=True)

    int8_qdq(proto, amax(proto, networks.images()))

    assert proto.SerializeToString(deterministic=True) == before


def test_the_result_is_valid_and_its_error_is_int8s() -> None:
    proto, x = networks.convolutional(), networks.images()

    lowered = int8_qdq(proto, amax(proto, x))

    onnx.checker.check_model(lowered, full_check=True)
    assert 1e-3 < compare(run(lowered, x=x), run(proto, x=x)).rel_rms < 3e-2


def test_an_activation_is_rounded_to_127_steps_of_its_range_and_saturates() -> None:
    node = helper.make_node("MatMul", ["x", "eye"], ["y"])
    proto = networks.model([node], {"x": (FLOAT, [1, 4])}, {"y": (FLOAT, [1, 4])}, {"eye": np.eye(4, dtype=np.float32)})
    x = np.array([[1.0, 0.3, -9.0, 9.0]], np.float32)

    got = run(int8_qdq(proto, {"x": 2.0}), x=x)

    step = 2.0 / 127
    np.testing.assert_allclose(got, [[round(1.0 / step) * step, round(0.3 / step) * step, -128 * step, 2.0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("op", "shape", "attributes", "axis"),
    [
        ("Conv", (5, 2, 3, 3), {}, 0),
        ("ConvTranspose", (2, 5, 3, 3), {}, 1),
        ("Gemm", (2, 5), {}, 1),
        ("Gemm", (5, 2), {"transB": 1}, 0),
        ("MatMul", (2, 5), {}, 1),
    ],
)
def test_weights_have_one_step_an_output_channel(
    op: str, shape: tuple[int, ...], attributes: dict[str, Any], axis: int
) -> None:
    w = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x_shape = [1, 2, 8, 8] if len(shape) == 4 else [1, 2]
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    proto = networks.model([node], {"x": (FLOAT, x_shape)}, {"y": (FLOAT, None)}, {"w": w})

    lowered = int8_qdq(proto, {"x": 1.0})

    others = tuple(a for a in range(w.ndim) if a != axis)
    np.testing.assert_allclose(stored(lowered, "w/int8/scale"), np.abs(w).max(axis=others) / 127, rtol=1e-6)
    levels = stored(lowered, "w/int8")
    assert levels.dtype == np.int8
    assert np.abs(levels.astype(int)).max(axis=others).tolist() == [127] * 5
    assert not stored(lowered, "w/int8/zero").any()


@pytest.mark.parametrize("op", ["MatMul", "ConvTranspose"])
def test_where_channels_are_no_single_axis_weights_have_one_step(op: str) -> None:
    grouped = op == "ConvTranspose"
    w = np.ones((2, 2, 3, 3) if grouped else (2, 3, 4), np.float32)
    node = helper.make_node(op, ["x", "w"], ["y"], group=2 if grouped else None)
    shape = [1, 2, 8, 8] if grouped else [2, 5, 3]
    proto = networks.model([node], {"x": (FLOAT, shape)}, {"y": (FLOAT, None)}, {"w": w})

    assert stored(int8_qdq(proto, {"x": 1.0}), "w/int8/scale").shape == ()


def test_biases_stay_float() -> None:
    proto = networks.convolutional()

    lowered = int8_qdq(proto, amax(proto, networks.images()))

    np.testing.assert_array_equal(stored(lowered, "b1"), stored(proto, "b1"))


def test_a_channel_of_zeros_stays_zero() -> None:
    def silence(w: np.ndarray) -> np.ndarray:
        w[1] = 0
        return w

    proto = networks.with_weight(networks.convolutional(), "w1", silence)

    lowered = int8_qdq(proto, amax(proto, networks.images()))

    assert not stored(lowered, "w1/int8")[1].any()
    assert (stored(lowered, "w1/int8/scale") > 0).all()


def test_the_unquantised_tensor_goes_on_beside_the_quantised_one() -> None:
    proto = networks.convolutional()
    proto.graph.node.append(helper.make_node("Sigmoid", ["r1"], ["beside"], "sigmoid"))
    proto.graph.output.append(helper.make_tensor_value_info("beside", FLOAT, ["N", 4, 6, 6]))

    lowered = int8_qdq(proto, {"x": 1.0, "r1": 1.0, "f": 1.0})

    sigmoid = next(node for node in lowered.graph.node if node.name == "sigmoid")
    assert list(sigmoid.input) == ["r1"]


def test_a_missing_range_is_named() -> None:
    with pytest.raises(LoweringError, match="int8 needs a range for 3 tensors, and 2 have none: 'r1', 'f'"):
        int8_qdq(networks.convolutional(), {"x": 1.0})


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_nonfinite_weight_is_refused(odd: float) -> None:
    proto = networks.with_weight(networks.convolutional(), "w2", lambda w: np.where(w == w.max(), odd, w).astype("f"))

    with pytest.raises(LoweringError, match="weight 'w2' holds NaN or infinity"):
        int8_qdq(proto, {"x": 1.0, "r1": 1.0, "f": 1.0})


def test_a_model_without_matrix_operators_is_refused() -> None:
    proto = networks.model([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, ["N"])}, {"y": (FLOAT, ["N"])})

    with pytest.raises(LoweringError, match=r"net at int8: quantising would change nothing here"):
        lower(checked(proto, "net"), "int8", Ranges({}, "none"))


def test_int8_without_ranges_is_refused() -> None:
    with pytest.raises(LoweringError, match="int8 needs ranges, and there are none"):
        lower(checked(networks.convolutional(), "net"), "int8")


def test_an_old_opset_is_raised_for_per_channel_steps() -> None:
    proto, x = networks.convolutional(opset=11), networks.images()

    lowered = int8_qdq(proto, amax(proto, x))

    assert compare(run(lowered, x=x), run(proto, x=x)).rel_rms < 3e-2


def test_a_product_of_two_activations_is_quantised_on_both_sides() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("MatMul", ["x", "r"], ["y"])]
    proto = networks.model(nodes, {"x": (FLOAT, [3, 3])}, {"y": (FLOAT, [3, 3])})

    assert quantised_activations(proto) == ["x", "r"]
    kinds = [node.op_type for node in int8_qdq(proto, {"x": 1.0, "r": 1.0}).graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 2


def test_float64_is_refused() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    w = np.ones((2, 2), np.float64)
    double = TensorProto.DOUBLE
    proto = networks.model([node], {"x": (double, [1, 2])}, {"y": (double, [1, 2])}, {"w": w})

    with pytest.raises(LoweringError, match="'x' at MatMul '' is float64"):
        quantised_activations(proto)


@pytest.mark.parametrize("amax", [float("nan"), -2.0, float("inf"), 1e-42])
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_a_range_that_is_none_is_refused_and_makes_no_scale(precision: str, amax: float) -> None:
    with pytest.raises(LoweringError, match=f"the range of 'r1' is {amax!r}"):
        lower(networks.convolutional(), precision, Ranges({"x": 1.0, "r1": amax, "f": 1.0}))


def test_a_tensor_that_never_moved_stays_zero() -> None:
    lowered = lower(networks.convolutional(), "int8", Ranges({"x": 1.0, "r1": 0.0, "f": 1.0}))

    assert stored(lowered, "r1/int8/scale") == 1.0
