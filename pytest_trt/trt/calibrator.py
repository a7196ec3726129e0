"""Calibrator: our samples handed to TensorRT's own int8 calibration (TensorRT 8 to 10)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.atomic import write_whole
from pytest_trt.backends.cuda import upload
from pytest_trt.errors import CaseError
from pytest_trt.feeds import finite, split
from pytest_trt.trt.dtypes import to_engine
from pytest_trt.trt.release import member, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from pytest_trt.feeds import Arrays
    from pytest_trt.recipe import Recipe

__all__ = ["Calibrating", "calibrator_for", "write_cache"]

_CLASSES = {"entropy": "IInt8EntropyCalibrator2", "minmax": "IInt8MinMaxCalibrator"}


@dataclass
class Calibrating:
    """A calibrator at work.

    Attributes:
        calibrator: TensorRT's object, to be kept alive while the engine is built.
        feeds: batches of samples, from the beginning at each call.
        problems: what went wrong in a callback, where TensorRT can't be told.
        written: the calibration cache that TensorRT made, one item.
    """

    calibrator: Any = None
    feeds: Callable[[], Iterator[Arrays]] = lambda: iter(())
    problems: list[Exception] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)

    def first(self) -> Arrays | None:
        """The first batch of samples, which tells their shapes; None where a cache stands for them."""
        return next(self.feeds(), None)

    def finish(self) -> None:
        """Raise what a callback could not."""
        if self.problems:
            raise self.problems[0]


def calibrator_for(trt: ModuleType, recipe: Recipe, batch: int) -> Calibrating:
    """TensorRT's calibrator over the recipe's samples; reads the calibration cache, or writes it where it is missing.

    Args:
        trt: the release.
        recipe: names kind, samples and cache.
        batch: samples a call, as the network takes them.

    Raises:
        BackendError: the release has no calibrators.
        CaseError: there is neither a cache nor samples.
    """
    instead = "TensorRT 11 takes int8 by Q/DQ only: leave calibrator out"
    base = require(member(trt, _CLASSES[recipe.options.calibrator]), "int8 calibrators", trt, instead)
    cache = Path(recipe.options.calibration_cache) if recipe.options.calibration_cache else None
    kept = cache.read_bytes() if cache and cache.is_file() else None
    if not kept and (recipe.calibration is None or recipe.calibration.samples is None):
        raise CaseError(
            f"{recipe.model.source}: calibrator = {recipe.options.calibrator!r} needs samples, and the case has ranges"
            " or nothing. Name samples as its calibration, or an existing calibration_cache."
        )
    state = Calibrating(feeds=lambda: _feeds(recipe, batch))
    state.calibrator = _new_calibrator(base, state, kept, batch)
    return state


def _new_calibrator(base: Any, state: Calibrating, kept: bytes | None, batch: int) -> Any:
    class Calibrator(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self.feeds = state.feeds()
            self.held: list[Any] = []

        def get_batch_size(self) -> int:
            return batch

        def get_batch(self, names: list[str], *_: Any) -> list[int] | None:
            # an exception that crosses the builder would end the process
            try:
                feeds = next(self.feeds, None)
                self.held = [upload(to_engine(feeds[name])) for name in names] if feeds else []
            except Exception as error:
                state.problems.append(error)
                self.held = []
            return [array.address for array in self.held] or None

        def read_calibration_cache(self, *_: Any) -> bytes | None:
            return kept

        def write_calibration_cache(self, cache: Any, *_: Any) -> None:
            state.written.append(bytes(cache))

    return Calibrator()


def _feeds(recipe: Recipe, batch: int) -> Iterator[Arrays]:
    if recipe.calibration is None or recipe.calibration.samples is None:
        return
    for arrays in recipe.calibration.samples():
        finite(arrays, recipe.calibration.source)
        yield from split(arrays, recipe.model.inputs, batch)


def write_cache(recipe: Recipe, state: Calibrating) -> None:
    """Keep the calibration cache that TensorRT made, where one was asked for and is missing.

    Raises:
        OSError: it can't be written.
    """
    path = recipe.options.calibration_cache
    if path and state.written and not Path(path).is_file():
        write_whole(Path(path), state.written[-1])
