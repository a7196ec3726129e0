"""Kept: which nodes stay in fp32, told by their names or by the kinds of operators that are lowered."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import onnx

from pytest_trt.errors import LoweringError
from pytest_trt.lowering.graph import MATRIX_OPERANDS, TF32_OPERANDS
from pytest_trt.model import nodes_of
from pytest_trt.normalise import subgraphs
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from onnx import ModelProto, NodeProto

__all__ = ["kept_in_fp32"]

_QUANTISED = (*MATRIX_OPERANDS, "Add")

_KINDS = {
    Precision.INT8: _QUANTISED,
    Precision.FP8: _QUANTISED,
    Precision.TF32: tuple(TF32_OPERANDS),
}


def kept_in_fp32(
    model: ModelProto, precision: Precision, keep: Iterable[str] = (), ops: Iterable[str] = ()
) -> frozenset[str]:
    """What the nodes compute that stay in fp32: names of tensors, which are unique where names of nodes need not be.

    Args:
        model: to be lowered.
        precision: to be lowered to.
        keep: nodes, each by its name or by a tensor that it computes; with a node the bodies that it holds.
        ops: kinds of operators that are lowered, all others being kept; if none, nothing is kept by its kind. For int8
            and fp8 of Conv, ConvTranspose, Gemm, MatMul and Add (the residual ones), for tf32 of the operators that
            multiply matrices, for fp16 and bf16 of all operators.

    Raises:
        LoweringError: there is no such node, or the precision lowers no such operator; names the nearest.
    """
    words, kinds = tuple(keep), tuple(ops)
    nodes = [node for node in nodes_of(model.graph) if node.op_type != "Constant"]
    for kind in kinds:
        _require_kind(kind, precision, nodes)
    for word in words:
        _require_node(word, nodes)
    kept: set[str] = set()
    for node in nodes:
        if {node.name, *node.output}.intersection(words):
            kept.update(_computed_by(node))
        elif kinds and node.op_type not in kinds:
            kept.update(node.output)
    return frozenset(kept - {""})


def _computed_by(node: NodeProto) -> Iterator[str]:
    yield from node.output
    for subgraph in subgraphs(node):
        for inner in nodes_of(subgraph):
            yield from inner.output


def _require_kind(kind: str, precision: Precision, nodes: list[NodeProto]) -> None:
    known = _KINDS.get(precision)
    present = sorted({node.op_type for node in nodes})
    if kind in (known or present) or (known is None and onnx.defs.has(kind)):
        return
    near = difflib.get_close_matches(kind, known or present, n=1, cutoff=0.0)
    raise LoweringError(
        f"ops: {precision} lowers no operator {kind!r}: did you mean {near[0]!r}? (known:"
        f" {', '.join(known or present)}; operators go by their kind, nodes by their names in keep)"
    )


def _require_node(word: str, nodes: list[NodeProto]) -> None:
    names = list(dict.fromkeys(name for node in nodes for name in (node.name, *node.output) if name))
    if word and word in names:
        return
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.0)
    raise LoweringError(
        f"keep: the model has no node {word!r}; the nearest are {', '.join(map(repr, near))}. A node goes by its name,"
        " or by the name of a tensor that it computes: Netron shows both, and so does"
        " python -c \"import onnx; print(onnx.printer.to_text(onnx.load('FILE').graph))\"."
    )
