"""Pairing: the fp32 graph and the lowered one as a single graph that measures how far apart their tensors are.

Each tensor is compared as soon as both halves have made it, and only sums of squares leave the graph: what is in memory
are the tensors that are still to be read, as in a plain run, and never all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, ValueInfoProto, helper

from pytest_trt.errors import LoweringError
from pytest_trt.evidence._isolation import isolated_nodes
from pytest_trt.lowering.weights import masks_of
from pytest_trt.model.graph import copy_at_opset, element_types, float_activations, graphs, opset, tensor_shapes
from pytest_trt.model.model import Model, tensor_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from onnx import ModelProto, NodeProto

    from pytest_trt.evidence._isolation import Isolated

__all__ = ["NEVER", "Pair", "Tensor", "paired"]

Shape = tuple[int | str | None, ...]

NEVER = -1e4
"""What is added to a score and lies below it leaves nothing of the softmax: converters clamp such values to fp16, this
one or lower."""

_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Tensor:
    """A float tensor that both graphs have.

    Attributes:
        name: in the fp32 graph, and of that half in the pair.
        node: the node that makes it: its name, or the tensor's where it has none; empty for an input.
        op: its operator; empty for an input.
        reads: the tensors that node reads.
        readers: the nodes that read the tensor.
        lowered: its name in the lowered half.
        rounded: what the lowered graph's own rounding (Q/DQ, or a cast down and up) makes of the fp32 tensor; None
            where the lowered graph does not round it.
        alone: what the lowered node makes of exact inputs; None where that can't be had, or is the tensor itself.
        same: whether the lowered node computes it just so from exact inputs: nothing that is stored is read on the way.
        masking: whether it is added to the scores of a softmax, where a value far below zero means "never".
        signal, error, noise, own: the pair's outputs: sums of squares of the fp32 tensor, of what the lowered one
            differs by (None where it has another shape), and of what ``rounded`` and ``alone`` differ by (None where
            these are).
    """

    name: str
    node: str
    op: str
    reads: tuple[str, ...]
    readers: tuple[str, ...]
    lowered: str
    rounded: str | None
    alone: str | None
    same: bool
    masking: bool
    signal: str
    error: str | None
    noise: str | None
    own: str | None


@dataclass(frozen=True, eq=False)
class Pair:
    """Both graphs in one.

    Attributes:
        model: takes the inputs of both, and gives the sums out.
        tensors: what is compared, in the fp32 graph's order.
        prefix: of all names of the lowered half.
    """

    model: Model
    tensors: tuple[Tensor, ...]
    prefix: str

    def give(self, names: Iterable[str]) -> None:
        """Let the pair give these tensors out, and nothing else."""
        del self.model.proto.graph.output[:]
        self.model.proto.graph.output.extend(ValueInfoProto(name=name) for name in names)


def paired(reference: Model, lowered: Model) -> Pair:
    """Both graphs side by side; neither is changed.

    Args:
        reference: fp32.
        lowered: the same network as it is simulated: with Q/DQ, or a cast sandwich. Tensors go by their names, which
            lowering keeps.

    Raises:
        LoweringError: the two have no tensor in common, or can't be brought to one opset.
    """
    least = max(opset(reference.proto), opset(lowered.proto))
    pair, other = copy_at_opset(reference.proto, least), copy_at_opset(lowered.proto, least)
    taken = tensor_names(pair) | tensor_names(other)
    prefix, measured = _free("lowered:", taken), _free("measured:", taken)
    roundings, isolated = _roundings(other, set(tensor_names(pair))), isolated_nodes(pair, other)
    tensors = _tensors(pair, other, roundings, isolated, prefix, measured)
    if not tensors:
        raise LoweringError(
            f"{reference.source} and {lowered.source} have no tensor name in common, so that nothing can be compared"
            " between them: lower the very file that is named as the reference."
        )
    _set_apart(other, prefix)
    _merge(pair, other, tensors, roundings, isolated)
    found = Pair(Model(pair, f"{reference.source} beside its lowered graph"), tensors, prefix)
    found.give(name for tensor in tensors for name in (tensor.signal, tensor.error, tensor.noise, tensor.own) if name)
    return found


def _free(wish: str, taken: set[str]) -> str:
    while any(name.startswith(wish) for name in taken):
        wish = f"_{wish}"
    return wish


def _roundings(lowered: ModelProto, known: set[str]) -> dict[str, tuple[NodeProto, NodeProto]]:
    """By the fp32 graph's tensor: the two nodes that round it, down and up."""
    readers: dict[str, list[NodeProto]] = {}
    for node in lowered.graph.node:
        for name in node.input[:1]:
            readers.setdefault(name, []).append(node)
    found: dict[str, tuple[NodeProto, NodeProto]] = {}
    for down in lowered.graph.node:
        if not _narrows(down):
            continue
        up = next((node for node in readers.get(down.output[0], []) if _widens(node, down)), None)
        tensor = next((name for name in (down.input[0], up.output[0] if up else "") if name in known), None)
        if up is not None and tensor is not None:
            found.setdefault(tensor, (down, up))
    return found


