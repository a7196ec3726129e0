from __future__ import annotations

from typing import Any

import ml_dtypes
import networks
import numpy as np
import onnx
import pytest
from networks import evaluated
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from pytest_trt import Ranges, compare, lower
from pytest_trt.errors import LoweringError
from pytest_trt.lowering.casts import round_to_tf32
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.onnx_session import open_session

ALL = ["conv1", "relu1", "conv2", "add", "relu2", "pool", "flatten", "fc"]
PRECISIONS = ["tf32", "fp16", "bf16", "int8", "fp8"]
RANGES = Ranges({"x": 4.0, "r1": 19.0, "f": 9.0})
DTYPES: dict[str, Any] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    found: np.ndarray = open_session(proto, "net").run(None, {"x": x})[0]
    return found


def lowered(precision: str, *, typed: bool = False, **what: list[str]) -> onnx.ModelProto:
    return lower(networks.convolutional(), precision, RANGES, typed=typed, **what)


def operand(proto: onnx.ModelProto, node: str, index: int) -> np.ndarray:
    """The stored value that a node reads."""
    (name,) = [n.input[index] for n in proto.graph.node if n.name == node]
    return np.asarray(numpy_helper.to_array(networks.weight(proto, name)))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_kept_node_reads_its_weights_as_they_are_and_the_others_do_not(precision: str) -> None:
    proto, found = networks.convolutional(), lowered(precision, keep=["conv1"])

    onnx.checker.check_model(found, full_check=True)
    np.testing.assert_array_equal(operand(found, "conv1", 1), operand(proto, "conv1", 1))
    names = {tensor.name for tensor in found.graph.initializer}
    (weight,) = [n.input[1] for n in found.graph.node if n.name == "conv2"]
    assert weight not in names or not np.array_equal(operand(found, "conv2", 1), operand(proto, "conv2", 1))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_kept_errs_less(precision: str) -> None:
    x = networks.images(64)
    exact = run(networks.convolutional(), x)

    error = [compare(run(lowered(precision, keep=keep), x), exact).rel_rms for keep in ([], ["fc"])]

    assert 0 < error[1] < 0.9 * error[0]


def products() -> onnx.ModelProto:
    """a = first(x), of which second and third make b and c; each multiplies by 1.2345."""
    nodes = [
        onnx.helper.make_node("Mul", ["x", "k"], ["a"], "first"),
        onnx.helper.make_node("Mul", ["a", "k"], ["b"], "second"),
        onnx.helper.make_node("Mul", ["a", "k"], ["c"], "third"),
    ]
    shape = (networks.FLOAT, ["N"])
    return networks.model(
        nodes, {"x": shape}, {"a": shape, "b": shape, "c": shape}, {"k": np.array([1.2345], np.float32)}
    )


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_what_a_kept_node_makes_is_rounded_for_those_that_are_not_kept_alone(precision: str) -> None:
    def rounded(array: np.ndarray) -> np.ndarray:
        return array.astype(DTYPES[precision]).astype(np.float32)

    proto = products()
    x = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    k = np.float32(1.2345)

    a, b, c = open_session(lower(proto, precision, keep=["first", "second"]), "n").run(None, {"x": x})

    np.testing.assert_array_equal(a, x * k)
    np.testing.assert_array_equal(b, x * k * k)
    np.testing.assert_array_equal(c, rounded(rounded(x * k) * rounded(k)))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_typed_graph_keeps_a_node_in_fp32_from_its_inputs_to_the_graphs_outputs(precision: str) -> None:
    proto = products()
    x = np.random.default_rng(0).standard_normal(50).astype(np.float32)

    typed = lower(proto, precision, typed=True, keep=["first", "second"])
    a, b, c = ReferenceEvaluator(typed).run(None, {"x": x})

    onnx.checker.check_model(typed, full_check=True)
    np.testing.assert_array_equal(a, x * np.float32(1.2345))
    np.testing.assert_array_equal(b, x * np.float32(1.2345) * np.float32(1.2345))
    assert 1e-5 < compare(c, b).rel_rms < 1e-2


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("keep", [["conv1"], ["conv2", "add"], ["fc"], ["r1"]])
def test_the_typed_graph_computes_what_the_sandwich_does(precision: str, keep: list[str]) -> None:
    x = networks.images(16)

    typed = lowered(precision, typed=True, keep=keep)
    onnx.checker.check_model(typed)
    found = evaluated(typed, x)

    exact = compare(run(lowered(precision), x), run(networks.convolutional(), x)).rel_rms
    assert (
        compare(found, run(lowered(precision, keep=keep), x)).rel_rms < 4 * exact
    )  # the evaluator also adds up in the type


def test_a_weight_beyond_fp16_is_no_fault_where_its_node_is_kept() -> None:
    proto = networks.with_weight(networks.convolutional(), "w1", lambda w: w * 1e6)

    with pytest.raises(LoweringError, match="keep its layer in fp32"):
        lower(proto, "fp16", typed=True)
    kept = lower(proto, "fp16", typed=True, keep=["conv1"])

    np.testing.assert_array_equal(operand(kept, "conv1", 1), operand(proto, "conv1", 1))


