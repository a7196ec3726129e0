"""Samples: arrays by input name, read from files or functions, checked, and cut into what a model takes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import CaseError, DataError
from pytest_trt.locate import blame, is_reference, locate
from pytest_trt.model import is_float

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pytest_trt.model import TensorSpec

__all__ = [
    "Arrays",
    "InputSpec",
    "conform",
    "finite",
    "fit",
    "generate",
    "join",
    "read",
    "read_array",
    "split",
]

Arrays = dict[str, "NDArray[Any]"]
"""Arrays by input or output name, samples along axis 0."""


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
        arrays = _named(found, specs, where)
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


def fit(arrays: Arrays, specs: tuple[TensorSpec, ...], where: str) -> None:
    """Check that these arrays are what the model takes.

    Raises:
        DataError: a name is missing or not an input, a dtype or shape differs, or there are no samples.
    """
    wanted = [spec.name for spec in specs]
    missing = [name for name in wanted if name not in arrays]
    extra = [name for name in arrays if name not in wanted]
    if missing or extra:
        lacks = f"lacks {', '.join(map(repr, missing))}" if missing else ""
        holds = f"holds {', '.join(map(repr, extra))}, which the model has not" if extra else ""
        raise DataError(
            f"{where} {' and '.join(filter(None, (lacks, holds)))}: the model's inputs are"
            f" {', '.join(map(repr, wanted))}."
        )
    for spec in specs:
        _fit_one(arrays[spec.name], spec, where)
    _runs(arrays, specs, None, where)
    _symbols_agree(arrays, specs, where)


def finite(arrays: Arrays, where: str, *, allow_infinite: bool = False) -> None:
    """Refuse samples with NaN (or infinity).

    Raises:
        DataError: naming the array, how many values, and the first sample.
    """
    for name, array in arrays.items():
        if not is_float(array.dtype):
            continue
        values = array.astype(np.float32) if array.dtype.kind == "V" else array
        bad = np.isnan(values) if allow_infinite else ~np.isfinite(values)
        if bad.any():
            first = np.argwhere(bad)[0]
            kinds = "NaN" if allow_infinite else "NaN or infinite"
            raise DataError(
                f"{where}: {name!r} has {int(bad.sum())} {kinds} value(s), the first in sample"
                f" {int(first[0]) if len(first) else 0} at index {first.tolist()}. Repair or drop that sample."
            )


def conform(arrays: Arrays, specs: tuple[TensorSpec, ...], where: str) -> Arrays:
    """The same values in the dtypes that an engine takes: float to float, integer to integer.

    A file under test may take fp16 where its fp32 reference takes fp32. No other change is made.

    Raises:
        DataError: names or shapes differ, or an integer would not survive the cast.
    """
    wanted = {spec.name: spec.dtype for spec in specs}
    cast = {
        name: _cast(array, wanted[name], f"{where}: {name!r}") if name in wanted else array
        for name, array in arrays.items()
    }
    fit(cast, specs, where)
    return cast


def split(arrays: Arrays, specs: tuple[TensorSpec, ...], batch: int | None = None) -> Iterator[Arrays]:
    """Cut samples into what the model takes at once.

    A fixed first axis of B takes B samples a run. A dynamic one takes all, or ``batch`` at most. An array
    of just one run beside others of several goes into each of them.
    """
    if any(spec.shape and isinstance(spec.shape[0], int) for spec in specs):
        batch = None  # the fixed axes alone decide how many runs there are
    runs = _runs(arrays, specs, batch, "samples")
    for run in range(runs):
        yield {spec.name: _part(arrays[spec.name], spec, run, runs, batch) for spec in specs}


def join(parts: list[Arrays]) -> Arrays:
    """Outputs of several runs as one, along axis 0; a scalar becomes an axis of runs.

    Raises:
        DataError: the runs' shapes differ beyond axis 0.
    """
    if len(parts) == 1:
        return parts[0]
    try:
        return {name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in parts[0]}
    except ValueError as error:
        raise DataError(f"the outputs of {len(parts)} runs have different shapes: {error}") from error


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
        return _called(source, base, field)
    readers = {".npz": _read_npz, ".npy": _read_npy, ".safetensors": _read_safetensors}
    reader = readers.get(path.suffix)
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


def _called(source: str, base: Path, field: str) -> Iterator[Any]:
    function = locate(source, base, field)
    try:
        value = function()
        if isinstance(value, Mapping) or hasattr(value, "__array__"):
            yield value
        elif isinstance(value, Iterable):
            yield from value
        else:
            raise DataError(f"{field} {source!r} returned {type(value).__name__}: return arrays by input name.")
    except (DataError, CaseError, GeneratorExit):
        raise
    except (Exception, SystemExit) as error:
        raise DataError(f"{field} {source!r} raised {blame(error)}") from error


def _named(found: Any, specs: tuple[TensorSpec, ...], where: str) -> Arrays:
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


def _fit_one(array: NDArray[Any], spec: TensorSpec, where: str) -> None:
    if array.dtype != spec.dtype:
        raise DataError(
            f"{where}: {spec.name!r} is {array.dtype}, and the model takes {spec.dtype}. Convert it"
            " once, where the data is made."
        )
    if spec.shape is None:
        return
    same_rank = array.ndim == len(spec.shape)
    if not same_rank or any(
        isinstance(axis, int) and size != axis for size, axis in zip(array.shape[1:], spec.shape[1:], strict=False)
    ):
        raise DataError(f"{where}: {spec.name!r} has shape {list(array.shape)}, and the model takes {spec}.")
    if array.ndim and array.shape[0] == 0:
        raise DataError(f"{where}: {spec.name!r} holds no samples (shape {list(array.shape)}).")


def _own_runs(array: NDArray[Any], spec: TensorSpec, batch: int | None) -> int | None:
    """How many runs this array makes; None where its first axis takes any number."""
    if not spec.shape or not array.ndim:
        return 1
    axis = spec.shape[0]
    if isinstance(axis, int):
        return array.shape[0] // axis if axis and array.shape[0] % axis == 0 else -1
    return -(-array.shape[0] // batch) if batch else None


def _runs(arrays: Arrays, specs: tuple[TensorSpec, ...], batch: int | None, where: str) -> int:
    counts = {spec.name: _own_runs(arrays[spec.name], spec, batch) for spec in specs}
    runs = max([1, *(count for count in counts.values() if count is not None)])
    for spec in specs:
        count, size = counts[spec.name], arrays[spec.name].shape
        dynamic = count is None and runs > 1
        if (count is not None and count not in (1, runs)) or (dynamic and size[0] % runs):
            raise DataError(
                f"{where}: {spec.name!r} has shape {list(size)}, which is no whole number of runs of {spec}"
                f"{f' beside the {runs} runs of the other inputs' if runs > 1 else ''}."
            )
    return runs


def _part(array: NDArray[Any], spec: TensorSpec, run: int, runs: int, batch: int | None) -> NDArray[Any]:
    if _own_runs(array, spec, batch) == 1:
        return array
    fixed = spec.shape[0] if spec.shape and isinstance(spec.shape[0], int) else None
    size = fixed or batch or array.shape[0] // runs
    return array[run * size : (run + 1) * size]


def _symbols_agree(arrays: Arrays, specs: tuple[TensorSpec, ...], where: str) -> None:
    sizes: dict[str, tuple[int, str]] = {}
    for spec in specs:
        for size, axis in zip(arrays[spec.name].shape, spec.shape or (), strict=False):
            if not isinstance(axis, str):
                continue
            known, owner = sizes.setdefault(axis, (size, spec.name))
            if known != size:
                raise DataError(
                    f"{where}: axis {axis!r} is {known} in {owner!r} and {size} in {spec.name!r};"
                    " the model says that they are the same."
                )


def _cast(array: NDArray[Any], dtype: np.dtype, what: str) -> NDArray[Any]:
    if array.dtype == dtype:
        return array
    if is_float(array.dtype) and is_float(dtype):
        with np.errstate(over="ignore"):  # an overflow becomes Inf, which the comparison counts
            return array.astype(dtype)
    both_whole = array.dtype.kind in "iu" and dtype.kind in "iu"
    if both_whole and np.array_equal(cast := array.astype(dtype), array):
        return cast
    raise DataError(f"{what} is {array.dtype} in the golden, and its values do not fit the engine's {dtype}.")


def _draw(spec: TensorSpec, told: InputSpec, samples: int, generator: np.random.Generator, where: str) -> NDArray[Any]:
    shape = _sample_shape(spec, told, samples, where)
    if spec.dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(bool)
    if spec.dtype.kind in "iu":
        if told.low is None or told.high is None:
            raise CaseError(
                f"{where}: input {spec} is an integer and no range is known to draw it from: write"
                f" input.{spec.name} = {{ low = 0, high = ... }}, or name real data with `inputs`."
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
            " or name real data with `inputs`."
        )
    if not axes:
        return ()
    fixed = spec.shape[0] if spec.shape and isinstance(spec.shape[0], int) else 1
    return (samples * fixed, *(int(axis) for axis in axes[1:] if isinstance(axis, int)))
