from __future__ import annotations

from typing import Any

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt import compare, lower
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.errors import LoweringError
from pytest_trt.lowering._strong_typing import fp16_typed
from pytest_trt.lowering.casts import fp16_sandwich, tf32_emulated
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.lowering.qdq import int8_qdq, quantised_activations
from pytest_trt.model.model import Model, checked
from pytest_trt.model.normalise import normalised
from pytest_trt.model.onnx_session import open_session

FLOAT = networks.FLOAT


def run(model: Model, **feeds: Any) -> np.ndarray:
    found: np.ndarray = open_session(model.proto, "net").run(None, feeds)[0]
    return found


def two_branches_of_one_weight_name() -> onnx.ModelProto:
    """y = x @ w in both branches of an If, each with a w of its own."""

    def branch(name: str, value: float) -> onnx.GraphProto:
        w = numpy_helper.from_array(np.full((3, 3), value, np.float32), "w")
        node = helper.make_node("MatMul", ["x", "w"], ["out"])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info("out", FLOAT, [2, 3])], [w])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=branch("then", 1.1), else_branch=branch("else", 7.7)),
    ]
    zero = {"zero": np.array(0, np.float32)}
    return networks.model(nodes, {"x": (FLOAT, [2, 3])}, {"y": (FLOAT, [2, 3])}, zero)


@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16"])
@pytest.mark.parametrize("sign", [1, -1])
def test_branches_keep_their_own_weights(precision: str, sign: int) -> None:
    model = checked(two_branches_of_one_weight_name(), "net")
    x = sign * np.ones((2, 3), np.float32)

    assert compare(run(lower(model, precision), x=x), run(model, x=x)).rel_rms < 1e-2


def test_int8_inside_a_branch_is_refused_where_it_can_not_be_calibrated() -> None:
    proto = two_branches_of_one_weight_name()
    body = proto.graph.node[2].attribute[0].g
    body.node.insert(0, helper.make_node("Relu", ["x"], ["inner"]))
    body.node[1].input[0] = "inner"

    with pytest.raises(LoweringError, match=r"'inner.*is in a subgraph"):
        quantised_activations(checked(proto, "net").proto)


def with_function() -> onnx.ModelProto:
    body = [helper.make_node("MatMul", ["a", "b"], ["t"]), helper.make_node("Relu", ["t"], ["c"])]
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("local", "Block", ["a", "b"], ["c"], body, opsets)
    w = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
    node = helper.make_node("Block", ["x", "w"], ["y"], domain="local")
    proto = networks.model([node], {"x": (FLOAT, [2, 3])}, {"y": (FLOAT, [2, 3])}, {"w": w})
    proto.opset_import.append(helper.make_opsetid("local", 1))
    proto.functions.append(function)
    return proto


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_functions_are_looked_into(precision: str) -> None:
    model = checked(with_function(), "net")
    x = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)

    assert 0 < compare(run(lower(model, precision), x=x), run(model, x=x)).rel_rms < 1e-2
    assert quantised_activations(model.proto) == ["x"]


def test_a_cast_inside_a_function_is_held_precision() -> None:
    proto = with_function()
    proto.functions[0].node.append(helper.make_node("Cast", ["c"], ["h"], to=TensorProto.FLOAT16))

    assert held_precision(normalised(proto)) == "fp16"


def test_constants_of_every_form_are_rounded() -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], value_float=1 / 3),
        helper.make_node("Constant", [], ["d"], value_floats=[1 / 3, 1 / 7]),
        helper.make_node("Mul", ["x", "c"], ["m"]),
        helper.make_node("Add", ["m", "d"], ["y"]),
    ]
    model = checked(networks.model(nodes, {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])}), "net")

    for lowered in (fp16_sandwich(model.proto), fp16_typed(model.proto)):
        found = open_session(lowered, "net").run(None, {"x": np.zeros(2, np.float32)})[0]
        np.testing.assert_array_equal(found, np.array([1 / 3, 1 / 7], np.float16).astype(np.float32))


@pytest.mark.parametrize("lowering", [fp16_sandwich, tf32_emulated])
def test_float64_is_refused_not_passed_over(lowering: Any) -> None:
    double = TensorProto.DOUBLE
    nodes = [
        helper.make_node("Cast", ["x"], ["d"], to=double),
        helper.make_node("MatMul", ["d", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=FLOAT),
    ]
    proto = networks.model(nodes, {"x": (FLOAT, [2, 3])}, {"y": (FLOAT, [2, 3])}, {"w": np.eye(3)})

    with pytest.raises(LoweringError, match="is float64"):
        lowering(proto)


def unknown_type() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft"),
        helper.make_node("MatMul", ["g", "w"], ["y"]),
    ]
    proto = networks.model(nodes, {"x": (FLOAT, [2, 3])}, {"y": (FLOAT, [2, 3])}, {"w": np.eye(3, dtype=np.float32)})
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


