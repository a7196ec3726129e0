"""Calibration data: TRT104 and TRT108, ranges of another model, data unlike the golden, or too few."""

from __future__ import annotations

import math
import re
from statistics import median
from typing import TYPE_CHECKING

from pytest_trt.evidence.finding import Finding, Severity
from pytest_trt.findings._calibration import (
    are_placeholders,
    fault,
    figures,
    known,
    listed,
    more,
    numbers,
    place,
    quality,
    severity,
    utilisation,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_trt.evidence.calibration_shift import InputLikeness
    from pytest_trt.evidence.evidence import Evidence
    from pytest_trt.evidence.quant_ranges import Quantised, QuantisedTensor

__all__ = ["stale", "unlike"]

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
            severity(off, evidence),
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


_FEW_SAMPLES = 8
_TEXTURE = 3.0


def unlike(evidence: Evidence) -> Iterator[Finding]:
    """TRT108: calibration data unlike the golden's inputs, or too few."""
    found = evidence.quantised
    if found is None:
        return
    if found.likeness is None:
        yield from _unlike_by_ranges(found, evidence)
        return
    off = _worst_off(found)
    differing = [finding for one in found.likeness.inputs for finding in _unlike(one, off)]
    yield from differing[:1]
    if not differing:
        yield from _too_few(found, found.likeness.samples)


def _unlike_by_ranges(found: Quantised, evidence: Evidence) -> Iterator[Finding]:
    """Where only ranges are there: that of an input tells what data were fed, and others follow it."""
    off = many_off(found)
    for tensor in (tensor for tensor in off if tensor.is_input and not is_of_other_weights(found)):
        use = utilisation(tensor)
        if not 0.5 <= use <= 2 and (use < 1) == (median(map(utilisation, off)) < 1):
            yield Finding(
                "TRT108",
                severity(off, evidence),
                f"{found.source} was calibrated on other data than the golden's: the range of input {tensor.name!r}"
                f" is {use:.3g} times the largest |x| that the golden feeds, and {len(off)} of {len(found.tensors)}"
                " tensors are off as well.",
                "Calibrate on data that went through the same preprocessing as the golden's inputs.",
                figures(tensor),
            )
            return


def _unlike(one: InputLikeness, off: QuantisedTensor | None) -> Iterator[Finding]:
    """How one input differs. ``off``: the tensor whose range fits the golden's inputs worst, if any does not."""
    data, golden = one.calibration, one.golden
    if not golden.amax:
        return  # a first state of zeros, say, which tells nothing of what is fed later
    swapped = _are_swapped(one)
    what = "has its channels in reverse order (BGR for RGB)" if swapped else _in_size(one)
    hurt = f", and a range does not fit: {place(off)} {numbers(off)}" if off is not None else ""
    if not what and hurt:
        what = _in_kind(one)
    else:
        hurt = ""
    told = (
        f"calibration mean {data.mean:.3g}, std {data.std:.3g}, largest |x| {data.amax:.3g}; golden mean"
        f" {golden.mean:.3g}, std {golden.std:.3g}, largest |x| {golden.amax:.3g}"
    )
    if what:
        yield Finding(
            "TRT108",
            Severity.ERROR,
            f"the calibration data are unlike the golden's inputs: {one.name!r} {what}"
            f" ({_by_channel(one) if swapped else told}){hurt}.",
            "Put calibration samples and golden through one and the same preprocessing.",
            {"input": one.name, **_measures(one), "samples": data.samples},
        )


def _measures(one: InputLikeness) -> dict[str, float]:
    """The calibration samples over the golden's: size, shift of the mean in spreads, spread in a sample, roughness."""
    data, golden = one.calibration, one.golden
    return {
        "ratio": _ratio(math.hypot(data.mean, data.std), math.hypot(golden.mean, golden.std)),
        "shift": abs(data.mean - golden.mean) / golden.std if golden.std else 0.0,
        "contrast": _ratio(data.spread, golden.spread),
        "texture": _ratio(data.roughness, golden.roughness),
    }


def _in_size(one: InputLikeness) -> str:
    """What is off in the values' size or mean, wherever that leads to."""
    data, golden, found = one.calibration, one.golden, _measures(one)
    if not 0.5 <= found["ratio"] <= 2 and _is_of_another_size(one):
        return f"is {found['ratio']:.3g} times as large"
    if found["shift"] > 0.5 and _apart(one, (data.mean, data.scatter), (golden.mean, golden.scatter)):
        return f"is shifted by {found['shift']:.2g} of its spread"
    return ""


def _is_of_another_size(one: InputLikeness) -> bool:
    """Whether the size differs by more than the samples' own do; where nobody knows by how much these do, it does."""
    data, golden = one.calibration, one.golden
    known = data.amax and max(data.samples, golden.samples) > 2
    return not known or _apart(one, (data.size, data.size_scatter), (golden.size, golden.size_scatter))


def _in_kind(one: InputLikeness) -> str:
    """What is off in how a sample varies; data may differ so and be right, so that this counts where a range is off."""
    data, golden, found = one.calibration, one.golden, _measures(one)
    if not golden.spread:
        return ""
    spreads = (data.spread, data.spread_scatter), (golden.spread, golden.spread_scatter)
    if not 0.5 <= found["contrast"] <= 2 and _apart(one, *spreads):
        return f"varies {found['contrast']:.3g} times as much within a sample"
    textures = (data.roughness, data.roughness_scatter), (golden.roughness, golden.roughness_scatter)
    if not 1 / _TEXTURE <= found["texture"] <= _TEXTURE and _apart(one, *textures):
        return (
            f"is of another texture: neighbours differ by {data.roughness:.2g} of what noise does, the golden's by"
            f" {golden.roughness:.2g}"
        )
    return ""


def _worst_off(found: Quantised) -> QuantisedTensor | None:
    return min((tensor for tensor in known(found) if fault(tensor)), key=quality, default=None)


def _apart(one: InputLikeness, first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether two (mean, scatter) over the samples differ by more than four of their own uncertainties."""
    width = _uncertainty(first[1], second[1], one.calibration.samples, one.golden.samples)
    return abs(first[0] - second[0]) > 4 * width


def _too_few(found: Quantised, samples: int) -> Iterator[Finding]:
    hurt = [tensor for tensor in known(found) if fault(tensor) == "saturated"]
    if samples >= _FEW_SAMPLES or not (hurt or samples == 1):
        return
    worst = min(hurt, key=quality) if hurt else None
    beyond = f", and the golden's go beyond its ranges: {place(worst)} {numbers(worst)}{more(hurt)}" if worst else ""
    yield Finding(
        "TRT108",
        Severity.ERROR if worst else Severity.WARNING,
        f"{found.source} is {samples} sample{'s' if samples > 1 else ''}{beyond}.",
        "Calibrate on some hundreds of typical samples.",
        {"samples": samples, **(figures(worst) if worst else {})},
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
    for own, other in enumerate(order):
        width = _uncertainty(data.channel_scatter[own], golden.channel_scatter[other], data.samples, golden.samples)
        # one fiftieth of the spread is nobody's business
        total += (data.channels[own] - golden.channels[other]) ** 2 / (width**2 + (0.02 * golden.std) ** 2)
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