def _narrows(node: NodeProto) -> bool:
    return node.op_type == "QuantizeLinear" or (node.op_type == "Cast" and node.attribute[0].i in _NARROW)


def _widens(node: NodeProto, down: NodeProto) -> bool:
    if down.op_type == "QuantizeLinear":
        return node.op_type == "DequantizeLinear"
    return node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT


def _tensors(
    reference: ModelProto,
    lowered: ModelProto,
    roundings: Mapping[str, object],
    isolated: Mapping[str, Isolated],
    prefix: str,
    measured: str,
) -> tuple[Tensor, ...]:
    types, held = element_types(lowered), _defined(lowered)
    shapes, masks = (tensor_shapes(reference), tensor_shapes(lowered)), masks_of(reference.graph)
    makers = {name: node for node in reference.graph.node for name in node.output}
    readers: dict[str, list[str]] = {}
    for node in reference.graph.node:
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(_called(node))
    found = []
    for name in float_activations(reference):
        if name not in held or types.get(name) != TensorProto.FLOAT:
            continue
        maker, rounds, alone = _maker(makers.get(name), makers, held), name in roundings, isolated.get(name)
        differs = _differ(*(told.get(name) for told in shapes))
        measurable = alone is not None and not alone.same and not differs
        found.append(
            Tensor(
                name=name,
                node=_called(maker) if maker else "",
                op=maker.op_type if maker else "",
                reads=tuple(_paired_before(maker, makers, held)) if maker else (),
                readers=tuple(readers.get(name, ())),
                lowered=f"{prefix}{name}",
                rounded=f"{measured}{name}/rounded" if rounds else None,
                alone=f"{measured}{name}/alone" if measurable else None,
                same=alone is not None and alone.same and not differs,
                masking=name in masks,
                signal=f"{measured}{name}/signal",
                error=None if differs else f"{measured}{name}/error",
                noise=f"{measured}{name}/noise" if rounds else None,
                own=f"{measured}{name}/own" if measurable else None,
            )
        )
    return tuple(found)


def _maker(node: NodeProto | None, makers: Mapping[str, NodeProto], held: set[str]) -> NodeProto | None:
    """The node that makes a tensor: the convolution, where lowering folded what follows it into its weights."""
    if node is None or node.op_type != "BatchNormalization" or node.input[0] in held:
        return node
    return makers.get(node.input[0], node)


def _paired_before(node: NodeProto, makers: Mapping[str, NodeProto], held: set[str], depth: int = 8) -> Iterator[str]:
    """What a node reads; in place of tensors that the lowered graph has not, what these are made from."""
    for name in filter(None, node.input):
        if name in held or name not in makers or not depth:
            yield name
        else:
            yield from _paired_before(makers[name], makers, held, depth - 1)


