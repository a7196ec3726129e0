"""Samples: arrays by input name, read from files, functions or ONNX test data, or drawn."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from pytest_trt.errors import CaseError, DamagedGolden, DataError, GoldenMismatch
from pytest_trt.model.feeds import Arrays, fit
from pytest_trt.storage.entry_point import blame, is_reference, locate

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import TensorProto

    from pytest_trt.model.feeds import TensorSpec

__all__ = [
    "InputSpec",
    "Samples",
    "called",
    "data_sets",
    "data_sets_beside",
    "generate",
    "input_sets",
    "named",
    "read",
    "read_array",
]

_FOLDER = re.compile(r"test_data_set_(\d+)")


def data_sets_beside(model: Path) -> bool:
    """Whether the model's folder holds test data, and no other model that it could belong to."""
    folder = model.parent
    return bool(_folders(folder)) and len(list(folder.glob("*.onnx"))) == 1


def data_sets(folder: Path, inputs: list[str], outputs: list[str]) -> Iterator[tuple[Path, Arrays, Arrays]]:
    """Inputs and outputs of all data sets of a folder (or the one that it is), set after set.

    Args:
        folder: holds ``test_data_set_N``, or ``input_0.pb``.
        inputs: the model's inputs.
        outputs: the model's outputs.

    Raises:
        DamagedGolden: a file is missing or can't be read.
        GoldenMismatch: there are not as many tensors as the model has.
    """
    for part in _folders(folder) or [folder]:
        yield part, _read(part, "input", inputs), _read(part, "output", outputs)


def input_sets(folder: Path, names: list[str]) -> Iterator[tuple[Path, Arrays]]:
    """The inputs of all data sets of a folder (or the one that it is), set after set; no outputs are looked for.

    Args:
        folder: holds ``test_data_set_N``, or ``input_0.pb``.
        names: the model's inputs.

    Raises:
        DamagedGolden: a file can't be read.
        GoldenMismatch: there are not as many tensors as the model has inputs.
    """
    for part in _folders(folder) or [folder]:
        yield part, _read(part, "input", names)


def _folders(folder: Path) -> list[Path]:
    found = [(_FOLDER.fullmatch(path.name), path) for path in folder.glob("test_data_set_*") if path.is_dir()]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def _read(folder: Path, kind: str, names: list[str]) -> Arrays:
    present = {path.name for path in folder.glob(f"{kind}_*.pb")}
    wanted = [f"{kind}_{number}.pb" for number in range(len(names))]
    if present != set(wanted):
        raise GoldenMismatch(
            f"{folder} holds {', '.join(sorted(present)) or f'no {kind}_*.pb'}, and the model has the {kind}s"
            f" {', '.join(map(repr, names))}, which are {', '.join(wanted)}."
        )
    files = [folder / name for name in wanted]
    tensors = [_tensor(file) for file in files]
    stored = [tensor.name for tensor in tensors]
    ordered = stored if sorted(stored) == sorted(names) else names
    return {name: numpy_helper.to_array(tensor) for name, tensor in zip(ordered, tensors, strict=True)}


def _tensor(file: Path) -> TensorProto:
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(file.read_bytes())
        numpy_helper.to_array(tensor)
    except Exception as error:  # protobuf, onnx (external data) and the file system, each in its own way
        raise DamagedGolden(f"{file} is not a whole ONNX tensor: {error}. Fetch the test data again.") from error
    return tensor


Samples = Callable[[int | None], Iterable[Arrays]]
"""Opens calibration samples anew for each pass: given the most samples wanted at once along axis 0 (None: as they
come), yields arrays by input name."""


@dataclass(frozen=True)
class InputSpec:
    """What a case says of one input, to generate samples or to export a torch module.

    Attributes:
        shape: one sample's shape with its batch axis; a str names a dynamic axis.
        dtype: numpy's name of the dtype.
        low: least value; with ``high``, drawn uniformly, else floats are standard normal.
        high: largest value, itself included for integers.
    """

    shape: tuple[int | str, ...] | None = None
    dtype: str | None = None
    low: float | None = None
    high: float | None = None


def read(source: str, base: Path, specs: tuple[TensorSpec, ...], field: str) -> Iterator[Arrays]:
    """The samples that ``source`` names, checked against a model's inputs, batch after batch.

    Args:
        source: ``.npz``, ``.npy`` or ``.safetensors`` file, or ``module:function`` that returns arrays by
            input name (or one array for one input), or an iterable of them.
        base: the folder that a relative path starts from.
        specs: the model's inputs.
        field: the case's key, for messages.

    Raises:
        DataError: it can't be read, is empty, or does not fit; the message names file and array.
    """
    count = 0
    for number, found in enumerate(_batches(source, base, field)):
        where = f"{field} {source!r}" + (f" (batch {number})" if number else "")
        arrays = named(found, specs, where)
        fit(arrays, specs, where)
        count += 1
        yield arrays
    if not count:
        raise DataError(f"{field} {source!r} holds no samples.")


def read_array(source: str, base: Path, field: str) -> NDArray[Any]:
    """The one array that ``source`` names: a .npy file, an archive of one array, or a function's result.

    Raises:
        DataError: it can't be read, or is not one array.
    """
    found = list(_batches(source, base, field))
    value = found[0] if len(found) == 1 else None
    if isinstance(value, Mapping):
        value = next(iter(value.values())) if len(value) == 1 else None
    if value is None:
        raise DataError(f"{field} {source!r} must hold exactly one array.")
    return np.asarray(value)


