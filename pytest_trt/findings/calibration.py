"""Calibration: TRT101 to TRT109, what is wrong with the ranges that int8 and fp8 stand on.

Thresholds come of measurements, which docs/findings/TRT1xx.md tells.
"""

from __future__ import annotations

import math
import re
from statistics import median
from typing import TYPE_CHECKING, Any

from pytest_trt.findings.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pytest_trt.findings.evidence import Evidence
    from pytest_trt.likeness import InputLikeness
    from pytest_trt.quantised import Quantised, QuantisedTensor

__all__ = ["RULES"]

_SATURATED = 5e-3
_WIDE = 3.0
_BAD_DB = 24.0
_LOW_DB = 28.0
_LOST_DB = 6.0
_FAR_LOST_DB = 9.0

_FEWEST_OF_ONE, _FEWEST_OF_TWO = 3, 4
_FEW_SAMPLES = 8
_MANY = 3


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
        f"TensorRT refuses this file: {first.node} of {first.tensor!r} {first.why}{_more(faults)}.",
        "Quantise symmetrically to int8 and leave biases in float (onnxruntime: ActivationSymmetric=True,"
        " WeightSymmetric=True, QuantizeBias=False, activation_type and weight_type QInt8).",
        {"layer": first.node, "tensor": first.tensor, "kinds": kinds, "nodes": [fault.node for fault in faults]},
    )


def placeholders(evidence: Evidence) -> Iterator[Finding]:
    """TRT102: ranges that nobody measured: at most two distinct ones."""
    found = evidence.quantised
    if found is None or not _are_placeholders(found):
        return
    ranges = sorted({_digits(tensor.grid.amax) for tensor in found.tensors})
    of_trtexec = set(ranges) <= {2.0, 4.0}
    worst = min(_known(found), key=_quality)
    hurts = any(_fault(tensor) for tensor in _known(found))
    is_float = all(tensor.grid.is_float for tensor in found.tensors)
    told = f"{' and '.join(f'{value:g}' for value in ranges)}"
    yield Finding(
        "TRT102",
        Severity.ERROR if hurts or not is_float else Severity.WARNING,
        f"all {len(found.tensors)} ranges of {found.source} are {told}"
        f"{', the placeholders that trtexec writes where it has no calibration' if of_trtexec else ''}: nobody measured"
        f" them. {_place(worst)} {_numbers(worst)}.",
        "Calibrate on typical samples: pytest-trt calibrate, or `calibration` in the case.",
        {"ranges": ranges, "tensors": len(found.tensors), "trtexec": of_trtexec, **_figures(worst)},
    )


def stale(evidence: Evidence) -> Iterator[Finding]:
    """TRT104: ranges of another model, other weights or another release."""
    found = evidence.quantised
    if found is None:
        return
    if found.strange or (found.missing and found.tensors):
        yield _misfitting(found)
    elif _is_of_other_weights(found):
        off = [tensor for tensor in _known(found) if _fault(tensor)]
        worst = min(off, key=_quality)
        yield Finding(
            "TRT104",
            Severity.ERROR,
            f"{len(off)} of the {len(found.tensors)} ranges of {found.source} do not fit what the tensors hold, while"
            f" the input's does: they were taken from other weights. {_place(worst)} {_numbers(worst)}.",
            "Calibrate this very model again, and drop the old cache or ranges.",
            {"tensors": [tensor.name for tensor in off], **_figures(worst)},
        )
    yield from _of_another_release(found)


def unlike(evidence: Evidence) -> Iterator[Finding]:
    """TRT108: calibration data unlike the golden's inputs, or too few."""
    found = evidence.quantised
    if found is None:
        return
    if found.likeness is None:
        yield from _unlike_by_ranges(found)
        return
    differing = [finding for one in found.likeness.inputs for finding in _unlike(one)]
    yield from differing[:1]
    if not differing:
        yield from _too_few(found, found.likeness.samples)


