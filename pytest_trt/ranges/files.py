"""Files: which format a file of ranges is in, read and written."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_trt.errors import DataError, unknown
from pytest_trt.ranges._onnxruntime_tables import (
    read_flatbuffers,
    read_json,
    read_plain,
    written_flatbuffers,
    written_json,
)
from pytest_trt.ranges._text import read_text, text_of, written_text
from pytest_trt.ranges._trt_cache import read_cache, written_cache
from pytest_trt.ranges.amax import Ranges, fault_of, is_tensorrts_own, same_scale
from pytest_trt.ranges.qdq import read_qdq
from pytest_trt.storage.atomic_write import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["is_ranges_file", "read_ranges", "require_writable", "write_ranges"]


@dataclass(frozen=True)
class _Format:
    """A format: what messages call it, the suffixes of its files, and its functions."""

    label: str
    suffixes: tuple[str, ...]
    read: Callable[[bytes, Path, str], Ranges]
    written: Callable[[Ranges], bytes] | None


_FORMATS = {
    "text": _Format("`tensor: range` lines", (".txt",), read_text, written_text),
    "cache": _Format("a TensorRT calibration cache", (".cache",), read_cache, written_cache),
    "json": _Format("onnxruntime's calibration.json", (".json",), read_json, written_json),
    "flatbuffers": _Format(
        "onnxruntime's calibration.flatbuffers", (".flatbuffers",), read_flatbuffers, written_flatbuffers
    ),
    "plain": _Format("onnxruntime's calibration.cache", (".cache", ".txt"), read_plain, None),
    "qdq": _Format("the Q/DQ nodes of a model", (".onnx",), read_qdq, None),
}
_SUFFIXES = frozenset(suffix for format_ in _FORMATS.values() for suffix in format_.suffixes)


def is_ranges_file(name: str) -> bool:
    """Whether a file of this name holds ranges, by its suffix: .txt, .cache, .json, .flatbuffers or .onnx."""
    return name.lower().endswith(tuple(_SUFFIXES))


def read_ranges(path: Path, where: str) -> Ranges:
    """The ranges of a file, in whichever format it is: by its content, and by its suffix where that is of several.

    Args:
        path: ``tensor: range`` lines, a TensorRT calibration cache, one of onnxruntime's calibration tables, or an ONNX
            model with Q/DQ nodes.
        where: what messages call it; the source of what is returned adds the format.

    Raises:
        DataError: it can't be read, is empty, holds no ranges, or one that is no positive finite number; names the
            line, tensor or node.
        ModelError: it is no ONNX model, and is called one.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{where}: the ranges of {path} can't be read: {error.strerror or error}.") from error
    if not data.strip():
        raise DataError(f"{where}: {path} holds no ranges: it is empty.")
    format_ = _FORMATS[_format_of(data, path)]
    found = format_.read(data, path, f"{where} ({format_.label})")
    return replace(found, notes=(*_unexpected(path, format_), *found.notes, *_passed_over(found)))


