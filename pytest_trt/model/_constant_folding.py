"""Constant folding: what a graph computes of its own constants alone is stored, as every runtime does first.

Exporters leave weights behind a Transpose, a Reshape or a Concat; for what is lowered they are weights all the same.
onnx's reference evaluator computes them, a node at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from pytest_trt.model.external_data import array_of, is_reference, replaced
from pytest_trt.model.normalise import read_by, subgraphs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

__all__ = ["fold_constants", "foldable"]

_LEFT = frozenset({
    "Bernoulli", "Constant", "DequantizeLinear", "Dropout", "DynamicQuantizeLinear", "Multinomial", "QuantizeLinear",
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
})  # fmt: skip
"""Operators that draw, and those that tell the precision of a file."""

_NARROW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
_LARGE = 1 << 26  # bytes; a constant that grows beyond is left to be computed


def foldable(model: ModelProto) -> list[NodeProto]:
    """The nodes that compute of constants alone, in the graph's order; those that draw or quantise are left out."""
    held = {tensor.name for tensor in model.graph.initializer}
    given = {output.name for output in model.graph.output}
    found = []
    for node in model.graph.node:
        if node.op_type == "Constant":
            held.update(node.output)
        elif _is_plain(node) and held.issuperset(filter(None, node.input)) and given.isdisjoint(node.output):
            held.update(node.output)
            found.append(node)
    return found


def fold_constants(model: ModelProto) -> None:
    """Store what a graph computes of its constants, in place and under the names that it has.

    What the evaluator can't compute, a constant that would grow beyond 64 MiB, and the cast of a stored fp16 or bf16
    weight, which tells the precision of the file, stay as they are, with all that follows.
    """
    values = _stored(model)
    done = [node for node in foldable(model) if _computed(model, node, values)]
    if not done:
        return
    gone = {id(node) for node in done}
    made = {name for node in done for name in node.output if name}
    left = [node for node in model.graph.node if id(node) not in gone]
    read = {name for node in left for name in read_by(node)}
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in left if not _is_unread(node, read)]
    model.graph.initializer.extend(values[name] for name in sorted(made & read))
    del model.graph.node[:]
    model.graph.node.extend(copies)
    kept = [value for value in model.graph.value_info if value.name not in made]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)


def _is_plain(node: NodeProto) -> bool:
    """Whether it computes the same whenever it is run: of ONNX's own operators, without a body."""
    standard = node.domain in ("", "ai.onnx") and node.op_type not in _LEFT
    return standard and next(subgraphs(node), None) is None


def _is_unread(node: NodeProto, read: set[str]) -> bool:
    return node.op_type == "Constant" and read.isdisjoint(node.output)


def _stored(model: ModelProto) -> dict[str, TensorProto]:
    """Stored tensors by name, read where they are needed."""
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            values[node.output[0]] = node.attribute[0].t
    return values


def _computed(model: ModelProto, node: NodeProto, values: dict[str, TensorProto]) -> bool:
    """Compute a node's outputs into ``values``; whether that could be done."""
    names = [name for name in node.input if name]
    if not all(name in values for name in names) or _widens(node, values):
        return False
    feeds = {name: array_of(values[name]) for name in names}
    try:
        results = _evaluated(model, node, feeds)
    except Exception:  # the evaluator raises whatever numpy and its operators do: the node stays, and runs elsewhere
        return False
    if not all(isinstance(result, np.ndarray | np.generic) for result in results):
        return False
    arrays = [np.asarray(result) for result in results]
    size, before = sum(array.nbytes for array in arrays), sum(array.nbytes for array in feeds.values())
    if size > max(_LARGE, before):
        return False
    source = max((values[name] for name in names), key=is_reference, default=TensorProto())
    for name, array in zip(node.output, arrays, strict=True):
        values[name] = replaced(source, np.ascontiguousarray(array).reshape(array.shape), name)
    return True


def _widens(node: NodeProto, values: Mapping[str, TensorProto]) -> bool:
    """Whether it casts what is stored in a narrow type to a wider one."""
    if node.op_type not in ("Cast", "CastLike"):
        return False
    return values[node.input[0]].data_type in _NARROW


def _evaluated(model: ModelProto, node: NodeProto, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
    graph = onnx.helper.make_graph(
        [node],
        "constants",
        [onnx.helper.make_tensor_value_info(name, _element(array), array.shape) for name, array in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in node.output],
    )
    alone = onnx.helper.make_model(graph, opset_imports=model.opset_import, functions=[])
    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(alone).run(None, dict(feeds)))


def _element(array: NDArray[Any]) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
