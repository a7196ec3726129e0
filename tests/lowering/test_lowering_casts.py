from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import networks
import numpy as np
import onnx
import pytest
from networks import evaluated
from onnx import TensorProto, helper, numpy_helper

from pytest_trt import compare, lower
from pytest_trt.errors import LoweringError
from pytest_trt.lowering._strong_typing import bf16_typed, fp16_typed
from pytest_trt.lowering.casts import as_sandwich, bf16_sandwich, fp16_sandwich, fp32_ends, round_to_tf32, tf32_emulated
from pytest_trt.model import graph
from pytest_trt.model.model import checked
from pytest_trt.model.onnx_session import open_session

FLOAT = networks.FLOAT
LOWERINGS = [fp16_sandwich, bf16_sandwich, tf32_emulated, fp16_typed]


def run(proto: onnx.ModelProto, **feeds: Any) -> np.ndarray:
    found: np.ndarray = open_session(proto, "net").run(None, feeds)[0]
    return found


def only(op: str, weights: dict[str, Any] | None = None, shape: tuple[Any, ...] = ("N",)) -> onnx.ModelProto:
    names = ["x", *(weights or {})]
    return networks.model(
        [helper.make_node(op, names, ["y"])], {"x": (FLOAT, list(shape))}, {"y": (FLOAT, list(shape))}, weights
    )


@pytest.mark.parametrize("lowering", [*LOWERINGS, bf16_typed])
def test_the_argument_is_left_alone(lowering: Any) -> None:
    proto = networks.convolutional()
    before = proto.SerializeToString(deterministic=True)

    lowering(proto)

    assert proto.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_the_result_is_valid_and_runs(lowering: Any) -> None:
    lowered = lowering(networks.convolutional())

    onnx.checker.check_model(lowered, full_check=True)
    assert run(lowered, x=networks.images()).dtype == np.float32


@pytest.mark.parametrize(("lowering", "worst"), [(fp16_sandwich, 2e-3), (bf16_sandwich, 2e-2), (tf32_emulated, 2e-3)])
def test_the_error_is_of_the_precisions_size_and_not_zero(lowering: Any, worst: float) -> None:
    proto, x = networks.convolutional(), networks.images()

    error = compare(run(lowering(proto), x=x), run(proto, x=x)).rel_rms

    assert worst / 40 < error < worst


@pytest.mark.parametrize(("lowering", "dtype"), [(fp16_sandwich, np.float16), (bf16_sandwich, ml_dtypes.bfloat16)])
def test_every_value_is_rounded_to_nearest_even(lowering: Any, dtype: Any) -> None:
    x = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)

    got = run(lowering(only("Relu")), x=x)

    np.testing.assert_array_equal(got, np.maximum(x.astype(dtype).astype(np.float32), 0))


@pytest.mark.parametrize(("lowering", "dtype"), [(fp16_sandwich, np.float16), (bf16_sandwich, ml_dtypes.bfloat16)])
def test_stored_weights_are_rounded(lowering: Any, dtype: Any) -> None:
    proto = networks.convolutional()

    lowered = lowering(proto)

    for tensor in proto.graph.initializer:
        rounded = numpy_helper.to_array(tensor).astype(dtype).astype(np.float32)
        np.testing.assert_array_equal(numpy_helper.to_array(networks.weight(lowered, tensor.name)), rounded)


def test_fp16_overflow_inside_is_infinite_though_the_output_would_be_small() -> None:
    nodes = [helper.make_node("Mul", ["x", "big"], ["b"]), helper.make_node("Mul", ["b", "small"], ["y"])]
    weights = {"big": np.float32(1000), "small": np.float32(0.001)}
    proto = networks.model(nodes, {"x": (FLOAT, ["N"])}, {"y": (FLOAT, ["N"])}, weights)

    assert np.isinf(run(fp16_sandwich(proto), x=np.array([640.0], np.float32))).all()
    assert np.isfinite(run(bf16_sandwich(proto), x=np.array([640.0], np.float32))).all()


