"""Calibration: run samples through the fp32 model and take the ranges of its tensors, piece after piece.

What is held in memory is one piece of the samples, with its activations, and 2048 counts a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.calibration._inner_tensors import InnerTensors
from pytest_trt.calibration.activations import Items, Seen, Stream, faint, opener, silent, sparse, unbounded
from pytest_trt.calibration.threshold import SMALLEST, Histogram, read_method, require_grid, threshold, too_few
from pytest_trt.errors import DataError, LoweringError
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.model.feeds import Arrays, conform, samples_in, split
from pytest_trt.ranges.amax import FP8_LARGEST, INT8_LEVELS, Ranges, fault_of_scale

if TYPE_CHECKING:
    from pytest_trt.model.model import Model
    from pytest_trt.model.samples import Samples

__all__ = ["Progress", "activations", "calibrate"]

Progress = Callable[[str, float | None], None]
"""Told a phase, and the share of it that is done or None; an empty phase when nothing goes on any more."""


def calibrate(
    model: Model,
    tensors: list[str],
    samples: Samples | Iterable[Arrays] | Items,
    source: str,
    batch: int | None = None,
    method: str = "minmax",
    *,
    precision: str = "int8",
    needed: Collection[str] | None = None,
    progress: Progress | None = None,
    expected: int | None = None,
) -> Ranges:
    """The range of each tensor over all samples: its largest |x|, or less where a method clips.

    ``minmax`` reads the samples once. The others read them twice, to know the largest |x| of a tensor before they count
    in bins of it: ``entropy`` (TensorRT's), ``percentile`` (99.99, or ``percentile:99.9``) and ``mse``, each in
    :mod:`pytest_trt.calibration.threshold` with its source.

    Args:
        model: the fp32 model.
        tensors: names of the activations whose range is wanted.
        samples: arrays by input name (or one array for one input), piece after piece: any iterable, a data set with
            items and a length, or a function that opens them anew. What can be read only once (a generator) serves
            minmax alone.
        source: what messages call the samples.
        batch: the most samples at once where the first axis is dynamic; if not given, 4 where samples are
            independent, else all of a piece.
        method: how samples become ranges.
        precision: "int8" or "fp8", whose steps mse measures by; entropy knows int8's only.
        needed: which of the tensors must have a range, all if not given. Of the others, those that no range can hold
            (NaN, infinite, or too small for a scale) are left out, and it is noted.
        progress: told what is going on.
        expected: how many samples there are, if that is known; for the progress alone.

    Raises:
        DataError: no samples, samples that do not fit, a NaN or infinite value among them, inputs that never change, a
            second pass that gives other samples than the first, or a batch of none.
        LoweringError: the model holds a reduced precision, a needed tensor of it overflows or is NaN in fp32 on these
            samples, the precision has no ranges, or the method is of no use for it.
        SpecError: no such method.
    """
    chosen = read_method(method)
    _require_fp32(model)
    _require_ranged(precision, batch)
    require_grid(chosen, precision)
    passes = 1 if chosen.name == "minmax" else 2
    opened = opener(samples, source, method, twice=passes > 1)
    stream = Stream(model, InnerTensors(model, tensors), opened, source, batch, batch, needed)
    title = f"calibrating on {source}"
    notes: tuple[str, ...] = ()
    with _told(progress) as tell:
        widest, seen = _widest(stream, tensors, partial(tell, f"{title}: largest values"), expected)
        amax, broken = _held(widest, model, source, needed)
        if passes == 2:
            found = _counted(stream, amax, seen.count, partial(tell, f"{title}: histograms"))
            thin = [name for name, histogram in found.items() if too_few(histogram.counts)]
            notes = sparse(thin, source) if chosen.name == "entropy" else ()
            amax = {**amax, **{name: threshold(histogram, chosen, precision) for name, histogram in found.items()}}
    amax, small = _stepped(amax, source, precision, needed)
    return Ranges(amax, source, notes=(*seen.notes(source), *broken, *small, *notes))


def activations(
    model: Model, tensors: Iterable[str], runs: Iterable[Arrays], batch: int | None = None
) -> Iterator[Mapping[str, Any]]:
    """The named tensors and the inputs, a few samples at a time, so that memory holds those of one piece.

    Where these are too many still, each run's are computed in groups, as they are read in the graph's order.

    Args:
        model: what computes them; onnxruntime runs it as it is written.
        tensors: names of inputs, and of what the nodes compute.
        runs: arrays by input name; floats of another width are cast.
        batch: the most samples at once where the first axis is dynamic; if not given, 4 where samples are
            independent, else all of a run.

    Raises:
        DataError: a run does not fit.
        ModelError: onnxruntime refuses the graph.
        BackendError: onnxruntime fails while running.
    """
    wanted, at_once = InnerTensors(model, tensors), batch
    for number, run_ in enumerate(runs):
        arrays = conform(run_, model.inputs, "samples")
        if not number and batch is None and wanted.independent(arrays):
            at_once = wanted.at_once(arrays)
        for feeds in split(arrays, model.inputs, at_once):
            yield wanted.of(feeds)


def _require_fp32(model: Model) -> None:
    held = held_precision(model.proto)
    if held != "fp32":
        raise LoweringError(
            f"{model.source} already holds {held}: ranges are those of the fp32 network. Name the fp32 file that it was"
            " made from."
        )


def _require_ranged(precision: str, batch: int | None) -> None:
    if precision not in ("int8", "fp8"):
        raise LoweringError(f"calibration is for int8 and fp8, and not for {precision!r}, which takes no ranges.")
    if batch is not None and batch < 1:
        raise DataError(f"a batch of {batch} samples is none: take 1 or more, or leave it out.")


def _widest(
    stream: Stream, tensors: list[str], tell: Callable[[float | None], None], expected: int | None
) -> tuple[dict[str, float], Seen]:
    """The first pass: the largest |x| of each tensor, and what the samples showed of themselves."""
    amax, seen = dict.fromkeys(tensors, 0.0), Seen()
    for arrays in stream.pieces():
        tell(min(seen.count / expected, 1.0) if expected else None)
        seen.add(arrays, samples_in(arrays, stream.model.inputs))
        for found in stream.activations(arrays):
            _widen(amax, found)
    seen.require_moving(stream.source)
    return amax, seen


def _held(
    amax: dict[str, float], model: Model, source: str, needed: Collection[str] | None
) -> tuple[dict[str, float], tuple[str, ...]]:
    """The ranges that are numbers, and a sentence on tensors that have none and need none."""
    broken = [name for name, value in amax.items() if not math.isfinite(value)]
    fatal = next((name for name in broken if needed is None or name in needed), None)
    if fatal is not None:
        raise LoweringError(
            f"{model.source}: tensor {fatal!r} is NaN or infinite in fp32 for the samples of {source}:"
            " no range can hold it. Look for NaN weights, or inputs of the wrong scale."
        )
    return {name: value for name, value in amax.items() if name not in broken}, unbounded(broken, source)


def _stepped(
    amax: dict[str, float], source: str, precision: str, needed: Collection[str] | None
) -> tuple[dict[str, float], tuple[str, ...]]:
    """The ranges that have a scale or are 0, and what there is to say of the others, and of zeros."""
    steps = INT8_LEVELS if precision == "int8" else FP8_LARGEST
    small = [name for name, value in amax.items() if value and fault_of_scale(value / steps)]
    zero = [name for name in small if needed is None or name in needed]
    left = [name for name in small if name not in zero]
    notes = (*silent(amax, source), *faint(zero, source, "taken for zero"), *faint(left, source, "left out"))
    return {name: 0.0 if name in zero else value for name, value in amax.items() if name not in left}, notes


def _counted(
    stream: Stream, amax: dict[str, float], count: int, tell: Callable[[float | None], None]
) -> dict[str, Histogram]:
    """The second pass: a histogram of each tensor that is not zero over all samples."""
    histograms = {name: Histogram(value) for name, value in amax.items() if value >= SMALLEST}
    again = 0
    for arrays in stream.pieces():
        tell(again / count)
        again += samples_in(arrays, stream.model.inputs)
        for found in stream.activations(arrays):
            for name, histogram in histograms.items():
                histogram.add(found[name])
    other = [name for name, histogram in histograms.items() if histogram.beyond]
    if again != count or other:
        told = f"{again} samples after {count}" if again != count else f"larger values of {other[0]!r} than before"
        raise DataError(
            f"{stream.source} gives other samples each time it is read: {told}. Fix its seed and its order, so that the"
            " second pass counts what the first one measured, or calibrate by minmax."
        )
    return histograms


def _widen(amax: dict[str, float], arrays: Mapping[str, Any]) -> None:
    for name in amax:
        array = arrays[name]
        if array.size:
            largest = np.maximum(array.max(), -array.min())
            amax[name] = math.nan if np.isnan(largest) else max(amax[name], float(largest))


@contextmanager
def _told(progress: Progress | None) -> Iterator[Progress]:
    """What to tell the progress to; nothing is left on its line afterwards."""
    tell: Progress = progress or (lambda _phase, _share: None)
    try:
        yield tell
    finally:
        tell("", None)
