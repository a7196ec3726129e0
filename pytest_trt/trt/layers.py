"""Layers: the engine inspector's JSON, which every release words differently, as layers."""

from __future__ import annotations

import json
import re
from typing import Any

from pytest_trt.layer import Layer

__all__ = ["layers_of"]

# what releases call a dtype, in the words of their tensors' formats and of weights
_DTYPES = (
    (r"\bfp32\b|\bfloat(32)?\b", "fp32"),
    (r"\bfp16\b|\bhalf\b|\bfloat16\b", "fp16"),
    (r"\bbf16\b|\bbfloat16\b", "bf16"),
    (r"\bfp8\b|\bfloat8\w*\b|\be4m3\w*\b", "fp8"),
    (r"\bfp4\b|\bfloat4\w*\b|\be2m1\w*\b", "fp4"),
    (r"\bint8\b", "int8"),
    (r"\bint4\b", "int4"),
    (r"\buint8\b", "uint8"),
    (r"\bint64\b", "int64"),
    (r"\bint32\b", "int32"),
    (r"\bbool(ean)?\b", "bool"),
)

_COMPUTES = re.compile(
    r"conv|gemm|matrixmultiply|matrix_multiply|matmul|fullyconnected|fully_connected|attention|mha|rnn|lstm|gru",
    re.IGNORECASE,
)
_MATRIX_NODE = re.compile(r"\b(conv|convtranspose|gemm|matmul|einsum|rnn|lstm|gru)(_\d+)?$", re.IGNORECASE)
_MOVES = re.compile(r"reformat|shuffle|constant|noop|signal|wait|copy|quantize", re.IGNORECASE)
_FUSED = re.compile(r"myelin|foreignnode", re.IGNORECASE)
_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


def layers_of(
    text: str, computing: frozenset[str] = frozenset(), kept: frozenset[str] = frozenset()
) -> tuple[Layer, ...]:
    """The layers that an inspector tells of.

    Args:
        text: its JSON, in which 8.6 leaves control characters as they are.
        computing: names of the ONNX nodes that multiply matrices, which tell what a fused layer holds.
        kept: names of those nodes that were to stay in fp32.

    Returns:
        None where the engine was built without details, and tells names alone.
    """
    try:
        found = json.loads(text, strict=False).get("Layers", [])
    except (ValueError, AttributeError):
        return ()
    return tuple(_layer(entry, computing, kept) for entry in found if isinstance(entry, dict))


def _layer(entry: dict[str, Any], computing: frozenset[str], kept: frozenset[str]) -> Layer:
    kind = str(entry.get("LayerType", ""))
    weights = entry.get("Weights")
    nodes = tuple(_ONNX_NODE.findall(str(entry.get("Metadata", ""))))
    inputs, tactic = _dtypes(entry.get("Inputs")), str(entry.get("TacticName", ""))
    return Layer(
        name=str(entry.get("Name", "")),
        type=kind,
        inputs=inputs,
        outputs=_dtypes(entry.get("Outputs")),
        weights=_dtype(str(weights.get("Type", ""))) if isinstance(weights, dict) and weights.get("Count") else None,
        tactic=tactic,
        onnx_nodes=nodes,
        precision=_precision(kind, inputs, tactic),
        computes=_computes(f"{kind} {entry.get('ParameterType', '')}", nodes, computing),
        kept=_kept(nodes or tuple(str(entry.get("Name", "")).split(" + ")), computing, kept),
    )


def _precision(kind: str, inputs: tuple[str, ...], tactic: str) -> str:
    if _FUSED.search(kind) or not inputs:
        return "unknown"
    return "tf32" if inputs[0] == "fp32" and "tf32" in tactic.lower() else inputs[0]


def _kept(nodes: tuple[str, ...], computing: frozenset[str], kept: frozenset[str]) -> bool:
    multiplied = [node for node in nodes if node in kept | computing or _MATRIX_NODE.search(node)]
    return bool(multiplied) and kept.issuperset(multiplied)


def _computes(told: str, nodes: tuple[str, ...], computing: frozenset[str]) -> bool:
    if _MOVES.search(told):
        return False
    return bool(_COMPUTES.search(told)) or any(node in computing or _MATRIX_NODE.search(node) for node in nodes)


def _dtypes(tensors: Any) -> tuple[str, ...]:
    found = [tensor for tensor in tensors or () if isinstance(tensor, dict)]
    return tuple(_dtype(f"{t.get('Datatype', '')} {t.get('Format/Datatype', '')}") for t in found)


def _dtype(words: str) -> str:
    plain = words.lower().replace("_", " ")
    return next((name for pattern, name in _DTYPES if re.search(pattern, plain)), "unknown")
