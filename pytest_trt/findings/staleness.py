"""Staleness: TRT104, ranges of another model, other weights or another release."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_trt.findings.finding import Finding, Severity
from pytest_trt.findings.fitting import fault, figures, known, listed, numbers, place, quality, utilisation
from pytest_trt.findings.placeholders import are_placeholders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.findings.evidence import Evidence
    from pytest_trt.quantised import Quantised, QuantisedTensor

__all__ = ["is_of_other_weights", "many_off", "stale"]

_MANY = 3


def stale(evidence: Evidence) -> Iterator[Finding]:
    """TRT104: ranges of another model, other weights or another release."""
    found = evidence.quantised
    if found is None:
        return
    if found.strange or (found.missing and found.tensors):
        yield _misfitting(found)
    elif is_of_other_weights(found):
        off = [tensor for tensor in known(found) if fault(tensor)]
        worst = min(off, key=quality)
        yield Finding(
            "TRT104",
            Severity.ERROR,
            f"{len(off)} of the {len(found.tensors)} ranges of {found.source} do not fit what the tensors hold, while"
            f" the input's does: they were taken from other weights. {place(worst)} {numbers(worst)}.",
            "Calibrate this very model again, and drop the old cache or ranges.",
            {"tensors": [tensor.name for tensor in off], **figures(worst)},
        )
    yield from _of_another_release(found)


def many_off(found: Quantised) -> list[QuantisedTensor]:
    """The tensors whose ranges do not fit, where they are three or more: a slip of the hand is one."""
    off = [tensor for tensor in known(found) if fault(tensor)]
    return off if len(off) >= _MANY and not are_placeholders(found) else []


def is_of_other_weights(found: Quantised) -> bool:
    """Whether ranges are off in both directions, or most beside an input's that fits; samples would fit."""
    off, tensors = many_off(found), known(found)
    if found.likeness is not None or not off:
        return False
    uses = [utilisation(tensor) for tensor in tensors]
    both_ways = sum(use < 0.5 for use in uses) > 1 and sum(use > 2.5 for use in uses) > 1
    inputs = [tensor for tensor in tensors if tensor.is_input]
    fed_right = bool(inputs) and all(0.5 <= utilisation(tensor) <= 2 for tensor in inputs)
    return both_ways or (fed_right and len(off) * 2 > len(tensors))


def _misfitting(found: Quantised) -> Finding:
    faults = [
        *([f"{len(found.strange)} tensors that the model has not: {listed(found.strange)}"] if found.strange else []),
        *([f"none for {len(found.missing)} that it needs: {listed(found.missing)}"] if found.missing else []),
    ]
    return Finding(
        "TRT104",
        Severity.ERROR,
        f"{found.source} is of another model or export: it has ranges of {' and '.join(faults)}.".replace(
            "ranges of none for", "no ranges for"
        ),
        "Calibrate this very model again, exported as it is now.",
        {"strange": list(found.strange), "missing": list(found.missing)},
    )


def _of_another_release(found: Quantised) -> Iterator[Finding]:
    header = re.match(r"TRT-(\d{4,6})-", found.made_by)
    built = re.match(r"(\d+)\.(\d+)", found.release or "")
    if header is None or built is None:
        return
    number = int(header[1])
    made = divmod(number // 100, 10) if number < 10000 else divmod(number // 100, 100)
    if made == (int(built[1]), int(built[2])):
        return
    yield Finding(
        "TRT104",
        Severity.WARNING,
        f"{found.source} was written by TensorRT {made[0]}.{made[1]} ({found.made_by}), and TensorRT {found.release}"
        " builds: a calibrator of its own would refuse it, and its fusions name other tensors.",
        "Calibrate again with the release that deploys, or keep the ranges as text, which have no release.",
        {"made_by": found.made_by, "release": found.release},
    )
