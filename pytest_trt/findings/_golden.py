"""TRT5xx: a golden that nothing can be compared with; the words are those of the error that refused it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.evidence.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.evidence.evidence import Evidence

__all__ = ["RULES"]

_CODES = {
    "MissingGolden": ("TRT501", "Make it with --trt-update-golden, look at what it prints, and commit it."),
    "StaleGolden": (
        "TRT502",
        "Make it anew if model, inputs or labels were changed on purpose; else go back to them.",
    ),
    "DamagedGolden": ("TRT503", "Fetch the file again (git lfs pull), or make it anew."),
    "GoldenMismatch": ("TRT504", "Make it anew for this model, or give the model the golden's inputs and outputs."),
    "EmptyGolden": ("TRT505", "Give inputs that move the output; list outputs that are constant in constant_outputs."),
    "ExportMismatch": ("TRT506", "Export in eval mode and without random numbers, or with the other exporter."),
}


def refused(evidence: Evidence) -> Iterator[Finding]:
    """TRT501 to TRT506: the golden was refused."""
    why = evidence.refused
    if why is not None and why.kind in _CODES:
        code, remedy = _CODES[why.kind]
        yield Finding(code, Severity.ERROR, why.message, remedy, dict(why.facts))


def export(evidence: Evidence) -> Iterator[Finding]:
    """TRT506: PyTorch and its ONNX export differ by more than exports do, by the golden's own arrays."""
    for hop in evidence.hops:
        if hop.start == "torch" and hop.over:
            yield Finding(
                "TRT506",
                Severity.ERROR,
                f"PyTorch and ONNX disagree before any precision is lowered: output {hop.output!r} differs by a"
                f" relative RMS of {hop.rel_rms:.2g} (at most {hop.limit:g}).",
                _CODES["ExportMismatch"][1],
                {"output": hop.output, "rel_rms": hop.rel_rms, "limit": hop.limit},
            )


def older(evidence: Evidence) -> Iterator[Finding]:
    """TRT507: the golden was made by a release that put less into goldens, and is judged as that release did."""
    if evidence.older:
        yield Finding(
            "TRT507",
            Severity.WARNING,
            f"the golden is older than this release, and {evidence.older}.",
            f"Make it anew: {evidence.anew}",
        )


RULES = (refused, export, older)
