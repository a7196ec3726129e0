"""Localise: which tensor the error comes from.

The fp32 and the lowered model run side by side, once, and all their tensors are compared. What rounding does to a
tensor itself (local) names the cause; what has gathered in it on the way (cumulative) explains the result, and alone
would blame whatever stands behind the cause, or the depth of the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.comparison.error_metrics import blocks, dot
from pytest_trt.evidence._pairing import NEVER, paired
from pytest_trt.model.feeds import conform
from pytest_trt.model.onnx_session import open_session, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from pytest_trt.evidence._pairing import Pair, Tensor
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model

__all__ = ["Located", "first_nonfinite", "lines_of", "localise", "ranked"]

BAD_LOCAL_DB = 24.0
"""Under this a tensor's own rounding is a fault: calibrated tensors of six networks have 27 dB and more."""

_TOGETHER = 4  # tensors given out in one run, where their squares say too little


@dataclass(frozen=True)
class Located:
    """One tensor, and how far the lowered model's is from that of fp32. Ratios are in dB: signal to error power.

    Attributes:
        tensor: its name in the fp32 graph.
        node: the node that makes it: its name, or the tensor's where it has none; empty for an input.
        op: that node's operator; empty for an input.
        readers: the nodes that read it.
        place: where it stands in the graph's order.
        local_db: of the fp32 tensor against its own rounding in the lowered graph (its scale, its cast); None where it
            is not rounded there by itself.
        cumulative_db: of the fp32 tensor against the lowered run's: all that has gathered so far; minus infinity where
            the two have different shapes.
        own_db: of the fp32 tensor against what the lowered graph's node, with its weights as they are stored, makes of
            exact inputs; None where that can't be told.
        added_db: what the node and the rounding of its result do by themselves; where that can't be told, as
            ``cumulative_db``, less the error of the noisiest tensor that the node reads.
        nonfinite: whether the lowered run's holds NaN or infinity.
        nonfinite_in_fp32: whether the fp32 run's does.
        went_bad: whether it holds NaN or infinity where fp32 does not.
    """

    tensor: str
    node: str
    op: str
    readers: tuple[str, ...]
    place: int
    local_db: float | None
    cumulative_db: float
    added_db: float
    nonfinite: bool = False
    nonfinite_in_fp32: bool = False
    went_bad: bool = False
    own_db: float | None = None


def localise(reference: Model, lowered: Model, runs: Iterable[Arrays], batch: int | None = None) -> tuple[Located, ...]:
    """Compare all float tensors of the two models, in one pass that holds no more of them than a plain run does.

    Args:
        reference: the fp32 model.
        lowered: the same network as it is simulated, with Q/DQ or as a cast sandwich.
        runs: arrays by input name.
        batch: the most samples at once where the first axis is dynamic.

    Returns:
        The likeliest cause first: the first tensor that went NaN or infinite; tensors whose own rounding, or whose node
        on exact inputs, leaves under 24 dB, the worst first; then all others by what their node adds to the error.

    Raises:
        LoweringError: the models have no tensor in common, or can't be brought to one opset.
        DataError: the samples do not fit.
        ModelError, BackendError: onnxruntime refuses the two together, or fails while running.
    """
    pair = paired(reference, lowered)
    both = [_for_both(arrays, reference, lowered, pair.prefix) for arrays in runs]
    powers = _powers(pair, both, batch)
    figures = {tensor.name: _of_sums(tensor, powers) for tensor in pair.tensors}
    figures.update(_looked_at(pair, both, batch, figures))
    return ranked(_located(pair.tensors, figures))


def ranked(located: Iterable[Located]) -> tuple[Located, ...]:
    """The likeliest cause first."""
    found = tuple(located)
    first = first_nonfinite(found)
    return tuple(sorted(found, key=lambda one: (one is not first, *_suspicion(one))))


def first_nonfinite(located: Iterable[Located]) -> Located | None:
    """The first tensor, in the graph's order, that went NaN or infinite; else the first that is so in fp32 already."""
    odd = [one for one in located if one.nonfinite]
    return min(odd, key=lambda one: (not one.went_bad, one.place), default=None)