def partial(evidence: Evidence) -> Iterator[Finding]:
    """TRT103: matrix operators of a file that read what was never quantised."""
    found = evidence.quantised
    if found is None or not found.uncovered or not found.tensors:
        return
    bare, share = found.uncovered, len(found.uncovered) / found.operators
    severity = Severity.NOTE if len(bare) <= 2 and found.operators > 2 * len(bare) else Severity.WARNING
    if share > 0.5 and evidence.precision.takes_ranges:
        severity = Severity.ERROR
    yield Finding(
        "TRT103",
        severity,
        f"{len(bare)} of {found.operators} matrix operators of {found.source} have an operand without Q/DQ, so they"
        f" stay in floating point: {_listed(bare)}.",
        "Quantise both of their operands, or list them in `keep` where they stay on purpose.",
        {"layer": bare[0], "layers": list(bare), "operators": found.operators},
    )


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
    hard = [tensor for tensor in _known(found) if _is_hard(tensor)] if found else []
    if found is None or not hard or any(_fault(tensor) == "lost" for tensor in _known(found)):
        return
    worst = min(hard, key=_quality)
    yield Finding(
        "TRT107",
        Severity.WARNING,
        f"{_place(worst)} {_numbers(worst)}, and no range would keep it much better: few values are much larger than"
        f" all others{_more(hard)}.",
        f"Keep {worst.consumer or 'its consumer'} in fp32 (`keep`), or smooth its outliers.",
        {"tensors": [tensor.name for tensor in hard], **_figures(worst)},
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
    bad = [tensor for tensor in _known(found) if _fault(tensor) == kind] if found else []
    if not bad:
        return
    worst = min(bad, key=_quality)
    yield Finding(
        code,
        Severity.ERROR if any(map(_is_bad, bad)) else Severity.WARNING,
        f"{_place(worst)} {_numbers(worst)}{_more(bad)}.",
        f"{remedy}; or keep {worst.consumer or 'its consumer'} in fp32 (`keep`).",
        {"tensors": [tensor.name for tensor in bad], **_figures(worst)},
    )


def _known(found: Quantised) -> list[QuantisedTensor]:
    """The tensors whose statistics say something; an asymmetric grid may cut values off in a Relu's place (TRT109)."""
    return [
        tensor
        for tensor in found.tensors
        if tensor.statistics
        and tensor.statistics.amax > 0
        and not tensor.statistics.nonfinite
        and tensor.grid.is_symmetric
    ]


def _fault(tensor: QuantisedTensor) -> str | None:
    """What the range does to the tensor: "saturated", "wide", "lost", or None where it costs little."""
    seen = tensor.statistics
    if seen is None:
        return None
    lost = seen.attainable_db - seen.sqnr_db
    if (seen.sqnr_db >= _BAD_DB or lost < _LOST_DB) and (seen.sqnr_db >= _LOW_DB or lost < _FAR_LOST_DB):
        return "wide" if seen.utilisation > 2 * _WIDE and not tensor.grid.is_float else None
    if seen.clipped > 0.5:
        return "saturated"
    return "wide" if seen.utilisation > _WIDE else "lost"


def _is_bad(tensor: QuantisedTensor) -> bool:
    """Whether a fault fails the case: between 24 and 28 dB, clipping may be what a percentile was asked for."""
    seen = tensor.statistics
    return seen is not None and (seen.sqnr_db < _BAD_DB or seen.utilisation > _WIDE or seen.saturation > _SATURATED)


def _is_hard(tensor: QuantisedTensor) -> bool:
    return tensor.statistics is not None and tensor.statistics.sqnr_db < _BAD_DB and not _fault(tensor)


def _quality(tensor: QuantisedTensor) -> float:
    return tensor.statistics.sqnr_db if tensor.statistics else math.inf


def _are_placeholders(found: Quantised) -> bool:
    tensors = _known(found)
    distinct = len({tensor.grid.scale for tensor in tensors})
    if not tensors or distinct > 2 or all(_is_explained(tensor) for tensor in tensors):
        return False
    return len(tensors) >= (_FEWEST_OF_ONE if distinct == 1 else _FEWEST_OF_TWO)


def _is_explained(tensor: QuantisedTensor) -> bool:
    """Whether the range is what the tensor's operator bounds it by, or what it holds."""
    seen = tensor.statistics
    bounded = tensor.bound is not None and math.isclose(tensor.grid.amax, tensor.bound, rel_tol=0.01)
    return bounded or (seen is not None and 0.8 <= seen.utilisation <= 1.25 and not _fault(tensor))


def _misfitting(found: Quantised) -> Finding:
    faults = [
        *([f"{len(found.strange)} tensors that the model has not: {_listed(found.strange)}"] if found.strange else []),
        *([f"none for {len(found.missing)} that it needs: {_listed(found.missing)}"] if found.missing else []),
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


def _is_of_other_weights(found: Quantised) -> bool:
    """Whether ranges are off in both directions, or most beside an input's that fits; samples would fit."""
    off, known = _many_off(found), _known(found)
    if found.likeness is not None or not off:
        return False
    uses = [_utilisation(tensor) for tensor in known]
    both_ways = sum(use < 0.5 for use in uses) > 1 and sum(use > 2.5 for use in uses) > 1
    inputs = [tensor for tensor in known if tensor.is_input]
    fed_right = bool(inputs) and all(0.5 <= _utilisation(tensor) <= 2 for tensor in inputs)
    return both_ways or (fed_right and len(off) * 2 > len(known))


def _many_off(found: Quantised) -> list[QuantisedTensor]:
    """The tensors whose ranges do not fit, where they are three or more: a slip of the hand is one."""
    off = [tensor for tensor in _known(found) if _fault(tensor)]
    return off if len(off) >= _MANY and not _are_placeholders(found) else []


def _unlike_by_ranges(found: Quantised) -> Iterator[Finding]:
    """Where only ranges are there: that of an input tells what data were fed, and others follow it."""
    off = _many_off(found)
    for tensor in (tensor for tensor in off if tensor.is_input and not _is_of_other_weights(found)):
        use = _utilisation(tensor)
        if not 0.5 <= use <= 2 and (use < 1) == (median(map(_utilisation, off)) < 1):
            yield Finding(
                "TRT108",
                Severity.ERROR,
                f"{found.source} was calibrated on other data than the golden's: the range of input {tensor.name!r}"
                f" is {use:.3g} times the largest |x| that the golden feeds, and {len(off)} of {len(found.tensors)}"
                " tensors are off as well.",
                "Calibrate on data that went through the same preprocessing as the golden's inputs.",
                _figures(tensor),
            )
            return


def _unlike(one: InputLikeness) -> Iterator[Finding]:
    data, golden = one.calibration, one.golden
    ratio = _ratio(math.hypot(data.mean, data.std), math.hypot(golden.mean, golden.std))
    shift = abs(data.mean - golden.mean) / golden.std if golden.std else 0.0
    told = (
        f"calibration mean {data.mean:.3g}, std {data.std:.3g}, largest |x| {data.amax:.3g}; golden mean"
        f" {golden.mean:.3g}, std {golden.std:.3g}, largest |x| {golden.amax:.3g}"
    )
    certain = abs(data.mean - golden.mean) > 4 * _uncertainty(
        data.scatter, golden.scatter, data.samples, golden.samples
    )
    what = None
    if _are_swapped(one):
        what, told = "has its channels in reverse order (BGR for RGB)", _by_channel(one)
    elif not 0.5 <= ratio <= 2:
        what = f"is {ratio:.3g} times as large"
    elif shift > 0.5 and certain:
        what = f"is shifted by {shift:.2g} of its spread"
    if what:
        yield Finding(
            "TRT108",
            Severity.ERROR,
            f"the calibration data are unlike the golden's inputs: {one.name!r} {what} ({told}).",
            "Put calibration samples and golden through one and the same preprocessing.",
            {"input": one.name, "ratio": ratio, "shift": shift, "samples": data.samples},
        )


def _too_few(found: Quantised, samples: int) -> Iterator[Finding]:
    hurt = [tensor for tensor in _known(found) if _fault(tensor) == "saturated"]
    if samples >= _FEW_SAMPLES or not (hurt or samples == 1):
        return
    worst = min(hurt, key=_quality) if hurt else None
    beyond = f", and the golden's go beyond its ranges: {_place(worst)} {_numbers(worst)}{_more(hurt)}" if worst else ""
    yield Finding(
        "TRT108",
        Severity.ERROR if worst else Severity.WARNING,
        f"{found.source} is {samples} sample{'s' if samples > 1 else ''}{beyond}.",
        "Calibrate on some hundreds of typical samples.",
        {"samples": samples, **(_figures(worst) if worst else {})},
    )


def _are_swapped(one: InputLikeness) -> bool:
    """Whether the golden's channels fit the calibration data's much better from last to first."""
    data, golden = one.calibration, one.golden
    if len(data.channels) != 3 or len(golden.channels) != 3:
        return False
    straight = _distance(one, (0, 1, 2))
    return straight > 9 and _distance(one, (2, 1, 0)) < straight / 4


def _distance(one: InputLikeness, order: Sequence[int]) -> float:
    """Mean over the channels of the squared difference of means, in its own variance."""
    data, golden = one.calibration, one.golden
    total = 0.0
    for place, other in enumerate(order):
        width = _uncertainty(data.channel_scatter[place], golden.channel_scatter[other], data.samples, golden.samples)
        # one fiftieth of the spread is nobody's business
        total += (data.channels[place] - golden.channels[other]) ** 2 / (width**2 + (0.02 * golden.std) ** 2)
    return total / len(order)


def _uncertainty(first: float, second: float, of_first: int, of_second: int) -> float:
    """Of the difference of two means, as far as samples scatter; infinite where neither set tells."""
    if max(of_first, of_second) < 3:
        return math.inf
    scatter = max(first if of_first > 2 else 0.0, second if of_second > 2 else 0.0)
    return scatter * math.sqrt(1 / of_first + 1 / of_second)


def _by_channel(one: InputLikeness) -> str:
    data, golden = (" ".join(f"{mean:.3g}" for mean in side.channels) for side in (one.calibration, one.golden))
    return f"means by channel {data}, golden {golden}"


def _ratio(first: float, second: float) -> float:
    return first / second if second else math.inf if first else 1.0


def _utilisation(tensor: QuantisedTensor) -> float:
    return tensor.statistics.utilisation if tensor.statistics else 1.0


def _digits(value: float) -> float:
    """Six digits: what a float32 scale gives back of a range that somebody wrote."""
    return float(f"{value:.6g}")


def _place(tensor: QuantisedTensor) -> str:
    return f"tensor {tensor.name!r}{f', read by {tensor.consumer},' if tensor.consumer else ''}"


def _numbers(tensor: QuantisedTensor) -> str:
    seen = tensor.statistics
    assert seen is not None
    beyond = f"{seen.saturation:.2g} of its values lie beyond" if seen.saturation else "all of its values lie within"
    return (
        f"has the range {tensor.grid.amax:.4g} for a largest |x| of {seen.amax:.4g}: {beyond}, and"
        f" {tensor.grid.kind} keeps it at {seen.sqnr_db:.1f} dB where {seen.attainable_db:.1f} dB could be"
    )


def _figures(tensor: QuantisedTensor) -> dict[str, Any]:
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


def _more(found: Sequence[object]) -> str:
    return f"; {len(found) - 1} more like it" if len(found) > 1 else ""


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(map(repr, names[:5]))}{' ...' if len(names) > 5 else ''}"
