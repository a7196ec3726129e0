"""onnxruntime's calibration tables, the three files of its ``write_calibration_table``.

``calibration.json`` holds lowest and highest of each tensor, of which amax is the larger absolute value.
``calibration.flatbuffers``, which its TensorRT provider reads, and ``calibration.cache`` hold one decimal number, the
range itself; what onnxruntime writes there is the larger of lowest and highest, signs and all.
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import DataError
from pytest_trt.ranges._text import lines_of, text_of
from pytest_trt.ranges.amax import Ranges, collected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["read_flatbuffers", "read_json", "read_plain", "written_flatbuffers", "written_json"]

_OURS = b"AMAX"  # a flatbuffers file identifier, which onnxruntime does not look at
_ONE_SIDED = (
    "onnxruntime writes the larger of lowest and highest there, not of their absolute values, so a tensor whose"
    " negative side is the larger one has too small a range: take the calibration.json beside it."
)


def read_json(data: bytes, path: Path, source: str) -> Ranges:
    """Ranges of a ``calibration.json``, or of what ``save_tensors_data`` writes, of any onnxruntime since 1.10.

    Raises:
        DataError: it is no such table, a tensor stands there twice, has a range a channel, or one that is NaN or
            infinite; names the tensor, or the line where JSON ends.
    """
    try:
        table = json.loads(text_of(data, path), object_pairs_hook=lambda pairs: _once(pairs, path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: this is no JSON ({error.msg}), or it was cut short.") from error
    except RecursionError as error:
        raise DataError(f"{path} is no calibration table: it is nested too deeply.") from error
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{path} is no calibration table: {error}.") from error
    if isinstance(table, dict) and table.get("CLS") == "TensorsData":
        table = table.get("data")
    if not isinstance(table, dict):
        raise DataError(f"{path} is no calibration table of onnxruntime: lowest and highest by tensor are expected.")
    return _ranges(((name, _larger(entry, name, path), str(path)) for name, entry in table.items()), path, source)


def read_flatbuffers(data: bytes, path: Path, source: str) -> Ranges:
    """Ranges of a ``calibration.flatbuffers``.

    Raises:
        DataError: it is damaged or no such table, a tensor stands there twice, or its range is no positive number.
    """
    try:
        entries = [(name, float(text), str(path)) for name, text in _pairs(data)]
    except (struct.error, ValueError) as error:
        raise DataError(
            f"{path} is no calibration table of onnxruntime in flatbuffers, or it was cut short: {error}."
        ) from error
    ours = data[4:8] == _OURS
    return _ranges(entries, path, source, () if ours else (f"{path}: {_ONE_SIDED}",))


def read_plain(data: bytes, path: Path, source: str) -> Ranges:
    """Ranges of onnxruntime's ``calibration.cache``: a line ``tensor range`` each, split at the last space.

    Raises:
        DataError: a line is none, a tensor stands there twice, or its range is no positive number; names the line.
    """
    lines, notes = lines_of(data, path)
    entries = (_plain(line, f"{path}, line {number}") for number, line in lines)
    return _ranges(entries, path, source, (*notes, f"{path}: {_ONE_SIDED}"))


def written_json(ranges: Ranges) -> bytes:
    """The file, in the form that onnxruntime's ``load_tensors_data`` reads, with all digits of each float."""
    method = {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"}
    data = {
        name: {"lowest": _array(-value), "highest": _array(value), "CLS": "TensorData"}
        for name, value in _listed(ranges)
    }
    return json.dumps({"CLS": "TensorsData", "data": data, "calibration_method": method}, indent=1).encode()


def written_flatbuffers(ranges: Ranges) -> bytes:
    """The file, as the TensorRT provider of onnxruntime reads it: sorted by name, with all digits of each float.

    Raises:
        DataError: the package flatbuffers, which onnxruntime brings, is not installed.
    """
    try:
        import flatbuffers
    except ImportError as error:
        raise DataError('a .flatbuffers file takes the package flatbuffers: pip install "pytest-trt[cpu]".') from error
    builder = flatbuffers.Builder(1024)
    places = []
    for name, value in sorted(_listed(ranges)):
        key, text = builder.CreateString(name), builder.CreateString(repr(value))
        builder.StartObject(2)
        builder.PrependUOffsetTRelativeSlot(0, key, 0)
        builder.PrependUOffsetTRelativeSlot(1, text, 0)
        places.append(builder.EndObject())
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):  # built from its end
        builder.PrependUOffsetTRelative(place)
    vector = builder.EndVector()
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, vector, 0)
    builder.Finish(builder.EndObject(), file_identifier=_OURS)
    return bytes(builder.Output())


def _ranges(entries: Any, path: Path, source: str, notes: tuple[str, ...] = ()) -> Ranges:
    amax, constants = collected(entries)
    if not amax:
        raise DataError(f"{source}: {path} holds no ranges{', only zeros' if constants else ''}.")
    return Ranges(amax, source, constants, notes=notes)


def _listed(ranges: Ranges) -> list[tuple[str, float]]:
    return [*((name, float(value)) for name, value in ranges.amax.items()), *((name, 0.0) for name in ranges.constants)]


def _array(value: float) -> dict[str, Any]:
    return {"data": value, "dtype": "float32", "CLS": "numpy.array"}


def _once(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DataError(f"{path}: {key!r} stands there twice. Keep one.")
        found[key] = value
    return found


def _larger(entry: Any, name: str, path: Path) -> float:
    """The larger absolute value of an entry: lowest and highest by name, or a pair of them."""
    ends = [entry.get("lowest"), entry.get("highest")] if isinstance(entry, dict) else entry
    values = [_number(end) for end in ends[:2]] if isinstance(ends, list) and len(ends) >= 2 else [None]
    numbers = [value for value in values if value is not None]
    if len(numbers) != 2:
        raise DataError(f"{path}: {name!r} has no lowest and highest, one number each. Calibrate per tensor.")
    # max() alone would pass over NaN
    return next((value for value in numbers if value != value), max(map(abs, numbers)))


def _number(end: Any) -> float | None:
    value = end.get("data") if isinstance(end, dict) else end
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _plain(line: str, where: str) -> tuple[str, float, str]:
    name, _, text = line.rpartition(" ")
    try:
        value = float(text)
    except ValueError:
        value = None
    if not name or value is None:
        raise DataError(f"{where}: {line!r} is no `tensor range`, as onnxruntime's calibration.cache has them.")
    return name, value, where


def _pairs(data: bytes) -> Iterator[tuple[str, str]]:
    """Keys and values of a flatbuffers ``TrtTable``; struct.error or ValueError where they do not lie in the file."""
    vector = _field(data, _pointed(data, 0), 0)
    for number in range(_unsigned(data, vector)):
        entry = _pointed(data, vector + 4 + 4 * number)
        yield _string(data, _field(data, entry, 0)), _string(data, _field(data, entry, 1))


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a table points to, by the table's own list of fields."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    if fields < 0 or 4 + 2 * number >= struct.unpack_from("<H", data, fields)[0]:
        raise ValueError("a table lacks a field")
    offset = struct.unpack_from("<H", data, fields + 4 + 2 * number)[0]
    if not offset:
        raise ValueError("a field is empty")
    return _pointed(data, table + offset)


def _pointed(data: bytes, at: int) -> int:
    return at + _unsigned(data, at)


def _unsigned(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _string(data: bytes, at: int) -> str:
    end = at + 4 + _unsigned(data, at)
    if data[end : end + 1] != b"\0":
        raise ValueError("a string ends outside of it")
    return data[at + 4 : end].decode()
