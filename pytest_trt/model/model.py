"""Model: an ONNX graph that was looked at before anything was done with it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from pytest_trt.errors import LoweringError, ModelError
from pytest_trt.model._constant_folding import fold_constants, foldable
from pytest_trt.model.feeds import TensorSpec, is_float
from pytest_trt.model.graph import copy_at_opset, is_axis_name, opset
from pytest_trt.model.normalise import normalised, subgraphs
from pytest_trt.model.onnx_session import open_session
from pytest_trt.model.quantised_weights import require_sound_weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

__all__ = ["Model", "checked", "load", "nodes_of", "tensor_names", "tensors_of"]


@dataclass(frozen=True, eq=False)
class Model:
    """An ONNX model in memory, its weights included.

    Attributes:
        proto: the graph; to be left alone (lowering copies).
        source: what messages call it: its file, or ``module:factory`` for a torch module.
        identity: its hash, where the graph is not as it was read, since its constants were folded.
    """

    proto: ModelProto
    source: str
    identity: str | None = None

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What has to be fed: the graph's inputs that are not initializers."""
        held = {tensor.name for tensor in self.proto.graph.initializer}
        return tuple(_spec(value, self.source) for value in self.proto.graph.input if value.name not in held)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it computes, in the graph's order."""
        return tuple(_spec(value, self.source) for value in self.proto.graph.output)

    @cached_property
    def sha256(self) -> str:
        """Hash of what is computed: operators, weights, inputs and outputs.

        The producer's name, descriptions and how the weights are stored beside the file do not count,
        so saving the same graph again is not a change. Constants count as the file computes them.
        """
        if self.identity is not None:
            return self.identity
        digest = hashlib.sha256()
        graph = self.proto.graph
        opsets = sorted((entry.domain, entry.version) for entry in self.proto.opset_import)
        digest.update(repr((opsets, self.inputs, self.outputs)).encode())
        for node in graph.node:
            digest.update(_bare(node).SerializeToString(deterministic=True))
        for tensor in graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            digest.update(repr((tensor.name, tensor.data_type, array.shape)).encode() + array.tobytes())
        for sparse in graph.sparse_initializer:
            digest.update(sparse.SerializeToString(deterministic=True))
        return digest.hexdigest()

    def require_float_output(self) -> None:
        """Refuse a model whose outputs hold nothing that precision could move.

        Raises:
            ModelError: every output is integer or boolean.
        """
        if not any(is_float(output.dtype) for output in self.outputs):
            listing = ", ".join(str(output) for output in self.outputs)
            raise ModelError(
                f"{self.source} has no float output ({listing}): there is nothing whose error could be"
                " measured. Export the scores or logits as an output too."
            )


def load(path: Path) -> Model:
    """Read an ONNX file with its external data, and check it.

    Raises:
        ModelError: the file is missing, empty, cut short or not ONNX; its external data is missing or
            lies outside its folder; an operator is not known; an input or output is no tensor.
    """
    proto = _parse(path)
    for tensor in tensors_of(proto.graph):
        if uses_external_data(tensor):
            _load_external(tensor, path)
    return checked(proto, str(path))


def checked(proto: ModelProto, source: str) -> Model:
    """The model of this graph, once onnx's checker and our own look find no fault.

    Raises:
        ModelError: the graph is empty or invalid, or an input or output is no tensor.
    """
    if not proto.graph.node or not proto.graph.output:
        raise ModelError(f"{source} holds no network: its graph has no node or no output.")
    try:
        proto = normalised(proto)
        _check(proto)
    except Exception as error:  # the checker raises whatever its C++ side threw
        if "No Op registered" not in str(error):
            raise ModelError(f"{source} is not a valid ONNX model: {_first_lines(error)}") from error
        _let_onnxruntime_decide(proto, source)
    require_sound_weights(proto, source)
    model = _raised(Model(proto, source))
    _ = model.inputs, model.outputs
    return _folded(model)


def _raised(model: Model) -> Model:
    """In the oldest operators that runtimes still compute; the hash stays that of the graph as it was read.

    Raises:
        ModelError: onnx's converter can't raise it.
    """
    if not 0 < opset(model.proto) < _OLDEST_OPSET:
        return model
    try:
        return Model(copy_at_opset(model.proto, _OLDEST_OPSET), model.source, model.sha256)
    except LoweringError as error:
        raise ModelError(
            f"{model.source} is of opset {opset(model.proto)}, which runtimes no longer compute: {error}"
        ) from error


def _folded(model: Model) -> Model:
    """With what it computes of constants alone stored; the hash stays that of the graph as it was read."""
    if not foldable(model.proto):
        return model
    identity = model.sha256  # of a graph that was raised too: that of the file
    fold_constants(model.proto)
    return Model(model.proto, model.source, identity)


def _check(proto: ModelProto) -> None:
    """onnx's checker, which wants a shape of every output, where a file may leave it open."""
    open_ = [output.type.tensor_type for output in proto.graph.output if output.type.HasField("tensor_type")]
    open_ = [tensor for tensor in open_ if not tensor.HasField("shape")]
    for tensor in open_:
        tensor.shape.dim.add()
    try:
        onnx.checker.check_model(proto)
    finally:
        for tensor in open_:
            tensor.ClearField("shape")


