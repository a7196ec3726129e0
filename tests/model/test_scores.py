"""Which outputs hold the scores of classes at the positions of sequences."""

from __future__ import annotations

import networks
import numpy as np
import onnx
import pytest
from onnx import helper

from pytest_trt.model.scores import sequences_of_scores

FLOAT = networks.FLOAT


def ending(*nodes: onnx.NodeProto, axes: int = 3) -> onnx.ModelProto:
    """A layer of weights over (N, T, 4), and what comes after it."""
    first = helper.make_node("MatMul", ["x", "w"], ["m"], "fc")
    weights = {"w": np.ones((4, 6), np.float32), "b": np.ones(6, np.float32)}
    shape = ["N", "T", 6][-axes:]
    return networks.model([first, *nodes], {"x": (FLOAT, ["N", "T", 4])}, {"y": (FLOAT, shape)}, weights)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Identity", ["m"], ["y"])],
        [helper.make_node("Add", ["m", "b"], ["y"])],
        [helper.make_node("Add", ["b", "m"], ["a"]), helper.make_node("Softmax", ["a"], ["y"], axis=-1)],
        [helper.make_node("LogSoftmax", ["m"], ["s"]), helper.make_node("Transpose", ["s"], ["y"], perm=[1, 0, 2])],
    ],
    ids=["logits", "bias", "softmax", "positions first"],
)
def test_scores_come_of_a_softmax_or_a_layer_of_weights(nodes: list[onnx.NodeProto]) -> None:
    assert sequences_of_scores(ending(*nodes)) == ("y",)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Relu", ["m"], ["y"])],
        [helper.make_node("Mul", ["m", "b"], ["y"])],
        [helper.make_node("Add", ["m", "m"], ["y"])],
        [helper.make_node("Tanh", ["m"], ["y"])],
    ],
    ids=["activated", "normalised", "residual", "bounded"],
)
def test_features_are_none(nodes: list[onnx.NodeProto]) -> None:
    assert sequences_of_scores(ending(*nodes)) == ()


def test_scores_of_a_sample_alone_are_none() -> None:
    node = helper.make_node("ReduceMean", ["m"], ["y"], axes=[1], keepdims=0)

    assert sequences_of_scores(ending(node, axes=2)) == ()
