"""TRT3xx: what the outputs show, the most telling sign first; all but NaN and a constant only where one is outside."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from pytest_trt.comparison.tolerance import toml_key
from pytest_trt.evidence.finding import Finding, Severity
from pytest_trt.evidence.hops import blamed
from pytest_trt.findings._weights import at_fault

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pytest_trt.evidence.evidence import Evidence
    from pytest_trt.evidence.hops import Hop
    from pytest_trt.evidence.output_errors import Flips, Observed, Place

__all__ = ["RULES"]

_CONCENTRATED = 0.9
_FAIR = 0.5
_LEANS = 0.6
_BY_POSITION = 0.95
_READ_OTHERWISE = 0.1
_SEQUENCES = 2

_FAULTS = {
    "torch -> onnx fp32": "the export from PyTorch is to blame",
    "golden -> fp32": "the model differs in fp32 already, so no precision is to blame",
    "fp32 -> simulated": "lowering to the precision is to blame",
    "golden -> simulated": "the file under test is to blame, which holds its precision",
    "golden -> engine": "the engine, or the file that it was built from, is to blame",
    "fp32 -> engine": "the engine is to blame",
    "simulated -> engine": "the engine differs from its simulation, so the build is to blame",
}

_REMEDIES = {
    "torch -> onnx fp32": "Export the module again, in eval mode, and make the golden anew.",
    "golden -> fp32": "Look at what changed in the network, its weights or its preprocessing since the golden was made;"
    " if that was meant, make the golden anew.",
    "simulated -> engine": "Build again, look at the builder's warnings and tactics, and compare with another release.",
}


def nonfinite(evidence: Evidence) -> Iterator[Finding]:
    """TRT301: NaN or infinity where the golden has none, and the first tensor that holds one; or none where it has."""
    for seen in evidence.observed:
        if seen.nonfinite:
            born = None if seen.lacking == seen.nonfinite else evidence.origin
            where = f"; they first appear in tensor {born.tensor!r}{_by(born.node)}" if born else ""
            first = f", the first at {list(seen.first)}" if seen.first else ""
            yield Finding(
                "TRT301",
                Severity.ERROR,
                f"output {seen.output!r} {_told_nonfinite(seen)}{first}{where}.",
                _mend_nonfinite(seen),
                {
                    "output": seen.output,
                    "count": seen.nonfinite,
                    "lacking": seen.lacking,
                    "first": list(seen.first),
                    "tensor": born.tensor if born else None,
                },
            )


def constant(evidence: Evidence) -> Iterator[Finding]:
    """TRT305: the same output for every sample, where the golden's move."""
    for seen in evidence.observed:
        if seen.constant:
            yield Finding(
                "TRT305",
                Severity.ERROR,
                f"output {seen.output!r} is the same for every sample, and the golden's is not: the network is blind to"
                " its input.",
                "Look for activations that died (a range or a scale far too small or too large), and for an input that"
                " is never read.",
                {"output": seen.output},
            )
        elif seen.still is not None:
            axis, rows = seen.still.axis, seen.still.rows
            yield Finding(
                "TRT305",
                Severity.ERROR,
                f"{len(rows)} slice(s) of output {seen.output!r}, {seen.still.name}, are the same for every sample, and"
                " the golden's are not: nothing of the input reaches them.",
                "Look at what computes them alone: weights that became zero, and a scale or a range that they share"
                " with slices of far larger values.",
                {"output": seen.output, "axis": axis, "slices": list(rows)},
            )


def concentrated(evidence: Evidence) -> Iterator[Finding]:
    """TRT306: nearly all of the error is in one channel, class, sample, corner or at the border."""
    hop = blamed(evidence.hops)
    for seen in evidence.observed:
        place = seen.place
        if place is not None and place.share >= _CONCENTRATED and place.fair <= _FAIR:
            yield Finding(
                "TRT306",
                Severity.ERROR,
                f"{100 * place.share:.3g} % of the squared error of output {seen.output!r} is {_where(place)}, where"
                f" {100 * place.fair:.2g} % would be its share{_blame(hop, evidence)}{_like(seen)}.",
                _mend_place(place),
                {
                    "output": seen.output,
                    "place": place.kind,
                    "index": place.index,
                    "share": place.share,
                    "fair": place.fair,
                    "resemblance": seen.resemblance,
                },
            )


