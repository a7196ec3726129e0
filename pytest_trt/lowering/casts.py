"""fp16, bf16 and tf32: rounding written into the graph.

onnxruntime's own fp16 graphs compute in fp32 on the CPU and hide overflow, so a simulated fp16 or bf16 is a
*sandwich*: stored weights are rounded, and every float tensor is cast down and up again, while the arithmetic
stays fp32 - as a matrix unit multiplies fp16 and adds in fp32. TensorRT takes the *typed* graph instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.errors import LoweringError
from pytest_trt.lowering.graph import (
    MATRIX_OPERANDS,
    Operands,
    array_of,
    constants,
    copy_at_opset,
    drop_unread,
    element_types,
    fresh,
    graphs,
    is_standard,
    opset,
    require_type,
    rewrite_operands,
)
from pytest_trt.model import nodes_of, tensors_of
from pytest_trt.normalise import sort_nodes
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

__all__ = ["bf16_sandwich", "bf16_typed", "fp16_sandwich", "fp16_typed", "fp32_ends", "round_to_tf32", "tf32_emulated"]

_Round = Callable[["NDArray[np.float32]"], "NDArray[np.float32]"]

_TF32_OPERANDS: Operands = {
    **MATRIX_OPERANDS,
    "Einsum": tuple(range(16)),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), (0, 1, 2)),
}

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

_FIRST_BF16_CAST = 13
_FIRST_BF16_EVERYWHERE = 22  # Conv and pooling were the last


def fp16_sandwich(model: ModelProto) -> ModelProto:
    """fp32 -> fp16 rounding of weights, inputs and every float tensor; overflow becomes infinity.

    Raises:
        LoweringError: the type of a tensor can't be inferred.
    """
    copy = copy_at_opset(model, 0)
    return _sandwich(copy, TensorProto.FLOAT16, Precision.FP16, _to_fp16)


def bf16_sandwich(model: ModelProto) -> ModelProto:
    """fp32 -> bf16 rounding of weights, inputs and every float tensor.

    Raises:
        LoweringError: the type of a tensor can't be inferred, or the opset can't be raised to 13.
    """
    copy = copy_at_opset(model, _FIRST_BF16_CAST)
    return _sandwich(copy, TensorProto.BFLOAT16, Precision.BF16, _to_bf16)


def fp16_typed(model: ModelProto) -> ModelProto:
    """The graph in fp16 itself, inputs and outputs kept in fp32: what a strongly typed TensorRT takes.

    Converted by onnxruntime's float16 tool, which clamps what fp16 can't hold; that is right for the masks of
    attention, and anything else beyond fp16 is refused here.

    Raises:
        LoweringError: a weight is beyond fp16's largest value.
    """
    copy = copy_at_opset(model, 0)
    _require_types(copy)
    masks = _masks(copy.graph)
    for name, tensor in constants(copy).items():
        if tensor.data_type == TensorProto.FLOAT and name not in masks:
            _require_fp16(name, array_of(tensor))
    # rounded here, because the tool would lift what rounds to zero to its smallest value
    _round_stored(copy, _kept(copy.graph), _to_fp16, Precision.FP16.largest)
    return _sound(_converted_by_onnxruntime(copy), "fp16")


def bf16_typed(model: ModelProto) -> ModelProto:
    """The graph in bf16 itself, inputs and outputs kept in fp32: what a strongly typed TensorRT takes.

    The way of :func:`fp16_typed`, every fp16 then turned into bf16 and the weights rounded from their fp32 values.
    In the newest opset up to 22 that onnx can convert to: there ONNX allows bf16 everywhere, and TensorRT does in all.

    Raises:
        LoweringError: the type of a tensor can't be inferred, or the opset can't be raised to 13.
    """
    copy = _where_bf16_is_allowed(model)
    _require_types(copy)
    _round_stored(copy, _kept(copy.graph), _to_bf16, Precision.BF16.largest)
    values = _values_by_new_name(copy)
    typed = _converted_by_onnxruntime(copy)
    for tensor in tensors_of(typed.graph):
        if tensor.data_type == TensorProto.FLOAT16:
            array = values.get(tensor.name, array_of(tensor))
            tensor.CopyFrom(numpy_helper.from_array(array.astype(ml_dtypes.bfloat16), tensor.name))
    for graph in graphs(typed.graph):
        _turn_into_bf16(graph)
    return _sound(typed, "bf16")


def _where_bf16_is_allowed(model: ModelProto) -> ModelProto:
    """A copy in the newest opset that its operators convert to, and not newer than needed."""
    for version in range(_FIRST_BF16_EVERYWHERE, max(_FIRST_BF16_CAST, opset(model)), -1):
        try:
            return copy_at_opset(model, version)
        except LoweringError:
            continue
    return copy_at_opset(model, _FIRST_BF16_CAST)


def _require_types(model: ModelProto) -> None:
    types = element_types(model)
    for graph in graphs(model.graph):
        for node in graph.node:
            for output in filter(None, node.output):
                require_type(output, node, types)


def _values_by_new_name(model: ModelProto) -> dict[str, NDArray[Any]]:
    """The fp32 values of all stored tensors; those in attributes get names, which say nothing there, to be found by."""
    name = fresh(model)
    for node in nodes_of(model.graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                attribute.t.name = name("trt/stored")
    return {t.name: array_of(t) for t in tensors_of(model.graph) if t.data_type == TensorProto.FLOAT}


def _turn_into_bf16(graph: GraphProto) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    for attribute in [attribute for node in graph.node for attribute in node.attribute]:
        if attribute.name in ("to", "dtype", "output_dtype") and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.BFLOAT16


def _sound(typed: ModelProto, label: str) -> ModelProto:
    sort_nodes(typed.graph)
    try:
        onnx.checker.check_model(typed)
    except onnx.checker.ValidationError as error:
        if "No Op registered" not in str(error):  # of an operator older than ONNX's own, which reading the file allowed
            raise LoweringError(f"the typed {label} graph is not valid ONNX: {' '.join(str(error).split())}") from error
    return typed


def _converted_by_onnxruntime(copy: ModelProto) -> ModelProto:
    """Typed fp16 by onnxruntime's tool, except for what tells sizes and thresholds: that stays in fp32."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    kept, types = _kept(copy.graph), element_types(copy)
    sizes = {tensor for tensor in kept if types.get(tensor) == TensorProto.FLOAT}
    makers = [node for node in copy.graph.node if kept.intersection(node.output)]
    blocked = _named_once(copy, [node for node in makers if sizes.intersection([*node.input, *node.output])])
    try:
        converted = convert_float_to_float16(
            copy, keep_io_types=True, op_block_list=DEFAULT_OP_BLOCK_LIST, node_block_list=blocked
        )
    except Exception as error:  # the tool asserts and raises as it comes
        text = " ".join(str(error).split()) or type(error).__name__
        raise LoweringError(f"onnxruntime's float16 tool can't convert the graph: {text}") from error
    found = copy if converted is None else converted
    _pass_by_casts(found.graph, sizes)
    return found


