"""Text: a line ``tensor: range`` each, to be read and written by hand on any system."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from pytest_trt.errors import DataError
from pytest_trt.ranges.amax import Ranges, collected, places_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["lines_of", "read_text", "text_of", "written_text"]

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def text_of(data: bytes, path: Path) -> str:
    """The text, without a byte-order mark.

    Raises:
        DataError: it is not UTF-8.
    """
    if data.startswith(_UTF16):
        raise DataError(f"{path} can't be read: it is text in UTF-16 or UTF-32. Save it as UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}, can't be read: byte {data[error.start]:#04x} is not UTF-8. Save it as UTF-8, if it"
            " is text at all."
        ) from error
    if "\0" in text:
        raise DataError(
            f"{path} can't be read: it holds zero bytes, so it is no text (nor one of the binary files that hold"
            " ranges: an ONNX model with Q/DQ nodes, onnxruntime's calibration.flatbuffers)."
        )
    return text


def lines_of(data: bytes, path: Path) -> tuple[list[tuple[int, str]], tuple[str, ...]]:
    """The lines that hold anything, each with its number, and what there is to say of how they are written.

    Raises:
        DataError: it is not UTF-8, or its lines end in carriage returns alone.
    """
    text = text_of(data, path)
    # not splitlines(): a name may hold what Unicode calls a line's end
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    said = []
    for number, line in lines:
        if "\r" in line.removesuffix("\r"):
            raise DataError(f"{path}, line {number}, holds a carriage return inside: save it with one line end a line.")
    if data.startswith(codecs.BOM_UTF8):
        said.append(f"{path} begins with a byte-order mark, which is left out.")
    ended = sum(line.endswith("\r") for _, line in lines)
    if ended:
        said.append(f"{path} has Windows line ends ({ended} of {len(lines)} lines), which are left out.")
    return [(number, line.removesuffix("\r")) for number, line in lines], tuple(said)


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
