"""Weights: rounded to fp16 or bf16, and the tensors among them that an engine keeps as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
from onnx import TensorProto

from pytest_trt.model.external_data import replaced
from pytest_trt.model.graph import Operands, array_of, constants, drop_unread, graphs, is_standard
from pytest_trt.model.model import nodes_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto

__all__ = ["Rounding", "masks_of", "round_stored", "set_aside", "sizes_of", "to_bf16", "to_fp16"]

Rounding = Callable[["NDArray[np.float32]"], "NDArray[np.float32]"]

# Inputs that say how large a result is or which candidates stay: an engine keeps these in fp32, ...
_KEPT: Operands = {"Resize": (1, 2, 3), "Upsample": (1,), "NonMaxSuppression": (2, 3, 4), "Range": (0, 1, 2)}

# ... and so it does with what they are put together from.
_MASKING = {
    "Add", "Sub", "Mul", "Where", "Min", "Max", "Clip", "Identity", "Cast", "Expand", "Unsqueeze", "Squeeze", "Reshape",
    "Transpose", "Slice", "Concat", "Gather",
}  # fmt: skip

_PUT_TOGETHER = {
    "Identity", "Concat", "Cast", "Slice", "Gather", "Unsqueeze", "Squeeze", "Reshape", "Constant",
    "Mul", "Div", "Add", "Sub", "Floor", "Ceil", "ConstantOfShape",
}  # fmt: skip


def to_fp16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """fp32 values rounded to fp16 and back; what is beyond it becomes infinite."""
    return values.astype(np.float16).astype(np.float32)


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """fp32 values rounded to bf16 and back."""
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def sizes_of(graph: GraphProto) -> set[str]:
    """Tensors that tell sizes and thresholds, and those that they are put together from."""
    nodes = [node for part in graphs(graph) for node in part.node]
    maker = {output: node for node in nodes for output in node.output}
    kept: set[str] = set()
    open_ = [
        node.input[index]
        for node in nodes
        for index in _KEPT.get(node.op_type, ())
        if index < len(node.input) and is_standard(node)
    ]
    while open_:
        tensor = open_.pop()
        source = maker.get(tensor)
        if tensor in kept:
            continue
        kept.add(tensor)
        if source is not None and source.op_type in _PUT_TOGETHER:
            open_.extend(source.input)
    return kept


def round_stored(model: ModelProto, kept: set[str], rounding: Rounding, largest: float) -> None:
    """Round stored values and fillings; what is beyond the largest value becomes infinite, but masks are clamped."""
    masks = masks_of(model.graph)
    stored = [(tensor.name, tensor) for part in graphs(model.graph) for tensor in part.initializer]
    stored += [
        (node.output[0], node.attribute[0].t)
        for part in graphs(model.graph)
        for node in part.node
        if node.op_type in ("Constant", "ConstantOfShape") and node.attribute and node.attribute[0].name == "value"
    ]
    for name, tensor in stored:
        if tensor.data_type == TensorProto.FLOAT and name not in kept:
            array = array_of(tensor)
            if name in masks:
                array = np.where(np.isfinite(array), np.maximum(array, -largest), array).astype(np.float32)
            with np.errstate(over="ignore"):
                tensor.CopyFrom(replaced(tensor, rounding(array)))


def masks_of(graph: GraphProto) -> set[str]:
    """Tensors that are added to the scores of a softmax: there a largest negative value means "never".

    Converters clamp it; as minus infinity it would make NaN of 0 x -inf.
    """
    nodes = [node for part in graphs(graph) for node in part.node]
    maker = {output: node for node in nodes for output in node.output}
    open_ = [node.input[0] for node in nodes if node.op_type in ("Softmax", "LogSoftmax")]
    found: set[str] = set()
    while open_:
        tensor = open_.pop()
        if tensor in found:
            continue
        found.add(tensor)
        source = maker.get(tensor)
        if source is not None and source.op_type in _MASKING:
            open_.extend(source.input)
    return found


def set_aside(model: ModelProto, kept: frozenset[str], name: Callable[[str], str]) -> set[str]:
    """Give the nodes that stay in fp32 copies of their own of the values that they read; the names of these copies."""
    held = constants(model)
    own: dict[str, str] = {}
    for node in nodes_of(model.graph):
        for index, tensor in enumerate(node.input if kept.intersection(node.output) else ()):
            if tensor in held and held[tensor].data_type == TensorProto.FLOAT:
                if tensor not in own:
                    own[tensor] = name(f"{tensor}/exact")
                    model.graph.initializer.append(held[tensor])
                    model.graph.initializer[-1].name = own[tensor]
                node.input[index] = own[tensor]
    if own:
        _drop_unread_constants(model, set(own))
        drop_unread(model)
    return set(own.values())


def _drop_unread_constants(model: ModelProto, names: set[str]) -> None:
    """Remove Constant nodes, and Identity of stored values, whose readers now read copies."""
    read = {tensor for part in graphs(model.graph) for node in part.node for tensor in node.input}
    read |= {value.name for part in graphs(model.graph) for value in part.output}
    for graph in graphs(model.graph):
        for node in [node for node in graph.node if node.op_type in ("Constant", "Identity")]:
            if node.output[0] in names - read:
                graph.node.remove(node)