def lines_of(located: Iterable[Located], most: int = 5) -> list[str]:
    """Lines for a terminal: where it went NaN or infinite, then the likeliest causes."""
    found = tuple(located)
    odd = first_nonfinite(found)
    lines = [] if odd is None else [_line_of_nonfinite(odd)]
    return lines + [_line(one) for one in islice((one for one in found if one is not odd), most - len(lines))]


@dataclass(frozen=True)
class _Figures:
    """Sums of squares of one tensor over all samples, and what is not finite in it."""

    signal: float
    error: float
    noise: float | None
    own: float | None
    nonfinite: bool = False
    in_fp32: bool = False
    went_bad: bool = False


def _for_both(arrays: Arrays, reference: Model, lowered: Model, prefix: str) -> Arrays:
    own = conform(arrays, reference.inputs, reference.source)
    other = conform(arrays, lowered.inputs, lowered.source)
    return {**own, **{f"{prefix}{name}": array for name, array in other.items()}}


def _powers(pair: Pair, runs: list[Arrays], batch: int | None) -> dict[str, float]:
    session = open_session(pair.model.proto, pair.model.source, in_order=True)
    sums: dict[str, float] = {}
    for arrays in runs:
        for name, found in run(session, pair.model, arrays, batch).items():
            sums[name] = sums.get(name, 0.0) + float(np.sum(found, dtype=np.float64))
    return sums


def _of_sums(tensor: Tensor, powers: Mapping[str, float]) -> _Figures:
    """What the squares say; those that are not finite may come of values beyond 1e19, and are looked at again."""
    signal, noise = powers[tensor.signal], None if tensor.noise is None else powers[tensor.noise]
    own = powers[tensor.own] if tensor.own is not None else 0.0 if tensor.same else None
    if tensor.error is None:
        return _Figures(signal, math.inf, noise, own)
    error, in_fp32 = powers[tensor.error], not math.isfinite(signal)
    odd = in_fp32 or not math.isfinite(error)
    return _Figures(signal, math.inf if odd else error, noise, own, odd, in_fp32, odd and not in_fp32)


def _looked_at(
    pair: Pair, runs: list[Arrays], batch: int | None, figures: Mapping[str, _Figures]
) -> Iterator[tuple[str, _Figures]]:
    """Tensors whose squares are not finite, value by value, until one of them is NaN or went bad: the others follow.

    Infinity alone may be right, and so may 3e38: masks of attention are made of them.
    """
    left = [tensor for tensor in pair.tensors if tensor.error and _unclear(figures[tensor.name])]
    while left:
        some, left = left[:_TOGETHER], left[_TOGETHER:]
        pair.give(name for tensor in some for name in (tensor.name, tensor.lowered, tensor.rounded) if name)
        session = open_session(pair.model.proto, pair.model.source, in_order=True)
        found = [run(session, pair.model, arrays, batch) for arrays in runs]
        for tensor in some:
            exact = _exact(tensor, found, figures[tensor.name])
            yield tensor.name, exact
            if exact.went_bad or any(np.isnan(arrays[tensor.name]).any() for arrays in found):
                return


def _unclear(figures: _Figures) -> bool:
    return figures.nonfinite or not math.isfinite(figures.noise or 0.0)


def _exact(tensor: Tensor, found: list[Arrays], roughly: _Figures) -> _Figures:
    rounded = tensor.rounded
    if tensor.masking:
        found = [{**arrays, **_limited(tensor, arrays)} for arrays in found]
    pairs = [(arrays[tensor.lowered], arrays[tensor.name]) for arrays in found]
    signal, error, went_bad = _sums(pairs)
    noise = None if rounded is None else _sums([(arrays[rounded], arrays[tensor.name]) for arrays in found])[1]
    nonfinite, in_fp32 = (any(not np.isfinite(pair[side]).all() for pair in pairs) for side in (0, 1))
    own = 0.0 if roughly.own == 0 else None  # squares of another tensor, which may be beyond as well
    return _Figures(signal, error, noise, own, nonfinite, in_fp32, went_bad)


