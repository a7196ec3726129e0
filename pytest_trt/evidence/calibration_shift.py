"""Calibration shift: what an input's calibration samples are like, beside the golden's."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from pytest_trt.model.feeds import is_float, samples_in
from pytest_trt.model.model import nodes_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model

__all__ = ["InputLikeness", "Likeness", "likeness_of"]

_CHANNELS = 16  # more than so many along an axis are no colours


@dataclass(frozen=True)
class Moments:
    """What an input's samples are like.

    Attributes:
        samples: how many.
        amax: largest |x|.
        size: log of a sample's RMS, the mean over the samples that are not zero throughout; 0 where all are.
        size_scatter: std of the same over the samples.
        mean: of all values.
        std: of all values.
        scatter: std of the samples' own means.
        channels: mean by channel, shape (C,); of one channel where there is no axis of colours, or its length varies.
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
    size: float
    size_scatter: float
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
        inputs: those that are amounts, in the model's order.
    """

    samples: int
    inputs: tuple[InputLikeness, ...]


def likeness_of(samples: Iterable[Arrays], runs: Iterable[Arrays], model: Model) -> Likeness:
    """Compare calibration samples with the golden's inputs, holding sums and one piece in memory.

    Args:
        samples: that calibrated, piece after piece.
        runs: the golden's inputs.
        model: whose inputs they are; of those that are whole numbers, the ones count that it computes with.
    """
    names = [spec.name for spec in model.inputs if is_float(spec.dtype)]
    whole = [spec.name for spec in model.inputs if spec.name in _amounts(model.proto)]
    calibration = {spec.name: _Sums() for spec in model.inputs if spec.name in (*names, *whole)}
    golden = {name: _Sums() for name in calibration}
    count = 0
    for piece in samples:
        count += samples_in(piece, model.inputs)
        _add(calibration, piece)
    for run in runs:
        _add(golden, run)
    pairs = [
        InputLikeness(name, calibration[name].moments(), golden[name].moments())
        for name in calibration
        if calibration[name].values and golden[name].values
    ]
    return Likeness(count, tuple(pair for pair in pairs if pair.name not in whole or not _are_flags(pair)))


_ARRANGING = (
    "Identity",
    "Transpose",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Split",
    "Pad",
    "Cast",
    "Clip",
)
_COMPUTING = ("Concat", "Add", "Sub", "Mul", "Div")
_POINTING = {"Gather": 1, "GatherElements": 1, "GatherND": 1, "OneHot": 0, "EmbedLayerNormalization": 0}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_LEAST_AXES = 2


def _amounts(model: ModelProto) -> set[str]:
    """Inputs of whole numbers that are amounts, as pixels are: cast to floats, and pointing at no rows or classes.

    Arrangements and casts in between are gone through. One number a sample, as a length is, is no picture of it.
    """
    readers: dict[str, list[NodeProto]] = {}
    for node in nodes_of(model.graph):
        for name in filter(None, node.input):
            readers.setdefault(name, []).append(node)
    return {
        value.name
        for value in model.graph.input
        if value.type.tensor_type.elem_type not in (*_FLOATS, TensorProto.BOOL)
        and len(value.type.tensor_type.shape.dim) >= _LEAST_AXES
        and _ends(value.name, readers) == {"amount"}
    }


def _ends(tensor: str, readers: dict[str, list[NodeProto]]) -> set[str]:
    """What a tensor of whole numbers is used as: "amount", "pointer"; other uses do not tell."""
    found: set[str] = set()
    seen, left = {tensor}, [tensor]
    while left:
        name = left.pop()
        for node in readers.get(name, ()):
            if name in node.input[_POINTING.get(node.op_type, len(node.input)) :][:1]:
                found.add("pointer")
            elif node.op_type == "Cast" and node.attribute[0].i in _FLOATS:
                found.add("amount")
            elif node.op_type in _COMPUTING or (node.op_type in (*_ARRANGING, *_POINTING) and name == node.input[0]):
                left += [output for output in node.output if output not in seen]
                seen.update(node.output)
    return found


def _are_flags(one: InputLikeness) -> bool:
    """Whether both sides hold nothing beyond 1, as masks do: how many are set is no preprocessing."""
    return max(one.calibration.amax, one.golden.amax) <= 1


@dataclass(eq=False)
class _Sums:
    values: int = 0
    total: float = 0.0
    squares: float = 0.0
    amax: float = 0.0
    means: list[NDArray[np.float64]] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
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
            self.sizes += [0.5 * math.log(square)] if (square := float(np.square(sample).mean())) else []
            self.spreads.append(float(sample.std()))
            self.roughness.append(_roughness(sample))

    def moments(self) -> Moments:
        mean = self.total / self.values
        channels = np.stack(self.means if len({each.size for each in self.means}) == 1 else self._whole_means())
        sizes = np.array(self.sizes or [0.0])
        return Moments(
            samples=len(self.means),
            amax=self.amax,
            size=float(sizes.mean()),
            size_scatter=float(sizes.std()),
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

    def _whole_means(self) -> list[NDArray[np.float64]]:
        return [each.mean(keepdims=True) for each in self.means]


def _add(sums: dict[str, _Sums], arrays: Arrays) -> None:
    for name, array in arrays.items():
        if name in sums and array.size:
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
    colours = min((1, 3), key=lambda axis: values.shape[axis]) if values.ndim == 4 else 0
    if colours and values.shape[colours] <= _CHANNELS:
        return np.asarray(values.mean(axis=(2, 3) if colours == 1 else (1, 2)))
    return np.asarray(values.reshape(len(values), -1).mean(axis=1, keepdims=True))