def _named_once(model: ModelProto, nodes: list[NodeProto]) -> list[str]:
    """The names of these nodes, new where they had none or shared it: the tool goes by names."""
    taken = Counter(node.name for node in nodes_of(model.graph))
    name = fresh(model)
    for node in nodes:
        if not node.name or taken[node.name] > 1:
            node.name = name(f"trt/kept/{node.output[0]}")
    return [node.name for node in nodes]


def _pass_by_casts(graph: GraphProto, sizes: set[str]) -> None:
    """Between two nodes left in fp32 the tool casts down and up again: read what was there before the two casts."""
    casts = {node.output[0]: (node, _cast_to(node)) for node in graph.node if node.op_type == "Cast"}
    needless: list[NodeProto] = []
    for node in graph.node:
        for index, tensor in enumerate(node.input):
            up, to = casts.get(tensor, (None, 0))
            down, below = casts.get(up.input[0], (None, 0)) if up is not None else (None, 0)
            pair = (to, below) == (TensorProto.FLOAT, TensorProto.FLOAT16)
            if pair and up is not None and down is not None and down.output[0] in sizes:
                node.input[index] = down.input[0]
                needless += [up, down]
    for node in needless:
        read = {tensor for part in graphs(graph) for other in part.node for tensor in other.input}
        read |= {value.name for part in graphs(graph) for value in part.output}
        if node.output[0] not in read and node in graph.node:
            graph.node.remove(node)


