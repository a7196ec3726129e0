from __future__ import annotations

from typing import Any

import networks
import numpy as np
import onnx
import pytest
from onnx import helper

from pytest_trt import Ranges, lower
from pytest_trt.errors import LoweringError
from pytest_trt.lowering.placement import placement_of
from pytest_trt.lowering.qdq import quantised_activations

FLOAT = networks.FLOAT
SHAPE = ["N", 4, 6, 6]


def conv(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, f"w_{target}"], [target], target, pads=[1, 1, 1, 1])


def norm(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("BatchNormalization", [source, "one", "one", "one", "one"], [target], target)


def node(kind: str, *names: str) -> onnx.NodeProto:
    return helper.make_node(kind, list(names[:-1]), [names[-1]], names[-1])


def net(nodes: list[onnx.NodeProto], outputs: tuple[str, ...] = ("y",), **inputs: list[Any]) -> onnx.ModelProto:
    draw = np.random.default_rng(0)
    read = {name for made in nodes for name in made.input}
    weights: dict[str, Any] = {name: draw.standard_normal((4, 4, 3, 3)) for name in read if name.startswith("w_")}
    weights |= {"one": np.ones(4), "bias": np.ones((4, 1, 1))}
    stored = {name: value.astype(np.float32) for name, value in weights.items() if name in read}
    shapes = {name: (FLOAT, shape) for name, shape in ({"x": SHAPE} | inputs).items()}
    return networks.model(nodes, shapes, dict.fromkeys(outputs, (FLOAT, SHAPE)), stored)


def residual(proto: onnx.ModelProto) -> set[str]:
    """The Adds' inputs that read a quantised tensor."""
    places = placement_of(proto).operands
    adds = [made for made in proto.graph.node if made.op_type == "Add"]
    return {tensor for add in adds for i, tensor in enumerate(add.input) if (add.output[0], i) in places}


@pytest.mark.parametrize("ends", [("c", "x"), ("x", "c")])
def test_the_skip_connection_into_a_sum_behind_a_convolution_is_quantised(ends: tuple[str, str]) -> None:
    assert residual(net([conv("x", "c"), node("Add", *ends, "s"), node("Relu", "s", "y")])) == {"x"}


def test_a_batch_normalization_stays_between_convolution_and_sum() -> None:
    proto = net([conv("x", "c"), norm("c", "b"), node("Add", "b", "x", "s"), node("Relu", "s", "y")])

    assert residual(proto) == {"x"}
    lowered = lower(proto, "int8", Ranges({"x": 4.0}))
    sources = {made.op_type: list(made.input)[:1] for made in lowered.graph.node if made.op_type != "QuantizeLinear"}
    assert sources["BatchNormalization"] == ["c"]
    assert sources["Relu"] == ["s"]


def test_of_two_convolved_branches_the_shorter_is_quantised() -> None:
    long = [conv("x", "c1"), node("Relu", "c1", "r"), conv("r", "c2")]
    short = [conv("x", "short")]

    for nodes in ([*long, *short], [*short, *long]):
        assert residual(net([*nodes, node("Add", "c2", "short", "y")])) == {"short"}
        assert residual(net([*nodes, node("Add", "short", "c2", "y")])) == {"short"}


def test_a_relu_behind_the_convolution_ends_its_kernel_and_the_sum_stays_fp32() -> None:
    assert residual(net([conv("x", "c"), node("Relu", "c", "r"), node("Add", "r", "x", "y")])) == set()


@pytest.mark.parametrize("outputs", [("y", "c"), ("y", "also")])
def test_a_convolution_that_others_read_too_is_no_branch(outputs: tuple[str, str]) -> None:
    more = [node("Sigmoid", "c", "also")] if "also" in outputs else []

    assert residual(net([conv("x", "c"), *more, node("Add", "c", "x", "y")], outputs)) == set()


def test_a_stored_bias_is_no_skip_connection() -> None:
    assert residual(net([conv("x", "c"), node("Add", "c", "bias", "y")])) == set()


def test_a_sum_that_broadcasts_is_no_residual() -> None:
    assert residual(net([conv("x", "c"), node("Add", "c", "t", "y")], t=["N", 4, 1, 1])) == set()
    assert residual(net([conv("x", "c"), node("Add", "c", "t", "y")], t=SHAPE)) == {"t"}


def test_a_tensor_added_to_itself_is_no_residual() -> None:
    assert residual(net([conv("x", "c"), node("Add", "c", "c", "y")])) == set()


def test_the_residual_stream_of_a_transformer_stays_fp32() -> None:
    weights = {"w": np.eye(4, dtype=np.float32), "b": np.ones(4, np.float32)}
    nodes = [
        node("MatMul", "x", "w", "m"),
        node("Add", "m", "b", "biased"),
        node("Add", "biased", "x", "sum"),
        helper.make_node("LayerNormalization", ["sum", "b"], ["n"]),
        node("MatMul", "n", "w", "y"),
    ]
    proto = networks.model(nodes, {"x": (FLOAT, ["N", 4])}, {"y": (FLOAT, ["N", 4])}, weights)

    assert residual(proto) == set()
    assert quantised_activations(proto) == ["x", "n"]


def test_a_tensor_that_several_operators_read_has_one_pair() -> None:
    proto = net([conv("x", "c1"), conv("x", "c2"), node("Add", "c1", "x", "s"), node("Add", "c2", "s", "y")])

    lowered = lower(proto, "int8", Ranges({"x": 4.0, "s": 4.0}))

    assert [made.input[0] for made in lowered.graph.node if made.op_type == "QuantizeLinear"] == ["x", "s"]


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_a_dequantised_tensor_feeds_matrix_operators_and_residual_sums_alone(precision: str) -> None:
    proto = networks.convolutional()

    lowered = lower(proto, precision, Ranges(dict.fromkeys(quantised_activations(proto), 4.0)))

    made = {name for n in lowered.graph.node if n.op_type == "DequantizeLinear" for name in n.output}
    readers = {n.op_type for n in lowered.graph.node if made.intersection(n.input)}
    assert readers == {"Conv", "Gemm", "Add"}


def test_the_sum_behind_a_kept_convolution_stays_fp32() -> None:
    proto = net([conv("x", "c0"), conv("c0", "c"), node("Add", "c", "x", "y")])

    assert quantised_activations(proto, keep=["c"]) == ["x"]
    lowered = lower(proto, "int8", Ranges({"x": 4.0}), keep=["c"])
    assert [list(n.input) for n in lowered.graph.node if n.name in ("c", "y")] == [["c0", "w_c"], ["c", "x"]]


def test_without_add_among_the_kinds_no_sum_is_quantised() -> None:
    proto = net([conv("x", "c"), node("Add", "c", "t", "y")], t=SHAPE)

    assert quantised_activations(proto) == ["x", "t"]
    assert quantised_activations(proto, ops=["Conv"]) == ["x"]


def test_an_activation_in_a_subgraph_is_refused_unless_its_node_is_kept() -> None:
    branch = helper.make_graph(
        [node("Relu", "x", "inner"), node("MatMul", "inner", "w", "out")],
        "b",
        [],
        [helper.make_tensor_value_info("out", FLOAT, [2, 2])],
    )
    branches = [
        node("MatMul", "x", "w", "m"),
        helper.make_node("If", ["which"], ["y"], then_branch=branch, else_branch=branch),
    ]
    proto = networks.model(
        branches,
        {"x": (FLOAT, [2, 2]), "which": (onnx.TensorProto.BOOL, [])},
        {"y": (FLOAT, [2, 2]), "m": (FLOAT, [2, 2])},
        {"w": np.eye(2, dtype=np.float32)},
    )

    with pytest.raises(LoweringError, match="'inner', read by MatMul 'out', is in a subgraph"):
        quantised_activations(proto)
    assert quantised_activations(proto, keep=["y"]) == ["x"]


def test_a_pooled_tensor_that_broadcasts_over_a_dynamic_size_is_no_residual() -> None:
    nodes = [conv("x", "c"), node("GlobalAveragePool", "x", "g"), node("Add", "c", "g", "y")]

    assert residual(net(nodes)) == set()
    assert residual(net(nodes, x=["N", 4, "H", "W"])) == set()
