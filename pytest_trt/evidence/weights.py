"""Weights: what a file under test stores, as it is dequantised, against the reference's weights at the same places."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx

from pytest_trt.evidence._operands import Operand, operands
from pytest_trt.model.external_data import replaced
from pytest_trt.model.graph import fresh
from pytest_trt.model.model import Model

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from numpy.typing import NDArray

    from pytest_trt.evidence._operands import Stored

    Rows = NDArray[Any]

__all__ = ["StoredWeight", "WeightFaults", "Weights", "rounded_reference", "weights_of"]

ROW_DB = 9.0
"""Lost of a channel against its own best: from here on it counts as one at fault. Powers of two for scales cost 6 dB at
most, rounding up and down by chance as much."""

FLOAT_DB = 40.0
"""SQNR under which a channel in floating point is at fault: bf16's eight bits leave 50 dB and more."""

CLIPPED_DB = 3.0
"""The same of a channel that lost most of it by clipping, and has less than :data:`BAD_DB` left: a range that clips is
chosen where it gains."""

BAD_DB = 24.0
"""SQNR under which clipping is a fault, as it is of an activation."""

FAR = 3.0
"""levels x scale / amax, beyond which :data:`CLIPPED_DB` is enough too: powers of two for scales, or seven bits, double
it."""

_HELD_DB = 6.0  # what even the best rounding keeps no better does not count
_HELD_FLOAT_DB = 45.0
_ALIKE = 0.4  # cosine, under which two weights are no copies of one
_SEEN = 1e-3  # share of the power; less is not looked at for factors
_FITTED = 0.1
_FEWEST_TO_FIT = 4
_SAME = 0.05
_MOSTLY = 0.5
_MOST_STRANGE = 32
_LARGEST = {"fp8": 448.0, "fp8-e5m2": 57344.0, "fp4": 6.0}
_EXPECTED_DB = {"fp32": 150.0, "fp16": 72.0, "bf16": 54.0, "fp8": 31.0, "fp8-e5m2": 25.0, "fp4": 20.0}
_DTYPES = {
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "fp8": ml_dtypes.float8_e4m3fn,
    "fp8-e5m2": ml_dtypes.float8_e5m2,
    "fp4": ml_dtypes.float4_e2m1fn,
}


@dataclass(frozen=True)
class WeightFaults:
    """How many channels of a weight are at fault, by kind, each channel once.

    Attributes:
        zeroed: all zero where the reference's is not, and its rounding would not be.
        clipped: most of what it lost was cut off beyond the values that it can have, or has.
        coarse: steps too large, or other values.
    """

    zeroed: int = 0
    clipped: int = 0
    coarse: int = 0

    @property
    def count(self) -> int:
        """Channels at fault."""
        return self.zeroed + self.clipped + self.coarse


@dataclass(frozen=True)
class StoredWeight:
    """One weight of the file under test beside the reference's.

    Attributes:
        tensor: its name in the file under test.
        node: what multiplies by it.
        reference: the reference's name of it.
        kind: of what is stored: fp32, fp16, bf16, fp8, fp4, int8, uint4 and the like.
        grain: what one scale is for: "tensor", "channel", "block"; empty where there is none.
        channels: along the operator's output axis.
        faults: how many of these are at fault.
        sqnr_db: power of the reference's weight over that of the difference, in dB; infinite where that is 0.
        lost_db: of that, against rounding the reference's weight to nearest with a scale of amax / levels at the same
            grain.
        channel_lost_db: the same against one such scale for each channel.
        worst_db: the SQNR of the worst channel that counts.
        beyond: share of the reference's |w| beyond what the channel can hold, or of floating point holds.
        span: levels x scale / amax, of the channel or block where it is the farthest from 1; 1 of floating point.
        gain: what all of the file's channels are of the reference's; 1 where these differ, as a fold makes them.
        alike: whether the two are one weight at all, but for gains and faults.
    """

    tensor: str
    node: str
    reference: str
    kind: str
    grain: str
    channels: int
    faults: WeightFaults
    sqnr_db: float
    lost_db: float
    channel_lost_db: float
    worst_db: float
    beyond: float
    span: float
    gain: float = 1.0
    alike: bool = True


@dataclass(frozen=True)
class Weights:
    """The stored weights that have a counterpart in the reference.

    Attributes:
        source: what messages call the file under test.
        weights: in the graph's order.
        unpaired: nodes whose weight has no counterpart.
    """

    source: str
    weights: tuple[StoredWeight, ...]
    unpaired: tuple[str, ...]


def weights_of(model: Model, reference: Model) -> Weights:
    """Compare every stored weight with the reference's, one at a time.

    Args:
        model: under test.
        reference: fp32.
    """
    pairs, unpaired = _paired(model, reference)
    found = [_compared(pair) for pair in pairs]
    _rearrange(pairs, found)
    return Weights(model.source, tuple(found), unpaired)