def _cast_to(node: NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "to"), 0)


def tf32_emulated(model: ModelProto) -> ModelProto:
    """Operands of matrix products (Conv, ConvTranspose, Gemm, MatMul, Einsum, RNNs) rounded to TF32's 10 stored bits.

    Weights are rounded to nearest even. Activations are rounded in the graph by Veltkamp's splitting
    (c = (2^13 + 1) x; c - (c - x)); one beyond 2^114 would overflow in it and becomes NaN, which fails.

    Raises:
        LoweringError: there is no matrix product in fp32, or the type of an operand is not known.
    """
    copy = copy_at_opset(model, 0)
    types, held, name = element_types(copy), constants(copy), fresh(copy)
    factor = name("trt/veltkamp")
    rounded: dict[tuple[str, tuple[int, ...]], tuple[str, list[NodeProto]]] = {}

    def source(node: NodeProto, index: int, scope: tuple[int, ...]) -> tuple[str, list[NodeProto]] | None:
        tensor = node.input[index]
        if require_type(tensor, node, types) != TensorProto.FLOAT:
            return None
        key = (tensor, scope)
        if key not in rounded and tensor in held:
            rounded[key] = (_store(copy, name(f"{tensor}/tf32"), round_to_tf32(array_of(held[tensor]))), [])
        elif key not in rounded:
            rounded[key] = _veltkamp(tensor, factor, name)
        return rounded[key]

    if not rewrite_operands(copy.graph, _TF32_OPERANDS, source):
        raise LoweringError(
            f"tf32 would change nothing here: the model has no {', '.join(MATRIX_OPERANDS)} on fp32 tensors."
        )
    _store(copy, factor, np.array(2.0**13 + 1, np.float32))
    drop_unread(copy)
    return copy


def fp32_ends(model: ModelProto) -> ModelProto:
    """Inputs and outputs of bf16 or fp8 turned into fp32 by a Cast, since numpy can't hand them to onnxruntime.

    Their values are rounded to the narrow type still; a model without such ends is returned as it is.
    """
    held = {tensor.name for tensor in model.graph.initializer}
    ends = [v for v in (*model.graph.input, *model.graph.output) if v.name not in held and _is_narrow(v)]
    if not ends:
        return model
    copy = copy_at_opset(model, _FIRST_BF16_CAST)
    name = fresh(copy)
    for value in copy.graph.input:
        if value.name not in held and _is_narrow(value):
            inner = name(f"{value.name}/narrow")
            _read_instead(copy.graph, value.name, inner)
            copy.graph.node.insert(0, _cast(value.name, inner, value.type.tensor_type.elem_type))
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for value in copy.graph.output:
        if _is_narrow(value):
            outer = name(f"{value.name}/fp32")
            copy.graph.node.append(_cast(value.name, outer, TensorProto.FLOAT))
            value.name, value.type.tensor_type.elem_type = outer, TensorProto.FLOAT
    return copy


def round_to_tf32(array: NDArray[Any]) -> NDArray[np.float32]:
    """fp32 values with 10 stored bits of the significand, rounded to nearest even; NaN and Inf stay."""
    values = np.ascontiguousarray(array, np.float32)
    bits = values.view(np.uint32).astype(np.uint64)
    even = (bits >> np.uint64(13)) & np.uint64(1)
    nearest = ((bits + np.uint64(0xFFF) + even) & np.uint64(0xFFFFE000)).astype(np.uint32)
    return np.where(np.isfinite(values), nearest.view(np.float32), values).reshape(np.shape(array))


