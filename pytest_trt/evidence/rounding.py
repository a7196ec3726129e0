"""Rounding: the values that fp16 weights and quantised tensors may have, and what is lost on the way there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from onnx import TensorProto

from pytest_trt.lowering.batch_normalization import fold_batch_normalization
from pytest_trt.lowering.weights import masks_of, sizes_of
from pytest_trt.model.graph import array_of, constants, copy_at_opset, graphs, matrix_nodes
from pytest_trt.model.model import Model, nodes_of
from pytest_trt.ranges.amax import FP8_LARGEST

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

__all__ = ["Grid", "HalfWeights", "Rounded", "Tally", "TensorStatistics", "half_weights"]

_LARGEST = 65504.0
_OVERFLOWS = 65520.0  # what rounds to infinity: half a step beyond the largest
_NORMAL = 2.0**-14
_FLUSHED = 2.0**-25  # what rounds to zero: half of the smallest subnormal


@dataclass(frozen=True)
class Rounded:
    """One stored tensor.

    Attributes:
        tensor: its name.
        count: of its values that are not zero.
        largest: its largest finite |value|.
        beyond: how many values become infinite in fp16.
        subnormal: how many are subnormal in fp16, those that become zero included.
        zeroed: how many become zero.
        rel_rms: error of rounding those within fp16's range, as relative RMS.
        multiplies: whether a matrix operator multiplies by it.
    """

    tensor: str
    count: int
    largest: float
    beyond: int
    subnormal: int
    zeroed: int
    rel_rms: float
    multiplies: bool


@dataclass(frozen=True)
class HalfWeights:
    """The stored tensors that fp16 does more to than rounding: beyond its range, or below its normal numbers."""

    tensors: tuple[Rounded, ...]
    count: int


def half_weights(model: Model, kept: Collection[str] = ()) -> HalfWeights:
    """What fp16 does to the fp32 weights of a model; sizes, thresholds and masks do not count.

    Args:
        model: the fp32 model.
        kept: names or outputs of nodes that stay in fp32, whose weights do not count.
    """
    model = _normalised(model, frozenset(kept))
    held = constants(model.proto)
    apart = sizes_of(model.proto.graph) | masks_of(model.proto.graph)
    limits, (read, multiplied) = _limits(model), _readers(model, frozenset(kept))
    found, count = [], 0
    for name, tensor in held.items():
        if tensor.data_type != TensorProto.FLOAT or name in apart or name not in read:
            continue
        rounded = _rounded(name, array_of(tensor), name in multiplied)
        if name in limits:
            rounded = replace(rounded, beyond=0)  # infinity caps as little as the largest value does
        count += rounded.count
        if rounded.beyond or rounded.subnormal:
            found.append(rounded)
    return HalfWeights(tuple(found), count)


def _normalised(model: Model, kept: frozenset[str]) -> Model:
    """With each BatchNormalization in the convolution before it, as lowering has it."""
    if not any(node.op_type == "BatchNormalization" for node in model.proto.graph.node):
        return model
    copy = copy_at_opset(model.proto, 0)
    fold_batch_normalization(copy, kept)
    return Model(copy, model.source)


def _readers(model: Model, kept: frozenset[str]) -> tuple[set[str], set[str]]:
    """Tensors that nodes read which are not kept, or that are outputs, and those that matrix operators multiply by."""
    computing = matrix_nodes(model.proto)
    read = {value.name for graph in graphs(model.proto.graph) for value in graph.output}
    multiplied: set[str] = set()
    for node in nodes_of(model.proto.graph):
        if not kept.intersection([node.name, *node.output]):
            read.update(node.input)
        if computing.intersection([node.name, *node.output]):
            multiplied.update(node.input[:2])
    return read, multiplied


def _limits(model: Model) -> set[str]:
    """Tensors that are read as limits alone."""
    limits: set[str] = set()
    others: set[str] = set()
    for node in nodes_of(model.proto.graph):
        at = {"Clip": 1, "Min": 0, "Max": 0}.get(node.op_type, len(node.input))
        limits.update(node.input[at:])
        others.update(node.input[:at])
    return limits - others


def _rounded(name: str, array: NDArray[Any], multiplies: bool) -> Rounded:
    flat, square, lost = array.reshape(-1), 0.0, 0.0
    found = Rounded(name, 0, 0.0, 0, 0, 0, 0.0, multiplies=multiplies and array.ndim > 1)
    for begun in range(0, flat.size, _WEIGHTS):
        values = np.abs(flat[begun : begun + _WEIGHTS].astype(np.float64))
        values = values[np.isfinite(values) & (values > 0)]
        within = values[values < _OVERFLOWS]
        error = within - within.astype(np.float16).astype(np.float64)
        square += float(np.einsum("i,i->", within, within))
        lost += float(np.einsum("i,i->", error, error))
        found = replace(
            found,
            count=found.count + int(values.size),
            largest=max(found.largest, float(values.max(initial=0.0))),
            beyond=found.beyond + int(values.size - within.size),
            subnormal=found.subnormal + int((within < _NORMAL).sum()),
            zeroed=found.zeroed + int((within <= _FLUSHED).sum()),
        )
    return replace(found, rel_rms=float(np.sqrt(lost / square)) if square else 0.0)


_WHOLE = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535)}
_FLOATS = {"fp8": (ml_dtypes.float8_e4m3fn, FP8_LARGEST), "fp8-e5m2": (ml_dtypes.float8_e5m2, 57344)}
_FLOAT_DB = 31.0  # three bits of significand
_WEIGHTS = 1 << 20  # values of a weight at once, whose float64 would be twice as large as the weight
_BLOCK = 1 << 16  # values at once: what is made of them stays in the CPU's cache


@dataclass(frozen=True)
class Grid:
    """A scale and a zero point.

    Attributes:
        scale: one step, in the tensor's own unit.
        zero_point: the whole number that stands for 0.
        kind: int8, uint8, int16, uint16, fp8 (E4M3) or fp8-e5m2.
        read_back: the step that DQ multiplies by, where it is not the scale that Q divides by.
    """

    scale: float
    zero_point: int = 0
    kind: str = "int8"
    read_back: float | None = None

    @property
    def is_float(self) -> bool:
        """Whether its steps grow with the value."""
        return self.kind in _FLOATS

    @property
    def is_symmetric(self) -> bool:
        """Whether it holds of each value the negative too, as TensorRT wants it."""
        return self.zero_point == 0 and not self.kind.startswith("u")

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest value that it holds."""
        if self.kind in _FLOATS:
            largest = _FLOATS[self.kind][1] * self.scale
            return -largest, largest
        low, high = _WHOLE[self.kind]
        return (low - self.zero_point) * self.scale, (high - self.zero_point) * self.scale

    @property
    def amax(self) -> float:
        """The range: of a symmetric grid its largest value, of another one the end that lies farther out."""
        low, high = self.ends
        return max(high, -low) if self.zero_point else high

    def nearest(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Each value as the grid has it, and DQ reads it back: rounded half to even, saturated at its ends."""
        steps: NDArray[np.float32] = values / np.float32(self.scale)
        if self.kind in _FLOATS:
            dtype, largest = _FLOATS[self.kind]
            steps = np.clip(steps, -largest, largest).astype(dtype).astype(np.float32)
        else:
            low, high = _WHOLE[self.kind]
            np.rint(steps, out=steps)
            np.clip(steps, low - self.zero_point, high - self.zero_point, out=steps)
        np.multiply(steps, np.float32(self.scale if self.read_back is None else self.read_back), out=steps)
        return steps


@dataclass(frozen=True)
class TensorStatistics:
    """What a grid does to the fp32 values of one tensor.

    Attributes:
        values: how many were seen, over all samples; those that are NaN or infinite aside.
        nonfinite: how many of those.
        amax: largest |x|, in the tensor's own unit.
        rms: root of the mean square, in the tensor's own unit.
        saturation: share of the values that lie more than half a step beyond the grid's ends: nearer ones lose no more
            than rounding takes of others.
        utilisation: the grid's range over the largest |x|; infinite where all are 0.
        sqnr_db: power of the values over that of what the grid makes wrong, in dB; infinite where that is 0.
        clipped: share of the wrong power that comes of the values beyond the ends.
        attainable_db: the SQNR that a range of just the largest |x| would give, in dB: by even rounding to whole steps,
            or of E4M3's three bits, whose steps grow with the value.
    """

    values: int
    nonfinite: int
    amax: float
    rms: float
    saturation: float
    utilisation: float
    sqnr_db: float
    clipped: float
    attainable_db: float


@dataclass(eq=False)
class Tally:
    """Sums over the values of one tensor, piece after piece.

    Attributes:
        grid: what the values are put on.
    """

    grid: Grid
    _values: int = 0
    _nonfinite: int = 0
    _zeros: int = 0
    _beyond: int = 0
    _amax: float = 0.0
    _power: float = 0.0
    _wrong: float = 0.0
    _clipped: float = 0.0
    _scratch: Any = field(default=None, repr=False)

    def add(self, values: NDArray[Any]) -> None:
        """Count all values of an array of any shape, in float32."""
        flat = values.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            self._add(flat[start : start + _BLOCK].astype(np.float32, copy=False))

    def statistics(self) -> TensorStatistics:
        """What was seen so far."""
        power, wrong = self._power, self._wrong
        step = self._amax / 127
        rounding = (self._values - self._zeros) * step * step / 12
        return TensorStatistics(
            values=self._values,
            nonfinite=self._nonfinite,
            amax=self._amax,
            rms=math.sqrt(power / self._values) if self._values else 0.0,
            saturation=self._beyond / self._values if self._values else 0.0,
            utilisation=self.grid.amax / self._amax if self._amax else math.inf,
            sqnr_db=_decibels(power, wrong),
            clipped=self._clipped / wrong if wrong else 0.0,
            attainable_db=_FLOAT_DB if self.grid.is_float else _decibels(power, rounding),
        )

    def _add(self, block: NDArray[np.float32]) -> None:
        finite = np.isfinite(block)
        if not finite.all():
            self._nonfinite += int(block.size - finite.sum())
            block = block[finite]
        if not block.size:
            return
        self._values += block.size
        self._zeros += int(block.size - np.count_nonzero(block))
        self._amax = max(self._amax, float(block.max()), -float(block.min()))
        self._power += _sum_of_squares(block)
        wrong = self.grid.nearest(block)
        np.subtract(block, wrong, out=wrong)
        self._wrong += _sum_of_squares(wrong)
        low, high = self.grid.ends
        low, high = low - self.grid.scale / 2, high + self.grid.scale / 2
        if block.max() > high or block.min() < low:
            beyond = (block > high) | (block < low)
            self._beyond += int(beyond.sum())
            self._clipped += _sum_of_squares(wrong[beyond])


def _sum_of_squares(block: NDArray[np.float32]) -> float:
    """Added up in float64; einsum, unlike a dot product, starts no threads for so few values."""
    return float(np.einsum("i,i->", block, block, dtype=np.float64))


def _decibels(power: float, wrong: float) -> float:
    if not wrong:
        return math.inf
    return 10 * math.log10(power / wrong) if power else -math.inf