def rounded_reference(model: Model, reference: Model) -> Model | None:
    """The reference with each weight rounded to nearest as the file stores its like; None where one has no counterpart.

    Args:
        model: under test, with quantised weights.
        reference: fp32; not changed.
    """
    pairs, unpaired = _paired(model, reference)
    if unpaired or not pairs:
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(reference.proto)
    name, rounded = fresh(copy), {}
    for pair in pairs:
        wish = name(f"{pair.wanted.tensor}/rounded")
        copy.graph.initializer.append(replaced(pair.wanted.held, pair.rounded(), wish))
        rounded[_key(pair.wanted)] = wish
    for before, operand in zip(list(operands(reference.proto)), list(operands(copy)), strict=True):
        if _key(before) in rounded:
            operand.read(rounded[_key(before)])
    return Model(copy, f"{reference.source} with rounded weights")


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two operands at one place."""

    own: Operand
    wanted: Operand

    def read(self) -> tuple[Stored, Rows]:
        """What the file stores, and what it should be."""
        exact, gain = self.wanted.stored().rows, self._folded()
        return self.own.stored(), exact if gain is None else exact * gain[:, None]

    def rounded(self) -> Rows:
        """The reference's weight, in the shape in which it is read, as the file's grain has it at best."""
        (stored, exact), gain = self.read(), self._folded()
        rows = _nearest(exact, stored, _steps(exact, stored))
        return self.wanted.as_read(rows if gain is None else rows / np.where(gain, gain, np.float32(1))[:, None])

    def _folded(self) -> Rows | None:
        """The factors of a BatchNormalization of the reference that is part of the weight in the file."""
        return self.wanted.gain if self.own.gain is None else None


def _paired(model: Model, reference: Model) -> tuple[list[_Pair], tuple[str, ...]]:
    """Every operand with the reference's at the same place, and the nodes of those that have none.

    By the node's name, what it computes, or the weight's name; else in the order of their like, of which both have as
    many.
    """
    own, left = _each_once(operands(model.proto)), _each_once(operands(reference.proto))
    found: dict[int, Operand] = {}
    for told in (lambda one: one.name, lambda one: one.computes, _plain):
        known = {(told(operand), _like(operand)): operand for operand in left}
        for at, operand in enumerate(own):
            partner = known.pop((told(operand), _like(operand)), None) if at not in found and told(operand) else None
            if partner is not None:
                found[at] = partner
        left = [operand for operand in left if operand not in found.values()]
    for like in dict.fromkeys(map(_like, left)):
        rest = [operand for operand in left if _like(operand) == like]
        places = [at for at, operand in enumerate(own) if at not in found and _like(operand) == like]
        found.update(zip(places, rest, strict=True) if len(places) == len(rest) else ())
    pairs = [_Pair(operand, found[at]) for at, operand in enumerate(own) if at in found]
    return pairs, tuple(operand.node for at, operand in enumerate(own) if at not in found)


def _each_once(found: Iterable[Operand]) -> list[Operand]:
    """A weight that several nodes read counts once."""
    first: dict[tuple[object, ...], Operand] = {}
    for operand in found:
        first.setdefault(_key(operand), operand)
    return list(first.values())


def _key(operand: Operand) -> tuple[object, ...]:
    return operand.identity, *_like(operand)


def _like(operand: Operand) -> tuple[object, ...]:
    return operand.family, operand.index, operand.shape


def _plain(operand: Operand) -> str:
    """The weight's name without what tools that quantise put behind it."""
    name = operand.tensor
    for suffix in ("/int8", "/fp8", "_quantized", "_Q4", "_Q8"):
        name = name.removesuffix(suffix)
    return name


def _rearrange(pairs: list[_Pair], found: list[StoredWeight]) -> None:
    """Of weights that are no copies of their counterparts, give each one among its like that it is a copy of."""
    strange = [at for at, weight in enumerate(found) if not weight.alike]
    for at in strange[:_MOST_STRANGE]:
        for other in strange[:_MOST_STRANGE]:
            if other != at and _like(pairs[at].own) == _like(pairs[other].own):
                tried = _compared(_Pair(pairs[at].own, pairs[other].wanted))
                if tried.alike:
                    found[at] = tried
                    break


