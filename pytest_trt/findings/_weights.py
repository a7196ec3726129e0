"""Weights: TRT110: what a file stores that no rounding makes of the reference's weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_trt.evidence.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.evidence.evidence import Evidence
    from pytest_trt.evidence.weights import StoredWeight

__all__ = ["alone", "at_fault", "differing", "is_at_fault", "one_scale"]

_FEW = 1 / 16
"""Share of the channels: where fewer are clipped or coarse, somebody may have meant it; zeros are never meant."""

_SHOWN = 3
_ONE_SCALE_DB = 6.0
"""Lost by one scale for a whole weight against one for each channel, from which on it is told: a bit."""

_MEND = {
    "zeroed": "Quantise or convert the reference's weight anew; where pruning was meant, name the pruned model as the"
    " reference.",
    "clipped": "Take the scale from the weight's own largest value (amax / 127 for int8), for each output channel.",
    "coarse": "Take the scale from the weight's own largest value (amax / 127 for int8), for each output channel.",
    "scaled": "Take the scale that the weight was quantised with, and see what the factor was meant for.",
    "other": "Quantise or convert this very reference; name the model that the file was made from as the reference.",
}


def differing(evidence: Evidence) -> Iterator[Finding]:
    """TRT110: weights that are not the reference's, rounded."""
    found = [weight for weight in _weights(evidence) if _kind(weight, evidence)]
    if not found:
        return
    first = min(found, key=lambda weight: (not is_at_fault(weight), weight.sqnr_db))
    certain = any(is_at_fault(weight) or _kind(weight, evidence) in ("scaled", "other") for weight in found)
    more = f"; {len(found) - 1} more like it" if len(found) > 1 else ""
    best = f", where {first.kind} can keep {first.sqnr_db + first.lost_db:.1f} dB" if first.kind != "fp32" else ""
    kept = f"; it is kept at {first.sqnr_db:.1f} dB{best}" if math.isfinite(first.sqnr_db) else ""
    kind, faults = _kind(first, evidence), first.faults
    yield Finding(
        "TRT110",
        Severity.ERROR if certain else Severity.WARNING,
        f"weight {first.tensor!r}, read by {first.node}, is not the reference's: {_told(first, kind)}{kept}{more}.",
        _MEND[kind],
        {
            "tensor": first.tensor,
            "layer": first.node,
            "reference": first.reference,
            "kind": first.kind,
            "grain": first.grain,
            "channels": first.channels,
            "zeroed": faults.zeroed,
            "clipped": faults.clipped,
            "coarse": faults.coarse,
            "beyond": first.beyond,
            "span": first.span,
            "gain": first.gain,
            "sqnr_db": first.sqnr_db,
            "lost_db": first.lost_db,
            "worst_db": first.worst_db,
            "weights": [weight.tensor for weight in found],
        },
    )


def one_scale(evidence: Evidence) -> Iterator[Finding]:
    """TRT110: one scale for a whole weight, where channels differ in size: a choice, which costs."""
    found = [weight for weight in _weights(evidence) if weight.grain == "tensor" and not weight.faults.count]
    found = [weight for weight in found if weight.channel_lost_db - weight.lost_db >= _ONE_SCALE_DB]
    if not found:
        return
    worst = max(found, key=lambda weight: weight.channel_lost_db)
    outside = any(seen.reasons for seen in evidence.observed)
    yield Finding(
        "TRT110",
        Severity.WARNING if outside else Severity.NOTE,
        f"{len(found)} weights have one scale for all of their channels, which differ in size; it costs"
        f" {worst.tensor!r}, read by {worst.node}, the most: {worst.channel_lost_db:.1f} dB.",
        "Quantise weights with a scale for each output channel (onnxruntime: per_channel=True)."
        if outside
        else "Nothing to mend where the outputs are inside their bounds; a scale for each output channel is free.",
        {"tensor": worst.tensor, "layer": worst.node, "lost_db": worst.channel_lost_db, "weights": len(found)},
    )


def alone(evidence: Evidence) -> Iterator[Finding]:
    """TRT110: weights that have no counterpart in the reference, of which nobody can say whether they are right."""
    unpaired = evidence.weights.unpaired if evidence.weights else ()
    if not unpaired:
        return
    shown = ", ".join(map(repr, unpaired[:_SHOWN])) + (f" and {len(unpaired) - _SHOWN} more" * (len(unpaired) > _SHOWN))
    yield Finding(
        "TRT110",
        Severity.WARNING if _differs(evidence) else Severity.NOTE,
        f"the weights of {len(unpaired)} nodes ({shown}) have no counterpart in the reference, and were not compared.",
        "Name as the reference the fp32 file that this one was made from, with the same nodes: a tool that merges or"
        " renames them leaves nothing to compare by.",
        {"nodes": list(unpaired)},
    )


def at_fault(evidence: Evidence) -> StoredWeight | None:
    """The weight that TRT110 names as an error; None where it names none."""
    found = [weight for weight in _weights(evidence) if is_at_fault(weight)]
    return min(found, key=lambda weight: weight.sqnr_db, default=None)


def is_at_fault(weight: StoredWeight) -> bool:
    """Whether enough of its channels are at fault for an error."""
    faults = weight.faults
    return weight.alike and (faults.zeroed > 0 or faults.count >= max(1, _FEW * weight.channels))


def _weights(evidence: Evidence) -> tuple[StoredWeight, ...]:
    return evidence.weights.weights if evidence.weights else ()


def _kind(weight: StoredWeight, evidence: Evidence) -> str:
    """What is wrong with it; empty where nothing is.

    That it is scaled, or another one altogether, counts only where the outputs differ: tools scale and reorder channels
    in ways that cancel.
    """
    faults = weight.faults
    if weight.alike and faults.count:
        return max(("zeroed", "clipped", "coarse"), key=lambda name: (getattr(faults, name), name))
    if _differs(evidence) and (not weight.alike or weight.gain != 1.0):
        return "scaled" if weight.alike else "other"
    return ""


def _differs(evidence: Evidence) -> bool:
    """Whether the file differs by more than rounding its weights explains; one of fp16, whether it is outside."""
    steps = [hop for hop in evidence.hops if hop.end == "fp32"]
    return any(hop.over for hop in steps) if steps else any(seen.reasons for seen in evidence.observed)


def _told(weight: StoredWeight, kind: str) -> str:
    faults, channels = weight.faults, weight.channels
    parts = []
    if kind == "other":
        return "it is no copy of it"
    if kind == "scaled":
        return f"all of it is {weight.gain:.3g} times as large"
    if faults.zeroed:
        parts.append(f"{faults.zeroed} of {channels} channels are zero throughout, and the reference's are not")
    if faults.clipped:
        parts.append(
            f"{faults.clipped} of {channels} channels are clipped (in all {100 * weight.beyond:.2g} % of the values)"
        )
    if faults.coarse:
        reach = f", as levels x scale are {weight.span:.2g} times the largest |w|" if weight.span > 2 else ""
        parts.append(f"{faults.coarse} of {channels} channels are too coarse, or hold other values{reach}")
    return " and ".join(parts)