def generate(
    specs: tuple[TensorSpec, ...], told: Mapping[str, InputSpec], samples: int, seed: int, where: str
) -> Arrays:
    """Synthetic samples: floats standard normal, or uniform within the range that the case gives.

    Args:
        specs: the model's inputs.
        told: the case's ``input`` table, by input name.
        samples: how many, along axis 0.
        seed: of numpy's default generator.
        where: what messages call the case.

    Raises:
        CaseError: an integer input without a range, or a dynamic axis other than the first without a size.
    """
    generator = np.random.default_rng(seed)
    try:
        return {spec.name: _draw(spec, told.get(spec.name, InputSpec()), samples, generator, where) for spec in specs}
    except (MemoryError, OverflowError, ValueError) as error:
        raise CaseError(f"{where}: samples can't be drawn as `input` and `samples` say: {error}") from error


def _batches(source: str, base: Path, field: str) -> Iterable[Any]:
    path = base / source
    if is_reference(source) and not path.exists():
        return called(source, base, field)
    readers = {".npz": _read_npz, ".npy": _read_npy, ".safetensors": _read_safetensors}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{field} {source!r} is neither a file of a known kind ({', '.join(readers)}) nor 'module:function'."
        )
    try:
        return [reader(path)]
    except OSError as error:
        raise DataError(f"{field}: {path} can't be read: {error.strerror or error}.") from error
    except Exception as error:  # a zip, header or pickle fault, each of its own kind
        raise DataError(f"{field}: {path} is damaged or of another kind: {error}") from error


def _read_npz(path: Path) -> Arrays:
    if path.stat().st_size == 0 or not zipfile.is_zipfile(path):
        raise ValueError("not a numpy archive (.npz)")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _read_npy(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, allow_pickle=False)
    return array


def _read_safetensors(path: Path) -> Arrays:
    from safetensors.numpy import load_file

    return dict(load_file(path))


def called(source: str, base: Path, field: str) -> Iterator[Any]:
    """What ``module:function`` returns, or yields one after the other.

    Raises:
        DataError: the function raises, or returns something else.
        CaseError: it is not there.
    """
    found = _returned(source, base, field)
    while True:
        try:
            value = next(found)
        except StopIteration:
            return
        except (DataError, CaseError):
            raise
        except (Exception, SystemExit, GeneratorExit) as error:
            raise DataError(f"{field} {source!r} raised {blame(error)}") from error
        yield value  # not within the try: who closes this raises GeneratorExit here, and the function may too


def _returned(source: str, base: Path, field: str) -> Iterator[Any]:
    value = locate(source, base, field)()
    if isinstance(value, Mapping) or hasattr(value, "__array__"):
        yield value
    elif isinstance(value, Iterable):
        yield from value
    else:
        raise DataError(f"{field} {source!r} returned {type(value).__name__}: return arrays by input name.")


def named(found: Any, specs: tuple[TensorSpec, ...], where: str) -> Arrays:
    """Arrays by input name; one array without a name is that of the only input.

    Raises:
        DataError: it can't be made into arrays, or it is not known which input it belongs to.
    """
    try:
        if isinstance(found, Mapping):
            return {str(name): np.asarray(value) for name, value in found.items()}
        array = np.asarray(found)
    except Exception as error:  # ragged lists, tensors that want their gradient or lie on a GPU
        raise DataError(f"{where} can't be made into an array: {error}") from error
    if len(specs) != 1:
        raise DataError(
            f"{where} is one array without a name, and the model has the inputs"
            f" {', '.join(repr(spec.name) for spec in specs)}: give arrays by input name."
        )
    return {specs[0].name: array}


def _draw(spec: TensorSpec, told: InputSpec, samples: int, generator: np.random.Generator, where: str) -> NDArray[Any]:
    shape = _sample_shape(spec, told, samples, where)
    if spec.dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(bool)
    if spec.dtype.kind in "iu":
        if told.low is None or told.high is None:
            raise CaseError(
                f"{where}: input {spec} is an integer and no range is known to draw it from: write"
                f" input.{spec.name} = {{ low = 0, high = ... }}, or name real data with `inputs`, in a trt.toml."
            )
        return generator.integers(int(told.low), int(told.high) + 1, shape).astype(spec.dtype)
    if told.low is None or told.high is None:
        return np.asarray(generator.standard_normal(shape)).astype(spec.dtype)
    return np.asarray(generator.uniform(told.low, told.high, shape)).astype(spec.dtype)


def _sample_shape(spec: TensorSpec, told: InputSpec, samples: int, where: str) -> tuple[int, ...]:
    axes = told.shape if told.shape is not None else spec.shape
    if axes is None or any(not isinstance(axis, int) for axis in axes[1:]):
        raise CaseError(
            f"{where}: input {spec} has axes of unknown size: write input.{spec.name} = {{ shape = [...] }},"
            " or name real data with `inputs`, in a trt.toml."
        )
    if not axes:
        return ()
    fixed = spec.shape[0] if spec.shape and isinstance(spec.shape[0], int) else 1
    return (samples * fixed, *(int(axis) for axis in axes[1:] if isinstance(axis, int)))