def _to_fp16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.astype(np.float16).astype(np.float32)


def _to_bf16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def _sandwich(copy: ModelProto, to: int, precision: Precision, rounding: _Round) -> ModelProto:
    types, name = element_types(copy), fresh(copy)
    kept = _kept(copy.graph)
    _round_stored(copy, kept, rounding, precision.largest)
    for graph in graphs(copy.graph):
        _round_computed(graph, types, kept, to, precision.label, name)
    _round_inputs(copy.graph, types, kept, to, precision.label, name)
    return copy


def _kept(graph: GraphProto) -> set[str]:
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


def _round_stored(model: ModelProto, kept: set[str], rounding: _Round, largest: float) -> None:
    """Round stored values and fillings; what is beyond the largest value becomes infinite, but masks are clamped."""
    masks = _masks(model.graph)
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
                tensor.CopyFrom(numpy_helper.from_array(rounding(array), tensor.name))


def _masks(graph: GraphProto) -> set[str]:
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


def _round_computed(
    graph: GraphProto, types: dict[str, int], kept: set[str], to: int, label: str, name: Callable[[str], str]
) -> None:
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type in ("Constant", "Identity"):
            continue  # values stored (rounded above) or passed on
        for index, output in enumerate(node.output):
            if not output or output in kept or require_type(output, node, types) != TensorProto.FLOAT:
                continue
            exact = name(f"{output}/exact")
            node.output[index] = exact
            nodes.extend(_cast_pair(exact, output, to, label, name))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _round_inputs(
    graph: GraphProto, types: dict[str, int], kept: set[str], to: int, label: str, name: Callable[[str], str]
) -> None:
    held = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name in held | kept or types.get(value.name) != TensorProto.FLOAT:
            continue
        rounded = name(f"{value.name}/{label}")
        _read_instead(graph, value.name, rounded)
        for position, node in enumerate(_cast_pair(value.name, rounded, to, label, name)):
            graph.node.insert(position, node)


def _read_instead(graph: GraphProto, old: str, new: str) -> None:
    for part in graphs(graph):
        for node in part.node:
            node.input[:] = [new if tensor == old else tensor for tensor in node.input]


def _is_narrow(value: onnx.ValueInfoProto) -> bool:
    kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    return kind == "BFLOAT16" or kind.startswith("FLOAT8")


def _cast(source: str, target: str, to: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], f"{target}/cast", to=to)


def _cast_pair(source: str, target: str, to: int, label: str, name: Callable[[str], str]) -> list[NodeProto]:
    low = name(f"{target}/{label}")
    return [
        helper.make_node("Cast", [source], [low], f"{target}/to_{label}", to=to),
        helper.make_node("Cast", [low], [target], f"{target}/to_fp32", to=TensorProto.FLOAT),
    ]


def _veltkamp(tensor: str, factor: str, name: Callable[[str], str]) -> tuple[str, list[NodeProto]]:
    scaled, rest, high = (name(f"{tensor}/{part}") for part in ("tf32_scaled", "tf32_rest", "tf32"))
    return high, [
        helper.make_node("Mul", [tensor, factor], [scaled], scaled),
        helper.make_node("Sub", [scaled, tensor], [rest], rest),
        helper.make_node("Sub", [scaled, rest], [high], high),
    ]


def _store(model: ModelProto, name: str, array: NDArray[Any]) -> str:
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def _require_fp16(name: str, values: NDArray[Any]) -> None:
    finite = values[np.isfinite(values)]
    largest = float(np.abs(finite).max(initial=0.0))
    if largest > Precision.FP16.largest:
        raise LoweringError(
            f"weight {name!r} holds {largest:.6g}, beyond fp16's largest value {Precision.FP16.largest:.0f}:"
            " scale it, or keep its layer in fp32 or bf16."
        )
