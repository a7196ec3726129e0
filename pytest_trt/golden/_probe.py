"""Probe: other inputs of the same kind, by which an output that depends on its inputs is seen to move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.comparison.parts import Part, sentinels_beyond
from pytest_trt.errors import PytestTrtError
from pytest_trt.golden.envelope import simulate
from pytest_trt.golden.golden import LEAST_MOVEMENT
from pytest_trt.model.feeds import is_float
from pytest_trt.model.model import nodes_of
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from numpy.typing import NDArray
    from onnx import NodeProto

    from pytest_trt.golden.golden import Run
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model

__all__ = ["probed"]

_OPERANDS: Mapping[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Clip": (1, 2),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "Loop": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "NonMaxSuppression": (2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1, 2),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
"""Operands that tell an operator a shape, size, scale, depth, axis or threshold, and hold no data; ``Reduce*`` beside
them. A Resize before opset 11 has its scales where its region of interest is now."""

_CARRIES = (
    "Abs", "Add", "Cast", "CastLike", "Ceil", "Concat", "Div", "Floor", "Gather", "Identity", "Max", "Min", "Mul",
    "Neg", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Round", "Slice", "Squeeze", "Sub",
    "Unsqueeze",
)  # fmt: skip
"""Operators that shapes are computed by."""


def probed(model: Model, run: Run, names: Collection[str], batch: int | None) -> dict[str, float]:
    """How far each of these outputs moves where other inputs are given, as a share of its size.

    Inputs of the same kind are tried until all outputs have moved: floats at zero, in reverse order, halved, negated
    and drawn anew, switches switched, whole numbers in reverse order, one more and one less. What tells shapes, sizes
    or thresholds stays as it is, but where a model has no other inputs.

    Args:
        model: that computed them.
        run: its inputs and outputs.
        names: of the outputs.
        batch: the most samples at once.

    Returns:
        The largest movement that was seen, by output; none where no other inputs could be run.

    Raises:
        PytestTrtError: the model can't be run even on the inputs that it has, for the reason that is told.
    """
    found: dict[str, float] = {}
    for others in _others(model, run.inputs):
        try:
            outputs = simulate(model, Precision.MODEL, others, batch)
        except PytestTrtError:
            continue  # inputs of this kind are not taken
        for name in names:
            moved = _distance(outputs[name], run.outputs[name]) if name in outputs else None
            if moved is not None and found.get(name, 0.0) < LEAST_MOVEMENT:
                found[name] = max(moved, found.get(name, 0.0))
        if all(found.get(name, 0.0) >= LEAST_MOVEMENT for name in names):
            return found
    if not found:
        simulate(model, Precision.MODEL, run.inputs, batch)  # where that fails, the reason is no lack of evidence
    return found


def _distance(probe: NDArray[Any], output: NDArray[Any]) -> float | None:
    """How far both are apart; None where the probe broke the computation, as a division by zero does."""
    if probe.shape != output.shape:
        return 1.0  # even its shape moves
    if (_finite(output) & ~_finite(probe)).any():
        return None
    beyond = sentinels_beyond([output]) if is_float(output.dtype) else None
    rel_rms = Part("", beyond=beyond).compare(probe, output).rel_rms
    return rel_rms if np.isfinite(rel_rms) else 1.0


def _finite(array: NDArray[Any]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.isfinite(array.astype(np.float64))
    return found


def _others(model: Model, inputs: Arrays) -> Iterator[Arrays]:
    """Other inputs, the likeliest to be taken and to tell something first."""
    shapes = _shape_like(model, inputs)
    data = {name: array for name, array in inputs.items() if name not in shapes}
    for takes, change in _CHANGES:
        changed = {name: np.asarray(change(array)) for name, array in data.items() if takes(array)}
        if any(not np.array_equal(array, data[name]) for name, array in changed.items()):
            yield {**inputs, **changed}
    for name in () if data else shapes:
        for step in (1, -1):
            yield {**inputs, name: np.asarray(inputs[name] + step, inputs[name].dtype)}


def _shape_like(model: Model, inputs: Arrays) -> list[str]:
    """Inputs that tell operators shapes, sizes, scales, depths, axes or thresholds."""
    nodes = list(nodes_of(model.proto.graph))
    told = {name for node in nodes for name in _operands(node)}
    for node in reversed(nodes):
        if node.op_type in _CARRIES and any(output in told for output in node.output):
            told |= set(node.input)
    return [name for name, array in inputs.items() if name in told and array.ndim <= 1]


def _operands(node: NodeProto) -> Iterator[str]:
    places = (1,) if node.op_type.startswith("Reduce") else _OPERANDS.get(node.op_type, ())
    for place in places:
        if place < len(node.input) and node.input[place]:
            yield node.input[place]


def _float(array: NDArray[Any]) -> bool:
    return is_float(array.dtype)


def _whole(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "iu"


def _drawn(array: NDArray[Any]) -> NDArray[Any]:
    values = array.astype(np.float64)
    values = values[np.isfinite(values)]
    centre, width = (values.mean(), values.std() or 1.0) if values.size else (0.0, 1.0)
    drawn = np.random.default_rng(0).normal(centre, width, array.shape)
    return drawn.astype(array.dtype)


def _by(step: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    return lambda array: (array + array.dtype.type(step)).astype(array.dtype)


_CHANGES: tuple[tuple[Callable[[NDArray[Any]], bool], Callable[[NDArray[Any]], NDArray[Any]]], ...] = (
    (_float, np.zeros_like),
    (_float, np.flip),
    (_float, lambda array: (array * 0.5).astype(array.dtype)),
    (_float, np.negative),
    (_float, _drawn),
    (lambda array: array.dtype.kind == "b", np.logical_not),
    (_whole, np.flip),
    (_whole, _by(1)),
    (_whole, lambda array: array - np.minimum(array, 1)),
)
"""Which inputs are changed at once, and how."""
