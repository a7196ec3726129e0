"""External data: large weights stay in the file where they lie, and the graph refers to them by place and length.

A graph is small without its weights, so that it can be copied, checked and inferred whatever the model's size. A weight
is mapped into memory while it is read, one that is changed is written to a temporary folder and referred to there.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from contextlib import contextmanager
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from pytest_trt.errors import ModelError
from pytest_trt.model._wire import light
from pytest_trt.model.normalise import subgraphs
from pytest_trt.storage.atomic_write import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto

__all__ = [
    "LEAST",
    "array_of",
    "dtype_of",
    "is_reference",
    "parsed",
    "read_graph",
    "replaced",
    "scratch",
    "shared_folder",
    "tensors_of",
    "with_weights_at",
    "without_weights",
    "write_graph",
]

LEAST = 1 << 14
"""Bytes of a weight from which on it is referred to; smaller ones tell shapes and are read."""

WHOLE = 1 << 26
"""Bytes of a model's weights up to which all are read: then nothing depends on its files any more."""

_BLOCK = 1 << 24  # bytes that are written at once


def read_graph(path: Path) -> ModelProto:
    """The model in a file; of a large one with references in place of its large weights.

    Raises:
        ModelError: the file is missing, empty, cut short or not ONNX; its external data is missing, cut short, lies
            outside its folder, or is told by a place or length that can't be.
    """
    proto = parsed(path)
    count = len(proto.graph.initializer)  # these come first; those of subgraphs and attributes are read
    stored = enumerate(tensors_of(proto.graph))
    outside = [(tensor, _Place.of(tensor, path), at < count) for at, tensor in stored if _is_external(tensor)]
    whole = sum(place.length for _, place, _ in outside) < WHOLE
    for tensor, place, may_stay in outside:
        if whole or not may_stay or place.length < max(LEAST, 1):
            tensor.raw_data = place.read()
            tensor.ClearField("data_location")
            del tensor.external_data[:]
        else:
            _refer(tensor, place.file, place.offset, place.length)
    return proto


def tensors_of(graph: GraphProto) -> Iterator[TensorProto]:
    """Every stored tensor: initializers and tensor attributes, those of subgraphs included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for subgraph in subgraphs(node):
            yield from tensors_of(subgraph)


def is_reference(tensor: TensorProto) -> bool:
    """Whether the tensor's values lie in a file."""
    return _is_external(tensor)


def array_of(tensor: TensorProto) -> NDArray[Any]:
    """A stored tensor's values; of a reference they are read-only, and in memory as far as they are looked at."""
    if not _is_external(tensor):
        return np.asarray(numpy_helper.to_array(tensor))
    entries = _entries(tensor)
    dtype, shape = dtype_of(tensor.data_type, f"weight {tensor.name!r}"), tuple(tensor.dims)
    if tensor.data_type not in _BITS:
        return np.memmap(entries["location"], dtype, "r", int(entries["offset"]), shape).view(np.ndarray)
    packed = np.memmap(entries["location"], np.uint8, "r", int(entries["offset"]), (int(entries["length"]),))
    held = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=packed.tobytes())
    return np.asarray(numpy_helper.to_array(held))


