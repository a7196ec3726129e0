"""Coverage: TRT101, TRT103 and TRT109, scales that are not there, or that TensorRT refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.findings.finding import Finding, Severity
from pytest_trt.findings.fitting import listed, more

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.findings.evidence import Evidence
    from pytest_trt.quantised import Quantised

__all__ = ["partial", "refused", "uncalibrated"]

_FEWEST_GAPS = 3
_SHARE_OF_GAPS = 0.25
"""Of the matrix operators: where as many run in floating point, a quarter of what int8 gains is gone."""


def uncalibrated(evidence: Evidence) -> Iterator[Finding]:
    """TRT101: a quantised precision without any scale of an activation."""
    found = evidence.quantised
    if found is None or found.tensors or found.strange or found.refused:
        return
    if found.held and evidence.precision.label == "model":
        yield Finding(
            "TRT101",
            Severity.NOTE,
            f"{found.source} holds {evidence.held} weights and no scale of an activation, so it computes in floating"
            " point.",
            "Quantise activations too where integer arithmetic is meant.",
            {"operators": found.operators},
        )
        return
    said = f" ({found.said})" if found.said else ""
    yield Finding(
        "TRT101",
        Severity.ERROR,
        f"{evidence.precision} was asked of {found.source}, and none of its activations has a scale: there are no"
        f" ranges, no calibrator and no Q/DQ{said}.",
        "Give calibration data or ranges (`calibration` in the case, --trt-calibration), or a file with Q/DQ.",
        {"said": found.said, "operators": found.operators},
    )


def refused(evidence: Evidence) -> Iterator[Finding]:
    """TRT109: Q/DQ that TensorRT's parser refuses."""
    faults = evidence.quantised.refused if evidence.quantised else ()
    if not faults:
        return
    first, kinds = faults[0], sorted({fault.what for fault in faults})
    yield Finding(
        "TRT109",
        Severity.ERROR,
        f"TensorRT refuses this file: {first.node} of {first.tensor!r} {first.why}{more(faults)}.",
        "Quantise symmetrically to int8 and leave biases in float (onnxruntime: ActivationSymmetric=True,"
        " WeightSymmetric=True, QuantizeBias=False, activation_type and weight_type QInt8).",
        {"layer": first.node, "tensor": first.tensor, "kinds": kinds, "nodes": [fault.node for fault in faults]},
    )


def partial(evidence: Evidence) -> Iterator[Finding]:
    """TRT103: matrix operators of a file that read what was never quantised."""
    found = evidence.quantised
    if found is None or not found.uncovered or not found.tensors:
        return
    bare = found.uncovered
    yield Finding(
        "TRT103",
        _severity(evidence, found),
        f"{len(bare)} of {found.operators} matrix operators of {found.source} have an operand without Q/DQ, so they"
        f" stay in floating point: {listed(bare)}{_told(found)}.",
        "Quantise both of their operands, or list them in `keep` where they stay on purpose.",
        {"layer": bare[0], "layers": list(bare), "gaps": list(found.gaps), "operators": found.operators},
    )


def _severity(evidence: Evidence, found: Quantised) -> Severity:
    bare, all_of_them = len(found.uncovered), found.operators
    asked = evidence.precision.takes_ranges and bare > all_of_them / 2
    if asked or (len(found.gaps) >= _FEWEST_GAPS and len(found.gaps) >= _SHARE_OF_GAPS * all_of_them):
        return Severity.ERROR
    return Severity.NOTE if bare <= 2 and all_of_them > 2 * bare else Severity.WARNING


def _told(found: Quantised) -> str:
    if not found.gaps:
        return ""
    return f"; of {len(found.gaps)} the like are quantised in this very file, and nothing says why they are not"
