"""Sample stream: samples of any number, read from files a few at a time, so that memory does not grow with them."""

from __future__ import annotations

import math
import re
import zipfile
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from pytest_trt.errors import DataError, GoldenError, PytestTrtError
from pytest_trt.model.feeds import Arrays, finite, fit, samples_in, split
from pytest_trt.model.samples import called, input_sets, named
from pytest_trt.storage.entry_point import is_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from pytest_trt.model.feeds import TensorSpec

__all__ = ["how_many", "opened", "pieces"]

SUFFIXES = (".npz", ".npy", ".safetensors")


@dataclass(frozen=True)
class Stored:
    """One array of a file.

    Attributes:
        shape: of all of it.
        dtype: of its elements.
        rows: the samples from one number up to another along axis 0; to be asked in order, each once.
        whole: all of it; in place of ``rows``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    rows: Callable[[int, int], NDArray[Any]]
    whole: Callable[[], NDArray[Any]]


@contextmanager
def opened(path: Path) -> Iterator[dict[str, Stored]]:
    """The arrays of a .npz, .npy or .safetensors file, by name; a .npy file's has the name "".

    Raises:
        OSError: it can't be read.
        Exception: it is damaged or of another kind, in the words of zipfile, numpy or safetensors.
    """
    with ExitStack() as files:
        yield _READERS[path.suffix.lower()](path, files)


def _npy(path: Path, files: ExitStack) -> dict[str, Stored]:
    file = files.enter_context(path.open("rb"))
    stored = _streamed(file)
    held = path.stat().st_size - file.tell()
    needed = math.prod(stored.shape) * stored.dtype.itemsize
    if held < needed:
        raise ValueError(f"it is cut short: {held} of {needed} bytes of its array are there")
    return {"": stored}


def _npz(path: Path, files: ExitStack) -> dict[str, Stored]:
    file = files.enter_context(path.open("rb"))
    if not zipfile.is_zipfile(file):
        raise ValueError("not a numpy archive (.npz)")
    archive = files.enter_context(zipfile.ZipFile(file))
    return {name.removesuffix(".npy"): _member(archive, name, files) for name in archive.namelist()}


def _member(archive: zipfile.ZipFile, name: str, files: ExitStack) -> Stored:
    try:
        return _streamed(files.enter_context(archive.open(name)))
    except ValueError as error:
        raise ValueError(f"its member {name!r} is no array of samples: {error}") from error


def _streamed(file: IO[bytes]) -> Stored:
    """The array whose header begins here."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its array is of the .npy format {version[0]}.{version[1]}, which holds fields with names")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded")
    if fortran and len(shape) > 1:
        return _columns(file, shape, dtype)
    rows = partial(_next_rows, file, shape, dtype)
    return Stored(shape, dtype, rows, lambda: rows(0, shape[0]) if shape else rows(0, 1).reshape(()))


def _next_rows(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype, start: int, stop: int) -> NDArray[Any]:
    one = math.prod(shape[1:]) * dtype.itemsize
    data = file.read((stop - start) * one)
    if len(data) < (stop - start) * one:
        raise ValueError(f"it ends in sample {start + len(data) // max(one, 1)} of {shape[0] if shape else 1}")
    if stop == (shape[0] if shape else 1):
        file.read(1)  # an archive's checksum is looked at where its member ends
    return np.frombuffer(data, dtype).reshape(stop - start, *shape[1:])


def _columns(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> Stored:
    """An array in Fortran's order, whose samples lie all over the file: read whole, at its first sample."""
    held: list[NDArray[Any]] = []

    def whole() -> NDArray[Any]:
        if not held:
            held.append(_next_rows(file, shape[::-1], dtype, 0, shape[-1]).transpose())
        return held[0]

    return Stored(shape, dtype, lambda start, stop: whole()[start:stop], whole)


def _safetensors(path: Path, files: ExitStack) -> dict[str, Stored]:  # noqa: ARG001 - opened anew for each piece
    """The file is mapped: only closing it gives back the memory of what was read."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
        dtypes = {
            name: (file.get_slice(name)[0:0] if shape else file.get_tensor(name)).dtype
            for name, shape in shapes.items()
        }

    def rows(name: str, start: int, stop: int) -> NDArray[Any]:
        with safe_open(path, "numpy") as file:
            return np.array(file.get_slice(name)[start:stop])

    def whole(name: str) -> NDArray[Any]:
        with safe_open(path, "numpy") as file:
            return np.array(file.get_tensor(name))

    return {
        name: Stored(shape, dtypes[name], partial(rows, name), partial(whole, name)) for name, shape in shapes.items()
    }


_READERS = {".npz": _npz, ".npy": _npy, ".safetensors": _safetensors}


_ABOUT = re.compile(r"\.|(README|LICENSE)(\.\w+)?$", re.IGNORECASE)


def pieces(
    source: str, base: Path, specs: tuple[TensorSpec, ...], field: str, most: int | None = None
) -> Iterator[Arrays]:
    """The samples that ``source`` names, checked against a model's inputs, piece after piece.

    Args:
        source: a ``.npz``, ``.npy`` or ``.safetensors`` file; a folder of such files and no
            others (hidden ones, a README and a LICENSE aside), taken by name; a folder of ONNX
            test data (``test_data_set_N``, whose outputs need not be there) or one of its sets; ``module:function``, as
            for :func:`pytest_trt.model.samples.read`, called once.
        base: the folder that a relative path starts from.
        specs: the model's inputs.
        field: the case's key, for messages.
        most: the most samples that a piece of a file takes along axis 0; None for all of a file. A fixed first axis
            of B takes B. What a function yields, and inputs of lengths of their own, come as they are.

    Raises:
        DataError: it can't be read, is empty, does not fit, holds NaN or infinity, or is a folder of which only a
            part would be read; names file, array and sample.
        CaseError: the function is not there.
    """
    begun: Counter[str] = Counter()  # by file, as whoever repairs it counts
    for where, found in _found(source, base, specs, field, most):
        arrays = named(found, specs, where)
        fit(arrays, specs, where)
        finite(arrays, where, begun[where])
        begun[where] += samples_in(arrays, specs)
        yield arrays
    if not begun:
        raise DataError(f"{field} {source!r} holds no samples.")


def how_many(source: str, base: Path, specs: tuple[TensorSpec, ...]) -> int | None:
    """How many samples files hold, by their headers; None where that can't be told without reading them."""
    path = base / source
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in files if file.suffix.lower() in SUFFIXES and file.is_file()]
    try:
        return sum(_length(file, specs) for file in files) or None
    except Exception:  # whoever reads them says what is wrong
        return None


