"""Calibration: TRT101 to TRT103, TRT105 to TRT107 and TRT109: scales that are missing, invented or do not fit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pytest_trt.evidence.finding import Finding, Severity
from pytest_trt.evidence.hops import blamed
from pytest_trt.evidence.quant_ranges import LEAST_DB, LOST_DB, MOST_DB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pytest_trt.evidence.evidence import Evidence
    from pytest_trt.evidence.quant_ranges import Quantised, QuantisedTensor

__all__ = [
    "RULES",
    "are_placeholders",
    "fault",
    "figures",
    "known",
    "listed",
    "more",
    "numbers",
    "partial",
    "place",
    "placeholders",
    "quality",
    "refused",
    "severity",
    "uncalibrated",
    "utilisation",
]

_SATURATED = 5e-3
_WIDE = 3.0
_FAR_WIDE = 5.0  # honest samples reach 3.1 times beyond the golden's, ranges ten times too wide nine times
_BAD_DB = 24.0
_LOW_DB = 28.0
_FAR_LOST_DB = 9.0


def known(found: Quantised) -> list[QuantisedTensor]:
    """The tensors whose statistics say something; an asymmetric grid may cut values off in a Relu's place (TRT109)."""
    return [
        tensor
        for tensor in found.tensors
        if tensor.statistics
        and tensor.statistics.amax > 0
        and not tensor.statistics.nonfinite
        and tensor.grid.is_symmetric
    ]


def fault(tensor: QuantisedTensor) -> str | None:
    """What the range does to the tensor: "saturated", "wide", "lost", or None where it costs little."""
    seen = tensor.statistics
    if seen is None:
        return None
    lost = seen.attainable_db - seen.sqnr_db
    if (seen.sqnr_db >= _BAD_DB or lost < LOST_DB) and (seen.sqnr_db >= _LOW_DB or lost < _FAR_LOST_DB):
        return "wide" if seen.utilisation > 2 * _WIDE and not tensor.grid.is_float else None
    if seen.clipped > 0.5:
        return "saturated"
    return "wide" if seen.utilisation > _WIDE else "lost"


def is_bad(tensor: QuantisedTensor) -> bool:
    """Whether a fault may fail the case: between 24 and 28 dB, clipping may be what a percentile was asked for."""
    seen = tensor.statistics
    return seen is not None and (seen.sqnr_db < _BAD_DB or seen.utilisation > _WIDE or seen.saturation > _SATURATED)


_BEYOND_DB = 6.0


def is_shown(evidence: Evidence) -> bool:
    """Whether an output is outside its bound, and no step before the ranges' own is to blame."""
    hop = blamed(evidence.hops)
    return any(seen.reasons for seen in evidence.observed) and (hop is None or hop.end != "fp32")


def healthy_db(found: Quantised) -> float:
    """The least SQNR that honest samples may leave: 6 dB under what halves of the golden's inputs do."""
    if found.honest_db is None:
        return MOST_DB
    return min(max(found.honest_db - _BEYOND_DB, LEAST_DB), MOST_DB)


def fails(tensor: QuantisedTensor, evidence: Evidence) -> bool:
    """Whether a fault fails the case: where the output shows it, or no choice of honest samples explains it."""
    seen, found = tensor.statistics, evidence.quantised
    if seen is None or found is None or not is_bad(tensor):
        return False
    odd = seen.utilisation > _FAR_WIDE or tensor.grid.read_back is not None
    return odd or seen.sqnr_db < healthy_db(found) or is_shown(evidence)


def severity(tensors: Iterable[QuantisedTensor], evidence: Evidence) -> Severity:
    """An error where one of them fails the case, else a warning."""
    return Severity.ERROR if any(fails(tensor, evidence) for tensor in tensors) else Severity.WARNING


def is_hard(tensor: QuantisedTensor) -> bool:
    """Whether the tensor is kept badly, and no range would keep it better."""
    return tensor.statistics is not None and tensor.statistics.sqnr_db < _BAD_DB and not fault(tensor)


