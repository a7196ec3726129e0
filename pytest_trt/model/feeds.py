"""Feeds: arrays by input name, checked against what a model takes, and cut into what it takes at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["Arrays", "TensorSpec", "conform", "finite", "fit", "is_float", "join", "period_of", "samples_in", "split"]

Arrays = dict[str, "NDArray[Any]"]
"""Arrays by input or output name, samples along axis 0."""


# bfloat16 and the float8 family are numpy extension types: their kind is "V", not "f".
_FLOATS = {"float16", "float32", "float64", "bfloat16"}


def is_float(dtype: np.dtype) -> bool:
    """Whether values of this dtype are judged by their size (fp8 included), not by equality."""
    return dtype.name in _FLOATS or dtype.name.startswith("float8")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: its name in the graph.
        dtype: numpy's dtype; bfloat16 and fp8 are those of ml_dtypes.
        shape: an int for a fixed axis, a str for a named one, None for an unnamed one;
            None in place of the tuple when the graph does not tell the rank.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        axes = "?" if self.shape is None else ", ".join("?" if a is None else str(a) for a in self.shape)
        return f"{self.name!r} {self.dtype}[{axes}]"


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
    _require_samples(arrays, specs, where)
    _runs(arrays, specs, None, where)
    _symbols_agree(next(split(arrays, specs)), specs, where)


def finite(arrays: Arrays, where: str, begun: int = 0, *, allow_infinite: bool = False) -> None:
    """Refuse samples with NaN (or infinity).

    Args:
        arrays: samples by input name.
        where: what messages call them.
        begun: how many samples went before them.
        allow_infinite: whether infinity is right.

    Raises:
        DataError: naming the array, how many values, and the first sample with the index within it.
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
                f" {begun + (int(first[0]) if len(first) else 0)}"
                f"{f' at its index {first[1:].tolist()}' if len(first) > 1 else ''}. Repair or drop that sample."
            )


def samples_in(arrays: Arrays, specs: tuple[TensorSpec, ...]) -> int:
    """How many samples these are: along axis 0 of the first input that has one."""
    return next((arrays[spec.name].shape[0] for spec in specs if arrays[spec.name].shape[:1] not in ((), (0,))), 1)


def period_of(outputs: Sequence[NDArray[Any]], inputs: Sequence[Arrays], specs: tuple[TensorSpec, ...]) -> int:
    """How many slices along its axis 0 an output has of each sample: 1 where that axis is the samples'.

    Outputs of a network without a sample axis follow one another, run by run; others may hold several rows a sample.
    Where the runs differ, as lists do, nobody can tell, and it is 1.

    Args:
        outputs: the output in each run.
        inputs: of each run.
        specs: the model's inputs.
    """
    found = {_period(output, arrays, specs) for output, arrays in zip(outputs, inputs, strict=True)}
    return found.pop() if len(found) == 1 else 1


def _period(output: NDArray[Any], arrays: Arrays, specs: tuple[TensorSpec, ...]) -> int:
    if not specs:
        return 1
    samples = samples_in(arrays, specs)
    fixed = any(spec.shape and isinstance(spec.shape[0], int) for spec in specs)
    parts = len(list(split(arrays, specs))) if fixed else samples
    if not output.ndim or not len(output) or len(output) % parts or len(output) == samples:
        return 1
    return len(output) // parts


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


def _require_samples(arrays: Arrays, specs: tuple[TensorSpec, ...], where: str) -> None:
    """Refuse arrays without samples, but those of a dynamic axis beside others that have some."""
    some = any(array.ndim and array.shape[0] for array in arrays.values())
    for spec in specs:
        shape = arrays[spec.name].shape
        axis = spec.shape[0] if spec.shape else None
        if shape and not shape[0] and not (some and not isinstance(axis, int)):
            raise DataError(f"{where}: {spec.name!r} holds no samples (shape {list(shape)}).")


def _own_runs(array: NDArray[Any], spec: TensorSpec, batch: int | None) -> int | None:
    """How many runs this array makes; None where its first axis takes any number."""
    if not spec.shape or not array.ndim:
        return 1
    axis = spec.shape[0]
    if isinstance(axis, int):
        return array.shape[0] // axis if axis and array.shape[0] % axis == 0 else -1
    return max(1, -(-array.shape[0] // batch)) if batch else None


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
