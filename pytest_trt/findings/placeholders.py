"""Placeholders: TRT102, ranges that nobody measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_trt.findings.finding import Finding, Severity
from pytest_trt.findings.fitting import fault, figures, known, numbers, place, quality

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.findings.evidence import Evidence
    from pytest_trt.quantised import Quantised, QuantisedTensor

__all__ = ["are_placeholders", "placeholders"]

_FEWEST_OF_ONE, _FEWEST_OF_TWO = 3, 4


def placeholders(evidence: Evidence) -> Iterator[Finding]:
    """TRT102: ranges that nobody measured: at most two distinct ones."""
    found = evidence.quantised
    if found is None or not are_placeholders(found):
        return
    ranges = sorted({_digits(tensor.grid.amax) for tensor in found.tensors})
    of_trtexec = set(ranges) <= {2.0, 4.0}
    worst = min(known(found), key=quality)
    hurts = any(fault(tensor) for tensor in known(found))
    unit = all(tensor.grid.is_float and tensor.grid.scale == 1 for tensor in found.tensors)
    told = f"{' and '.join(f'{value:g}' for value in ranges)}"
    yield Finding(
        "TRT102",
        Severity.WARNING if unit and not hurts else Severity.ERROR,
        f"all {len(found.tensors)} ranges of {found.source} are {told}"
        f"{', the placeholders that trtexec writes where it has no calibration' if of_trtexec else ''}: nobody measured"
        f" them. {place(worst)} {numbers(worst)}.",
        "Calibrate on typical samples: pytest-trt calibrate, or `calibration` in the case.",
        {"ranges": ranges, "tensors": len(found.tensors), "trtexec": of_trtexec, **figures(worst)},
    )


def are_placeholders(found: Quantised) -> bool:
    """Whether at most two distinct ranges stand for all, and nothing explains them."""
    tensors = known(found)
    distinct = len({tensor.grid.scale for tensor in tensors})
    if not tensors or distinct > 2 or all(_is_explained(tensor) for tensor in tensors):
        return False
    return len(tensors) >= (_FEWEST_OF_ONE if distinct == 1 else _FEWEST_OF_TWO)


def _is_explained(tensor: QuantisedTensor) -> bool:
    """Whether the range is what the tensor's operator bounds it by, or what it holds."""
    seen = tensor.statistics
    bounded = tensor.bound is not None and math.isclose(tensor.grid.amax, tensor.bound, rel_tol=0.01)
    return bounded or (seen is not None and 0.8 <= seen.utilisation <= 1.25 and not fault(tensor))


def _digits(value: float) -> float:
    """Six digits: what a float32 scale gives back of a range that somebody wrote."""
    return float(f"{value:.6g}")
