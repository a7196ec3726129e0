"""Amax: what a range is, and which numbers are none."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_trt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "FP8_LARGEST",
    "INT8_LEVELS",
    "LARGEST_FLOAT32",
    "Ranges",
    "collected",
    "fault_of",
    "fault_of_scale",
    "places_of",
]

INT8_LEVELS = 127
FP8_LARGEST = 448

_LEAST_SCALE = 2.0**-126  # the smallest normal float32: engines flush what is below it
LARGEST_FLOAT32 = (2 - 2.0**-23) * 2.0**127


@dataclass(frozen=True)
class Ranges:
    """Dynamic ranges of activations: an int8 step of a tensor is its amax / 127, an fp8 one its amax / 448.

    Attributes:
        amax: largest absolute value by tensor name, in the tensor's own unit.
        source: what they were taken from, for messages and the record.
        constants: tensors that a file lists with range 0, as TensorRT does its constants.
        made_by: the header of the TensorRT calibration cache that they come from, such as TRT-8600-EntropyCalibration2.
        notes: sentences for the person who gave them.
        lines: where in its file a tensor stands, as "line 3", in formats that have lines.
    """

    amax: Mapping[str, float]
    source: str = "given"
    constants: tuple[str, ...] = ()
    made_by: str = ""
    notes: tuple[str, ...] = ()
    lines: Mapping[str, str] = field(default_factory=dict, compare=False)


def fault_of(amax: float) -> str | None:
    """What is wrong with a range; None where it is a positive number whose int8 scale a float32 holds."""
    if math.isnan(amax):
        return "NaN"
    if math.isinf(amax):
        return "infinite"
    if amax <= 0:
        return "negative" if amax < 0 else "zero"
    return "larger than 127 times what a float32 holds" if amax / INT8_LEVELS > LARGEST_FLOAT32 else None


def fault_of_scale(scale: float) -> str | None:
    """What is wrong with a scale; None where engines can divide by it."""
    fault = fault_of(scale)
    if fault is None and scale < _LEAST_SCALE:
        return "subnormal, which engines take for 0 (cut short, or its bytes in the wrong order?)"
    return fault


def places_of(entries: Iterable[tuple[str, float, str]]) -> dict[str, str]:
    """The line of each tensor, out of places that end with it."""
    return {name: where.rpartition(", ")[2] for name, _, where in entries}


def collected(
    entries: Iterable[tuple[str, float, str]], *, zeros: bool = True
) -> tuple[dict[str, float], tuple[str, ...]]:
    """The ranges of a file, and the tensors whose range is 0.

    Args:
        entries: of each its tensor, its range and where it stands.
        zeros: whether the format lists tensors with range 0.

    Raises:
        DataError: a tensor stands there twice, or its range is none; tells where.
    """
    amax: dict[str, float] = {}
    constants: dict[str, None] = {}
    for name, value, where in entries:
        if name in amax or name in constants:
            raise DataError(f"{where}: {name!r} has a range already, in an earlier entry. Keep one.")
        if zeros and value == 0:
            constants[name] = None
            continue
        fault = fault_of(value)
        if fault:
            raise DataError(f"{where}: the range of {name!r} is {fault} ({value!r}); it must be positive and finite.")
        amax[name] = value
    return amax, tuple(constants)
