"""Strong typing: fp16 and bf16 as types of the graph itself, inputs and outputs kept in fp32; what TensorRT takes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from pytest_trt.errors import LoweringError
from pytest_trt.lowering.batch_normalization import fold_batch_normalization
from pytest_trt.lowering.weights import masks_of, round_stored, set_aside, sizes_of, to_bf16, to_fp16
from pytest_trt.model.external_data import dtype_of, is_reference, replaced, without_weights
from pytest_trt.model.graph import array_of, constants, copy_at_opset, element_types, fresh, graphs, opset, require_type
from pytest_trt.model.model import nodes_of, tensors_of
from pytest_trt.model.normalise import sort_nodes
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

__all__ = ["bf16_typed", "fp16_typed"]

_FIRST_BF16_CAST = 13
_FIRST_BF16_EVERYWHERE = 22  # Conv and pooling were the last


def fp16_typed(model: ModelProto, kept: frozenset[str] = frozenset()) -> ModelProto:
    """The graph in fp16 itself, inputs and outputs kept in fp32: what a strongly typed TensorRT takes.

    Converted by onnxruntime's float16 tool, which clamps what fp16 can't hold; that is right for the masks of
    attention, and anything else beyond fp16 is refused here.

    Args:
        model: the fp32 graph; not changed.
        kept: what the nodes compute that stay in fp32, weights and all.

    Raises:
        LoweringError: a weight is beyond fp16's largest value, every node is kept, or one inside a subgraph is.
    """
    copy = copy_at_opset(model, 0)
    fold_batch_normalization(copy, kept)
    _require_types(copy)
    own = _set_aside(copy, kept, "fp16")
    masks = masks_of(copy.graph)
    for name, tensor in constants(copy).items():
        if tensor.data_type == TensorProto.FLOAT and name not in masks | own:
            _require_fp16(name, array_of(tensor))
    # rounded here, because the tool would lift what rounds to zero to its smallest value
    round_stored(copy, sizes_of(copy.graph) | own, to_fp16, Precision.FP16.largest)
    return _sound(_converted_by_onnxruntime(copy, kept), "fp16")


def bf16_typed(model: ModelProto, kept: frozenset[str] = frozenset()) -> ModelProto:
    """The graph in bf16 itself, inputs and outputs kept in fp32: what a strongly typed TensorRT takes.

    The way of :func:`fp16_typed`, every fp16 then turned into bf16 and the weights rounded from their fp32 values.
    In the newest opset up to 22 that onnx can convert to: there ONNX allows bf16 everywhere, and TensorRT does in all.

    Args:
        model: the fp32 graph; not changed.
        kept: what the nodes compute that stay in fp32, weights and all.

    Raises:
        LoweringError: the type of a tensor can't be inferred, the opset can't be raised to 13, every node is kept, or
            one inside a subgraph is.
    """
    copy = _where_bf16_is_allowed(model)
    fold_batch_normalization(copy, kept)
    _drop_unused_regions(copy)
    _require_types(copy)
    own = _set_aside(copy, kept, "bf16")
    round_stored(copy, sizes_of(copy.graph) | own, to_bf16, Precision.BF16.largest)
    values = _values_by_new_name(copy)
    typed = _converted_by_onnxruntime(copy, kept)
    for tensor in tensors_of(typed.graph):
        if tensor.data_type == TensorProto.FLOAT16:
            array = values.get(tensor.name, array_of(tensor))
            tensor.CopyFrom(replaced(tensor, array.astype(ml_dtypes.bfloat16)))
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


def _drop_unused_regions(model: ModelProto) -> None:
    """A Resize reads its region only to crop, and ONNX has no bf16 for one."""
    for node in nodes_of(model.graph):
        crops = any(attribute.s == b"tf_crop_and_resize" for attribute in node.attribute)
        if node.op_type == "Resize" and len(node.input) > 1 and not crops:
            node.input[1] = ""


def _set_aside(copy: ModelProto, kept: frozenset[str], label: str) -> set[str]:
    """What is not rounded: the kept nodes' own values, and their fillings."""
    if not kept:
        return set()
    computed = {output for node in copy.graph.node if node.op_type != "Constant" for output in node.output if output}
    strange = sorted(kept - computed)
    if strange:
        raise LoweringError(
            f"the node that computes {strange[0]!r} can't be kept in fp32 in a typed {label} graph: it is inside a"
            " subgraph (If, Loop or Scan), or raising the opset took another in its place. Keep the node around it."
        )
    types = element_types(copy)
    if not any(types.get(tensor) == TensorProto.FLOAT for tensor in computed - kept - sizes_of(copy.graph)):
        raise LoweringError(f"{label} would change nothing here: every node is kept in fp32. Keep fewer.")
    return set_aside(copy, kept, fresh(copy)) | kept


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
        onnx.checker.check_model(without_weights(typed))
    except onnx.checker.ValidationError as error:
        if "No Op registered" not in str(error):  # of an operator older than ONNX's own, which reading the file allowed
            raise LoweringError(f"the typed {label} graph is not valid ONNX: {' '.join(str(error).split())}") from error
    return typed


