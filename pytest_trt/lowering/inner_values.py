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

from pytest_trt.model.graph import fresh, is_standard, opset, tensor_shapes
from pytest_trt.model.model import nodes_of
from pytest_trt.model.normalise import subgraphs
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from onnx import GraphProto, ModelProto, NodeProto

    from pytest_trt.model.feeds import Arrays

__all__ = ["InnerValues", "Watched", "watched"]

_NARROW: dict[int, Precision] = {TensorProto.FLOAT16: Precision.FP16, TensorProto.BFLOAT16: Precision.BF16}
_DIVIDING = ("Div", "Reciprocal", "Log", "Pow", "Sqrt", "Exp")
_BOUNDED = (
    "LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization", "LpNormalization",
    "MeanVarianceNormalization", "Softmax", "LogSoftmax", "Softplus", "ReduceLogSum", "ReduceLogSumExp", "Tan", "Asin",
    "Acos", "Acosh", "Atanh", "Sinh", "Cosh", "Mod",
)  # fmt: skip
"""Further operators whose result some inputs make infinite or NaN: looked at where no rounded tensor would tell."""
_NEVER_RUN = -1.0  # of a tensor in a branch that was not taken, or a body that had no turn
_NORMALISING = ("Softmax", "LogSoftmax")
_FIRST_AXES_AS_INPUT = 18


@dataclass
class InnerValues:
    """What the inner tensors of a simulated network held, over all that was run.

    Attributes:
        sums: by tensor the sum of |x| over a run, or over a sample, the largest of all; not finite where one was not.
        least: by tensor the sum of |x| over a sample, the least of all; of tensors without samples as ``sums``.
        rows: by tensor that a Softmax reads, the largest value of that row whose largest is least.
        lowest: values under half of this are taken for masks; minus the precision's largest.
    """

    sums: dict[str, float] = field(default_factory=dict)
    least: dict[str, float] = field(default_factory=dict)
    rows: dict[str, float] = field(default_factory=dict)
    lowest: float = -math.inf

    @property
    def suspects(self) -> frozenset[str]:
        """Tensors that were not finite, or zero throughout a sample."""
        return frozenset(name for name, size in self.sums.items() if not math.isfinite(size) or not self.least[name])

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
            size = float(np.max(found[name], initial=_NEVER_RUN))
            if size < 0:
                continue
            into.least[tensor] = min(into.least.get(tensor, math.inf), float(np.min(found[name])))
            before = into.sums.get(tensor, 0.0)
            into.sums[tensor] = before + size if not math.isfinite(before + size) else max(before, size)
        for name, tensor in self.rows.items():
            into.rows[tensor] = min(into.rows.get(tensor, math.inf), float(np.min(found[name], initial=math.inf)))


def watched(model: ModelProto, only: Collection[str] | None = None) -> tuple[ModelProto, Watched | None]:
    """A copy that measures its rounded tensors, and what divisions, roots, powers and logarithms give; and its outputs.

    What is measured in the branches of an If and in the bodies of Loop and Scan leaves them as a further output. The
    model itself and None where there is nothing to measure.

    Args:
        model: as it is simulated: a cast sandwich, or with Q/DQ.
        only: the tensors to measure, in place of these.
    """
    rounded = _rounded(model)
    narrow = max(rounded.values(), default=None, key=lambda kind: -kind.largest)
    sums: dict[str, str] = {}
    rows: dict[str, str] = {}
    name, nodes = fresh(model), []
    numbers: list[TensorProto] = []
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    shapes = tensor_shapes(model)
    for node in copy.graph.node:
        nodes.append(node)
        if node.op_type in _NORMALISING and is_standard(node) and narrow is not None:
            rows[row := name(f"{node.input[0]}/least row")] = node.input[0]
            nodes += _least_row(node, row, numbers, opset(copy))
        for tensor in _measured(node, rounded, only):
            sums[total := name(f"{tensor}/magnitudes")] = tensor
            samples = tensor in rounded and len(shapes.get(tensor, ())) > 1  # a quiet one is nothing at int8
            nodes += _of_samples(tensor, total, numbers, opset(copy)) if samples else _magnitudes(tensor, total)
        inner, after = _given_out(node, rounded, only, name, numbers)
        sums |= inner
        nodes += after
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
    for node in nodes_of(model.graph):
        if node.op_type == "Cast" and node.attribute[0].i in _NARROW:
            narrow[node.output[0]] = _NARROW[node.attribute[0].i]
        elif node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT and node.input[0] in narrow:
            found[node.output[0]] = narrow[node.input[0]]
    return found


def _measured(node: NodeProto, rounded: Mapping[str, Precision], only: Collection[str] | None) -> Iterator[str]:
    if only is not None:
        yield from (output for output in node.output if output in only)
        return
    if node.op_type in (*_DIVIDING, *(() if rounded else _BOUNDED)) and is_standard(node):
        yield node.output[0]
    yield from (output for output in node.output if output in rounded)