def test_a_constant_node_is_rounded_like_an_initializer() -> None:
    tensor = numpy_helper.from_array(np.array([1 / 3], np.float32), "c")
    nodes = [helper.make_node("Constant", [], ["c"], value=tensor), helper.make_node("Mul", ["x", "c"], ["y"])]
    proto = networks.model(nodes, {"x": (FLOAT, ["N"])}, {"y": (FLOAT, ["N"])})

    assert run(fp16_sandwich(proto), x=np.array([1.0], np.float32))[0] == np.float32(np.float16(1 / 3))


def test_what_tells_a_size_is_not_rounded() -> None:
    scales = np.array([1, 1, 1.3337], np.float32)
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest")
    shapes = ({"x": (FLOAT, [1, 1, 10_000])}, {"y": (FLOAT, [1, 1, "M"])})
    proto = networks.model([node], *shapes, {"scales": scales})

    lowered = fp16_sandwich(proto)

    np.testing.assert_array_equal(numpy_helper.to_array(networks.weight(lowered, "scales")), scales)
    x = np.zeros((1, 1, 10_000), np.float32)
    assert run(lowered, x=x).shape == run(proto, x=x).shape


def test_integers_are_left_alone() -> None:
    proto = networks.embedding()
    ids = np.array([[1, 2, 3, 4, 5]])

    lowered = fp16_sandwich(proto)

    assert run(lowered, ids=ids, mask=np.ones((1, 5), np.float32)).shape == (1, 4)
    np.testing.assert_array_equal(numpy_helper.to_array(networks.weight(lowered, "last")), [2])


def branching() -> onnx.ModelProto:
    """y = x @ w if sum(x) > 0 else x / 3, each in a subgraph, w captured from outside."""
    then = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["a"])], "then", [], [helper.make_tensor_value_info("a", FLOAT, None)]
    )
    third = numpy_helper.from_array(np.array(1 / 3, np.float32), "third")
    other = helper.make_graph(
        [helper.make_node("Mul", ["x", "third"], ["b"])],
        "else",
        [],
        [helper.make_tensor_value_info("b", FLOAT, None)],
        [third],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=then, else_branch=other),
    ]
    w = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    return networks.model(
        nodes, {"x": (FLOAT, [2, 4])}, {"y": (FLOAT, [2, 4])}, {"w": w, "zero": np.array(0, np.float32)}
    )


def resized(where: str) -> onnx.ModelProto:
    """y = x (1, 1, N) made 1.37 times as long, told by Resize's scales or by its sizes; 1.37 in a Constant node."""
    factor = np.array([1, 1, 1.37], np.float32)
    nodes = [helper.make_node("Constant", [], ["factor"], value=numpy_helper.from_array(factor))]
    if where == "scales":
        inputs = ["x", "", "factor"]
    else:
        nodes += [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Cast", ["shape"], ["old"], to=FLOAT),
            helper.make_node("Mul", ["old", "factor"], ["exact"]),
            helper.make_node("Floor", ["exact"], ["whole"]),
            helper.make_node("Cast", ["whole"], ["sizes"], to=TensorProto.INT64),
        ]
        inputs = ["x", "", "", "sizes"]
    nodes.append(helper.make_node("Resize", inputs, ["y"], mode="nearest"))
    return networks.model(nodes, {"x": (FLOAT, [1, 1, "N"])}, {"y": (FLOAT, [1, 1, "M"])})


@pytest.mark.parametrize("lowering", [fp16_sandwich, bf16_sandwich, tf32_emulated])
def test_subgraphs_are_lowered_too(lowering: Any) -> None:
    proto, x = branching(), np.full((2, 4), 1 / 7, np.float32)

    lowered = lowering(proto)

    assert 1e-5 < compare(run(lowered, x=x), run(proto, x=x)).rel_rms < 1e-2
    exact_in_tf32 = lowering is tf32_emulated  # x / 3 is no matrix product
    assert (compare(run(lowered, x=-x), run(proto, x=-x)).rel_rms == 0) == exact_in_tf32


