"""TensorRT's calibration cache: a header and a line ``name: scale`` each."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from pytest_trt.errors import DataError
from pytest_trt.ranges._text import lines_of
from pytest_trt.ranges.amax import INT8_LEVELS, Ranges, collected, fault_of_scale, places_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_cache", "written_cache"]

DEFAULT_HEADER = "TRT-8600-EntropyCalibration2"

_ALGORITHMS = ("EntropyCalibration2", "EntropyCalibration", "MinMaxCalibration", "LegacyCalibration")
# the release is 8600 or 100300; tools that write caches of their own put TRT-8XXX
_HEADER = re.compile(rf"TRT-[0-9X]+-({'|'.join(_ALGORITHMS)})")
_DIGITS = re.compile("[0-9a-fA-F]{1,8}")


def read_cache(data: bytes, path: Path, source: str) -> Ranges:
    """Ranges of a calibration cache; tensors with scale 0 are its ``constants``, its header ``made_by``.

    Raises:
        DataError: the header is missing or of an unknown form, a line is no ``name: scale``, a scale is NaN,
            negative, infinite or subnormal, a tensor stands there twice, the file was cut short or names no tensor;
            names the line.
    """
    lines, notes = lines_of(data, path)
    number, header = lines[0] if lines else (1, "")
    if not _HEADER.fullmatch(header.strip()):
        raise DataError(
            f"{path}, line {number}: {header.strip()[:80]!r} is not the header of a TensorRT calibration cache"
            f" (TRT-<release>-<algorithm>, one of {', '.join(_ALGORITHMS)})."
        )
    if not data.endswith(b"\n") and len(lines) > 1:
        _require_whole(*lines[-1], path)
    entries = [_entry(line, f"{path}, line {number}") for number, line in lines[1:]]
    amax, constants = collected(entries)
    if not amax:
        raise DataError(f"{source}: {path} holds no ranges, only a header{' and zeros' if constants else ''}.")
    return Ranges(amax, source, constants, header.strip(), notes, places_of(entries))


def written_cache(ranges: Ranges) -> bytes:
    """The file; constants come last. Without a header of its own it gets that of TensorRT 8.6's entropy calibration.

    TensorRT takes a cache only from its own release and algorithm: set ``made_by`` to what yours writes.

    Raises:
        DataError: a scale is too small for a float32, the header is none, or a name would be read as another.
    """
    header = ranges.made_by or DEFAULT_HEADER
    if not _HEADER.fullmatch(header):
        raise DataError(f"made_by {header!r} is not the header of a TensorRT calibration cache, as {DEFAULT_HEADER!r}.")
    listed = {**ranges.amax, **dict.fromkeys(ranges.constants, 0.0)}
    return "".join(f"{line}\n" for line in (header, *map(_line, listed, listed.values()))).encode()


def _entry(line: str, where: str) -> tuple[str, float, str]:
    name, colon, digits = line.rpartition(":")
    if not colon or not name.strip() or not _DIGITS.fullmatch(digits.strip()):
        raise DataError(f"{where}: {line!r} is no `name: scale` with the 8 hexadecimal digits of a float32.")
    scale = float(struct.unpack(">f", bytes.fromhex(digits.strip().zfill(8)))[0])
    fault = fault_of_scale(scale) if digits.strip().strip("0") else None
    if fault:
        raise DataError(f"{where}: the scale of {name!r}, {digits.strip()}, is {fault}.")
    return name, INT8_LEVELS * scale, where


def _require_whole(number: int, line: str, path: Path) -> None:
    digits = line.rpartition(":")[2].strip()
    # TensorRT writes ": 0"; "conv:0" alone is a name whose end is missing
    if len(digits) < 8 and not line.endswith(": 0"):
        raise DataError(f"{path}, line {number}: {line!r} was cut short: the file ends within it. Copy it again.")


def _line(name: str, amax: float) -> str:
    if not name.strip() or "\n" in name or name.endswith("\r"):
        raise DataError(f"a TensorRT calibration cache can't hold the tensor name {name!r}: take another format.")
    packed = struct.pack(">f", amax / INT8_LEVELS)
    fault = fault_of_scale(struct.unpack(">f", packed)[0]) if amax else None
    if fault:
        raise DataError(
            f"a TensorRT calibration cache can't hold the range {amax!r} of {name!r}: its scale would be {fault}."
        )
    return f"{name}: {packed.hex() if amax else 0}"