def _compared(pair: _Pair) -> StoredWeight:
    stored, exact = pair.read()
    exact, gain = _scaled(stored.rows, exact)
    steps = _steps(exact, stored)
    seen = _channels(stored, exact, steps)
    faults, beyond = _faults(stored, exact, seen)
    span = _span(exact, stored)
    return StoredWeight(
        tensor=pair.own.tensor,
        node=pair.own.node,
        reference=pair.wanted.tensor,
        kind=stored.kind,
        grain=stored.grain,
        channels=len(exact),
        faults=faults,
        sqnr_db=_decibels(seen.power.sum(), seen.noise.sum()),
        lost_db=max(0.0, _decibels(seen.noise.sum(), seen.best.sum())),
        channel_lost_db=max(0.0, _decibels(seen.noise.sum(), _by_channel(exact, stored, seen))),
        worst_db=_worst(seen, stored),
        beyond=beyond,
        span=span,
        gain=gain,
        alike=_are_alike(seen) or span > FAR,
    )


@dataclass(frozen=True, eq=False)
class _Channels:
    """Sums of squares by channel: of the reference, of the file, of the difference, and of what is lost at best."""

    power: Rows
    given: Rows
    noise: Rows
    best: Rows

    @property
    def lost(self) -> Rows:
        """In dB."""
        return _ratios(self.noise, self.best)

    @property
    def held(self) -> Rows:
        """SQNR of the best rounding, in dB."""
        return _ratios(self.power, self.best)


def _scaled(rows: Rows, exact: Rows) -> tuple[Rows, float]:
    """The reference's weight with the factors that the file's has, by output or input channel, where these explain most
    of what it differs by: a tool folded something into it. And the factor, where all channels have the same."""
    power, noise = _squares(exact), _squares(rows - exact)
    if noise.sum() < _SEEN * power.sum() or not power.sum() or not rows.any():
        return exact, 1.0
    for axis in (1, 0):
        factors, given = _factors(rows, exact, axis)
        if exact.shape[axis] < _FEWEST_TO_FIT or np.mean(np.abs(factors[given] - 1) < _SAME) > _MOSTLY:
            continue  # a few channels that alone have a factor are at fault: tools fold into all of them
        middle = float(np.median(factors[given]))
        fitted = exact * np.where(given, factors, middle)
        lives = given[:, 0] if axis == 1 else slice(None)
        if _squares((rows - fitted)[lives]).sum() < _FITTED * noise[lives].sum():
            uniform = bool((np.abs(factors[given] / middle - 1) < _SAME).all())
            return fitted.astype(np.float32), middle if uniform else 1.0
    return exact, 1.0


def _factors(rows: Rows, exact: Rows, axis: int) -> tuple[Rows, Rows]:
    """What the file's weight is of the reference's, summed along an axis, and where neither of them is zero."""
    across = np.einsum("ij,ij->i" if axis == 1 else "ij,ij->j", rows, exact)
    along = np.einsum("ij,ij->i" if axis == 1 else "ij,ij->j", exact, exact)
    given = (np.abs(rows).max(axis) > 0) & (along > 0)
    factors = np.where(given, across / np.where(along > 0, along, 1), 0)
    return np.expand_dims(factors, axis), np.expand_dims(given, axis)


def _channels(stored: Stored, exact: Rows, steps: Rows) -> _Channels:
    power, given, noise = _squares(exact), _squares(stored.rows), _squares(stored.rows - exact)
    best = np.minimum(power, _expected(stored, exact, steps, power))
    odd = np.flatnonzero(noise > 2 * best)
    if odd.size:
        wide = np.broadcast_to(steps, exact.shape)[odd]
        best[odd] = np.maximum(best[odd], _squares(_nearest(exact[odd], stored, wide) - exact[odd]))
    return _Channels(power, given, noise, best)


def _expected(stored: Stored, exact: Rows, steps: Rows, power: Rows) -> Rows:
    """What rounding at this grain costs on average, as sums of squares by channel."""
    if stored.kind in _EXPECTED_DB:
        return power * 10 ** (-_EXPECTED_DB[stored.kind] / 10)
    return np.asarray(np.broadcast_to(np.square(steps), exact.shape).sum(1, dtype=np.float64) / 12)


def _steps(exact: Rows, stored: Stored) -> Rows:
    """One step of the best scales at the file's grain: of a shape that goes with the rows."""
    if not stored.grain:
        return np.ones((1, 1), np.float32)
    steps = _tops(exact, stored) / _levels(stored)
    steps = np.where(steps > 0, steps, 1).astype(np.float32)
    return np.asarray(steps.reshape(1, 1) if stored.groups is None else steps[stored.groups])


def _tops(exact: Rows, stored: Stored) -> Rows:
    """By scale of the file the reach of the reference's values: the largest |w|, or from least to largest."""
    size = 1 if stored.scales is None else stored.scales.size
    high, low = np.zeros(size, np.float32), np.zeros(size, np.float32)
    if stored.groups is None:
        high[:1], low[:1] = exact.max(initial=0), exact.min(initial=0)
    else:
        whole = stored.groups.shape == exact.shape and exact.shape[1] > 1
        of = stored.groups if whole else stored.groups[:, 0]
        np.maximum.at(high, of, exact if whole else exact.max(1))
        np.minimum.at(low, of, exact if whole else exact.min(1))
    return np.maximum(high, -low) if stored.symmetric else high - low