def test_tf32_keeps_ten_bits_rounded_to_nearest_even() -> None:
    one = 1.0
    values = np.array([one + 2**-10, one + 2**-11, one + 3 * 2**-11, one + 2**-11 + 2**-23, -one - 2**-12], np.float32)

    assert round_to_tf32(values).tolist() == [one + 2**-10, one, one + 2**-9, one + 2**-10, -one]


def test_tf32_leaves_nan_infinity_and_the_largest_values() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)

    np.testing.assert_array_equal(round_to_tf32(values), values)


def test_tf32_in_the_graph_is_the_rounding_of_the_operands() -> None:
    draw = np.random.default_rng(0)
    x, w = (draw.standard_normal((8, 8)).astype(np.float32) for _ in range(2))
    proto = only("MatMul", {"w": w}, (8, 8))

    got = run(tf32_emulated(proto), x=x)

    np.testing.assert_allclose(got, round_to_tf32(x) @ round_to_tf32(w), rtol=1e-5, atol=1e-6)


def test_tf32_leaves_biases_and_other_operators_alone() -> None:
    proto = networks.convolutional()

    lowered = tf32_emulated(proto)

    for name in ("b1", "b3"):
        np.testing.assert_array_equal(
            numpy_helper.to_array(networks.weight(lowered, name)), numpy_helper.to_array(networks.weight(proto, name))
        )
    assert "w1" not in {tensor.name for tensor in lowered.graph.initializer}


def test_a_shared_weight_is_rounded_for_the_matrix_operator_alone() -> None:
    w = np.full((3, 3), 1 / 3, np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "w"], ["y"])]
    proto = networks.model(nodes, {"x": (FLOAT, [3, 3])}, {"y": (FLOAT, [3, 3])}, {"w": w})

    got = run(tf32_emulated(proto), x=np.zeros((3, 3), np.float32))

    np.testing.assert_array_equal(got, w)


def test_the_typed_graph_is_fp16_with_fp32_at_its_ends() -> None:
    lowered = fp16_typed(networks.convolutional())

    assert {tensor.data_type for tensor in lowered.graph.initializer} == {TensorProto.FLOAT16}
    ends = [*lowered.graph.input, *lowered.graph.output]
    assert {value.type.tensor_type.elem_type for value in ends} == {FLOAT}


def test_the_typed_graph_is_bf16_with_fp32_at_its_ends() -> None:
    lowered = bf16_typed(networks.convolutional())

    onnx.checker.check_model(lowered, full_check=True)
    assert {tensor.data_type for tensor in lowered.graph.initializer} == {TensorProto.BFLOAT16}
    ends = [*lowered.graph.input, *lowered.graph.output]
    assert {value.type.tensor_type.elem_type for value in ends} == {FLOAT}
    assert [node.attribute[0].i for node in lowered.graph.node if node.op_type == "Cast"] == [
        TensorProto.BFLOAT16,
        FLOAT,
    ]


@pytest.mark.parametrize("typed", [fp16_typed, bf16_typed])
def test_a_typed_graph_whose_branches_give_narrow_tensors_is_simulated(typed: Any) -> None:
    session = open_session(as_sandwich(typed(branching())), "net")

    assert session.get_outputs()[0].type == "tensor(float)"


def test_no_fp16_is_left_in_the_typed_bf16_graph_or_its_subgraphs() -> None:
    text = str(bf16_typed(branching()))

    assert f"data_type: {TensorProto.BFLOAT16}" in text
    assert not re.search(rf"(data_type|elem_type|i): {TensorProto.FLOAT16}\n", text)


def test_the_branches_of_a_typed_bf16_graph_compute_what_they_did() -> None:
    proto, x = branching(), np.full((2, 4), 1 / 7, np.float32)

    lowered = bf16_typed(proto)

    for sign in (1, -1):
        assert 1e-5 < compare(evaluated(lowered, sign * x), run(proto, x=sign * x)).rel_rms < 2e-2