def bias(evidence: Evidence) -> Iterator[Finding]:
    """TRT304: the error leans one way, over all elements or at each position alike in every sample."""
    hop = blamed(evidence.hops)
    for seen in evidence.observed:
        lean = seen.lean
        if lean is None or max(lean.share - _LEANS, lean.by_position - _BY_POSITION) < 0:
            continue
        told = (
            f"is off by {lean.mean:+.3g} on average with a spread of {lean.spread:.3g}"
            if lean.share >= _LEANS
            else "is off by the same in every sample, position by position"
        )
        yield Finding(
            "TRT304",
            Severity.ERROR,
            f"output {seen.output!r} {told}, which explains {100 * max(lean.share, lean.by_position):.3g} % of the"
            f" squared error: a systematic shift, and no rounding{_blame(hop, evidence)}{_like(seen)}.",
            "Look for a bias, an offset or statistics (BatchNorm, normalisation) that are lost or of another model.",
            {
                "output": seen.output,
                "mean": lean.mean,
                "spread": lean.spread,
                "share": lean.share,
                "by_position": lean.by_position,
                "resemblance": seen.resemblance,
            },
        )


def flips(evidence: Evidence) -> Iterator[Finding]:
    """TRT303: best classes that changed though they were no near ties, or more than may."""
    for seen in evidence.observed:
        found = seen.flips
        limited = any("top-1" in reason for reason in seen.reasons)
        if found is not None and found.flipped and (limited or (found.sound and seen.reasons)):
            yield Finding(
                "TRT303",
                Severity.ERROR,
                f"{found.flipped} of {found.samples} samples of output {seen.output!r} change their best class,"
                f" {_sound(found)}.",
                "Look at the flipped samples: a wide margin is a defect, near ties are the precision's, and want a"
                " finer one or a lower top1.",
                {
                    "output": seen.output,
                    "flipped": found.flipped,
                    "samples": found.samples,
                    "sound": found.sound,
                    "margins": list(found.margins),
                    "first": [list(flip) for flip in found.first],
                },
            )


def reads_otherwise(evidence: Evidence) -> Iterator[Finding]:
    """TRT303: sequences that read otherwise, as lines of text do, though the output is inside its bound."""
    for seen in evidence.observed:
        found = seen.flips
        if found is None or not found.sequences or found.accepted or seen.reasons:
            continue
        if found.changed >= _SEQUENCES and found.changed > _READ_OTHERWISE * found.sequences:
            share = 1 - found.flipped / found.samples
            limit = math.floor(100 * (1 - found.changed / found.sequences)) / 100
            yield Finding(
                "TRT303",
                Severity.WARNING,
                f"{found.changed} of {found.sequences} samples of output {seen.output!r} change their best class at"
                f" some position ({found.flipped} of {found.samples} positions, {_sound(found)}), though its error is"
                " inside the bound: they may read otherwise.",
                f"Use a finer precision, or keep what costs most in fp32 (pytest-trt sensitivity); or say how much you"
                f" accept: tolerance.{evidence.precision} = {{ top1 = {math.floor(100 * share) / 100:g}, top1_all ="
                f" {limit:g} }}{_class_output(seen, evidence)}.",
                {
                    "output": seen.output,
                    "sequences": found.sequences,
                    "changed": found.changed,
                    "flipped": found.flipped,
                    "samples": found.samples,
                    "sound": found.sound,
                },
            )


def _class_output(seen: Observed, evidence: Evidence) -> str:
    floats = [one.output for one in evidence.observed if not one.whole]
    return f' and class_output = "{seen.output}"' if len(floats) > 1 else ""


def outside(evidence: Evidence) -> Iterator[Finding]:
    """TRT302: outside tolerance, with the hop to blame."""
    hop = blamed(evidence.hops)
    for seen in evidence.observed:
        if seen.reasons and not seen.nonfinite:
            yield Finding(
                "TRT302",
                Severity.ERROR,
                f"output {seen.name!r} is outside its tolerance: {_size(seen)}{_blame(hop, evidence)}{_like(seen)}"
                f"{_left(evidence)}.",
                _remedy(hop, evidence) or _look(evidence),
                {
                    "output": seen.output,
                    "part": seen.part,
                    "error": seen.error,
                    "bound": seen.bound,
                    "reasons": list(seen.reasons),
                    "hop": str(hop) if hop else None,
                    "resemblance": seen.resemblance,
                    "departure": asdict(evidence.departure) if evidence.departure else None,
                },
            )


def differs_in_fp32(evidence: Evidence) -> Iterator[Finding]:
    """TRT302: inside the bound of its precision, and the model differs from the golden's in fp32 already."""
    told = {name for seen in evidence.observed if seen.reasons for name in (seen.output, seen.part)}
    whole = {seen.output for seen in evidence.observed if seen.whole}
    for hop in evidence.hops:
        if str(hop) == "golden -> fp32" and hop.over and hop.output not in told:
            yield Finding(
                "TRT302",
                Severity.ERROR,
                f"output {hop.output!r} is inside its bound at {evidence.precision}, and {_fault(hop, evidence)}: run"
                f" in fp32 {_off(hop, whole)}, where {hop.limit:.3g} is allowed ({hop}).",
                f"{_remedy(hop, evidence)} A difference in fp32 that you accept is {_accepted(hop, whole)} of the"
                " case.",
                {"output": hop.output, "error": hop.rel_rms, "bound": hop.limit, "hop": str(hop)},
            )