def _levels(stored: Stored) -> float:
    if stored.kind in _LARGEST:
        return _LARGEST[stored.kind]
    bits = int("".join(filter(str.isdigit, stored.kind)))
    return float(2 ** (bits - 1) - 1 if stored.symmetric else 2**bits - 1)


def _nearest(exact: Rows, stored: Stored, steps: Rows) -> Rows:
    """The best that the file's kind and grain can hold of the reference's values."""
    if stored.kind in _DTYPES:
        with np.errstate(over="ignore"):
            return np.asarray((exact / steps).astype(_DTYPES[stored.kind]).astype(np.float32) * steps)
    return exact if stored.kind == "fp32" else np.rint(exact / steps) * steps


def _by_channel(exact: Rows, stored: Stored, seen: _Channels) -> float:
    """What rounding costs on average with a scale for each channel, as a sum of squares."""
    if not stored.grain or stored.kind in _EXPECTED_DB:
        return float(seen.best.sum())
    steps = np.abs(exact).max(1).astype(np.float64) / _levels(replace(stored, symmetric=True))
    return float(np.square(steps).sum() * exact.shape[1] / 12)


def _are_alike(seen: _Channels) -> bool:
    """By the cosine of all channels that are not zero throughout; of a weight of zeros it can't be told."""
    left = (seen.given > 0) & (seen.power > 0)
    given, power, noise = (float(sums[left].sum()) for sums in (seen.given, seen.power, seen.noise))
    return not left.any() or given + power - noise >= 2 * _ALIKE * math.sqrt(given * power)


def _faults(stored: Stored, exact: Rows, seen: _Channels) -> tuple[WeightFaults, float]:
    """Channels at fault, and the share of all |w| that is cut off."""
    plain = not stored.grain
    live = (seen.power > 0) & (seen.held >= (_HELD_FLOAT_DB if plain else _HELD_DB))
    bad = _ratios(seen.power, seen.noise) < FLOAT_DB if plain else seen.lost > CLIPPED_DB
    zeroed = live & (seen.given == 0)
    odd = np.flatnonzero(live & bad & ~zeroed)
    if not odd.size:
        return WeightFaults(int(zeroed.sum())), 0.0
    rows, wanted = stored.rows[odd], exact[odd]
    beyond = np.abs(wanted) > 1.02 * np.abs(rows).max(1, keepdims=True)
    cut = _squares(np.where(beyond, rows - wanted, 0)) > 0.5 * seen.noise[odd]
    clipped = cut & (plain | (_ratios(seen.power, seen.noise)[odd] < BAD_DB))
    coarse = ~cut & (plain | (seen.lost[odd] > ROW_DB) | (_spans(exact, stored)[odd] > FAR))
    faults = WeightFaults(int(zeroed.sum()), int(clipped.sum()), int(coarse.sum()))
    return faults, float(beyond[clipped].sum() / exact.size)


def _worst(seen: _Channels, stored: Stored) -> float:
    live = (seen.power > 0) & (seen.held >= (_HELD_DB if stored.grain else _HELD_FLOAT_DB))
    return float(_ratios(seen.power, seen.noise)[live].min(initial=math.inf))


def _spans(exact: Rows, stored: Stored) -> Rows:
    """levels x scale / amax by channel: where one has several scales, the mean of theirs."""
    if stored.scales is None:
        return np.ones(len(exact))
    tops = _tops(exact, stored)
    spans = np.abs(stored.scales[: tops.size]) * _levels(stored) / np.where(tops > 0, tops, np.inf)
    return np.full(len(exact), spans[0]) if stored.groups is None else np.asarray(spans[stored.groups].mean(1))


def _span(exact: Rows, stored: Stored) -> float:
    if stored.scales is None:
        return 1.0
    tops = _tops(exact, stored)
    spans = (np.abs(stored.scales[: tops.size]) * _levels(stored))[tops > 0] / tops[tops > 0]
    spans = spans[spans > 0]
    return float(spans[np.abs(np.log(spans)).argmax()]) if spans.size else 1.0


def _squares(rows: Rows) -> Rows:
    return np.asarray(np.einsum("ij,ij->i", rows, rows), np.float64)


def _ratios(first: Rows, second: Rows) -> Rows:
    """By channel, in dB; infinite where the second is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 10 * np.log10(first / second)
    return np.where(second > 0, found, math.inf)


def _decibels(first: float, second: float) -> float:
    if not second:
        return math.inf if first else 0.0
    if not math.isfinite(second):
        return -math.inf
    return 10 * math.log10(first / second) if first else -math.inf
