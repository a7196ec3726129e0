"""BatchNormalization behind a convolution: folded into its weights in fp32, as TensorRT does before it rounds them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from pytest_trt.model.external_data import array_of, replaced
from pytest_trt.model.graph import constants, drop_unread, fresh, graphs, is_standard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

__all__ = ["fold_batch_normalization"]

_EPSILON = 1e-5  # ONNX's default


def fold_batch_normalization(model: ModelProto, kept: frozenset[str]) -> None:
    """Fold each into the Conv or ConvTranspose before it, in place; a variance may be larger than fp16 holds.

    With g = scale / sqrt(variance + epsilon) of each channel, w' = g w and b' = g (b - mean) + shift.

    Args:
        model: the fp32 graph.
        kept: what the nodes compute that stay in fp32: a pair of which one does is left as it is.
    """
    held, name = constants(model), fresh(model)
    read = Counter(tensor for graph in graphs(model.graph) for node in graph.node for tensor in node.input)
    alone = {tensor.name for tensor in model.graph.initializer if read[tensor.name] == 1}
    given = {output.name for graph in graphs(model.graph) for output in graph.output}
    makers = {output: node for node in model.graph.node for output in node.output}
    folded = []
    for node in model.graph.node:
        before = makers.get(node.input[0]) if node.op_type == "BatchNormalization" and is_standard(node) else None
        if before is None or not _folds(before, node, held) or kept.intersection((*node.output, *before.output)):
            continue
        if read[before.output[0]] == 1 and before.output[0] not in given:
            _fold(model, before, node, held, name, frozenset(alone))
            folded.append(node)
    for node in folded:
        model.graph.node.remove(node)
    if folded:
        drop_unread(model)


def _folds(before: NodeProto, node: NodeProto, held: Mapping[str, TensorProto]) -> bool:
    """Whether it is a convolution of stored fp32 weights, and all that the normalisation reads is stored too."""
    if before.op_type not in ("Conv", "ConvTranspose") or not is_standard(before):
        return False
    training = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
    names = [*filter(None, before.input[1:]), *node.input[1:]]
    stored = all(name in held and held[name].data_type == TensorProto.FLOAT for name in names)
    return stored and not training and not any(node.output[1:])


def _fold(
    model: ModelProto,
    conv: NodeProto,
    node: NodeProto,
    held: Mapping[str, TensorProto],
    name: Callable[[str], str],
    alone: frozenset[str],
) -> None:
    """The weights keep their names, by which findings tell of them, where nothing else reads them."""
    scale, shift, mean, variance = (array_of(held[tensor]).astype(np.float64) for tensor in node.input[1:5])
    epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), _EPSILON)
    gain = scale / np.sqrt(variance + epsilon)
    source, weight, bias = [*conv.input, ""][:3]
    before = array_of(held[bias]) if bias else np.zeros(len(gain))

    def stored(tensor: str, array: NDArray[Any]) -> str:
        told = tensor if tensor in alone else name(f"{tensor or node.output[0]}/normalised")
        proto = held[tensor] if tensor in alone else model.graph.initializer.add()
        proto.CopyFrom(replaced(held.get(tensor, proto), array.astype(np.float32), told))
        return told

    scaled = _scaled(array_of(held[weight]), gain, conv)
    conv.input[:] = [source, stored(weight, scaled), stored(bias, (before - mean) * gain + shift)]
    conv.output[0] = node.output[0]


def _scaled(weight: NDArray[Any], gain: NDArray[np.float64], conv: NodeProto) -> NDArray[np.float64]:
    """Each channel times its own; weights are (out, in / groups, ...), of a ConvTranspose (in, out / groups, ...)."""
    spread = (1,) * (weight.ndim - 2)
    if conv.op_type == "Conv":
        conv_scaled: NDArray[np.float64] = weight * gain.reshape(-1, 1, *spread)
        return conv_scaled
    groups = next((attribute.i for attribute in conv.attribute if attribute.name == "group"), 1)
    parts = weight.reshape(groups, -1, *weight.shape[1:])
    return np.asarray((parts * gain.reshape(groups, 1, -1, *spread)).reshape(weight.shape))
