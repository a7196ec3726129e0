"""Model: an ONNX graph that was looked at before anything was done with it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from pytest_trt.errors import LoweringError, ModelError
from pytest_trt.model._constant_folding import fold_constants, foldable
from pytest_trt.model.external_data import array_of, dtype_of, read_graph, tensors_of, without_weights, write_graph
from pytest_trt.model.feeds import TensorSpec, is_float
from pytest_trt.model.graph import copy_at_opset, is_axis_name, opset
from pytest_trt.model.normalise import normalised, subgraphs
from pytest_trt.model.onnx_session import open_session
from pytest_trt.model.quantised_weights import require_sound_weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

__all__ = ["Model", "checked", "load", "nodes_of", "tensor_names", "tensors_of"]


@dataclass(frozen=True, eq=False)
class Model:
    """An ONNX model: its graph, and its weights in memory, or in a file where they are many.

    Attributes:
        proto: the graph; to be left alone (lowering copies). Of a large model it refers to its weights in their files
            by absolute paths (:mod:`pytest_trt.model.external_data`); :meth:`save` writes both.
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
            array = array_of(tensor)
            digest.update(repr((tensor.name, tensor.data_type, array.shape)).encode())
            digest.update(array.tobytes() if array.dtype.hasobject else _bytes(array).data)
        for sparse in graph.sparse_initializer:
            digest.update(sparse.SerializeToString(deterministic=True))
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write the model; weights that it refers to go into one file beside it, ``NAME.data``, one at a time.

        Raises:
            OSError: it can't be written there.
        """
        write_graph(self.proto, path)

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
        ModelError: the file is missing, empty, cut short or not ONNX; its external data is missing, cut short or
            outside its folder; an operator is not known; an input or output is no tensor.
    """
    return checked(read_graph(path), str(path))


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
        onnx.checker.check_model(without_weights(proto))
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


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _bare(node: NodeProto) -> NodeProto:
    """The node without its name and what exporters write about themselves: descriptions, source paths and lines."""
    copy = onnx.NodeProto.FromString(node.SerializeToString())
    for told in ("name", "doc_string", "metadata_props"):
        copy.ClearField(told)
    return copy


_OLDEST_OPSET = 7  # onnxruntime computes no older Gemm, Add or BatchNormalization


def _spec(value: ValueInfoProto, source: str) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        kind = value.type.WhichOneof("value") or "no type"
        raise ModelError(
            f"{source}: {value.name!r} is {kind.removesuffix('_type')}, not a tensor, and TensorRT takes only"
            " tensors. Export without it (scikit-learn's ZipMap, for example, can be switched off)."
        )
    tensor = value.type.tensor_type
    dtype = dtype_of(tensor.elem_type, f"{source}: {value.name!r}")
    if not tensor.HasField("shape"):
        return TensorSpec(value.name, dtype, None)
    return TensorSpec(value.name, dtype, tuple(_axis(dim) for dim in tensor.shape.dim))


def _axis(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value > 0 else None  # some exporters write -1 or 0 for "any"
    return dim.dim_param if is_axis_name(dim.dim_param) else None


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) or type(error).__name__
