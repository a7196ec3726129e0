"""Calibration: run samples through the fp32 model and take the ranges of its tensors, piece after piece.

What is held in memory is one piece of the samples, with its activations, and 2048 counts a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from pytest_trt.errors import BackendError, DataError, LoweringError
from pytest_trt.feeds import Arrays, conform, finite, fit, samples_in, split
from pytest_trt.histogram import SMALLEST, Histogram
from pytest_trt.ranges import Ranges
from pytest_trt.seen import Seen, silent, sparse
from pytest_trt.session import open_session, run
from pytest_trt.threshold import read_method, require_grid, threshold, too_few

if TYPE_CHECKING:
    from pytest_trt.model import Model

__all__ = ["Progress", "Samples", "activations", "calibrate"]

Samples = Callable[[int | None], Iterable[Arrays]]
"""Opens calibration samples anew for each pass: given the most samples wanted at once along axis 0 (None: as they
come), yields arrays by input name."""

Progress = Callable[[str, float | None], None]
"""Told a phase, and the share of it that is done or None; an empty phase when nothing goes on any more."""

_BATCH = 4  # samples whose activations are in memory together, where the first axis is dynamic
_PIECE = 2 * _BATCH  # samples that are read together


def calibrate(
    model: Model,
    tensors: list[str],
    samples: Samples | Iterable[Arrays],
    source: str,
    batch: int | None = None,
    method: str = "minmax",
    *,
    precision: str = "int8",
    progress: Progress | None = None,
) -> Ranges:
    """The range of each tensor over all samples: its largest |x|, or less where a method clips.

    ``minmax`` reads the samples once. The others read them twice, to know the largest |x| of a tensor before they count
    in bins of it: ``entropy`` (TensorRT's), ``percentile`` (99.99, or ``percentile:99.9``) and ``mse``, each in
    :mod:`pytest_trt.threshold` with its source.

    Args:
        model: the fp32 model.
        tensors: names of the activations whose range is wanted.
        samples: arrays by input name, piece after piece: any iterable, or a function that opens them anew. What can be
            read only once (a generator) serves minmax alone.
        source: what messages call the samples.
        batch: the most samples at once where the first axis is dynamic; if not given, 4 where samples are
            independent, else all of a piece.
        method: how samples become ranges.
        precision: "int8" or "fp8", whose steps mse measures by; entropy knows int8's only.
        progress: told what is going on.

    Raises:
        DataError: no samples, samples that do not fit, a NaN or infinite value among them, inputs that never change, or
            a second pass that gives other samples than the first.
        LoweringError: the fp32 model itself overflows or makes NaN on these samples, or the method is of no use for the
            precision.
        SpecError: no such method.
    """
    chosen = read_method(method)
    require_grid(chosen, precision)
    passes = 1 if chosen.name == "minmax" else 2
    reopened = _reopened(samples, source, method, passes)
    inner = [name for name in tensors if name not in {spec.name for spec in model.inputs}]
    session = open_session(_with_outputs(model.proto, inner), model.source)
    stream = _Stream(model, session, reopened, source, batch, batch)
    title = f"calibrating on {source}"
    notes: tuple[str, ...] = ()
    with _told(progress) as tell:
        tell(f"{title}: largest values", None)
        amax, seen = _widest(stream, tensors)
        if passes == 2:
            found = _counted(stream, amax, seen.count, partial(tell, f"{title}: histograms"))
            thin = [name for name, histogram in found.items() if too_few(histogram.counts)]
            notes = sparse(thin, source) if chosen.name == "entropy" else ()
            amax = {**amax, **{name: threshold(histogram, chosen, precision) for name, histogram in found.items()}}
    return Ranges(amax, source, notes=(*seen.notes(source), *silent(amax, source), *notes))


def activations(
    model: Model, tensors: Iterable[str], runs: Iterable[Arrays], batch: int | None = None
) -> Iterator[Arrays]:
    """The named tensors, a few samples at a time, so that memory holds those of one piece.

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
    wanted, fed = list(tensors), {spec.name for spec in model.inputs}
    session = open_session(_with_outputs(model.proto, [name for name in wanted if name not in fed]), model.source)
    at_once = batch
    for number, run_ in enumerate(runs):
        arrays = conform(run_, model.inputs, "samples")
        if not number and batch is None and _independent(session, model, arrays):
            at_once = _BATCH
        for feeds in split(arrays, model.inputs, at_once):
            found = {**run(session, model, feeds), **feeds}
            yield {name: found[name] for name in wanted}


@dataclass
class _Stream:
    """Samples on their way through the session.

    Attributes:
        at_once: the most samples in one run, where the first axis is dynamic; None for all of a piece.
        most: the most samples in one piece; None as they come.
        known: whether it was found out what may be cut.
    """

    model: Model
    session: Any
    samples: Samples
    source: str
    at_once: int | None
    most: int | None
    known: bool = False

    def pieces(self) -> Iterator[Arrays]:
        """One pass over the samples, each piece checked."""
        begun = 0
        for arrays in self.samples(self.most) if self.known or self.at_once else self._first_opened():
            fit(arrays, self.model.inputs, self.source)
            finite(arrays, self.source, begun)
            begun += samples_in(arrays, self.model.inputs)
            yield arrays

    def activations(self, arrays: Arrays) -> Iterator[Arrays]:
        """All tensors of a piece, a few samples at a time."""
        for feeds in split(arrays, self.model.inputs, self.at_once):
            yield {**run(self.session, self.model, feeds), **feeds}

    def _first_opened(self) -> Iterable[Arrays]:
        """Small pieces, if the first that could be cut shows that it may be; else all samples as they come."""
        self.known, self.most = True, _PIECE
        found, first = iter(self.samples(self.most)), []
        for arrays in islice(found, _PIECE):  # pieces of one sample tell nothing
            fit(arrays, self.model.inputs, self.source)
            first.append(arrays)
            if samples_in(arrays, self.model.inputs) > 1:
                break
        if first and _independent(self.session, self.model, first[-1]):
            self.at_once = _BATCH
        elif first and samples_in(first[-1], self.model.inputs) == _PIECE and not _fixed(self.model):
            self.most = None  # the piece may have been cut where nothing may be
            return self.samples(None)
        return chain(first, found)


def _reopened(samples: Samples | Iterable[Arrays], source: str, method: str, passes: int) -> Samples:
    if not isinstance(samples, Iterable):
        return samples
    if isinstance(samples, Iterator) and passes > 1:
        raise DataError(
            f"{source} can be read only once, and calibration by {method} reads samples twice: give a list, or a"
            " function that opens them anew (lambda most: ...), or take minmax."
        )
    found: Iterable[Arrays] = [dict(samples)] if isinstance(samples, Mapping) else samples
    return lambda _: found


def _widest(stream: _Stream, tensors: list[str]) -> tuple[dict[str, float], Seen]:
    """The first pass: the largest |x| of each tensor, and what the samples showed of themselves."""
    amax, seen = dict.fromkeys(tensors, 0.0), Seen()
    for arrays in stream.pieces():
        seen.add(arrays, samples_in(arrays, stream.model.inputs))
        for found in stream.activations(arrays):
            _widen(amax, found)
    seen.require_moving(stream.source)
    for name, value in amax.items():
        if not math.isfinite(value):
            raise LoweringError(
                f"{stream.model.source}: tensor {name!r} is NaN or infinite in fp32 for the samples of {stream.source}:"
                " no range can hold it. Look for NaN weights, or inputs of the wrong scale."
            )
    return amax, seen


def _counted(
    stream: _Stream, amax: dict[str, float], count: int, tell: Callable[[float | None], None]
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


def _fixed(model: Model) -> bool:
    """Whether the model itself says how many samples it takes at once."""
    return any(spec.shape and isinstance(spec.shape[0], int) for spec in model.inputs)


def _independent(session: Any, model: Model, arrays: Arrays) -> bool:
    """Whether the first axis may be cut: of some samples, two halves compute what the whole does.

    It may be time, points or nodes, where a cut makes another network.
    """
    if _fixed(model):
        return False  # fixed first axes are cut as they are anyway
    lengths = {arrays[spec.name].shape[0] for spec in model.inputs if spec.shape and arrays[spec.name].ndim}
    if len(lengths) != 1 or lengths == {1}:
        return False
    some = {name: array[:_PIECE] if array.ndim else array for name, array in arrays.items()}
    half = max(1, min(_PIECE, *lengths) // 2)
    try:
        whole = run(session, model, some)
        cut = run(session, model, some, half)
    except (BackendError, DataError):
        return False
    names = [output.name for output in model.outputs]
    return all(np.allclose(whole[name], cut[name], rtol=1e-3, atol=1e-4, equal_nan=True) for name in names)


def _widen(amax: dict[str, float], arrays: Arrays) -> None:
    for name in amax:
        array = arrays[name]
        if array.size:
            largest = np.maximum(array.max(), -array.min())
            amax[name] = math.nan if np.isnan(largest) else max(amax[name], float(largest))


def _with_outputs(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """A copy that also gives these tensors out; onnxruntime finds their types itself."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(proto)
    present = {output.name for output in proto.graph.output}
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    return exposed


@contextmanager
def _told(progress: Progress | None) -> Iterator[Progress]:
    """What to tell the progress to; nothing is left on its line afterwards."""
    tell: Progress = progress or (lambda _phase, _share: None)
    try:
        yield tell
    finally:
        tell("", None)
