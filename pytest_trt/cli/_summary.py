"""Summary: what a file is, told by its content, and what is in it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from pytest_trt.backends.tensorrt.runtime import read_plan
from pytest_trt.errors import DataError, LoweringError, ModelError, PytestTrtError
from pytest_trt.evidence.rounding import half_weights
from pytest_trt.lowering.lowering import at_opset, held_precision, held_types
from pytest_trt.lowering.placement import placement_of
from pytest_trt.model.external_data import parsed
from pytest_trt.model.graph import constants, element_types, is_standard, matrix_nodes
from pytest_trt.model.model import Model, load, nodes_of
from pytest_trt.model.quantised_weights import quantised_weights
from pytest_trt.precision import Precision
from pytest_trt.ranges.qdq import ranges_of_graph

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["kind_of", "network_facts", "plan_facts"]

TAGS = {b"ftrt": ("TensorRT", 8), b"vtrt": ("TensorRT-RTX", 1)}
"""What plans begin with: the product, and its first release that there is; before 8.6 none is written."""

_HEADER = 28


def plan_facts(path: Path) -> dict[str, Any]:
    """Size, SHA-256, and what the header tells; ``release`` is None where it tells none.

    Raises:
        BackendError: it can't be read, or is empty.
    """
    data = read_plan(path)
    product, first = TAGS.get(data[:4], ("TensorRT", 8))
    serialization = int.from_bytes(data[4:8], "little") if len(data) >= 8 else None
    return {
        "kind": "plan",
        "file": str(path),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "serialization": serialization,
        "product": product,
        "release": _release(data, first) if serialization == 0 else None,
    }


def _release(data: bytes, first: int) -> str | None:
    numbers = data[24:_HEADER]
    return ".".join(map(str, numbers)) if len(numbers) == 4 and first <= numbers[0] < 100 else None


KINDS = ("onnx", "plan", "golden", "record")

_HEAD = 4096
_LONGEST_HEADER = 100_000_000  # safetensors' own limit

_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch what it points to (git lfs pull)"),
    (b"TRT-", "a TensorRT calibration cache: pytest-trt ranges show prints it"),
    (b"PK\x03\x04", "a zip archive, such as .npz or a PyTorch checkpoint: name an ONNX file, a plan, golden or record"),
    (b"\x93NUMPY", "a numpy array: name an ONNX file, a plan, a golden or a record"),
    (b"\x89HDF", "an HDF5 file: export the model to ONNX first"),
)


def kind_of(path: Path) -> str:
    """One of :data:`KINDS`.

    Raises:
        DataError: it is none of them, or can't be read; says what it looks like.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
    if not head:
        raise DataError(f"{path} is empty (0 bytes).")
    for magic, what in _OTHERS:
        if head.startswith(magic):
            raise DataError(f"{path} is {what}.")
    if head[:4] in TAGS:
        return "plan"
    if _is_safetensors(head):
        return "golden"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _json_kind(path)
    return _protobuf_kind(path)


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def _json_kind(path: Path) -> str:
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} begins as JSON and can't be read: {error}.") from error
    if isinstance(document, dict) and "schema" in document and "results" in document:
        return "record"
    raise DataError(f"{path} is JSON and no record of --trt-report: it has no `schema` and `results`.")


def _protobuf_kind(path: Path) -> str:
    try:
        proto = parsed(path)
    except ModelError as error:
        raise _unknown(path) from error
    if not proto.HasField("graph") or not proto.ir_version:
        raise _unknown(path)
    return "onnx"


def _unknown(path: Path) -> DataError:
    return DataError(
        f"{path} is no ONNX model, no TensorRT plan, no golden and no record, by its content; it may be cut short."
    )


_LOWERED = (Precision.TF32, Precision.FP16, Precision.BF16, Precision.INT8, Precision.FP8)


def network_facts(path: Path) -> dict[str, Any]:
    """All that is told of an ONNX file, plain as JSON is.

    Raises:
        ModelError: it can't be used.
    """
    model = load(path)
    proto, held = model.proto, held_precision(model.proto)
    weights = constants(proto).values()
    return {
        "kind": "onnx",
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "model_sha256": model.sha256,
        "producer": " ".join(word for word in (proto.producer_name, proto.producer_version) if word),
        "ir_version": proto.ir_version,
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import},
        "inputs": [str(spec) for spec in model.inputs],
        "outputs": [str(spec) for spec in model.outputs],
        "nodes": sum(1 for _ in nodes_of(proto.graph)),
        "ops": dict(Counter(_operator(node) for node in nodes_of(proto.graph)).most_common()),
        "weights": int(sum(np.prod(tensor.dims, dtype=np.int64) for tensor in weights)),
        "held": held,
        "held_types": sorted(held_types(proto)),
        "formats": dict(Counter(weight.format for weight in quantised_weights(proto)).most_common()),
        "qdq": _qdq(model) if held not in ("fp32", "fp16", "bf16") else None,
        "lowered": {p.label: _lowered(model, p) for p in _LOWERED} if held == "fp32" else {},
    }


def _operator(node: Any) -> str:
    return str(node.op_type) if is_standard(node) else f"{node.domain}::{node.op_type}"


def _qdq(model: Model) -> dict[str, Any]:
    """How many Q and DQ nodes there are, and the ranges of activations that they hold, or why those can't be told."""
    kinds = Counter(node.op_type for node in nodes_of(model.proto.graph))
    counts = {"quantize": kinds["QuantizeLinear"], "dequantize": kinds["DequantizeLinear"]}
    if not kinds["QuantizeLinear"] and any(quantised_weights(model.proto)):
        return {**counts, "ranges": 0}
    try:
        amax = ranges_of_graph(model.proto, model.source).amax
    except DataError as error:
        return {**counts, "ranges": 0, "said": str(error)}
    ordered = sorted(amax, key=amax.__getitem__)
    return {
        **counts,
        "ranges": len(amax),
        "distinct": len(set(amax.values())),
        "narrowest": {ordered[0]: amax[ordered[0]]},
        "widest": {ordered[-1]: amax[ordered[-1]]},
    }


def _lowered(model: Model, precision: Precision) -> dict[str, Any]:
    """How many nodes a precision would change, or why it would be refused."""
    try:
        raised = at_opset(model, precision)
        matrices = len(matrix_nodes(raised.proto))
        if precision.takes_ranges:
            return {**_placed(raised), "matrix_nodes": matrices}
        if precision is Precision.TF32:
            return {"nodes": matrices, "matrix_nodes": matrices}
        return {"nodes": _float_nodes(raised), "matrix_nodes": matrices, **_weights(raised, precision)}
    except PytestTrtError as error:
        return {"refused": str(error)}


def _placed(model: Model) -> dict[str, Any]:
    placement = placement_of(model.proto)
    return {"nodes": len({output for output, _ in placement.operands}), "ranges": len(placement.activations)}


def _float_nodes(model: Model) -> int:
    types = element_types(model.proto)
    found = sum(
        any(types.get(name) == TensorProto.FLOAT for name in node.output) for node in nodes_of(model.proto.graph)
    )
    if not found:
        raise LoweringError(f"{model.source} computes nothing in fp32.")
    return found


def _weights(model: Model, precision: Precision) -> dict[str, Any]:
    """What fp16's range does to the weights; bf16 has fp32's."""
    if precision is not Precision.FP16:
        return {}
    found = half_weights(model)
    beyond, zeroed = (sum(getattr(one, key) for one in found.tensors) for key in ("beyond", "zeroed"))
    return {"weights_beyond": beyond, "weights_zeroed": zeroed}
