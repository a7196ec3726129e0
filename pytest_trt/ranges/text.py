"""Text: a line ``tensor: range`` each, to be read and written by hand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_trt.errors import DataError
from pytest_trt.ranges.amax import Ranges, collected, places_of
from pytest_trt.ranges.lines import lines_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_text", "written_text"]

_MADE_BY, _CONSTANT = "# made by: ", "# constant: "


def read_text(data: bytes, path: Path, source: str) -> Ranges:
    """Ranges of ``tensor: range`` lines, split at the last colon, since names hold colons too.

    Lines that begin with # say nothing, but for the two that :func:`written_text` writes.

    Raises:
        DataError: a line is none, its range is not positive and finite, a tensor stands there twice, or there is none.
    """
    lines, notes = lines_of(data, path)
    entries = [(number, line.strip()) for number, line in lines if not line.lstrip().startswith("#")]
    found = [_entry(line, f"{path}, line {number}") for number, line in entries]
    amax, _ = collected(found, zeros=False)
    if not amax:
        raise DataError(f"{source}: {path} holds no ranges: write a line `tensor: range` for each tensor.")
    made_by = next((line[len(_MADE_BY) :].strip() for _, line in lines if line.startswith(_MADE_BY)), "")
    constants = dict.fromkeys(line[len(_CONSTANT) :].strip() for _, line in lines if line.startswith(_CONSTANT))
    constant = tuple(name for name in constants if name not in amax)
    return Ranges(amax, source, constant, made_by, notes, places_of(found))


def written_text(ranges: Ranges) -> bytes:
    """The file: floats with all their digits, and what else there is as comments that :func:`read_text` knows.

    Raises:
        DataError: a name would be read as another.
    """
    zero = [name for name, value in ranges.amax.items() if value == 0]
    found = {name: value for name, value in ranges.amax.items() if value}
    for name in (*found, *ranges.constants, *zero):
        if not name or name != name.strip() or "\n" in name or name.startswith("#"):
            raise DataError(f"a line `tensor: range` can't hold the tensor name {name!r}: take another format.")
    lines = [f"{_MADE_BY}{ranges.made_by}"] if ranges.made_by else []
    lines += [f"{name}: {float(value)!r}" for name, value in found.items()]
    lines += [f"{_CONSTANT}{name}" for name in (*ranges.constants, *zero)]
    return "".join(f"{line}\n" for line in lines).encode()


def _entry(line: str, where: str) -> tuple[str, float, str]:
    name, colon, text = (part.strip() for part in line.rpartition(":"))
    try:
        value = float(text)
    except ValueError:
        value = None
    if not colon or not name or value is None:
        cache = re.fullmatch("[0-9a-fA-F]{8}", text) and name
        raise DataError(
            f"{where}: {line!r} is no `tensor: range` with a positive finite range (the largest absolute value of the"
            f" tensor).{' It looks like a TensorRT calibration cache without its first line.' if cache else ''}"
        )
    return name, value, where