@pytest.mark.parametrize("lowering", [fp16_sandwich, tf32_emulated, quantised_activations])
def test_an_operand_of_unknown_type_is_refused_at_every_precision(lowering: Any) -> None:
    with pytest.raises(LoweringError, match=r"type of 'g' at .* is not known to onnx"):
        lowering(unknown_type())


def test_a_model_without_matrix_products_is_refused_at_tf32() -> None:
    proto = networks.model([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, ["N"])}, {"y": (FLOAT, ["N"])})

    with pytest.raises(LoweringError, match="tf32 would change nothing here"):
        tf32_emulated(proto)


def test_einsum_is_a_matrix_product_at_tf32() -> None:
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation="ij,jk->ik")
    w = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
    model = checked(networks.model([node], {"x": (FLOAT, [2, 3])}, {"y": (FLOAT, [2, 3])}, {"w": w}), "net")
    x = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)

    assert 1e-5 < compare(run(lower(model, "tf32"), x=x), run(model, x=x)).rel_rms < 1e-2


def test_an_operator_of_another_domain_is_not_taken_for_onnxs() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], domain="com.example")
    proto = networks.model([node], {"x": (FLOAT, [2, 3])}, {"y": (FLOAT, [2, 3])}, {"w": np.eye(3, dtype=np.float32)})
    proto.opset_import.append(helper.make_opsetid("com.example", 1))

    with pytest.raises(LoweringError, match="quantising would change nothing here"):
        quantised_activations(proto)


def test_sizes_put_together_in_the_graph_are_not_rounded() -> None:
    nodes = [
        helper.make_node("Concat", ["ones", "more"], ["joined"], axis=0),
        helper.make_node("Identity", ["joined"], ["scales"]),
        helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest"),
    ]
    weights = {"ones": np.array([1, 1], np.float32), "more": np.array([1.1, 1.1], np.float32)}
    shapes = ({"x": (FLOAT, [1, 1, 100, 100])}, {"y": (FLOAT, [1, 1, "H", "W"])})
    model = checked(networks.model(nodes, *shapes, weights), "net")
    x = np.zeros((1, 1, 100, 100), np.float32)

    assert run(lower(model, "fp16"), x=x).shape == run(model, x=x).shape == (1, 1, 110, 110)


def test_weights_too_small_for_fp16_become_zero_in_the_typed_graph_too() -> None:
    proto = networks.with_weight(networks.convolutional(), "w1", lambda w: w * 1e-10)

    lowered = fp16_typed(proto)

    assert not numpy_helper.to_array(networks.weight(lowered, "w1")).any()


def test_an_old_ir_with_initializers_as_inputs_is_valid_after_lowering() -> None:
    proto = networks.convolutional(opset=8)
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, FLOAT, list(tensor.dims)))
    model = checked(proto, "net")
    ranges = calibrate(model, quantised_activations(model.proto), [{"x": networks.images()}], "x")

    for lowered in (tf32_emulated(model.proto), int8_qdq(model.proto, ranges.amax)):
        onnx.checker.check_model(lowered)


@pytest.mark.parametrize("op", ["DynamicQuantizeMatMul", "QGemm", "MatMulIntegerToFloat"])
def test_onnxruntimes_own_integer_operators_are_held_precision(op: str) -> None:
    node = helper.make_node(op, ["x"], ["y"], domain="com.microsoft")

    assert held_precision(networks.model([node], {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])})) == "int8"


def test_onnxruntimes_packed_weights_are_held_in_their_own_bits() -> None:
    node = helper.make_node("MatMulNBits", ["x"], ["y"], domain="com.microsoft", bits=2)

    assert held_precision(networks.model([node], {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])})) == "int2"


def test_a_weight_channel_too_small_for_a_step_is_zero() -> None:
    proto = networks.with_weight(networks.convolutional(), "w1", lambda w: w * np.float32(1e-42))

    lowered = int8_qdq(proto, {"x": 1.0, "r1": 1.0, "f": 1.0})

    assert not numpy_helper.to_array(networks.weight(lowered, "w1/int8")).any()


def test_what_exporters_write_about_themselves_is_no_change() -> None:
    plain, told = networks.convolutional(), networks.convolutional()
    for node in told.graph.node:
        node.name = f"another_{node.name}"
        node.doc_string = "net.py:3"
        node.metadata_props.add(key="source", value="line 3")
    for tensor in told.graph.initializer:
        array = numpy_helper.to_array(tensor)
        tensor.ClearField("raw_data")
        tensor.float_data.extend(array.ravel().tolist())

    assert checked(plain, "a").sha256 == checked(told, "b").sha256
