"""Likeness: whether calibration samples are of the kind that the golden's inputs are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.feeds import samples_in
from pytest_trt.model import is_float

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pytest_trt.feeds import Arrays
    from pytest_trt.model import TensorSpec

__all__ = ["InputLikeness", "Likeness", "Moments", "likeness_of"]

_CHANNELS = 16  # more than so many along an axis are no colours


@dataclass(frozen=True)
class Moments:
    """What an input's samples are like.

    Attributes:
        samples: how many.
        amax: largest |x|.
        mean: of all values.
        std: of all values.
        scatter: std of the samples' own means.
        channels: mean by channel, shape (C,); of one channel where there is no axis of colours.
        channel_scatter: std over the samples of each channel's mean, shape (C,).
        spread: std within a sample, the mean over the samples.
        spread_scatter: std of the same over the samples.
        roughness: how unlike neighbours along the last axis are: their mean square difference over twice the sample's
            variance (von Neumann's ratio), the mean over the samples. 1 for white noise, near 0 for a smooth image;
            0 where nothing has neighbours.
        roughness_scatter: std of the same over the samples.
    """

    samples: int
    amax: float
    mean: float
    std: float
    scatter: float
    channels: tuple[float, ...]
    channel_scatter: tuple[float, ...]
    spread: float
    spread_scatter: float
    roughness: float
    roughness_scatter: float


@dataclass(frozen=True)
class InputLikeness:
    """One input: the moments of its calibration samples, and of the golden's."""

    name: str
    calibration: Moments
    golden: Moments


@dataclass(frozen=True)
class Likeness:
    """Both kinds of samples side by side.

    Attributes:
        samples: how many calibration samples there are.
        inputs: the float inputs that move, in the model's order.
    """

    samples: int
    inputs: tuple[InputLikeness, ...]


def likeness_of(samples: Iterable[Arrays], runs: Iterable[Arrays], specs: tuple[TensorSpec, ...]) -> Likeness:
    """Compare calibration samples with the golden's inputs, holding sums and one piece in memory.

    Args:
        samples: that calibrated, piece after piece.
        runs: the golden's inputs.
        specs: the model's inputs.
    """
    names = [spec.name for spec in specs]
    calibration = {name: _Sums() for name in names}
    golden = {name: _Sums() for name in names}
    count = 0
    for piece in samples:
        count += samples_in(piece, specs)
        _add(calibration, piece)
    for run in runs:
        _add(golden, run)
    pairs = [
        InputLikeness(name, calibration[name].moments(), golden[name].moments())
        for name in names
        if calibration[name].values and golden[name].values
    ]
    return Likeness(count, tuple(pairs))


@dataclass(eq=False)
class _Sums:
    values: int = 0
    total: float = 0.0
    squares: float = 0.0
    amax: float = 0.0
    means: list[NDArray[np.float64]] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)
    roughness: list[float] = field(default_factory=list)

    def add(self, array: NDArray[Any]) -> None:
        wide = array.astype(np.float64)
        wide = np.where(np.isfinite(wide), wide, 0.0)
        self.values += wide.size
        self.total += float(wide.sum())
        self.squares += float(np.square(wide).sum())
        self.amax = max(self.amax, float(np.abs(wide).max(initial=0.0)))
        self.means.extend(_channel_means(wide))
        for sample in wide if wide.ndim > 1 else wide.reshape(-1, 1):
            self.spreads.append(float(sample.std()))
            self.roughness.append(_roughness(sample))

    def moments(self) -> Moments:
        mean = self.total / self.values
        channels = np.stack(self.means)
        return Moments(
            samples=len(self.means),
            amax=self.amax,
            mean=mean,
            std=math.sqrt(max(0.0, self.squares / self.values - mean * mean)),
            scatter=float(channels.mean(axis=1).std()),
            channels=tuple(map(float, channels.mean(axis=0))),
            channel_scatter=tuple(map(float, channels.std(axis=0))),
            spread=float(np.mean(self.spreads)),
            spread_scatter=float(np.std(self.spreads)),
            roughness=float(np.mean(self.roughness)),
            roughness_scatter=float(np.std(self.roughness)),
        )


def _add(sums: dict[str, _Sums], arrays: Arrays) -> None:
    for name, array in arrays.items():
        if name in sums and is_float(array.dtype) and array.size:
            sums[name].add(array)


def _roughness(sample: NDArray[np.float64]) -> float:
    variance = float(sample.var())
    if not variance or sample.shape[-1] < 2:
        return 0.0
    return float(np.mean(np.square(np.diff(sample, axis=-1)))) / (2 * variance)


def _channel_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean by sample and channel: of images (N, C, H, W) or (N, H, W, C), else of each sample as a whole."""
    if values.ndim < 2:
        return values.reshape(-1, 1)
    if values.ndim == 4 and values.shape[1] <= _CHANNELS:
        return np.asarray(values.mean(axis=(2, 3)))
    if values.ndim == 4 and values.shape[3] <= _CHANNELS:
        return np.asarray(values.mean(axis=(1, 2)))
    return np.asarray(values.reshape(len(values), -1).mean(axis=1, keepdims=True))
