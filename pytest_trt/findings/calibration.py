"""Calibration: what is wrong with the ranges that int8 and fp8 stand on; TRT105 to TRT107, and the order of TRT1xx."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.findings.coverage import partial, refused, uncalibrated
from pytest_trt.findings.finding import Finding, Severity
from pytest_trt.findings.fitting import fault, figures, is_bad, is_hard, known, more, numbers, place, quality
from pytest_trt.findings.placeholders import placeholders
from pytest_trt.findings.staleness import stale
from pytest_trt.findings.unlike import unlike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_trt.findings.evidence import Evidence

__all__ = ["RULES"]


def saturated(evidence: Evidence) -> Iterator[Finding]:
    """TRT105: a range that cuts off what the tensor holds."""
    yield from _of_tensors(evidence, "TRT105", "saturated", "Calibrate on data that reaches what the golden reaches")


def too_wide(evidence: Evidence) -> Iterator[Finding]:
    """TRT106: a range of which the tensor uses little."""
    yield from _of_tensors(evidence, "TRT106", "wide", "Calibrate on typical data, or clip outliers by entropy or mse")


def noisy(evidence: Evidence) -> Iterator[Finding]:
    """TRT107: a tensor that Q/DQ keeps badly."""
    yield from _of_tensors(evidence, "TRT107", "lost", "Take another calibration method (entropy, mse)")
    found = evidence.quantised
    hard = [tensor for tensor in known(found) if is_hard(tensor)] if found else []
    if found is None or not hard or any(fault(tensor) == "lost" for tensor in known(found)):
        return
    worst = min(hard, key=quality)
    yield Finding(
        "TRT107",
        Severity.WARNING,
        f"{place(worst)} {numbers(worst)}, and no range would keep it much better: few values are much larger than"
        f" all others{more(hard)}.",
        f"Keep {worst.consumer or 'its consumer'} in fp32 (`keep`), or smooth its outliers.",
        {"tensors": [tensor.name for tensor in hard], **figures(worst)},
    )


RULES: tuple[Callable[[Evidence], Iterable[Finding]], ...] = (
    uncalibrated,
    refused,
    placeholders,
    unlike,
    stale,
    saturated,
    too_wide,
    noisy,
    partial,
)


def _of_tensors(evidence: Evidence, code: str, kind: str, remedy: str) -> Iterator[Finding]:
    found = evidence.quantised
    bad = [tensor for tensor in known(found) if fault(tensor) == kind] if found else []
    if not bad:
        return
    worst = min(bad, key=quality)
    yield Finding(
        code,
        Severity.ERROR if any(map(is_bad, bad)) else Severity.WARNING,
        f"{place(worst)} {numbers(worst)}{more(bad)}.",
        f"{remedy}; or keep {worst.consumer or 'its consumer'} in fp32 (`keep`).",
        {"tensors": [tensor.name for tensor in bad], **figures(worst)},
    )
