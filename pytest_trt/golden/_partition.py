"""Partition: into which parts an output is judged at a precision, and what each errs by.

Slices of another scale are a part of their own as far as a bound can prove something of them: at int8 the scores of
classes that hardly fire have no stable error, and are judged with the part above them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.comparison.comparison import compare
from pytest_trt.comparison.parts import Part, joined, parts_of
from pytest_trt.comparison.tolerance import SLACK
from pytest_trt.golden.golden import movement
from pytest_trt.model.feeds import is_float
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

__all__ = ["BLIND", "ROOM", "PartError", "error_of", "partition", "saturating"]

BLIND = 0.8
"""How much of an output's movement a bound may be: an engine that answers the mean errs by all of it."""
ROOM = 1.25
"""How many times the simulated error a bound must be at least."""

_TINY = 1e-3  # of the largest scale: groups under it are noise, but the first beneath it that errs by little
_LITTLE = 0.2
_ROOMY = 2.0  # times its error: engines come within that of a simulation, and logarithms are asked beside the values
_EXACT = (Precision.FP32, Precision.TF32)  # of their errors a logarithm shows the last bit of what is next to nothing
_LEAST = {"Softmax": 1e-6, "Sigmoid": 1e-4}  # a Sigmoid of fp32 has an error of 1e-7, however small it is
_LEAST_FP16 = 1e-4  # beneath it fp16 has no normal numbers
_PLAIN = ("Identity", "Reshape", "Transpose", "Cast", "Squeeze", "Unsqueeze", "Flatten")


@dataclass(frozen=True)
class PartError:
    """What a correct implementation errs by on one part.

    Attributes:
        part: of an output.
        error: relative RMS, of several runs the largest; of whole numbers the share that differs.
        moved: std over samples / RMS of the part in fp32; None where it can't be told, or need not move.
        scale: its largest |value|.
    """

    part: Part
    error: float
    moved: float | None
    scale: float

    @property
    def provable(self) -> bool:
        """Whether there is a bound over its error that a blind engine would miss."""
        return self.error < 1 / SLACK and self.room >= ROOM

    @property
    def room(self) -> float:
        """How many times its error its bound is."""
        if self.moved is None or not self.error:
            return SLACK
        return min(SLACK, BLIND * self.moved / self.error)


def partition(
    output: str, roads: Sequence[Sequence[NDArray[Any]]], exact: Sequence[NDArray[Any]], least: float, period: int = 1
) -> tuple[PartError, ...]:
    """The finest parts of an output that can be judged each by itself.

    Args:
        output: its name.
        roads: its values in each run, of every simulation that is right.
        exact: its values in each run in fp32.
        least: of probabilities, the least that counts; 0 of all other outputs. Their logarithms are compared as well
            as the values: one tells of the background, the other of peaks. What proves nothing is left out.
        period: slices of a sample along axis 0.
    """

    def measured(part: Part) -> PartError:
        error = max(error_of(part, lowered, exact) for lowered in roads)
        moved = None if part.sentinels else _moved(part, exact, period)
        return PartError(part, error, moved, _scale(part, exact))

    split = parts_of(output, list(exact), least, period)
    found = [measured(replace(part, least=0.0)) for part in split]
    if least:
        return tuple(_with_logarithm(found, measured(split[0])))
    groups = [one for one in found if one.part.axis is not None]
    while len(groups) > 1 and (weak := _weakest(groups)) is not None:
        kept, lost = sorted((max(weak - 1, 0), max(weak, 1)))
        groups[kept : lost + 1] = [measured(joined(groups[kept].part, groups[lost].part))]
    if len(groups) == 1:
        groups = [measured(replace(groups[0].part, axis=None, rows=(), period=0))]
    return (*groups, *(one for one in found if one.part.axis is None))


def _with_logarithm(found: list[PartError], logarithm: PartError) -> list[PartError]:
    """Values and logarithms side by side, or which of them leaves a right engine room."""
    if logarithm.room >= _ROOMY or (logarithm.provable and not found[0].provable):
        return [*(found if found[0].provable else found[1:]), logarithm]
    return found


def saturating(model: ModelProto, precision: Precision) -> dict[str, float]:
    """By output that a Softmax or Sigmoid gives: the least probability that counts at a precision."""
    made = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, float] = {}
    if precision in _EXACT:
        return found
    for output in model.graph.output:
        node = made.get(output.name)
        while node is not None and node.op_type in _PLAIN:
            node = made.get(node.input[0])
        if node is not None and node.op_type in _LEAST:
            least = _LEAST_FP16 if precision is Precision.FP16 else 0.0
            found[output.name] = max(least, _LEAST[node.op_type])
    return found


def _weakest(groups: list[PartError]) -> int | None:
    """The smallest group that can't be judged by itself."""
    top = groups[0].scale
    for at in range(len(groups) - 1, -1, -1):
        one = groups[at]
        noise = one.scale < _TINY * top and (at > 1 or one.error > _LITTLE)
        if noise or not one.provable:
            return at
    return None


def error_of(part: Part, lowered: Sequence[NDArray[Any]], exact: Sequence[NDArray[Any]]) -> float:
    """Relative RMS of one part, of several runs the largest.

    Args:
        part: of an output.
        lowered: the output in each run of a simulation.
        exact: the same in fp32.
    """
    pairs = zip(lowered, exact, strict=True)
    return max(compare(part.of(low, high), part.of(high, high)).rel_rms for low, high in pairs)


def _moved(part: Part, exact: Sequence[NDArray[Any]], period: int) -> float | None:
    if len(exact) > 1 or not is_float(exact[0].dtype):
        return None
    return movement(part.placed(exact[0]), len(exact[0]) // period) if exact[0].ndim else None


def _scale(part: Part, exact: Sequence[NDArray[Any]]) -> float:
    return max(
        (float(np.abs(part.of(array, array).astype(np.float64)).max(initial=0.0)) for array in exact), default=0.0
    )
