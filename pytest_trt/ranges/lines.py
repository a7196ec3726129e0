"""Lines: the text of a file, with what an editor of another system put into it said or refused."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from pytest_trt.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["lines_of", "text_of"]

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
