"""Coverage: the share of a network's multiply-adds, and of its weights, that runs at the precision in question."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from onnx import ModelProto, TensorProto

from pytest_trt.evidence._qdq_file import PASSED, fixed_of, is_operator
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.lowering.placement import kept_in_fp32, placement_of
from pytest_trt.model.external_data import LEAST, without_weights
from pytest_trt.model.feeds import split
from pytest_trt.model.graph import MATRIX_OPERANDS, RECURRENT, constants, element_types, is_standard, tensor_shapes
from pytest_trt.model.model import nodes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from onnx import NodeProto

    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model
    from pytest_trt.precision import Precision

__all__ = ["Coverage", "coverage_at"]

_NARROW = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_PACKED = "MatMulNBits"  # onnxruntime's, whose weights have 2, 4 or 8 bits

Shape = tuple[int | str | None, ...]


@dataclass(frozen=True)
class Coverage:
    """What of the matrix operators (Conv, ConvTranspose, MatMul, Gemm, LSTM, GRU, RNN) runs at a precision.

    Attributes:
        precision: by name.
        operators: how many there are.
        reached: how many of them run at it.
        weights: how many weights they store.
        reached_weights: how many of those are of operators that run at it.
        macs: how many multiply-adds one run of the golden takes; None where shapes do not tell.
        reached_macs: how many of those run at it.
        left_out: the operators that do not, the largest first, by name or by what they compute.
        kept: the share that the case itself keeps in fp32, of multiply-adds, or else of weights.
    """

    precision: str
    operators: int
    reached: int
    weights: int
    reached_weights: int
    macs: int | None
    reached_macs: int | None
    left_out: tuple[str, ...] = ()
    kept: float = 0.0

    @property
    def share(self) -> float | None:
        """Of the multiply-adds, or where nobody knows them of the weights; None where there are neither."""
        if self.macs:
            return (self.reached_macs or 0) / self.macs
        return self.share_of_weights

    @property
    def share_of_weights(self) -> float | None:
        """Of the weights; None where none is stored."""
        return self.reached_weights / self.weights if self.weights else None

    @property
    def share_of_asked(self) -> float | None:
        """Of what the case does not keep in fp32 itself; None where it keeps all, or nothing is known."""
        return self.share / (1 - self.kept) if self.share is not None and self.kept < 1 else None


@dataclass(frozen=True)
class _Operator:
    name: str
    weights: int
    macs: int | None
    at: bool
    kept: bool


def coverage_at(
    model: Model,
    precision: Precision,
    inputs: Arrays,
    keep: Iterable[str] = (),
    ops: Iterable[str] = (),
    batch: int | None = None,
) -> Coverage | None:
    """What of a model runs at a precision, by the graph that it is lowered to.

    Args:
        model: fp32, or a file that holds the precision.
        precision: that was asked.
        inputs: of the golden, whose shapes tell how much an operator multiplies.
        keep: nodes that stay in fp32.
        ops: kinds of operators that are lowered.
        batch: the most samples at once.

    Returns:
        None for fp32, and for files of operators that hold quantised values without Q/DQ.

    Raises:
        LoweringError: the model can't be lowered to the precision.
    """
    held = held_precision(model.proto)
    label = held if held != "fp32" else precision.label
    if label in ("fp32", "model"):
        return None
    kept = kept_in_fp32(model.proto, precision, keep, ops) if held == "fp32" else frozenset(keep)
    at = _at_own(model.proto, precision, kept) if held == "fp32" else _at_held(model.proto, held)
    if at is None:
        return None
    shapes = _shapes(model.proto, next(split(inputs, model.inputs, batch)))
    return _summed(label, list(_operators(model.proto, shapes, at, kept)))


def _summed(label: str, found: list[_Operator]) -> Coverage:
    told = all(one.macs is not None for one in found)
    sizes = {id(one): (one.macs or 0) if told else one.weights for one in found}
    whole = sum(sizes.values())
    left = sorted((one for one in found if not one.at), key=lambda one: -sizes[id(one)])
    return Coverage(
        precision=label,
        operators=len(found),
        reached=sum(one.at for one in found),
        weights=sum(one.weights for one in found),
        reached_weights=sum(one.weights for one in found if one.at),
        macs=whole if told else None,
        reached_macs=sum(one.macs or 0 for one in found if one.at) if told else None,
        left_out=tuple(one.name for one in left),
        kept=sum(sizes[id(one)] for one in left if one.kept) / whole if whole else 0.0,
    )


def _at_own(proto: ModelProto, precision: Precision, kept: frozenset[str]) -> Callable[[NodeProto], bool]:
    """Where we lower it ourselves: operands that get Q/DQ, or for floats all nodes that are not kept."""
    if not precision.takes_ranges:
        return lambda node: not kept.intersection(node.output)
    operands = placement_of(proto, kept).operands
    return lambda node: node.op_type in MATRIX_OPERANDS and {(node.output[0], 0), (node.output[0], 1)} <= operands


def _at_held(proto: ModelProto, held: str) -> Callable[[NodeProto], bool] | None:
    """In a file: operands out of a DQ (of weights alone, where nothing else has Q/DQ), of the type, or cast from it."""
    nodes = list(nodes_of(proto.graph))
    if held in _NARROW:
        types = element_types(proto)
        rounded = {
            node.output[0] for node in nodes if node.op_type == "Cast" and types.get(node.input[0]) == _NARROW[held]
        }
        return lambda node: types.get(node.input[0]) == _NARROW[held] or node.input[0] in rounded
    if not any(is_operator(node, "DequantizeLinear") or node.op_type == _PACKED for node in nodes):
        return None
    made = {name: node for node in nodes for name in node.output if name}
    fixed = fixed_of(proto)
    moving = any(is_operator(node, "QuantizeLinear") and node.input[0] not in fixed for node in nodes)
    needed = all if moving else any
    return lambda node: (
        node.op_type == _PACKED
        or (
            node.op_type in (*MATRIX_OPERANDS, "Einsum") and needed(_dequantised(name, made) for name in node.input[:2])
        )
    )


def _dequantised(tensor: str, made: Mapping[str, NodeProto]) -> bool:
    node = made.get(tensor)
    while node is not None and node.op_type in PASSED:
        node = made.get(node.input[0])
    return node is not None and is_operator(node, "DequantizeLinear")


def _operators(
    proto: ModelProto, shapes: Mapping[str, Shape], at: Callable[[NodeProto], bool], kept: frozenset[str]
) -> Iterator[_Operator]:
    fixed = fixed_of(proto)
    for node in nodes_of(proto.graph):
        own = bool(kept.intersection((node.name, *node.output)))
        if node.op_type == _PACKED:
            rows, columns = (next((a.i for a in node.attribute if a.name == name), 0) for name in ("N", "K"))
            macs = _times(_size(shapes.get(node.input[0])), rows)
            yield _Operator(node.name or node.output[0], rows * columns, macs, at(node), own)
        if node.op_type not in (*MATRIX_OPERANDS, *RECURRENT, "Einsum") or not is_standard(node):
            continue
        places = (1, 2) if node.op_type in RECURRENT else range(min(len(node.input), 2))
        stored = [_size(shapes.get(node.input[place])) or 0 for place in places if node.input[place] in fixed]
        yield _Operator(node.name or node.output[0], sum(stored), _macs(node, shapes), at(node), own)


def _macs(node: NodeProto, shapes: Mapping[str, Shape]) -> int | None:
    """How many multiply-adds a node takes; None where a shape is not known."""
    if node.op_type == "Einsum":
        return _einsum_macs(node, [shapes.get(name) for name in node.input])
    first, second = (shapes.get(name) for name in node.input[:2])
    output = _size(shapes.get(node.output[0]))
    if node.op_type in RECURRENT:
        state, steps = _size(shapes.get(node.input[2])), _size(first[:2] if first else None)
        weights = _size(second)
        return None if state is None or steps is None or weights is None else steps * (weights + state)
    if node.op_type == "ConvTranspose":
        return _times(_size(first), _size(second[1:] if second else None))
    if node.op_type == "Conv":
        return _times(output, _size(second[1:] if second else None))
    across = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return _times(output, _size((first[0] if across else first[-1],) if first else None))


def _einsum_macs(node: NodeProto, shapes: Sequence[Shape | None]) -> int | None:
    """The product of the lengths of all axes that its equation names; none where these are dots, or of other axes."""
    equation = next((a.s.decode() for a in node.attribute if a.name == "equation"), "").replace(" ", "")
    lengths: dict[str, int | str | None] = {}
    for labels, shape in zip(equation.partition("->")[0].split(","), shapes, strict=False):
        if shape is None or len(labels) != len(shape) or "." in labels:
            return None
        lengths.update(zip(labels, shape, strict=True))
    return _size(tuple(lengths.values()))


def _times(*sizes: int | None) -> int | None:
    return None if None in sizes else prod(size for size in sizes if size is not None)


def _size(shape: Shape | None) -> int | None:
    """How many elements; None where an axis is not known."""
    sizes = [axis for axis in shape if isinstance(axis, int)] if shape is not None else []
    return prod(sizes) if shape is not None and len(sizes) == len(shape) else None


def _shapes(proto: ModelProto, inputs: Arrays) -> dict[str, Shape]:
    """Shapes of all tensors for these inputs, from the graph without its large stored tensors."""
    held = constants(proto)
    light = without_weights(proto, LEAST)
    for value in light.graph.input:
        if value.name in inputs:
            value.type.tensor_type.shape.Clear()
            for size in inputs[value.name].shape:
                value.type.tensor_type.shape.dim.add().dim_value = size
    for value in light.graph.output:
        value.type.tensor_type.ClearField("shape")
    return {**tensor_shapes(light), **{name: tuple(tensor.dims) for name, tensor in held.items()}}