def require_writable(path: Path, format: str | None = None) -> None:
    """Refuse what :func:`write_ranges` could not write, before there is anything to write.

    Args:
        path: the file; folders that are not there yet would be made.
        format: as for :func:`write_ranges`.

    Raises:
        SpecError: there is no such format.
        DataError: the suffix is of none, it is a folder, or its folder can't be written to.
    """
    _writer(path, format)
    if path.is_dir():
        raise DataError(f"{path} can't be written: it is a folder. Name a file in it.")
    folder = next(parent for parent in (*path.parents, path.parent) if parent.exists())
    if not folder.is_dir():
        raise DataError(f"{path} can't be written: {folder} is a file.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"{path} can't be written: nothing may be written into {folder}.")


def write_ranges(ranges: Ranges, path: Path, format: str | None = None) -> None:
    """Write ranges to a file, whole or not at all.

    Tensors with range 0 are written as a TensorRT cache's constants are, and read back as such.

    Args:
        ranges: what to write.
        path: the file.
        format: "text", "cache", "json" or "flatbuffers"; by the file's suffix if none is given.

    Raises:
        SpecError: there is no such format.
        DataError: the suffix is of none, there are no ranges, one is negative, NaN, infinite or too large, the format
            can't hold one, or the file can't be written.
    """
    written = _writer(path, format)
    if not any(ranges.amax.values()):
        raise DataError(f"{ranges.source} holds no ranges: there is nothing to write to {path}.")
    for name, value in ranges.amax.items():
        fault = fault_of(value) if value else None
        if fault:
            raise DataError(f"{path} is not written: the range of {name!r} ({ranges.source}) is {fault}: {value!r}.")
    try:
        data = written(ranges)
        _require_the_same(ranges, data, path)
        write_whole(path, data)
    except UnicodeEncodeError as error:
        raise DataError(f"{path} is not written: a tensor's name is no text: {error}.") from error
    except OSError as error:
        raise DataError(f"{path} can't be written: {error.strerror or error}.") from error


def _require_the_same(ranges: Ranges, data: bytes, path: Path) -> None:
    """Read it back before it is written: a first name may look like the beginning of another format."""
    try:
        found = _FORMATS[_format_of(data, path)].read(data, path, str(path))
    except DataError as error:
        raise DataError(f"{path} is not written, since it could not be read back: {error}") from error
    told = {name: value for name, value in ranges.amax.items() if value}
    strange = [
        name for name in {**told, **found.amax} if not same_scale(told.get(name, 0.0), found.amax.get(name, 0.0))
    ]
    if strange:
        raise DataError(f"{path} is not written: the format can't hold the tensor name {strange[0]!r}. Take another.")


def _writer(path: Path, format_: str | None) -> Callable[[Ranges], bytes]:
    writers = {name: known for name, known in _FORMATS.items() if known.written}
    if format_ is not None and format_ not in writers:
        raise unknown("format of ranges", format_, writers)
    by_suffix = (name for name, known in writers.items() if path.suffix.lower() in known.suffixes)
    found = writers.get(format_ or next(by_suffix, ""))
    if found is None or found.written is None:
        instead = " To put them into a model, lower it with them." if path.suffix == ".onnx" else ""
        raise DataError(
            f"{path}: the suffix says no format to write ranges in:"
            f" {', '.join(suffix for known in writers.values() for suffix in known.suffixes)}.{instead}"
        )
    return found.written


def _format_of(data: bytes, path: Path) -> str:
    """The format's name, by its first bytes or first line."""
    if data[1:4] == b"\0\0\0":  # the place of its root, which lies near the beginning
        return "flatbuffers"
    if data[:1] == b"\x08" or path.suffix.lower() == ".onnx":  # the field ir_version
        return "qdq"
    lines = [line.strip() for line in text_of(data, path).split("\n") if line.strip()]
    if lines[0].startswith("TRT-"):
        return "cache"
    if lines[0].startswith("{"):
        return "json"
    return _format_of_entry(next((line for line in lines if not line.startswith("#")), ""), path)


def _format_of_entry(line: str, path: Path) -> str:
    name, _, last = line.rpartition(" ")
    if name.strip() and not name.rstrip().endswith(":") and _is_number(last):
        return "plain"
    digits = re.fullmatch("[0-9a-fA-F]{1,8}", line.rpartition(":")[2].strip())
    by_name = {".cache": "cache", ".json": "json", ".flatbuffers": "flatbuffers"}.get(path.suffix.lower(), "text")
    return "text" if by_name == "cache" and not digits and _is_number(line.rpartition(":")[2]) else by_name


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _unexpected(path: Path, format_: _Format) -> tuple[str, ...]:
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES or suffix in format_.suffixes:
        return ()
    return (f"{path} is read as {format_.label}, which it holds, whatever its suffix says.",)


def _passed_over(ranges: Ranges) -> tuple[str, ...]:
    own = [name for name in (*ranges.amax, *ranges.constants) if is_tensorrts_own(name)]
    if not own:
        return ()
    return (
        f"{ranges.source} lists {len(own)} tensors that TensorRT's parser added, such as {own[0]!r}: they are kept, and"
        " no ONNX model has them.",
    )