def _limited(tensor: Tensor, arrays: Arrays) -> Arrays:
    """A mask's values that mean "never" as one value; infinities stay, but for those that its rounding alone makes."""
    names = [name for name in (tensor.name, tensor.lowered, tensor.rounded) if name]
    finite = {name: np.maximum(arrays[name], np.float32(NEVER)) for name in names}
    odd = {name: np.isinf(arrays[name]) & (name != tensor.rounded) for name in names}
    return {name: np.where(odd[name], arrays[name], finite[name]) for name in names}


def _sums(pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> tuple[float, float, bool]:
    """Squares of the second and of the difference, and whether the first is NaN or infinite where the second is not."""
    signal, error, went_bad = 0.0, 0.0, False
    for first, second in pairs:
        for block in blocks(first, second):
            size = np.where(np.isfinite(block.size), block.size, 0.0)
            plain = np.where(np.isfinite(block.reference), block.reference, 0.0)
            odd = bool(np.isinf(block.size).any())
            signal, error = signal + dot(plain, plain), error + (math.inf if odd else dot(size, size))
            went_bad = went_bad or bool((~np.isfinite(block.actual) & np.isinf(block.size)).any())
    return signal, error, went_bad


def _located(tensors: tuple[Tensor, ...], figures: Mapping[str, _Figures]) -> Iterator[Located]:
    share = {name: _share(one.error, one.signal) for name, one in figures.items()}
    for place, tensor in enumerate(tensors):
        one = figures[tensor.name]
        before = max((share[name] for name in tensor.reads if name in share), default=0.0)
        added = 0.0 if share[tensor.name] <= before else share[tensor.name] - before
        if one.own is not None:
            added = _share(one.own, one.signal) + _share(one.noise or 0.0, one.signal)
        yield Located(
            tensor=tensor.name,
            node=tensor.node,
            op=tensor.op,
            readers=tensor.readers,
            place=place,
            local_db=None if one.noise is None else _decibel(_share(one.noise, one.signal)),
            cumulative_db=_decibel(share[tensor.name]),
            added_db=_decibel(added),
            nonfinite=one.nonfinite,
            nonfinite_in_fp32=one.in_fp32,
            went_bad=one.went_bad,
            own_db=None if one.own is None else _decibel(_share(one.own, one.signal)),
        )


def _share(error: float, signal: float) -> float:
    if error == 0:
        return 0.0
    return error / signal if signal and math.isfinite(error) and math.isfinite(signal) else math.inf


def _decibel(share: float) -> float:
    if share == 0 or math.isinf(share):
        return -math.inf if share else math.inf
    return -10 * math.log10(share)


def _suspicion(one: Located) -> tuple[bool, float, int]:
    worst = min((own for own in (one.local_db, one.own_db) if own is not None), default=math.inf)
    return not worst < BAD_LOCAL_DB, worst if worst < BAD_LOCAL_DB else one.added_db, one.place


def _line_of_nonfinite(one: Located) -> str:
    already = ", in fp32 already" if one.nonfinite_in_fp32 and not one.went_bad else ", and not in fp32"
    return f"NaN or infinity first in {_called(one)}{already}"


def _line(one: Located) -> str:
    local = "" if one.local_db is None else f"rounding it leaves {_told(one.local_db)}, "
    return f"{_called(one)}: {local}the lowered run has {_told(one.cumulative_db)}, its node adds {_told(one.added_db)}"


def _called(one: Located) -> str:
    made = f" of {one.op} {one.node!r}" if one.node else " (an input)"
    readers = f", read by {', '.join(map(repr, one.readers[:3]))}" if one.readers else ""
    return f"{one.tensor!r}{made}{readers}{' ...' if len(one.readers) > 3 else ''}"


def _told(ratio: float) -> str:
    if math.isinf(ratio):
        return "no error" if ratio > 0 else "nothing but error"
    return f"{ratio:.1f} dB"