@pytest.mark.parametrize(("opset", "raised"), [(9, 22), (17, 22), (23, 23)])
def test_the_typed_bf16_graph_is_in_an_opset_that_allows_bf16_in_a_conv(opset: int, raised: int) -> None:
    assert graph.opset(bf16_typed(networks.convolutional(opset=opset))) == raised


def test_an_operator_older_than_onnxs_own_is_typed_in_the_newest_opset_that_converts() -> None:
    nodes = [helper.make_node("LayerNormalization", ["x", "g"], ["y"])]
    ends = {"x": (FLOAT, [2, 4])}, {"y": (FLOAT, [2, 4])}
    proto = networks.model(nodes, *ends, {"g": np.ones(4, np.float32)}, opset=13)

    lowered = bf16_typed(proto)

    assert graph.opset(lowered) == 16
    assert networks.weight(lowered, "g").data_type == TensorProto.BFLOAT16


@pytest.mark.parametrize("typed", [fp16_typed, bf16_typed])
@pytest.mark.parametrize("where", ["scales", "sizes"])
def test_a_size_is_told_in_fp32_in_a_typed_graph_too(typed: Any, where: str) -> None:
    proto = resized(where)

    lowered = typed(proto)

    [factor] = [node.attribute[0].t for node in lowered.graph.node if node.op_type == "Constant"]
    assert factor.data_type == FLOAT
    x = np.zeros((1, 1, 301), np.float32)
    assert evaluated(lowered, x).shape == (1, 1, 412)


@pytest.mark.parametrize("sandwich", [fp16_sandwich, bf16_sandwich])
@pytest.mark.parametrize("where", ["scales", "sizes"])
def test_a_size_is_what_it_was_in_a_simulation_too(sandwich: Any, where: str) -> None:
    x = np.zeros((1, 1, 301), np.float32)

    assert run(sandwich(resized(where)), x=x).shape == (1, 1, 412)


@pytest.mark.parametrize(("typed", "largest"), [(fp16_typed, -65504.0), (bf16_typed, -3.3895313892515355e38)])
def test_a_mask_that_is_filled_in_becomes_the_largest_value_and_not_infinity(typed: Any, largest: float) -> None:
    lowest = numpy_helper.from_array(np.array([np.finfo(np.float32).min], np.float32))
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["mask"], value=lowest),
        helper.make_node("Add", ["x", "mask"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["y"]),
    ]
    lowered = typed(networks.model(nodes, {"x": (FLOAT, [2, 4])}, {"y": (FLOAT, [2, 4])}))

    [mask] = [node.attribute[0].t for node in lowered.graph.node if node.op_type == "ConstantOfShape"]
    assert float(numpy_helper.to_array(mask)[0]) == largest


def test_the_typed_bf16_graphs_error_is_of_bf16s_size_and_not_zero() -> None:
    proto, x = networks.convolutional(), networks.images()

    error = compare(evaluated(bf16_typed(proto), x), run(proto, x=x)).rel_rms

    assert 5e-4 < error < 2e-2


@pytest.mark.parametrize("value", [1e-20, 3e-8, 1 / 3, 7e4, 1e30])
def test_typed_bf16_rounds_the_fp32_weights_themselves_and_never_by_way_of_fp16(value: float) -> None:
    stored = numpy_helper.from_array(np.array([value], np.float32))
    nodes = [
        helper.make_node("Constant", [], ["c"], value=stored),
        helper.make_node("Mul", ["x", "w"], ["a"]),
        helper.make_node("Mul", ["a", "c"], ["y"]),
    ]
    weights = {"w": np.array([value], np.float32)}
    lowered = bf16_typed(networks.model(nodes, {"x": (FLOAT, ["N"])}, {"y": (FLOAT, ["N"])}, weights))

    [constant] = [node.attribute[0].t for node in lowered.graph.node if node.op_type == "Constant"]
    for tensor in (constant, networks.weight(lowered, "w")):
        assert numpy_helper.to_array(tensor) == ml_dtypes.bfloat16(value)


