"""Amax: what a range is, which numbers are none, the scale it makes, and the ranges that a model needs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_trt.errors import DataError, LoweringError

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
    "is_tensorrts_own",
    "places_of",
    "same_scale",
    "select",
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


def same_scale(source: float, made: float) -> bool:
    """Whether two ranges give the same float32 scale: in fp8 where ``made`` is 448 times one, and in int8 else."""
    in_fp8 = _is_multiple(made, FP8_LARGEST) and not _is_multiple(made, INT8_LEVELS)
    levels = FP8_LARGEST if in_fp8 else INT8_LEVELS
    return bool(np.float32(source / levels) == np.float32(made / levels))


def _is_multiple(amax: float, levels: int) -> bool:
    return bool(levels * float(np.float32(amax / levels)) == amax)


# what TensorRT's parser adds to a network has no name in the ONNX model
_OWN = re.compile(r"\(Unnamed Layer\* \d+\) \[.*|ONNXTRT_.*")


def is_tensorrts_own(name: str) -> bool:
    """Whether TensorRT gave a tensor this name, as "(Unnamed Layer* 5) [Constant]_output"."""
    return _OWN.fullmatch(name) is not None


def select(ranges: Ranges, tensors: Iterable[str], known: Iterable[str]) -> Ranges:
    """The ranges of these tensors; one that a file lists with range 0 is taken for always 0, as its samples had it.

    Args:
        ranges: that were given; those of tensors that TensorRT's parser added are passed over.
        tensors: whose range is needed.
        known: every tensor of the model.

    Raises:
        LoweringError: one of them has none, or a range is given for a tensor that the model has not.
    """
    names, all_of_it = list(tensors), set(known)
    told = [name for name in ranges.amax if not is_tensorrts_own(name)]
    strange = [name for name in told if name not in all_of_it]
    zero = [name for name in names if name in ranges.constants and name not in ranges.amax]
    missing = [name for name in names if name not in ranges.amax and name not in zero]
    if 2 * len(strange) > len(told):
        none = "none" if len(strange) == len(told) else f"only {len(told) - len(strange)}"
        raise LoweringError(
            f"{ranges.source} is of another network: {none} of its {len(told)} tensors"
            f" ({_placed(ranges, strange)}) is one of the model's, which needs {_five(names)}. Take the ranges of this"
            " model, exported the same way.",
            _facts(ranges, names, strange, missing),
        )
    faults = [
        *([f"{len(missing)} tensors have no range: {_five(missing)}"] if missing else []),
        *([f"{len(strange)} ranges are of tensors it has not: {_placed(ranges, strange)}"] if strange else []),
    ]
    if faults:
        raise LoweringError(
            f"{ranges.source} does not fit the model: {'; '.join(faults)}.",
            _facts(ranges, names, strange, missing),
        )
    amax = {name: ranges.amax.get(name, 0.0) for name in names}
    return replace(ranges, amax=amax, constants=(), notes=(*ranges.notes, *_always_zero(ranges, zero)))


def _always_zero(ranges: Ranges, zero: list[str]) -> tuple[str, ...]:
    if not zero:
        return ()
    told = "1 tensor, taken for always 0," if len(zero) == 1 else f"{len(zero)} tensors, taken for always 0,"
    return (
        f"range 0 in {ranges.source} of {told} {_placed(ranges, zero)}: where that is wrong, calibrate on data that"
        " moves them.",
    )


def _placed(ranges: Ranges, names: list[str]) -> str:
    told = [f"{name!r} ({ranges.lines[name]})" if name in ranges.lines else repr(name) for name in names[:5]]
    return f"{', '.join(told)}{' ...' if len(names) > 5 else ''}"


def _facts(ranges: Ranges, names: list[str], strange: list[str], missing: list[str]) -> dict[str, object]:
    fitting = {name: ranges.amax[name] for name in names if name in ranges.amax}
    return {"source": ranges.source, "made_by": ranges.made_by, "amax": fitting, "strange": strange, "missing": missing}


def _five(names: list[str]) -> str:
    return f"{', '.join(map(repr, names[:5]))}{' ...' if len(names) > 5 else ''}"