def test_a_weight_that_a_kept_and_another_node_share_is_rounded_for_the_other() -> None:
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], [name], name) for name in ("a", "b")]
    shape = (networks.FLOAT, ["N", 3])
    w = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
    proto = networks.model(nodes, {"x": shape}, {"a": shape, "b": shape}, {"w": w})

    found = lower(proto, "fp16", keep=["a"])

    np.testing.assert_array_equal(operand(found, "a", 1), w)
    np.testing.assert_array_equal(operand(found, "b", 1), w.astype(np.float16).astype(np.float32))


def test_tf32_leaves_the_operands_of_a_kept_node() -> None:
    proto, found = networks.convolutional(), lowered("tf32", keep=["conv2"])

    assert next(list(n.input) for n in found.graph.node if n.name == "conv2") == ["r1", "w2"]
    np.testing.assert_array_equal(operand(found, "conv1", 1), round_to_tf32(operand(proto, "conv1", 1)))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_node_goes_by_a_tensor_that_it_computes_too(precision: str) -> None:
    assert lowered(precision, keep=["c2"]) == lowered(precision, keep=["conv2"])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_unknown_node_is_told_the_nearest_and_how_to_see_them(precision: str) -> None:
    with pytest.raises(LoweringError, match=r"no node 'conv_2'; the nearest are 'conv2', 'conv1', .*Netron"):
        lowered(precision, keep=["conv1", "conv_2"])


@pytest.mark.parametrize(
    ("precision", "wrong", "near"),
    [("int8", "Convolution", "Conv"), ("fp8", "Relu", "Gemm"), ("tf32", "Mul", "MatMul"), ("fp16", "conv", "Conv")],
)
def test_an_unknown_kind_of_operator_is_told_the_nearest(precision: str, wrong: str, near: str) -> None:
    with pytest.raises(LoweringError, match=rf"{precision} lowers no operator '{wrong}': did you mean '{near}'\?"):
        lowered(precision, ops=[wrong])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("typed", [False, True])
def test_keeping_everything_is_refused(precision: str, *, typed: bool) -> None:
    with pytest.raises(LoweringError, match="would change nothing here"):
        lowered(precision, typed=typed, keep=ALL)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("typed", [False, True])
def test_kinds_that_are_not_named_are_kept(precision: str, *, typed: bool) -> None:
    others = [name for name in ALL if name != "fc"]

    assert lowered(precision, typed=typed, ops=["Gemm"]) == lowered(precision, typed=typed, keep=others)


def test_only_kinds_that_the_model_has_not_change_nothing() -> None:
    with pytest.raises(LoweringError, match="would change nothing here"):
        lowered("int8", ops=["ConvTranspose"])


def test_only_the_activations_that_are_quantised_need_ranges() -> None:
    proto = networks.convolutional()

    assert quantised_activations(proto, keep=["conv1", "fc"]) == ["r1"]
    assert quantised_activations(proto, ops=["Gemm"]) == ["f"]


def test_a_file_that_holds_a_precision_has_nothing_to_choose() -> None:
    refused: list[tuple[str, dict[str, Any]]] = [("int8", {"ops": ["Conv"]}), ("fp16", {"keep": ["conv1"]})]
    for held, told in refused:
        with pytest.raises(LoweringError, match=f"already holds {held}, and keep and ops say what is lowered"):
            lower(lowered(held, typed=held == "fp16"), held, **told)


def test_a_file_with_qdq_may_say_which_nodes_it_leaves_out_on_purpose() -> None:
    file = lowered("int8", keep=["conv1"])

    assert lower(file, "int8", keep=["conv1"]) == file
    with pytest.raises(LoweringError, match="the model has no node 'conv9'"):
        lower(file, "int8", keep=["conv9"])


def test_a_kept_branch_is_kept_with_its_bodies() -> None:
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Mul", ["x", "k"], ["out"], "inner")],
        "b",
        [],
        [onnx.helper.make_tensor_value_info("out", networks.FLOAT, [8])],
    )
    nodes = [
        onnx.helper.make_node("If", ["which"], ["a"], "branch", then_branch=body, else_branch=body),
        onnx.helper.make_node("Mul", ["a", "k"], ["y"], "last"),
    ]
    shape = (networks.FLOAT, [8])
    proto = networks.model(
        nodes,
        {"x": shape, "which": (onnx.TensorProto.BOOL, [])},
        {"a": shape, "y": shape},
        {"k": np.array([1.2345], np.float32)},
    )
    feeds = {"x": np.random.default_rng(0).standard_normal(8).astype(np.float32), "which": np.array(1, bool)}

    a, _ = open_session(lower(proto, "fp16", keep=["branch"]), "n").run(None, feeds)

    np.testing.assert_array_equal(a, feeds["x"] * np.float32(1.2345))
