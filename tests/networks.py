"""Small ONNX networks, written out node by node, with seeded weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FLOAT = TensorProto.FLOAT


def model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[Any]]],
    outputs: Mapping[str, tuple[int, Sequence[Any] | None]],
    weights: dict[str, Any] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def convolutional(batch: int | str = "N", classes: int = 3, seed: int = 0, opset: int = 17) -> onnx.ModelProto:
    """Conv, Relu, residual Conv, pooling, Gemm: float images (N, 2, 6, 6) to logits (N, classes)."""
    draw = np.random.default_rng(seed)
    weights = {
        "w1": draw.standard_normal((4, 2, 3, 3)).astype(np.float32),
        "b1": draw.standard_normal(4).astype(np.float32),
        "w2": (0.3 * draw.standard_normal((4, 4, 3, 3))).astype(np.float32),
        "w3": draw.standard_normal((classes, 4)).astype(np.float32),
        "b3": draw.standard_normal(classes).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["sum"], "add"),
        helper.make_node("Relu", ["sum"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["logits"], "fc", transB=1),
    ]
    return model(nodes, {"x": (FLOAT, [batch, 2, 6, 6])}, {"logits": (FLOAT, [batch, classes])}, weights, opset)


def images(samples: int = 8, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((samples, 2, 6, 6)).astype(np.float32)


def evaluated(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """The first output, as ONNX's own evaluator computes it, which knows types that onnxruntime lacks."""
    found: Any = ReferenceEvaluator(proto).run(None, {"x": x})
    return np.asarray(found[0])


def embedding() -> onnx.ModelProto:
    """Integer ids (N, 5) and a float mask (N, 5) to scores (N, 4) and the best class (N)."""
    draw = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["masked"]),
        helper.make_node("ReduceMean", ["masked"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
    ]
    weights = {
        "table": draw.standard_normal((10, 6)).astype(np.float32),
        "head": draw.standard_normal((6, 4)).astype(np.float32),
        "last": np.array([2], np.int64),
    }
    return model(
        nodes,
        {"ids": (TensorProto.INT64, ["N", 5]), "mask": (FLOAT, ["N", 5])},
        {"scores": (FLOAT, ["N", 4]), "best": (TensorProto.INT64, ["N"])},
        weights,
    )


def save(proto: onnx.ModelProto, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path


def weight(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in proto.graph.initializer if tensor.name == name)


def with_weight(proto: onnx.ModelProto, name: str, change: Any) -> onnx.ModelProto:
    """A copy in which one weight is what ``change`` makes of it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    tensor = weight(copy, name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))
    return copy
