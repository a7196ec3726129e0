"""Weight envelope: the error that the formats of a file's weights explain, where the golden's own bounds do not speak.

A file whose weights alone are stored in few bits is bounded by what rounding the reference's weights to nearest at the
same formats does to the outputs, computed in the precision that its activations have.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnx import TensorProto

from pytest_trt.case.reference import reference_of
from pytest_trt.errors import PytestTrtError
from pytest_trt.evidence._qdq_file import fixed_of
from pytest_trt.evidence.weights import rounded_reference
from pytest_trt.golden.envelope import envelope_of, provable
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.model.graph import MATRIX_OPERANDS, element_types
from pytest_trt.model.model import nodes_of
from pytest_trt.model.quantised_weights import quantised_weights
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

    from pytest_trt.case.reference import Subject
    from pytest_trt.golden.golden import Golden
    from pytest_trt.model.model import Model

__all__ = ["with_weight_envelope"]

_FLOATS: Mapping[int, Precision] = {TensorProto.FLOAT16: Precision.FP16, TensorProto.BFLOAT16: Precision.BF16}
_INTEGER_OPS = ("QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantize", "QGemm", "QAttention")


def with_weight_envelope(subject: Subject, golden: Golden) -> Golden:
    """The golden with bounds for a file's own formats of weights, measured now; itself where its bounds speak of them.

    Those of int8 and fp8 speak of activations too: they are for files that quantise these as well.

    Args:
        subject: what is judged.
        golden: made from its reference.

    Raises:
        CaseError, ModelError: the reference can't be loaded or exported.
    """
    case, label = subject.case, subject.asked
    proto = subject.model.proto
    if subject.precision is not Precision.MODEL or case.reference is None or not any(quantised_weights(proto)):
        return golden
    activations = _quantised_activations(proto)
    if activations == {label} and label in golden.envelope:
        return golden
    reference = reference_of(case).model
    if held_precision(reference.proto) != "fp32" or golden.model_sha256 not in (None, reference.sha256):
        return golden
    return _measured(subject, golden, reference, _computed_in(proto, activations))


def _measured(subject: Subject, golden: Golden, reference: Model, precision: Precision | None) -> Golden:
    label, case = subject.asked, subject.case
    try:
        rounded = rounded_reference(subject.model, reference)
    except PytestTrtError as error:
        return _without(golden, label, str(error))
    if rounded is None or precision is None:
        return _without(golden, label, "not all of its weights have a counterpart in the reference")
    inputs, names = [run.inputs for run in golden.runs], [spec.name for spec in subject.judged]
    found, refused, _ = envelope_of(reference, inputs, [precision], case.batch, judged=names, rounded=rounded)
    if precision.label not in found:
        return _without(golden, label, refused[precision.label])
    moving = {name: value for name, value in golden.evidence.items() if name not in case.constant_outputs}
    kept, reasons = provable({label: found[precision.label]}, {}, moving)
    refused = {name: why for name, why in golden.refused.items() if name != label}
    return replace(golden, envelope={**golden.envelope, **kept}, refused={**refused, **reasons})


def _without(golden: Golden, label: str, why: str) -> Golden:
    """As it was, with the reason where it has no bound for the label."""
    return golden if label in golden.envelope else replace(golden, refused={**golden.refused, label: why})


def _quantised_activations(model: ModelProto) -> set[str]:
    """By label, what activations are quantised to: int8 where that is computed anew for each."""
    fixed = fixed_of(model)
    types = element_types(model)
    found = {
        types.get(node.output[0], int(TensorProto.UINT8))
        for node in nodes_of(model.graph)
        if node.op_type == "QuantizeLinear" and node.input[0] not in fixed
    }
    labels = {str(TensorProto.DataType.Name(kind)).lower() for kind in found}
    labels = {"fp8" if label.startswith("float8") else label.removeprefix("u") for label in labels}
    return labels | (
        {"int8"} if any(node.op_type.startswith(_INTEGER_OPS) for node in nodes_of(model.graph)) else set()
    )


def _computed_in(model: ModelProto, activations: set[str]) -> Precision | None:
    """The precision of the activations that weights are multiplied by; None for one that is not simulated."""
    if activations:
        known = {precision.label: precision for precision in Precision}
        return known.get(min(activations)) if len(activations) == 1 else None
    types = element_types(model)
    narrow = [
        _FLOATS[types[node.output[0]]]
        for node in nodes_of(model.graph)
        if node.op_type in MATRIX_OPERANDS and types.get(node.output[0]) in _FLOATS
    ]
    return narrow[0] if narrow else Precision.FP32