def _given_out(
    node: NodeProto,
    rounded: Mapping[str, Precision],
    only: Collection[str] | None,
    name: Callable[[str], str],
    numbers: list[TensorProto],
) -> tuple[dict[str, str], list[NodeProto]]:
    """Let a node that holds subgraphs give out what is measured in them; what follows it in its graph.

    The graph is changed. A branch that is not taken gives -1; the turns of a body are summed up.

    Returns:
        By tensor of the node's graph, the inner one that it measures; and the nodes that make those.
    """
    found = [(graph, _inside(graph, rounded, only, name, numbers)) for graph in subgraphs(node)]
    turns = node.op_type in ("Loop", "Scan")
    if not any(sums for _, sums in found) or not (turns or node.op_type == "If"):
        return {}, []
    given: dict[str, str] = {}
    after: list[NodeProto] = []
    for graph, sums in found:
        for inner, tensor in sums.items():
            given[total := name(f"{tensor}/given out")] = tensor
            for other, _ in found:
                other.output.append(_number(inner if other is graph else _never_run(other, name)))
            node.output.append(f"{total}/turns" if turns else total)
            after += _over_turns(node, total, numbers) if turns else []
    return given, after


def _inside(
    graph: GraphProto,
    rounded: Mapping[str, Precision],
    only: Collection[str] | None,
    name: Callable[[str], str],
    numbers: list[TensorProto],
) -> dict[str, str]:
    """Measure a subgraph's tensors in it, those of its own subgraphs too."""
    sums: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in graph.node:
        inner, after = _given_out(node, rounded, only, name, numbers)
        nodes += [node, *after]
        sums |= inner
        for tensor in _measured(node, rounded, only):
            sums[total := name(f"{tensor}/magnitudes")] = tensor
            nodes += _magnitudes(tensor, total)
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return sums


def _number(tensor: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor, TensorProto.FLOAT, [])


def _never_run(graph: GraphProto, name: Callable[[str], str]) -> str:
    tensor = name("trt/never run")
    value = numpy_helper.from_array(np.array(_NEVER_RUN, np.float32))
    graph.node.append(helper.make_node("Constant", [], [tensor], tensor, value=value))
    return tensor


def _over_turns(node: NodeProto, total: str, numbers: list[TensorProto]) -> Iterator[NodeProto]:
    """The sum over the turns, whatever their axis of one number each; -1 where there were none."""
    for attribute in node.attribute:
        if attribute.name in ("scan_output_axes", "scan_output_directions"):
            attribute.ints.append(0)
    turns, never, none = (f"{total}/{what}" for what in ("turns", "never", "none"))
    numbers.append(numpy_helper.from_array(np.array(_NEVER_RUN, np.float32), never))
    numbers.append(numpy_helper.from_array(np.array(0, np.float32), none))
    idle, plain, summed, ran, each, count, some = (f"{total}/{number}" for number in range(7))
    yield helper.make_node("Less", [turns, none], [idle], idle)  # NaN is not
    yield helper.make_node("Where", [idle, none, turns], [plain], plain)
    yield helper.make_node("ReduceSum", [plain], [summed], summed, keepdims=0)
    yield helper.make_node("Not", [idle], [ran], ran)
    yield helper.make_node("Cast", [ran], [each], each, to=TensorProto.FLOAT)
    yield helper.make_node("ReduceSum", [each], [count], count, keepdims=0)
    yield helper.make_node("Greater", [count, none], [some], some)
    yield helper.make_node("Where", [some, summed, never], [total], total)


def _magnitudes(tensor: str, total: str) -> list[NodeProto]:
    """The Cast does nothing to fp32, and lets whole numbers through."""
    return [
        helper.make_node("Cast", [tensor], [f"{total}/fp32"], f"{total}/fp32", to=TensorProto.FLOAT),
        helper.make_node("ReduceL1", [f"{total}/fp32"], [total], total, keepdims=0),
    ]


def _of_samples(tensor: str, total: str, numbers: list[TensorProto], version: int) -> list[NodeProto]:
    """The same of each sample, along the first axis."""
    rows, plain = f"{total}/rows", f"{total}/fp32"
    nodes = [
        helper.make_node("Cast", [tensor], [plain], plain, to=TensorProto.FLOAT),
        helper.make_node("Flatten", [plain], [rows], rows, axis=1),
    ]
    if version < _FIRST_AXES_AS_INPUT:
        return [*nodes, helper.make_node("ReduceL1", [rows], [total], total, axes=[1], keepdims=0)]
    numbers.append(numpy_helper.from_array(np.array([1], np.int64), f"{total}/axis"))
    return [*nodes, helper.make_node("ReduceL1", [rows, f"{total}/axis"], [total], total, keepdims=0)]


def _least_row(node: NodeProto, row: str, numbers: list[TensorProto], version: int) -> list[NodeProto]:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
    tops, least = f"{row}/tops", helper.make_node("ReduceMin", [f"{row}/tops"], [row], row, keepdims=0)
    if version < _FIRST_AXES_AS_INPUT:
        return [helper.make_node("ReduceMax", [node.input[0]], [tops], tops, axes=[axis], keepdims=0), least]
    numbers.append(numpy_helper.from_array(np.array([axis], np.int64), f"{row}/axis"))
    return [helper.make_node("ReduceMax", [node.input[0], f"{row}/axis"], [tops], tops, keepdims=0), least]
