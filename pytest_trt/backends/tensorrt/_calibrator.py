"""Calibrator: our samples handed to TensorRT's own int8 calibration (TensorRT 8 to 10)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.cuda import upload
from pytest_trt.backends.tensorrt._execution import to_engine
from pytest_trt.backends.tensorrt._log import guarded
from pytest_trt.backends.tensorrt._release import member, require
from pytest_trt.errors import CaseError, DataError
from pytest_trt.model.feeds import finite, fit, join, split
from pytest_trt.storage.atomic_write import read_bytes, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

    from numpy.typing import NDArray

    from pytest_trt.backends.recipe import Recipe
    from pytest_trt.model.feeds import Arrays, TensorSpec

__all__ = ["Calibrating", "batches_of", "calibrated_by", "calibrator_for", "write_cache"]

_MOST_SAMPLES = 512
_MOST_BYTES = 32 * 2**20

_CLASSES = {"entropy": "IInt8EntropyCalibrator2", "minmax": "IInt8MinMaxCalibrator"}


@dataclass
class Calibrating:
    """A calibrator at work.

    Attributes:
        calibrator: TensorRT's object, to be kept alive while the engine is built.
        first: batch of samples, which tells their shapes; None where a cache stands for them.
        written: the calibration cache that TensorRT made, one item.
    """

    calibrator: Any = None
    first: Arrays | None = None
    written: list[bytes] = field(default_factory=list)


def calibrator_for(trt: ModuleType, recipe: Recipe) -> Calibrating:
    """TensorRT's calibrator over the recipe's samples; reads the calibration cache, or writes it where it is missing.

    Args:
        trt: the release.
        recipe: names kind, samples and cache.

    Raises:
        BackendError: the release has no calibrators.
        CaseError: there is neither a cache nor samples.
        DataError: the samples can't be used.
    """
    instead = "TensorRT 11 takes int8 by Q/DQ only: leave calibrator out"
    base = require(member(trt, _CLASSES[recipe.options.calibrator]), "int8 calibrators", trt, instead)
    kept = read_bytes(recipe.options.calibration_cache, "calibration cache")
    if not kept and (recipe.calibration is None or recipe.calibration.samples is None):
        raise CaseError(
            f"{recipe.model.source}: calibrator = {recipe.options.calibrator!r} needs samples, and the case has ranges"
            " or nothing. Name samples as its calibration, or an existing calibration_cache."
        )
    first = next(batches_of(recipe), None)
    if not kept and first is None:
        raise DataError(f"{recipe.calibration.source if recipe.calibration else 'calibration'} holds no samples.")
    batch = next(iter(first.values())).shape[0] if first and all(a.ndim for a in first.values()) else 1
    state = Calibrating(first=first)
    state.calibrator = _new_calibrator(base, recipe, state, kept, batch)
    return state


def _new_calibrator(base: Any, recipe: Recipe, state: Calibrating, kept: bytes | None, batch: int) -> Any:
    class Calibrator(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self.feeds = batches_of(recipe)
            self.held: list[Any] = []

        def get_batch_size(self) -> int:
            return batch

        def get_batch(self, names: list[str], *_: Any) -> list[int] | None:
            self.held = []
            with guarded():
                feeds = next(self.feeds, None)
                self.held = [upload(to_engine(feeds[name])) for name in names] if feeds else []
            return [array.address for array in self.held] or None

        def read_calibration_cache(self, *_: Any) -> bytes | None:
            return kept

        def write_calibration_cache(self, cache: Any, *_: Any) -> None:
            with guarded():
                state.written.append(bytes(cache))

    return Calibrator()


def calibrated_by(recipe: Recipe) -> str:
    """What decides the ranges of TensorRT's calibrator, for the record: a cache that is there, else the samples."""
    path = recipe.options.calibration_cache
    found = read_bytes(path, "calibration cache")
    return f"calibration cache {path}" if found else str(recipe.calibration.source if recipe.calibration else "")


def write_cache(recipe: Recipe, state: Calibrating) -> None:
    """Keep the calibration cache that TensorRT made, where one was asked for and is missing.

    Raises:
        BackendError: it can't be written.
    """
    path = recipe.options.calibration_cache
    if not path or not state.written or read_bytes(path, "calibration cache"):
        return
    write_bytes(path, state.written[-1], "calibration cache")


def batches_of(recipe: Recipe) -> Iterator[Arrays]:
    """Batches of one size, as TensorRT wants them, and as large as may be, since its histograms get coarser by each.

    A fixed first axis tells the size. A dynamic one takes all samples of an array, up to 512 and 32 MiB, or the case's
    ``batch``; the last batch is filled up with its own samples.
    """
    if recipe.calibration is None or recipe.calibration.samples is None:
        return
    specs, size = recipe.model.inputs, 0
    fixed = any(spec.shape and isinstance(spec.shape[0], int) for spec in specs)
    for arrays in _gathered(recipe.calibration.samples(_MOST_SAMPLES), specs, recipe.calibration.source, fixed):
        size = size or _size(arrays, recipe.batch)
        for feeds in split(arrays, specs, size):
            yield feeds if fixed else {name: _filled(array, size) for name, array in feeds.items()}


def _gathered(samples: Iterable[Arrays], specs: tuple[TensorSpec, ...], source: str, fixed: bool) -> Iterator[Arrays]:
    """Samples that come a few at a time, put together up to what a batch may hold, where the model leaves that open."""
    held: list[Arrays] = []
    for arrays in samples:
        fit(arrays, specs, source)
        finite(arrays, source)
        held.append(arrays)
        if (
            fixed
            or sum(array.nbytes for part in held for array in part.values()) >= _MOST_BYTES
            or len(held) == _MOST_SAMPLES
        ):
            yield join(held)
            held = []
    if held:
        yield join(held)


def _size(arrays: Arrays, batch: int | None) -> int:
    count = max(array.shape[0] if array.ndim else 1 for array in arrays.values())
    bytes_each = sum(array.nbytes for array in arrays.values()) // count
    most = max(1, min(_MOST_SAMPLES, _MOST_BYTES // max(bytes_each, 1), batch or _MOST_SAMPLES))
    return -(-count // -(-count // most))


def _filled(array: NDArray[Any], size: int) -> NDArray[Any]:
    return array if not array.ndim or array.shape[0] == size else np.resize(array, (size, *array.shape[1:]))