def _converted_by_onnxruntime(copy: ModelProto, kept: frozenset[str]) -> ModelProto:
    """Typed fp16 by onnxruntime's tool, except for what tells sizes and thresholds or is kept: that stays in fp32."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    told, types = sizes_of(copy.graph), element_types(copy)
    sizes = {tensor for tensor in told if types.get(tensor) == TensorProto.FLOAT}
    makers = [node for node in copy.graph.node if told.intersection(node.output)]
    keepers = [node for node in copy.graph.node if kept.intersection(node.output)]
    staying = set(_named_once(copy, keepers))
    blocked = _named_once(copy, [node for node in makers if sizes.intersection([*node.input, *node.output])])
    passed = _take_out_passed(copy.graph)
    apart = _set_apart(copy)
    try:
        converted = convert_float_to_float16(
            copy,
            keep_io_types=True,
            disable_shape_infer=bool(apart),
            op_block_list=DEFAULT_OP_BLOCK_LIST,
            node_block_list=[*staying, *blocked],
        )
    except Exception as error:  # the tool asserts and raises as it comes
        text = " ".join(str(error).split()) or type(error).__name__
        raise LoweringError(f"onnxruntime's float16 tool can't convert the graph: {text}") from error
    found = copy if converted is None else converted
    _put_back(found.graph, apart)
    for place, value in passed:
        found.graph.output.insert(place, value)
    _cast_once(found.graph)
    _pass_by_casts(found.graph, sizes, staying)
    _give_out_unrounded(found.graph, staying)
    return found


def _set_apart(model: ModelProto) -> dict[str, TensorProto]:
    """Weights that lie in files, which the tool can't read: one number stands for each, and shapes are told before."""
    apart = {tensor.name: tensor for tensor in model.graph.initializer if is_reference(tensor)}
    if apart:
        told = onnx.shape_inference.infer_shapes(without_weights(model)).graph.value_info
        del model.graph.value_info[:]
        model.graph.value_info.extend(told)
    copies = {name: TensorProto.FromString(tensor.SerializeToString()) for name, tensor in apart.items()}
    for tensor in apart.values():
        tensor.CopyFrom(numpy_helper.from_array(np.zeros((), dtype_of(tensor.data_type, tensor.name)), tensor.name))
    return copies


def _put_back(graph: GraphProto, apart: dict[str, TensorProto]) -> None:
    for tensor in graph.initializer:
        held = apart.get(tensor.name)
        if held is not None and tensor.data_type != held.data_type:
            tensor.CopyFrom(replaced(held, array_of(held).astype(np.float16)))
        elif held is not None:
            tensor.CopyFrom(held)
    if apart:
        del graph.value_info[:]  # it tells the shapes of what stood for them