def quality(tensor: QuantisedTensor) -> float:
    """Local SQNR in dB; infinite where it is not known."""
    return tensor.statistics.sqnr_db if tensor.statistics else math.inf


def utilisation(tensor: QuantisedTensor) -> float:
    """The range over the largest |x|; 1 where it is not known."""
    return tensor.statistics.utilisation if tensor.statistics else 1.0


def place(tensor: QuantisedTensor) -> str:
    """What a message calls the tensor."""
    return f"tensor {tensor.name!r}{f', read by {tensor.consumer},' if tensor.consumer else ''}"


def numbers(tensor: QuantisedTensor) -> str:
    """What a message says of its range."""
    seen = tensor.statistics
    assert seen is not None
    back = tensor.grid.read_back
    steps = f", as steps of {tensor.grid.scale:.4g} are read back in steps of {back:.4g}" if back is not None else ""
    beyond = f"{seen.saturation:.2g} of its values lie beyond" if seen.saturation else "all of its values lie within"
    return (
        f"has the range {tensor.grid.amax:.4g} for a largest |x| of {seen.amax:.4g}: {beyond}, and"
        f" {tensor.grid.kind} keeps it at {seen.sqnr_db:.1f} dB where {seen.attainable_db:.1f} dB could be"
        f"{steps}"
    )


def figures(tensor: QuantisedTensor) -> dict[str, Any]:
    """The same as evidence."""
    seen = tensor.statistics
    assert seen is not None
    return {
        "tensor": tensor.name,
        "layer": tensor.consumer,
        "range": tensor.grid.amax,
        "amax": seen.amax,
        "saturation": seen.saturation,
        "utilisation": seen.utilisation,
        "sqnr_db": seen.sqnr_db,
        "attainable_db": seen.attainable_db,
    }


def more(found: Sequence[object]) -> str:
    """How many there are beside the first."""
    return f"; {len(found) - 1} more like it" if len(found) > 1 else ""


def listed(names: Sequence[str]) -> str:
    """The first five names."""
    return f"{', '.join(map(repr, names[:5]))}{' ...' if len(names) > 5 else ''}"


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
    """Whether the range is what the tensor's operator bounds it by, or what it holds (scales of 2^n: twice that)."""
    seen, shifts = tensor.statistics, math.frexp(tensor.grid.scale)[0] == 0.5
    bounded = tensor.bound is not None and math.isclose(tensor.grid.amax, tensor.bound, rel_tol=0.01)
    return bounded or (seen is not None and 0.8 <= seen.utilisation <= (2 if shifts else 1.25) and not fault(tensor))


def _digits(value: float) -> float:
    """Six digits: what a float32 scale gives back of a range that somebody wrote."""
    return float(f"{value:.6g}")


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
        f"Keep {_consumer(worst, evidence)}, or smooth its outliers.",
        {"tensors": [tensor.name for tensor in hard], **figures(worst)},
    )


RULES: tuple[Callable[[Evidence], Iterable[Finding]], ...] = (saturated, too_wide, noisy)


def _of_tensors(evidence: Evidence, code: str, kind: str, remedy: str) -> Iterator[Finding]:
    found = evidence.quantised
    bad = [tensor for tensor in known(found) if fault(tensor) == kind] if found else []
    if not bad:
        return
    worst = min(bad, key=quality)
    if worst.grid.read_back is not None:
        remedy = "Give the DequantizeLinear the scale of its QuantizeLinear"
    yield Finding(
        code,
        severity(bad, evidence),
        f"{place(worst)} {numbers(worst)}{more(bad)}.",
        f"{remedy}; or keep {_consumer(worst, evidence)}.",
        {"tensors": [tensor.name for tensor in bad], **figures(worst)},
    )


def _consumer(tensor: QuantisedTensor, evidence: Evidence) -> str:
    """What reads it, and the key that keeps that; a file that is quantised already has its nodes left out of it."""
    key = evidence.keep([tensor.consumer]) if tensor.consumer and evidence.held == "fp32" else "`keep`"
    return f"{tensor.consumer or 'its consumer'} in fp32 ({key})"