def test_a_weight_beyond_fp16_is_refused_where_the_typed_graph_would_clamp_it() -> None:
    proto = networks.with_weight(networks.convolutional(), "w2", lambda w: w * 1e7)

    with pytest.raises(LoweringError, match=r"weight 'w2' holds [\d.e+]+, beyond fp16's largest value 65504"):
        fp16_typed(proto)


@pytest.mark.parametrize("opset", [9, 11, 12])
def test_an_old_opset_is_raised_where_bf16_needs_it(opset: int) -> None:
    proto, x = networks.convolutional(opset=opset), networks.images()

    lowered = bf16_sandwich(proto)

    assert compare(run(lowered, x=x), run(proto, x=x)).rel_rms < 2e-2


def test_an_operator_of_unknown_type_is_refused() -> None:
    nodes = [helper.make_node("Strange", ["x"], ["s"], domain="com.example"), helper.make_node("Relu", ["s"], ["y"])]
    proto = networks.model(nodes, {"x": (FLOAT, ["N"])}, {"y": (FLOAT, ["N"])})
    proto.opset_import.append(helper.make_opsetid("com.example", 1))

    with pytest.raises(LoweringError, match=r"type of 's' at Strange .*of domain 'com.example'"):
        fp16_sandwich(proto)


def test_lower_refuses_to_lower_a_reduced_file_further() -> None:
    half = checked(fp16_typed(networks.convolutional()), "half.onnx")

    with pytest.raises(LoweringError, match=r"half.onnx already holds fp16.*--trt-precision=model"):
        lower(half, "bf16")
    assert lower(half, "fp16") is half
    assert lower(half, "model") is half


def test_lower_gives_the_typed_bf16_graph_on_demand() -> None:
    proto = networks.convolutional()

    assert networks.weight(lower(proto, "bf16", typed=True), "w1").data_type == TensorProto.BFLOAT16
    assert networks.weight(lower(proto, "bf16"), "w1").data_type == FLOAT


def test_lower_takes_a_plain_onnx_model_and_returns_another() -> None:
    proto = networks.convolutional()
    before = proto.SerializeToString(deterministic=True)

    lowered = lower(proto, "fp16", typed=True)

    assert isinstance(lowered, onnx.ModelProto)
    assert proto.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(lowered)


@pytest.mark.parametrize("typed", [fp16_typed, bf16_typed])
def test_an_input_that_is_an_output_as_it_came_stays_one(typed: Any) -> None:
    proto = networks.convolutional(opset=22)
    proto.graph.output.insert(0, proto.graph.input[0])

    found = typed(proto)

    onnx.checker.check_model(found, full_check=True)
    assert next(value.name for value in found.graph.output) == "x"
    assert found.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_a_resize_in_bf16_has_no_region_that_onnx_has_no_bf16_for() -> None:
    proto = networks.model(
        [
            helper.make_node("Constant", [], ["roi"], value=numpy_helper.from_array(np.zeros(0, np.float32))),
            helper.make_node("Resize", ["x", "roi", "scales"], ["y"], "resize", mode="nearest"),
        ],
        {"x": (FLOAT, ["N", 2, 6, 6])},
        {"y": (FLOAT, None)},
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    )

    onnx.checker.check_model(bf16_typed(proto), full_check=True)


def test_an_input_in_bf16_leaves_each_node_a_name_of_its_own() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"], "a"), helper.make_node("Neg", ["r"], ["y"], "b")]
    narrow = TensorProto.BFLOAT16
    proto = networks.model(nodes, {"x": (narrow, ["N", 4])}, {"y": (narrow, ["N", 4])}, {})

    names = [node.name for node in as_sandwich(fp32_ends(proto)).graph.node]

    assert sorted(names) == sorted(set(names))