def _let_onnxruntime_decide(proto: ModelProto, source: str) -> None:
    """onnxruntime knows operators under ONNX's own name from before ONNX had them (LayerNormalization)."""
    open_session(proto, source)


def nodes_of(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node, those of subgraphs (If, Loop, Scan) included."""
    for node in graph.node:
        yield node
        for subgraph in subgraphs(node):
            yield from nodes_of(subgraph)


def tensor_names(model: ModelProto) -> set[str]:
    """Names of all tensors: inputs, initializers and what the nodes compute, those of subgraphs included."""
    names = {value.name for value in model.graph.input} | {tensor.name for tensor in model.graph.initializer}
    return names | {name for node in nodes_of(model.graph) for name in node.output if name}


def tensors_of(graph: GraphProto) -> Iterator[TensorProto]:
    """Every stored tensor: initializers and tensor attributes, those of subgraphs included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for subgraph in subgraphs(node):
            yield from tensors_of(subgraph)


def _bare(node: NodeProto) -> NodeProto:
    """The node without its name and what exporters write about themselves: descriptions, source paths and lines."""
    copy = onnx.NodeProto.FromString(node.SerializeToString())
    for told in ("name", "doc_string", "metadata_props"):
        copy.ClearField(told)
    return copy


def _parse(path: Path) -> ModelProto:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}.") from error
    if not data:
        raise ModelError(f"{path} is empty (0 bytes): export or copy the model again.")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            f"{path} ({len(data)} bytes) is not an ONNX file, or it was cut short: {error}."
            " Export or copy it again; a Git LFS pointer looks like this too."
        ) from error
    return proto


def _load_external(tensor: TensorProto, path: Path) -> None:
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    folder = path.parent.resolve()
    try:
        file = (folder / location).resolve()
        inside = bool(location) and file.is_relative_to(folder)
    except (OSError, ValueError):  # a name that no file system takes
        inside = False
    if not inside:
        raise ModelError(
            f"{path}: weight {tensor.name!r} points to external data {location!r}, outside the model's"
            f" folder {folder}. Save the model with its weights beside it."
        )
    if not file.is_file():
        raise ModelError(
            f"{path}: the external data {location!r} of weight {tensor.name!r} is missing beside it."
            " Copy that file along with the model."
        )
    try:
        load_external_data_for_tensor(tensor, str(folder))
    except Exception as error:  # onnx raises several unrelated kinds here, from Python and C++
        raise ModelError(
            f"{path}: weight {tensor.name!r} can't be read from {location!r}: {_first_lines(error)}"
        ) from error
    tensor.ClearField("data_location")
    del tensor.external_data[:]
    _require_whole(tensor, path, location)


def _require_whole(tensor: TensorProto, path: Path, location: str) -> None:
    bits = _dtype(tensor.data_type, f"{path}: weight {tensor.name!r}").itemsize * 8
    wanted = int(np.prod(tensor.dims, dtype=np.int64)) * bits // 8
    if tensor.data_type not in _SUB_BYTE and len(tensor.raw_data) != wanted:
        raise ModelError(
            f"{path}: weight {tensor.name!r} has {len(tensor.raw_data)} bytes in {location!r} where its shape"
            f" {list(tensor.dims)} needs {wanted}: the external data was cut short or belongs to another model."
        )


_OLDEST_OPSET = 7  # onnxruntime computes no older Gemm, Add or BatchNormalization

_SUB_BYTE = {
    getattr(onnx.TensorProto, name)
    for name in ("INT4", "UINT4", "FLOAT4E2M1", "INT2", "UINT2")
    if hasattr(onnx.TensorProto, name)
}


def _spec(value: ValueInfoProto, source: str) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        kind = value.type.WhichOneof("value") or "no type"
        raise ModelError(
            f"{source}: {value.name!r} is {kind.removesuffix('_type')}, not a tensor, and TensorRT takes only"
            " tensors. Export without it (scikit-learn's ZipMap, for example, can be switched off)."
        )
    tensor = value.type.tensor_type
    dtype = _dtype(tensor.elem_type, f"{source}: {value.name!r}")
    if not tensor.HasField("shape"):
        return TensorSpec(value.name, dtype, None)
    return TensorSpec(value.name, dtype, tuple(_axis(dim) for dim in tensor.shape.dim))


def _dtype(element: int, what: str) -> np.dtype:
    """numpy's dtype of an ONNX element type."""
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element))
    except (KeyError, TypeError, ValueError):
        dtype = None
    if dtype is None or dtype.kind == "O":
        raise ModelError(f"{what} has no numeric element type (ONNX type {element}).")
    return dtype


def _axis(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value > 0 else None  # some exporters write -1 or 0 for "any"
    return dim.dim_param if is_axis_name(dim.dim_param) else None


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) or type(error).__name__
