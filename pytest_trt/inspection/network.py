"""Network: what an ONNX file holds, which precision it has, and what each precision would lower of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from pytest_trt.errors import DataError, LoweringError, PytestTrtError
from pytest_trt.half import half_weights
from pytest_trt.lowering import at_opset
from pytest_trt.lowering.graph import constants, element_types, is_standard, matrix_nodes
from pytest_trt.lowering.held import held_precision, held_types
from pytest_trt.lowering.placement import placement_of
from pytest_trt.model import Model, load, nodes_of
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["network_facts"]

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
        "qdq": _qdq(model) if held not in ("fp32", "fp16", "bf16") else None,
        "lowered": {p.label: _lowered(model, p) for p in _LOWERED} if held == "fp32" else {},
    }


def _operator(node: Any) -> str:
    return str(node.op_type) if is_standard(node) else f"{node.domain}::{node.op_type}"


def _qdq(model: Model) -> dict[str, Any]:
    """How many Q and DQ nodes there are, and the ranges of activations that they hold, or why those can't be told."""
    from pytest_trt.ranges.qdq import ranges_of_graph

    kinds = Counter(node.op_type for node in nodes_of(model.proto.graph))
    counts = {"quantize": kinds["QuantizeLinear"], "dequantize": kinds["DequantizeLinear"]}
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