def _differ(first: Shape | None, second: Shape | None) -> bool:
    """Whether two shapes can't be those of one tensor, as far as they are known."""
    if first is None or second is None:
        return False
    pairs = zip(first, second, strict=False)
    return len(first) != len(second) or any(a != b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def _defined(model: ModelProto) -> set[str]:
    """Tensors of the graph itself, those of its subgraphs left out."""
    return _fed(model) | {name for node in model.graph.node for name in node.output}


def _fed(model: ModelProto) -> set[str]:
    return {value.name for value in model.graph.input} | {tensor.name for tensor in model.graph.initializer}


def _called(node: NodeProto) -> str:
    return node.name or next(filter(None, node.output), "")


def _set_apart(model: ModelProto, prefix: str) -> None:
    """Give all that the graph names a prefix, in subgraphs too."""
    for graph in graphs(model.graph):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            value.name = f"{prefix}{value.name}"
        for tensor in graph.initializer:
            tensor.name = f"{prefix}{tensor.name}"
        for sparse in graph.sparse_initializer:
            sparse.values.name = f"{prefix}{sparse.values.name}"
        for node in graph.node:
            node.name = node.name and f"{prefix}{node.name}"
            node.input[:] = [name and f"{prefix}{name}" for name in node.input]
            node.output[:] = [name and f"{prefix}{name}" for name in node.output]


def _merge(
    pair: ModelProto,
    other: ModelProto,
    tensors: tuple[Tensor, ...],
    roundings: Mapping[str, tuple[NodeProto, NodeProto]],
    isolated: Mapping[str, Isolated],
) -> None:
    """Put the second graph's nodes between those of the first, each as early as its counterpart."""
    nodes = list(_interleaved(pair, other, tensors, roundings, isolated))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del pair.graph.node[:]
    pair.graph.node.extend(copies)
    pair.graph.input.extend(other.graph.input)
    pair.graph.initializer.extend(other.graph.initializer)
    pair.graph.sparse_initializer.extend(other.graph.sparse_initializer)
    known = {entry.domain for entry in pair.opset_import}
    pair.opset_import.extend(entry for entry in other.opset_import if entry.domain not in known)
    pair.ir_version = max(pair.ir_version, other.ir_version)


def _interleaved(
    pair: ModelProto,
    other: ModelProto,
    tensors: tuple[Tensor, ...],
    roundings: Mapping[str, tuple[NodeProto, NodeProto]],
    isolated: Mapping[str, Isolated],
) -> Iterator[NodeProto]:
    by_name = {tensor.name: tensor for tensor in tensors}
    made = _fed(other)
    left = iter(other.graph.node)
    for tensor in (by_name[value.name] for value in pair.graph.input if value.name in by_name):
        yield from _measures(tensor, roundings)
    for node in pair.graph.node:
        yield node
        for tensor in (by_name[name] for name in node.output if name in by_name):
            while tensor.lowered not in made:
                following = next(left)
                made.update(following.output)
                yield following
            yield from _measures(tensor, roundings)
            yield from _alone(tensor, isolated)
    yield from left


def _measures(tensor: Tensor, roundings: Mapping[str, tuple[NodeProto, NodeProto]]) -> Iterator[NodeProto]:
    exact = _exact(tensor)
    if tensor.masking:
        yield from _limited(tensor.name, exact)
    yield _squares(exact, tensor.signal)
    if tensor.error is not None:
        yield from _differences(tensor, exact, tensor.lowered, tensor.error)
    if tensor.rounded is None or tensor.noise is None:
        return
    down, up = (onnx.NodeProto.FromString(node.SerializeToString()) for node in roundings[tensor.name])
    narrow = f"{tensor.rounded}/narrow"
    for node, source, target in ((down, tensor.name, narrow), (up, narrow, tensor.rounded)):
        node.name, node.input[0], node.output[0] = target, source, target
        yield node
    yield from _differences(tensor, exact, tensor.rounded, tensor.noise, finite=True)


def _exact(tensor: Tensor) -> str:
    return f"{tensor.signal}/limited" if tensor.masking else tensor.name


def _alone(tensor: Tensor, isolated: Mapping[str, Isolated]) -> Iterator[NodeProto]:
    """The lowered node once more, on exact inputs."""
    if tensor.alone is not None and tensor.own is not None:
        yield isolated[tensor.name].on_exact_inputs(tensor.alone)
        yield from _differences(tensor, _exact(tensor), tensor.alone, tensor.own)


def _differences(tensor: Tensor, exact: str, other: str, target: str, *, finite: bool = False) -> Iterator[NodeProto]:
    if tensor.masking:
        yield from _limited(other, f"{target}/limited", finite=finite)
        other = f"{target}/limited"
    yield helper.make_node("Sub", [exact, other], [f"{target}/each"])
    yield _squares(f"{target}/each", target)


def _limited(source: str, target: str, *, finite: bool = False) -> Iterator[NodeProto]:
    """A mask's values that mean "never" as one value, so that clamping them is no error; infinities stay, or go too."""
    never = helper.make_tensor("", TensorProto.FLOAT, [], [NEVER])
    yield helper.make_node("Constant", [], [f"{target}/never"], value=never)
    if finite:
        yield helper.make_node("Max", [source, f"{target}/never"], [target])
        return
    yield helper.make_node("Max", [source, f"{target}/never"], [f"{target}/finite"])
    yield helper.make_node("IsInf", [source], [f"{target}/infinite"])
    yield helper.make_node("Where", [f"{target}/infinite", source, f"{target}/finite"], [target])


def _squares(source: str, target: str) -> NodeProto:
    return helper.make_node("ReduceSumSquare", [source], [target], keepdims=0)
