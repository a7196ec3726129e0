"""Stored: arrays in files, known by their headers, whose samples are read one after the other."""

from __future__ import annotations

import math
import zipfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["SUFFIXES", "Stored", "opened"]

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