def replaced(tensor: TensorProto, array: NDArray[Any], name: str | None = None) -> TensorProto:
    """Other values in a tensor's place: in a file where the tensor's lie in one, else in memory.

    Args:
        tensor: that they are made from.
        array: the values.
        name: theirs; the tensor's own if not given.
    """
    name = tensor.name if name is None else name
    if not _is_external(tensor) or array.nbytes < LEAST:
        return numpy_helper.from_array(array, name)
    made = TensorProto(name=name, dims=array.shape, data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
    data = _bytes_of(made, array)
    _refer(made, _written(data), 0, data.nbytes)
    return made


@contextmanager
def scratch() -> Iterator[None]:
    """What is written of changed weights meanwhile is removed afterwards; no graph that refers to it may be kept."""
    with TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as folder:
        _FOLDERS.append(folder)
        try:
            yield
        finally:
            _FOLDERS.remove(folder)


def without_weights(model: ModelProto, least: int | None = None) -> ModelProto:
    """A copy whose large initializers are inputs of their type and shape.

    Args:
        model: left as it is; its weights are not copied.
        least: bytes from which on an initializer is large; if not given, only references are taken out.
    """
    copy = onnx.ModelProto(ir_version=model.ir_version, functions=model.functions, opset_import=model.opset_import)
    _copy_but(model.graph, copy.graph, "initializer")
    known = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        large = least is not None and _bytes(tensor) >= least
        if not large and not _is_external(tensor):
            copy.graph.initializer.append(tensor)
        elif tensor.name not in known:
            copy.ir_version = max(copy.ir_version, _FIRST_FREE_INITIALIZERS)
            copy.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return copy


_FIRST_FREE_INITIALIZERS = 4


def _copy_but(source: Any, target: Any, left: str) -> None:
    for kind, value in source.ListFields():
        if kind.name == left:
            continue
        if hasattr(value, "extend"):
            getattr(target, kind.name).extend(value)
        else:
            setattr(target, kind.name, value)


def shared_folder(model: ModelProto) -> Path | None:
    """The folder under which all that the graph refers to lies; None where it refers to nothing.

    Raises:
        ModelError: the files lie on several drives.
    """
    files = {_entries(tensor)["location"] for tensor in model.graph.initializer if _is_external(tensor)}
    if not files:
        return None
    try:
        return Path(os.path.commonpath([Path(file).parent for file in files]))
    except ValueError as error:
        raise ModelError(
            f"the model's weights lie on another drive than the temporary folder {_folder()}: set TEMP to a folder on"
            " the drive of the model."
        ) from error


def with_weights_at(model: ModelProto, folder: Path) -> ModelProto:
    """A copy whose references are told from this folder on, as ONNX wants them in a file there."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if _is_external(tensor):
            place = _entries(tensor)
            inner = Path(place["location"]).relative_to(folder).as_posix()
            _refer(tensor, inner, int(place["offset"]), int(place["length"]))
    return copy


def write_graph(model: ModelProto, path: Path) -> None:
    """Write a graph, and what it refers to into one file beside it, ``NAME.data``, a weight at a time.

    Raises:
        OSError: it can't be written there.
        ValueError: the graph itself, with the weights that it holds, is over 2 GiB.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    beside = [tensor for tensor in copy.graph.initializer if _is_external(tensor)]
    data = path.with_name(f"{path.name}.data")
    draft = path.with_name(f".{data.name}.{os.urandom(4).hex()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if beside:
            with draft.open("xb") as file:
                for tensor in beside:
                    _append(tensor, file, data.name)
            draft.replace(data)
        write_whole(path, copy.SerializeToString())
    finally:
        draft.unlink(missing_ok=True)


def _append(tensor: TensorProto, file: Any, location: str) -> None:
    place = _entries(tensor)
    file.write(b"\0" * (-file.tell() % mmap.ALLOCATIONGRANULARITY))  # as ONNX advises, so that it can be mapped
    start, length = file.tell(), int(place["length"])
    with Path(place["location"]).open("rb") as source:
        source.seek(int(place["offset"]))
        for begun in range(0, length, _BLOCK):
            file.write(source.read(min(_BLOCK, length - begun)))
    _refer(tensor, location, start, length)


def dtype_of(element: int, what: str) -> np.dtype[Any]:
    """numpy's dtype of an ONNX element type.

    Raises:
        ModelError: it has none that is numeric.
    """
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element))
    except (KeyError, TypeError, ValueError):
        dtype = None
    if dtype is None or dtype.kind == "O":
        raise ModelError(f"{what} has no numeric element type (ONNX type {element}).")
    return dtype


class _Place:
    """Where in which file a tensor's values lie."""

    def __init__(self, file: Path, offset: int, length: int) -> None:
        self.file, self.offset, self.length = file, offset, length

    @classmethod
    def of(cls, tensor: TensorProto, path: Path) -> _Place:
        """As a tensor of the model in a file tells it, looked at."""
        what, location = f"{path}: weight {tensor.name!r}", _entries(tensor).get("location", "")
        if _is_ours(tensor) and Path(location) == path.resolve():
            file = path.resolve()  # found in the file itself
        else:
            file = _beside(location, what, path)
        offset = _number(tensor, "offset", what, 0)
        size = file.stat().st_size
        length, wanted = _number(tensor, "length", what, max(size - offset, 0)), _bytes(tensor)
        held = max(min(length, size - offset), 0)
        if held != wanted:
            raise ModelError(
                f"{what} has {held} bytes in {location!r} where its shape {list(tensor.dims)} needs {wanted}: the"
                " external data was cut short or belongs to another model."
            )
        return cls(file, offset, wanted)

    def read(self) -> bytes:
        with self.file.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


