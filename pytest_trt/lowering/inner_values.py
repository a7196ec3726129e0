"""Inner values: a simulated graph that tells of its own tensors whether they are finite, all zero, or only masks.

One number a tensor leaves the graph, taken as soon as the tensor is made, so that memory does not grow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.model.graph import fresh, is_standard, opset
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from onnx import ModelProto, NodeProto

    from pytest_trt.model.feeds import Arrays

__all__ = ["InnerValues", "Watched", "watched"]

_NARROW: dict[int, Precision] = {TensorProto.FLOAT16: Precision.FP16, TensorProto.BFLOAT16: Precision.BF16}
_DIVIDING = ("Div", "Reciprocal", "Log", "Pow", "Sqrt", "Exp")
_NORMALISING = ("Softmax", "LogSoftmax")
_FIRST_AXES_AS_INPUT = 18


@dataclass
class InnerValues:
    """What the inner tensors of a simulated network held, over all that was run.

    Attributes:
        sums: by tensor the sum of |x| over a run, the largest of all runs; not finite where one was not.
        rows: by tensor that a Softmax reads, the largest value of that row whose largest is least.
        lowest: values under half of this are taken for masks; minus the precision's largest.
    """

    sums: dict[str, float] = field(default_factory=dict)
    rows: dict[str, float] = field(default_factory=dict)
    lowest: float = -math.inf

    @property
    def suspects(self) -> frozenset[str]:
        """Tensors that were not finite, or zero throughout."""
        return frozenset(name for name, size in self.sums.items() if not math.isfinite(size) or not size)

    @property
    def masked(self) -> frozenset[str]:
        """Tensors with a row of nothing but masks, which a Softmax reads."""
        return frozenset(name for name, top in self.rows.items() if not top > self.lowest / 2)


@dataclass(frozen=True)
class Watched:
    """The further outputs of a simulated graph, which come after its own.

    Attributes:
        sums: by further output, the tensor whose |x| it adds up.
        rows: by further output, the tensor whose least row it tells.
        lowest: as in :class:`InnerValues`.
    """

    sums: Mapping[str, str]
    rows: Mapping[str, str]
    lowest: float

    def read(self, found: Arrays, into: InnerValues) -> None:
        """Add what a run gave."""
        into.lowest = self.lowest
        for name, tensor in self.sums.items():
            size = float(np.max(found[name], initial=0.0))
            before = into.sums.get(tensor, 0.0)
            into.sums[tensor] = before + size if not math.isfinite(before + size) else max(before, size)
        for name, tensor in self.rows.items():
            into.rows[tensor] = min(into.rows.get(tensor, math.inf), float(np.min(found[name], initial=math.inf)))


def watched(model: ModelProto) -> tuple[ModelProto, Watched | None]:
    """A copy that measures its rounded tensors, and what divisions, roots, powers and logarithms give; and its outputs.

    Tensors of subgraphs are left out. The model itself and None where there is nothing to measure.

    Args:
        model: as it is simulated: a cast sandwich, or with Q/DQ.
    """
    rounded = _rounded(model)
    narrow = max(rounded.values(), default=None, key=lambda kind: -kind.largest)
    sums: dict[str, str] = {}
    rows: dict[str, str] = {}
    name, nodes = fresh(model), []
    numbers: list[TensorProto] = []
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        nodes.append(node)
        if node.op_type in _NORMALISING and is_standard(node) and narrow is not None:
            rows[row := name(f"{node.input[0]}/least row")] = node.input[0]
            nodes += _least_row(node, row, numbers, opset(copy))
        for tensor in _measured(node, rounded):
            sums[total := name(f"{tensor}/magnitudes")] = tensor
            nodes += _magnitudes(tensor, total)
    if not sums:
        return model, None
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del copy.graph.node[:]
    copy.graph.node.extend(copies)
    copy.graph.initializer.extend(numbers)
    copy.graph.output.extend(onnx.ValueInfoProto(name=output) for output in (*sums, *rows))
    return copy, Watched(sums, rows, -(narrow.largest if narrow else math.inf))


def _rounded(model: ModelProto) -> dict[str, Precision]:
    """Tensors that a Cast makes fp32 again, by what they were rounded to."""
    narrow: dict[str, Precision] = {}
    found: dict[str, Precision] = {}
    for node in model.graph.node:
        if node.op_type == "Cast" and node.attribute[0].i in _NARROW:
            narrow[node.output[0]] = _NARROW[node.attribute[0].i]
        elif node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT and node.input[0] in narrow:
            found[node.output[0]] = narrow[node.input[0]]
    return found


def _measured(node: NodeProto, rounded: Mapping[str, Precision]) -> Iterator[str]:
    if node.op_type in _DIVIDING and is_standard(node):
        yield node.output[0]
    yield from (output for output in node.output if output in rounded)


def _magnitudes(tensor: str, total: str) -> list[NodeProto]:
    """The Cast does nothing to fp32, and lets whole numbers through."""
    return [
        helper.make_node("Cast", [tensor], [f"{total}/fp32"], f"{total}/fp32", to=TensorProto.FLOAT),
        helper.make_node("ReduceL1", [f"{total}/fp32"], [total], total, keepdims=0),
    ]


def _least_row(node: NodeProto, row: str, numbers: list[TensorProto], version: int) -> list[NodeProto]:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
    tops, least = f"{row}/tops", helper.make_node("ReduceMin", [f"{row}/tops"], [row], row, keepdims=0)
    if version < _FIRST_AXES_AS_INPUT:
        return [helper.make_node("ReduceMax", [node.input[0]], [tops], tops, axes=[axis], keepdims=0), least]
    numbers.append(numpy_helper.from_array(np.array([axis], np.int64), f"{row}/axis"))
    return [helper.make_node("ReduceMax", [node.input[0], f"{row}/axis"], [tops], tops, keepdims=0), least]