def _take_out_passed(graph: GraphProto) -> list[tuple[int, ValueInfoProto]]:
    """Outputs that are inputs as they came, each with its place: the tool would cast them into a circle."""
    fed = {value.name for value in graph.input}
    passed = [(place, value) for place, value in enumerate(graph.output) if value.name in fed]
    copies = [(place, onnx.ValueInfoProto.FromString(value.SerializeToString())) for place, value in passed]
    for _, value in passed:
        graph.output.remove(value)
    return copies


def _named_once(model: ModelProto, nodes: list[NodeProto]) -> list[str]:
    """The names of these nodes, new where they had none or shared it: the tool goes by names."""
    taken = Counter(node.name for node in nodes_of(model.graph))
    name = fresh(model)
    for node in nodes:
        if not node.name or taken[node.name] > 1:
            node.name = name(f"trt/kept/{node.output[0]}")
    return [node.name for node in nodes]


def _pass_by_casts(graph: GraphProto, sizes: set[str], staying: set[str]) -> None:
    """Between two nodes left in fp32 the tool casts down and up again: read what was there before the two casts.

    So it does with an input of the graph that a node reads which stays in fp32.
    """
    casts = _casts(graph)
    exact = {value.name for value in graph.input} | {
        output for node in graph.node if node.name in staying for output in node.output
    }
    needless: list[NodeProto] = []
    for node in graph.node:
        for index, tensor in enumerate(node.input):
            up, to = casts.get(tensor, (None, 0))
            down, below = casts.get(up.input[0], (None, 0)) if up is not None else (None, 0)
            pair = (to, below) == (TensorProto.FLOAT, TensorProto.FLOAT16)
            if not pair or up is None or down is None:
                continue
            if down.output[0] in sizes or (node.name in staying and down.input[0] in exact):
                node.input[index] = down.input[0]
                needless += [up, down]
    _drop_unread_nodes(graph, needless)


def _cast_once(graph: GraphProto) -> None:
    """The tool casts a tensor up for each node left in fp32 that reads it, always to the same name."""
    made: set[str] = set()
    for node in list(graph.node):
        if node.op_type == "Cast" and node.output[0] in made:
            graph.node.remove(node)  # equal to the first, which is what goes
        made.update(node.output)


def _give_out_unrounded(graph: GraphProto, staying: set[str]) -> None:
    """An output of the graph that a node makes which stays in fp32 is cast down and up too: give out the first."""
    casts = _casts(graph)
    maker = {output: node for node in graph.node if node.name in staying for output in node.output}
    for value in graph.output:
        up, to = casts.get(value.name, (None, 0))
        down, below = casts.get(up.input[0], (None, 0)) if up is not None else (None, 0)
        if up is None or down is None or (to, below) != (TensorProto.FLOAT, TensorProto.FLOAT16):
            continue
        inner = down.input[0]
        if inner in maker:
            graph.node.remove(up)
            maker[inner].output[:] = [value.name if name == inner else name for name in maker[inner].output]
            for node in nodes_of(graph):
                node.input[:] = [value.name if name == inner else name for name in node.input]
            _drop_unread_nodes(graph, [down])


def _drop_unread_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    for node in nodes:
        read = {tensor for part in graphs(graph) for other in part.node for tensor in other.input}
        read |= {value.name for part in graphs(graph) for value in part.output}
        if node.output[0] not in read and node in graph.node:
            graph.node.remove(node)


def _casts(graph: GraphProto) -> dict[str, tuple[NodeProto, int]]:
    """Casts by what they make, and the type that they cast to."""
    return {node.output[0]: (node, _cast_to(node)) for node in graph.node if node.op_type == "Cast"}


def _cast_to(node: NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "to"), 0)


def _require_fp16(name: str, values: NDArray[Any]) -> None:
    finite = values[np.isfinite(values)]
    largest = float(np.abs(finite).max(initial=0.0))
    if largest > Precision.FP16.largest:
        raise LoweringError(
            f"weight {name!r} holds {largest:.6g}, beyond fp16's largest value {Precision.FP16.largest:.0f}:"
            " scale it, or keep its layer in fp32 or bf16."
        )