def _beside(location: str, what: str, path: Path) -> Path:
    folder = path.parent.resolve()
    try:
        file = (folder / location).resolve()
        inside = bool(location) and file.is_relative_to(folder)
    except (OSError, ValueError):  # a name that no file system takes
        inside = False
    if not inside:
        raise ModelError(
            f"{what} points to external data {location!r}, outside the model's folder {folder}. Save the model with"
            " its weights beside it."
        )
    if not file.is_file():
        raise ModelError(
            f"{path}: the external data {location!r} of {what.removeprefix(f'{path}: ')} is missing beside it."
            " Copy that file along with the model."
        )
    return file


def _number(tensor: TensorProto, key: str, what: str, otherwise: int) -> int:
    told = _entries(tensor).get(key)
    if told is None:
        return otherwise
    if not told.strip().isdecimal():
        raise ModelError(
            f"{what} tells its external data by the {key} {told!r}, which is no number of bytes. Export the model"
            " again."
        )
    return int(told)


_OURS = "pytest_trt"  # a key that no other file has: the place was found by ourselves, in the model's file itself


def _is_ours(tensor: TensorProto) -> bool:
    return _OURS in _entries(tensor)


def parsed(path: Path) -> ModelProto:
    """The message in an ONNX file; of a large one, large initializers refer to their place in it.

    Raises:
        ModelError: the file is missing, empty, cut short or not ONNX.
    """
    proto = onnx.ModelProto()
    try:
        size = path.stat().st_size
        data = light(path, LEAST, _OURS) if size >= WHOLE else path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}.") from error
    except DecodeError as error:
        raise _no_onnx(path, size, error) from error
    if not data:
        raise ModelError(f"{path} is empty (0 bytes): export or copy the model again.")
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise _no_onnx(path, size, error) from error
    return proto


def _no_onnx(path: Path, size: int, error: Exception) -> ModelError:
    return ModelError(
        f"{path} ({size} bytes) is not an ONNX file, or it was cut short: {error}."
        " Export or copy it again; a Git LFS pointer looks like this too."
    )


def _is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _refer(tensor: TensorProto, file: Path | str, offset: int, length: int) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", str(file)), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def _bits_by_type(names: Iterable[str], bits: int) -> dict[int, int]:
    return {getattr(TensorProto, name): bits for name in names if hasattr(TensorProto, name)}


_BITS = {**_bits_by_type(("INT4", "UINT4", "FLOAT4E2M1"), 4), **_bits_by_type(("INT2", "UINT2"), 2)}
"""By type of which one byte holds several: bits of an element."""


def _bytes(tensor: TensorProto) -> int:
    """How many bytes the tensor's values take in a file."""
    if tensor.data_type == TensorProto.STRING:
        return 0
    bits = _BITS.get(tensor.data_type) or dtype_of(tensor.data_type, f"weight {tensor.name!r}").itemsize * 8
    return -(-prod(tensor.dims) * bits // 8)


def _bytes_of(tensor: TensorProto, array: NDArray[Any]) -> NDArray[np.uint8]:
    if tensor.data_type in _BITS:
        return np.frombuffer(numpy_helper.from_array(array).raw_data, np.uint8)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


_PREFIX = "pytest-trt-weights-"
_FOLDERS: list[str] = []
_KEPT: list[TemporaryDirectory[str]] = []  # removed when the process ends


def _folder() -> str:
    if not _FOLDERS:
        _KEPT.append(TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True))
        _FOLDERS.append(_KEPT[-1].name)
    return _FOLDERS[-1]


def _written(data: NDArray[np.uint8]) -> Path:
    """The file of these bytes, named by them, so that the same ones are written once."""
    name = hashlib.sha256(data.data).hexdigest()
    for folder in reversed(_FOLDERS):
        if (found := Path(folder, name)).exists():
            return found.resolve()
    path = Path(_folder(), name)
    draft = path.with_suffix(f".{os.urandom(4).hex()}")
    data.tofile(draft)
    draft.replace(path)
    return path.resolve()