def _length(file: Path, specs: tuple[TensorSpec, ...]) -> int:
    with opened(file) as arrays:
        named_arrays = _with_names(arrays, specs, str(file))
        return max(stored.shape[0] for stored in named_arrays.values() if stored.shape)


def _found(
    source: str, base: Path, specs: tuple[TensorSpec, ...], field: str, most: int | None
) -> Iterator[tuple[str, Any]]:
    path, where = base / source, f"{field} {source!r}"
    if is_reference(source) and not path.exists():
        for number, found in enumerate(called(source, base, field)):
            yield f"{where} (batch {number})" if number else where, found
    elif path.is_dir():
        yield from _of_folder(path, specs, where, most)
    elif path.suffix.lower() in SUFFIXES:
        for arrays in _of_file(path, specs, where, most):
            yield where, arrays
    else:
        raise DataError(
            f"{where} is neither a file of a known kind ({', '.join(SUFFIXES)}), nor a folder of them or of ONNX test"
            " data, nor 'module:function'."
        )


def _of_folder(folder: Path, specs: tuple[TensorSpec, ...], where: str, most: int | None) -> Iterator[tuple[str, Any]]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if files:
        _require_alone(folder, files, where)
    for file in files:
        for arrays in _of_file(file, specs, f"{where}, {file.name}", most):
            yield f"{where}, {file.name}", arrays
    if files:
        return
    try:
        for place, arrays in input_sets(folder, [spec.name for spec in specs]):
            yield f"{where}, {place.name}", arrays
    except GoldenError as error:
        raise DataError(f"{where}: {error}") from error


def _require_alone(folder: Path, files: list[Path], where: str) -> None:
    """Refuse a folder that would be read in part; hidden files, a README and a LICENSE are no samples."""
    others = sorted(path.name for path in folder.iterdir() if path not in files and not _ABOUT.match(path.name))
    if others:
        named_five = f"{', '.join(map(repr, others[:5]))}{' ...' if len(others) > 5 else ''}"
        raise DataError(
            f"{where} would be read in part: beside {len(files)} files of samples ({', '.join(SUFFIXES)}) it holds"
            f" {named_five}. Give samples a folder of their own."
        )


def _of_file(path: Path, specs: tuple[TensorSpec, ...], where: str, most: int | None) -> Iterator[Arrays]:
    with _blamed(path, where), opened(path) as arrays:
        yield from _cut(_with_names(arrays, specs, where), specs, where, most)


@contextmanager
def _blamed(path: Path, where: str) -> Iterator[None]:
    try:
        yield
    except PytestTrtError:
        raise
    except OSError as error:
        raise DataError(f"{where}: {path} can't be read: {error.strerror or error}.") from error
    except Exception as error:  # a zip, header or checksum fault, each of its own kind
        raise DataError(f"{where}: {path} is damaged or of another kind: {error}") from error


def _with_names(arrays: Mapping[str, Stored], specs: tuple[TensorSpec, ...], where: str) -> Mapping[str, Stored]:
    if set(arrays) != {""}:
        return arrays
    [name] = named(np.empty(0), specs, where)
    return {name: arrays[""]}


def _cut(stored: Mapping[str, Stored], specs: tuple[TensorSpec, ...], where: str, most: int | None) -> Iterator[Arrays]:
    """The arrays of a file, cut as :func:`split` would cut them; one that goes into every run is read once."""
    fit({name: np.broadcast_to(np.zeros((), array.dtype), array.shape) for name, array in stored.items()}, specs, where)
    numbered = {name: _numbered(array.shape) for name, array in stored.items()}
    lengths = {stored[spec.name].shape[0] for spec in specs if spec.shape and not isinstance(spec.shape[0], int)}
    shared: Arrays = {}
    for part in split(numbered, specs, most if len(lengths) == 1 else None):
        yield {name: _read(stored[name], numbers, name, shared) for name, numbers in part.items()}


def _numbered(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """An array of this shape whose elements are the numbers of their samples; it takes the memory of those."""
    numbers = np.arange(shape[0] if shape else 1).reshape(-1, *(1 for _ in shape[1:]))
    return np.broadcast_to(numbers if shape else numbers[0], shape)


def _read(stored: Stored, numbers: NDArray[np.intp], name: str, shared: Arrays) -> NDArray[Any]:
    if numbers.shape == stored.shape:
        return shared[name] if name in shared else shared.setdefault(name, stored.whole())
    start = int(numbers.flat[0]) if numbers.size else 0
    return stored.rows(start, start + numbers.shape[0])