def _off(hop: Hop, whole: Collection[str]) -> str:
    if hop.output in whole:
        return f"{hop.rel_rms:.3g} of its elements differ"
    return f"it is off by a relative RMS of {hop.rel_rms:.3g}"


def _accepted(hop: Hop, whole: Collection[str]) -> str:
    limit = float(f"{1.2 * hop.rel_rms:.1e}")
    if hop.output in whole:
        return f"tolerance.fp32 = {{ outputs.{toml_key(hop.output)} = {{ mismatch = {min(limit, 1.0):g} }} }}"
    return f"tolerance.fp32 = {{ rel_rms = {limit:g} }}"


RULES = (nonfinite, constant, concentrated, bias, flips, outside, differs_in_fp32, reads_otherwise)


def _told_nonfinite(seen: Observed) -> str:
    own = seen.nonfinite - seen.lacking
    told = [f"holds {own} NaN or infinities that the golden has not"] if own else []
    told += [f"lacks {seen.lacking} NaN or infinities that the golden has"] if seen.lacking else []
    return " and ".join(told)


def _mend_nonfinite(seen: Observed) -> str:
    if seen.lacking == seen.nonfinite:
        return (
            "Look for what puts a number there, a mask of another value or a guard of a division; if that was meant,"
            " make the golden anew of a model that does so too."
        )
    return "Look for NaN among the weights, a division by zero, or values beyond the precision's largest."


def _by(node: str) -> str:
    return f" of node {node!r}" if node else ""


def _size(seen: Observed) -> str:
    what = "of its elements differ" if seen.whole else "relative RMS"
    if seen.bound is None or seen.error <= seen.bound:
        return seen.reasons[0]
    return (
        f"{seen.error:.3g} {what}, {seen.error / seen.bound:.3g} times its bound {seen.bound:.3g}"
        if seen.bound
        else (f"{seen.error:.3g} {what}, where none is allowed")
    )


def _blame(hop: Hop | None, evidence: Evidence) -> str:
    return f"; {_fault(hop, evidence)} ({hop}: {hop.rel_rms:.2g})" if hop else ""


def _fault(hop: Hop, evidence: Evidence) -> str:
    """What is to blame; of a file that holds rounded weights they are, and never only what is beside the precision."""
    weight = at_fault(evidence)
    if str(hop) == "golden -> fp32" and evidence.held != "fp32":
        return (
            f"the file's weights are to blame, {weight.tensor!r} first"
            if weight
            else "the file differs by more than the rounding of its weights explains"
        )
    return _FAULTS.get(str(hop), str(hop))


def _remedy(hop: Hop | None, evidence: Evidence) -> str:
    weight = at_fault(evidence)
    if str(hop) == "golden -> fp32" and weight is not None:
        return f"Mend weight {weight.tensor!r} of {weight.node} first (TRT110)."
    if str(hop) == "golden -> fp32" and evidence.held != "fp32":
        lone = evidence.weights.unpaired if evidence.weights else ()
        beside = "" if not lone else f"Look at the weights of {lone[0]!r}, which have no counterpart (TRT110), and at"
        return f"{beside or 'Look at'} what was changed beside the weights when the file was quantised: nodes, biases,\
 preprocessing."
    return _REMEDIES.get(str(hop), "")


def _left(evidence: Evidence) -> str:
    return f"; {evidence.departure}" if evidence.departure else ""


def _look(evidence: Evidence) -> str:
    """Where the error comes from, the likeliest tensor first."""
    if not evidence.located:
        return "Look at the tensors that the error comes from (--trt-localise)."
    first = evidence.located[0]
    made = f" of {first.op} {first.node!r}" if first.node else ""
    return f"Look at tensor {first.tensor!r}{made} first, where most of the error comes from."


def _like(seen: Observed) -> str:
    return f"; {seen.resemblance}" if seen.resemblance else ""


def _where(place: Place) -> str:
    if place.kind == "border":
        return "at the border of its maps"
    if place.kind == "corner":
        return f"in the {('upper left', 'upper right', 'lower left', 'lower right')[place.index]} corner of its maps"
    return f"in {place.kind} {place.index} of {place.of}"


def _mend_place(place: Place) -> str:
    if place.kind == "border":
        return "Compare the padding of convolutions and poolings with the reference's."
    if place.kind == "sample":
        return "Look at that sample: its values may lie beyond the calibrated ranges."
    return "Look at the weights and the scales of what computes it."


def _sound(found: Flips) -> str:
    lead = f"the widest with a margin of {found.margins[0]:.3g} in fp32"
    return f"{found.sound} of them no near tie ({lead})" if found.sound else f"all of them near ties ({lead})"
