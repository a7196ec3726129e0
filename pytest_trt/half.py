"""Half: what rounding to fp16 does to a model's weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from pytest_trt.lowering.graph import array_of, constants, graphs, matrix_nodes
from pytest_trt.lowering.stored import masks_of, sizes_of
from pytest_trt.model import nodes_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from pytest_trt.model import Model

__all__ = ["HalfWeights", "Rounded", "half_weights"]

_LARGEST = 65504.0
_OVERFLOWS = 65520.0  # what rounds to infinity: half a step beyond the largest
_NORMAL = 2.0**-14
_FLUSHED = 2.0**-25  # what rounds to zero: half of the smallest subnormal


@dataclass(frozen=True)
class Rounded:
    """One stored tensor.

    Attributes:
        tensor: its name.
        count: of its values that are not zero.
        largest: its largest finite |value|.
        beyond: how many values become infinite in fp16.
        subnormal: how many are subnormal in fp16, those that become zero included.
        zeroed: how many become zero.
        rel_rms: error of rounding those within fp16's range, as relative RMS.
        multiplies: whether a matrix operator multiplies by it.
    """

    tensor: str
    count: int
    largest: float
    beyond: int
    subnormal: int
    zeroed: int
    rel_rms: float
    multiplies: bool


@dataclass(frozen=True)
class HalfWeights:
    """The stored tensors that fp16 does more to than rounding: beyond its range, or below its normal numbers."""

    tensors: tuple[Rounded, ...]
    count: int


def half_weights(model: Model, kept: Collection[str] = ()) -> HalfWeights:
    """What fp16 does to the fp32 weights of a model; sizes, thresholds and masks do not count.

    Args:
        model: the fp32 model.
        kept: names or outputs of nodes that stay in fp32, whose weights do not count.
    """
    held = constants(model.proto)
    apart = sizes_of(model.proto.graph) | masks_of(model.proto.graph)
    limits, (read, multiplied) = _limits(model), _readers(model, frozenset(kept))
    found, count = [], 0
    for name, tensor in held.items():
        if tensor.data_type != TensorProto.FLOAT or name in apart or name not in read:
            continue
        rounded = _rounded(name, array_of(tensor), name in multiplied)
        if name in limits:
            rounded = replace(rounded, beyond=0)  # infinity caps as little as the largest value does
        count += rounded.count
        if rounded.beyond or rounded.subnormal:
            found.append(rounded)
    return HalfWeights(tuple(found), count)


def _readers(model: Model, kept: frozenset[str]) -> tuple[set[str], set[str]]:
    """Tensors that nodes read which are not kept, or that are outputs, and those that matrix operators multiply by."""
    computing = matrix_nodes(model.proto)
    read = {value.name for graph in graphs(model.proto.graph) for value in graph.output}
    multiplied: set[str] = set()
    for node in nodes_of(model.proto.graph):
        if not kept.intersection([node.name, *node.output]):
            read.update(node.input)
        if computing.intersection([node.name, *node.output]):
            multiplied.update(node.input[:2])
    return read, multiplied


def _limits(model: Model) -> set[str]:
    """Tensors that are read as limits alone."""
    limits: set[str] = set()
    others: set[str] = set()
    for node in nodes_of(model.proto.graph):
        at = {"Clip": 1, "Min": 0, "Max": 0}.get(node.op_type, len(node.input))
        limits.update(node.input[at:])
        others.update(node.input[:at])
    return limits - others


def _rounded(name: str, array: NDArray[Any], multiplies: bool) -> Rounded:
    values = np.abs(array.reshape(-1).astype(np.float64))
    values = values[np.isfinite(values) & (values > 0)]
    within = values[values < _OVERFLOWS]
    error = within - within.astype(np.float16).astype(np.float64)
    square = float(np.einsum("i,i->", within, within))
    return Rounded(
        tensor=name,
        count=int(values.size),
        largest=float(values.max(initial=0.0)),
        beyond=int(values.size - within.size),
        subnormal=int((within < _NORMAL).sum()),
        zeroed=int((within <= _FLUSHED).sum()),
        rel_rms=float(np.sqrt(np.einsum("i,i->", error, error) / square)) if square else 0.0,
        multiplies=multiplies and array.ndim > 1,
    )
