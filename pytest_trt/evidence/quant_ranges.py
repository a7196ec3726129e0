"""Quantised ranges: what int8 and fp8 stand on, against the golden: tensors' ranges, calibration samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_trt.calibration.calibration import activations
from pytest_trt.errors import PytestTrtError
from pytest_trt.evidence._qdq_file import (
    Refused,
    bound_of,
    bypassed,
    consumers_of,
    coverage_of,
    described,
    refused_by_tensorrt,
)
from pytest_trt.evidence.calibration_shift import likeness_of
from pytest_trt.evidence.rounding import Grid, Tally, TensorStatistics
from pytest_trt.golden.folds import halves
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.model import Model, tensor_names
from pytest_trt.ranges.amax import is_tensorrts_own

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from onnx import ModelProto

    from pytest_trt.evidence.calibration_shift import Likeness
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.precision import Precision
    from pytest_trt.ranges.amax import Ranges

__all__ = ["LEAST_DB", "LOST_DB", "MOST_DB", "Quantised", "QuantisedTensor", "quantised_evidence"]

_QUANTISING = ("int8", "fp8")


@dataclass(frozen=True)
class QuantisedTensor:
    """One activation that is put on a grid.

    Attributes:
        name: in the graph that was looked at.
        grid: its scale, zero point and type.
        consumer: the node that reads it first.
        is_input: whether it is an input of the network.
        bound: the largest |x| that its operator lets it have (ReLU6, Sigmoid); None where it has no bound.
        statistics: of the golden's inputs; None where the graph could not be run.
    """

    name: str
    grid: Grid
    consumer: str
    is_input: bool
    bound: float | None
    statistics: TensorStatistics | None


@dataclass(frozen=True)
class Quantised:
    """What is known of a network's ranges.

    Attributes:
        tensors: every activation with a grid, in the graph's order.
        source: what messages call the ranges.
        held: whether the file under test holds them itself.
        made_by: header of the TensorRT calibration cache that they come from.
        release: of the TensorRT that builds; None where none does.
        strange: tensors that have a range and that the model has not.
        missing: tensors that need a range and have none.
        uncovered: matrix operators of a file that read what no Q/DQ made, in the graph's order.
        gaps: of these, the ones whose like are quantised, and that are no first or last one.
        operators: how many matrix operators there are.
        refused: Q and DQ that TensorRT refuses.
        likeness: how calibration samples and the golden's inputs compare, where there were samples.
        said: what the case or the builder said, where there are no ranges at all.
        unread: why there are no statistics, where the graph could not be run.
        honest_db: the least SQNR, in dB, that the ranges of half of the golden's inputs leave of a tensor of which they
            cost 6 dB or more: infinite where they cost no tensor that; None where nothing was to be told by it, or
            the inputs can't be cut.
    """

    tensors: tuple[QuantisedTensor, ...] = ()
    source: str = ""
    held: bool = False
    made_by: str = ""
    release: str | None = None
    strange: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    uncovered: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()
    operators: int = 0
    refused: tuple[Refused, ...] = ()
    likeness: Likeness | None = None
    said: str = ""
    unread: str = ""
    honest_db: float | None = None


def quantised_evidence(
    model: Model,
    reference: Model | None,
    precision: Precision,
    held: str,
    ranges: Ranges | None,
    runs: Sequence[Arrays],
    batch: int | None,
    keep: Iterable[str] = (),
    *,
    ops: Iterable[str] = (),
    samples: Iterable[Arrays] | None = None,
    release: str | None = None,
    said: str = "",
) -> Quantised | None:
    """What int8 or fp8 of a model stands on; None where neither was asked nor is held.

    Args:
        model: under test, in the operators that lowering takes (a recipe's model): fp32, or with its Q/DQ.
        reference: the fp32 model, where the one under test is none; its tensors serve only where the file can't be run.
        precision: what was asked.
        held: what the file under test holds.
        ranges: that lowering took, or that were given to it and did not fit; None where the file holds them.
        runs: the golden's inputs.
        batch: the most samples at once where the first axis is dynamic.
        keep: nodes that stay in fp32 on purpose.
        ops: kinds of operators that are lowered, if not all.
        samples: that the ranges were taken from.
        release: of the TensorRT that builds, as "8.6.0".
        said: what the case or the builder said of ranges that are missing.

    Raises:
        LoweringError: there is nothing to quantise in an fp32 model, or ``keep`` and ``ops`` name what it has not.
    """
    if not (precision.takes_ranges and held == "fp32") and held not in _QUANTISING:
        return None
    likeness = likeness_of(samples, runs, model) if samples is not None else None
    if held != "fp32":
        return _of_file(model, reference, runs, batch, tuple(keep), release)
    if ranges is None:
        return Quantised(source=model.source, release=release, said=said)
    needed = quantised_activations(model.proto, keep, ops)
    known = tensor_names(model.proto)
    grids = {name: _lowered_grid(ranges.amax[name], precision) for name in needed if name in ranges.amax}
    all_of_them, unread = _measured(model, grids, model.proto, runs, batch)
    tensors = tuple(tensor for tensor in all_of_them if ranges.amax[tensor.name] or _moves(tensor))
    return Quantised(
        tensors,
        ranges.source,
        made_by=ranges.made_by,
        release=release,
        strange=tuple(name for name in ranges.amax if name not in known and not is_tensorrts_own(name)),
        missing=tuple(name for name in needed if name not in ranges.amax),
        operators=len(needed),
        likeness=likeness,
        said=said,
        unread=unread,
        honest_db=_honest(model, tensors, runs, batch),
    )


def _lowered_grid(amax: float, precision: Precision) -> Grid:
    """That of a tensor; lowering gives one that was always 0 a step of 1."""
    return Grid(amax / precision.largest if amax else 1.0, 0, precision.label)


def _moves(tensor: QuantisedTensor) -> bool:
    """Whether a tensor that was 0 in all calibration data is something else on the golden's inputs."""
    return tensor.statistics is not None and tensor.statistics.amax > 0


def _of_file(
    model: Model,
    reference: Model | None,
    runs: Sequence[Arrays],
    batch: int | None,
    keep: tuple[str, ...],
    release: str | None,
) -> Quantised:
    grids = described(model.proto)
    plain = Model(bypassed(model.proto), model.source)
    tensors, unread = _measured(plain, grids, model.proto, runs, batch)
    honest = _honest(plain, tensors, runs, batch)
    if unread and reference is not None and grids.keys() <= tensor_names(reference.proto):
        tensors, unread = _measured(reference, grids, model.proto, runs, batch)
    coverage = coverage_of(model.proto, keep)
    return Quantised(
        tensors,
        model.source,
        held=True,
        release=release,
        uncovered=coverage.bare,
        gaps=coverage.gaps,
        operators=coverage.operators,
        refused=refused_by_tensorrt(model.proto),
        unread=unread,
        honest_db=honest,
    )


def _measured(
    model: Model, grids: Mapping[str, Grid], written: ModelProto, runs: Sequence[Arrays], batch: int | None
) -> tuple[tuple[QuantisedTensor, ...], str]:
    """The tensors with their statistics, or without them and with the reason."""
    tallies, unread = {name: Tally(grid) for name, grid in grids.items()}, ""
    try:
        for found in activations(model, grids, runs, batch) if grids else ():
            for name, tally in tallies.items():
                tally.add(found[name])
    except PytestTrtError as error:
        unread = str(error)
    consumers, bounds = consumers_of(written), bound_of(written)
    fed = {spec.name for spec in model.inputs}
    return tuple(
        QuantisedTensor(
            name,
            grid,
            consumers.get(name, ""),
            name in fed,
            bounds.get(name),
            None if unread else tallies[name].statistics(),
        )
        for name, grid in grids.items()
    ), unread


LOST_DB = 6.0
"""Of the SQNR that could be: a range that takes as much costs something."""

COSTLY_DB = 28.0
"""What is kept better than this suffers from no range."""


LEAST_DB, MOST_DB = 6.0, 10.0
"""No choice of samples explains that less is left of a tensor (half of the amplitude is wrong); more needs none."""


def _costs(seen: TensorStatistics) -> bool:
    return seen.sqnr_db < COSTLY_DB and seen.attainable_db - seen.sqnr_db >= LOST_DB


def _honest(
    model: Model, tensors: Sequence[QuantisedTensor], runs: Sequence[Arrays], batch: int | None
) -> float | None:
    """What halves of the golden's inputs leave, each as calibration data, where that decides anything."""
    costly = [tensor.statistics.sqnr_db for tensor in tensors if tensor.statistics and _costs(tensor.statistics)]
    if not any(LEAST_DB <= left < MOST_DB for left in costly):
        return None
    folds = [half for turns in (False, True) for half in halves(runs, model.inputs, by_turns=turns)]
    try:
        found = list(_kept_by(model, {tensor.name: tensor for tensor in tensors}, folds, runs, batch))
    except PytestTrtError:
        return None
    return min((seen.sqnr_db for seen in found if _costs(seen)), default=math.inf) if folds else None


def _kept_by(
    model: Model,
    tensors: Mapping[str, QuantisedTensor],
    folds: Sequence[Sequence[Arrays]],
    runs: Sequence[Arrays],
    batch: int | None,
) -> Iterator[TensorStatistics]:
    """What the ranges of each fold make of all inputs; a tensor that a fold reaches the end of loses nothing."""
    largest = [_largest(model, tensors, fold, batch) for fold in folds]
    tallies = [
        (name, Tally(_grid(tensor, amax[name])))
        for amax in largest
        for name, tensor in tensors.items()
        if tensor.statistics and 0 < amax[name] < tensor.statistics.amax
    ]
    for found in activations(model, dict(tallies), runs, batch) if tallies else ():
        for name, tally in tallies:
            tally.add(found[name])
    yield from (tally.statistics() for _, tally in tallies)


def _largest(model: Model, names: Iterable[str], fold: Sequence[Arrays], batch: int | None) -> dict[str, float]:
    amax = dict.fromkeys(names, 0.0)
    for found in activations(model, amax, fold, batch):
        for name, array in found.items():
            amax[name] = max(amax[name], float(np.abs(array[np.isfinite(array)]).max(initial=0.0)))
    return amax


def _grid(tensor: QuantisedTensor, amax: float) -> Grid:
    """Symmetric, of the tensor's own type."""
    kind = tensor.grid.kind if tensor.grid.is_float else "int8"
    return Grid(amax / Grid(1.0, 0, kind).amax, 0, kind)
