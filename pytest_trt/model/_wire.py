"""Wire: an ONNX file looked through without reading its weights, by protobuf's wire format.

https://protobuf.dev/programming-guides/encoding/ tells the format, onnx.proto the numbers of the fields.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from onnx import TensorProto

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["light"]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # of ModelProto, GraphProto and TensorProto


def light(path: Path, least: int, mark: str) -> bytes:
    """The model's bytes, where each initializer of so many bytes or more refers to its place in this very file.

    Args:
        path: the file.
        least: bytes of a weight.
        mark: a key that tells such references from those that the file has itself.

    Raises:
        OSError: the file can't be read.
        DecodeError: it is no protobuf message.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return b"".join(_model(data, least, {"location": str(path.resolve()), mark: "1"}))


def _model(data: mmap.mmap, least: int, told: dict[str, str]) -> Iterator[bytes]:
    for number, begun, start, end in _fields(data, 0, len(data)):
        if number == _GRAPH:
            yield _message(number, b"".join(_graph(data, start, end, least, told)))
        else:
            yield data[begun:end]


def _graph(data: mmap.mmap, start: int, end: int, least: int, told: dict[str, str]) -> Iterator[bytes]:
    for number, begun, inner, until in _fields(data, start, end):
        if number == _INITIALIZER and until - inner >= least:
            yield _message(number, b"".join(_tensor(data, inner, until, least, told)))
        else:
            yield data[begun:until]


def _tensor(data: mmap.mmap, start: int, end: int, least: int, told: dict[str, str]) -> Iterator[bytes]:
    for number, begun, inner, until in _fields(data, start, end):
        if number == _RAW_DATA and until - inner >= least:
            reference = TensorProto(data_location=TensorProto.EXTERNAL)
            for key, value in {**told, "offset": str(inner), "length": str(until - inner)}.items():
                reference.external_data.add(key=key, value=value)
            yield reference.SerializeToString()
        else:
            yield data[begun:until]


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Each field of a message: its number, where it begins, and where its value begins and ends."""
    at = start
    while at < end:
        begun = at
        tag, at = _varint(data, at, end)
        kind, value = tag & 7, at
        if kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind == _LENGTH:
            length, value = _varint(data, at, end)
            at = value + length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise DecodeError(f"a field of kind {kind} at byte {begun}")
        if at > end:
            raise DecodeError(f"the field at byte {begun} ends beyond what holds it")
        yield tag >> 3, begun, value, at


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise DecodeError(f"a number that does not end at byte {at}")


def _message(number: int, content: bytes) -> bytes:
    return _number(number << 3 | _LENGTH) + _number(len(content)) + content


def _number(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
