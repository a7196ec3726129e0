"""Ranges: the largest absolute value of each tensor, the one currency of int8."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_trt.errors import DataError, LoweringError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["Ranges", "read_ranges", "select"]


@dataclass(frozen=True)
class Ranges:
    """Dynamic ranges of activations: an int8 step of a tensor is its amax / 127.

    Attributes:
        amax: largest absolute value by tensor name, in the tensor's own unit.
        source: what they were taken from, for messages and the record.
    """

    amax: Mapping[str, float]
    source: str = "given"


def read_ranges(path: Path, where: str) -> Ranges:
    """Read a text file of ``tensor: range`` lines, split at the last colon, since names hold colons too.

    Args:
        path: the file; empty lines and those that begin with # say nothing.
        where: what messages call it.

    Raises:
        DataError: it can't be read or is empty, a tensor stands there twice, or a range is not a positive
            finite number; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: the ranges of {path} can't be read: {error}.") from error
    amax: dict[str, float] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            name, value = _entry(line, f"{path}, line {number}")
            if name in amax:
                raise DataError(f"{path}, line {number}: {name!r} has a range already, in an earlier line. Keep one.")
            amax[name] = value
    if not amax:
        raise DataError(f"{where}: {path} holds no ranges: write a line `tensor: range` for each tensor.")
    return Ranges(amax, where)


def select(ranges: Ranges, tensors: Iterable[str], known: Iterable[str]) -> Ranges:
    """The ranges of these tensors.

    Args:
        ranges: that were given.
        tensors: whose range is needed.
        known: every tensor of the model.

    Raises:
        LoweringError: one of them has none, or a range is given for a tensor that the model has not.
    """
    names, all_of_it = list(tensors), set(known)
    missing = [name for name in names if name not in ranges.amax]
    strange = [name for name in ranges.amax if name not in all_of_it]
    if missing or strange:
        told = [
            f"{len(found)} {what}: {', '.join(map(repr, found[:5]))}{' ...' if len(found) > 5 else ''}"
            for found, what in ((missing, "tensors have no range"), (strange, "ranges are of tensors it has not"))
            if found
        ]
        raise LoweringError(f"{ranges.source} does not fit the model: {'; '.join(told)}.")
    return Ranges({name: ranges.amax[name] for name in names}, ranges.source)


def _entry(line: str, where: str) -> tuple[str, float]:
    name, colon, text = (part.strip() for part in line.rpartition(":"))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not colon or not name or not (math.isfinite(value) and value > 0):
        raise DataError(
            f"{where}: {line.strip()!r} is no `tensor: range` with a positive finite range"
            " (the largest absolute value of the tensor)."
        )
    return name, value
