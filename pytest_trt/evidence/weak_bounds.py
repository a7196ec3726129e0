"""Weak bounds: bounds that let too much pass, and errors of a simulation that rounding alone does not explain."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_trt.comparison.tolerance import SLACK
from pytest_trt.model.graph import MATRIX_OPERANDS, RECURRENT, constants, tensor_shapes
from pytest_trt.model.normalise import subgraphs
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from onnx import ModelProto, NodeProto

    from pytest_trt.evidence.judgement import Judgement
    from pytest_trt.evidence.localise import Located
    from pytest_trt.golden.golden import Golden

__all__ = ["EXPLAINED", "NEAR_MOVEMENT", "WeakBound", "before", "cause_of", "depths", "weak_bounds"]

NEAR_MOVEMENT = 0.5
"""A bound of half the movement takes an engine whose output is half the right one and half the golden's mean."""

EXPLAINED = 5.0
"""How many times u x sqrt(depth) an error may be; healthy networks have 0.02 to 1.7 (docs/tolerance.md)."""

_ROUNDED = (Precision.TF32, Precision.FP16, Precision.BF16)
_MOVES = (
    "Cast", "CastLike", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather", "GatherElements",
    "GatherND", "Identity", "Pad", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    "DequantizeLinear", "QuantizeLinear",
)  # fmt: skip
"""Operators that compute nothing, and count for no depth."""

_UNKNOWN_LENGTH = 64
_SHARE = 0.5  # of an output's error, as an amplitude, that a tensor must have to be the one at which it begins
_NEIGHBOURS = 8


@dataclass(frozen=True)
class WeakBound:
    """An output that is inside a bound which says little.

    Attributes:
        output: its name.
        part: name of its part that the bound is of; of the output, where that is all of it.
        error: that a correct implementation has, simulated when the golden was made.
        bound: that follows from it.
        moved: how much the output moves over the samples; of whole numbers, what another sample's answer has wrong.
        near: whether the bound is near that.
        explained: the most that the precision's unit roundoff and the network's depth explain; None where the error is
            not beyond that.
        depth: of the network at this output, in operators that compute.
        cause: the tensor that the error begins at; None where nobody knows.
        keep: nodes that bring the error back to what is explained when they stay in fp32; none where none were found.
        kept_error: the output's error then.
    """

    output: str
    part: str
    error: float
    bound: float
    moved: float | None
    near: bool
    explained: float | None = None
    depth: int = 0
    cause: Located | None = None
    keep: tuple[str, ...] = ()
    kept_error: float | None = None


def weak_bounds(
    model: ModelProto, golden: Golden, label: str, judgements: Sequence[Judgement], still: Iterable[str] = ()
) -> tuple[WeakBound, ...]:
    """The weak ones among the bounds that outputs are inside of.

    Args:
        model: fp32, whose depth explains errors.
        golden: whose envelope it is.
        label: of the precision that layers run in.
        judgements: of the outputs; those outside, and those of the user's own limits, have none.
        still: outputs that may stand still.
    """
    entries = golden.envelope.get(label, {})
    inside = [one for one in judgements if one.origin == "envelope" and not one.reasons]
    asked = [(one, part.part) for one in inside for part in one.parts if part.part.name in entries]
    found = []
    for judgement, part in asked:
        name, entry = judgement.output, entries[part.name]
        moved = entry.get("reach") if judgement.whole else entry.get("moved", golden.evidence.get(name))
        near = name not in still and not part.sentinels and _is_near(entry, moved, whole=judgement.whole)
        depth, explained = (0, None) if judgement.whole else _explained(model, name, label, entry["error"])
        if near or explained is not None:
            found.append(WeakBound(name, part.name, entry["error"], entry["bound"], moved, near, explained, depth))
    return tuple(found)


def _is_near(entry: Mapping[str, Any], moved: float | None, *, whole: bool) -> bool:
    if moved is None:
        return False
    told = SLACK * entry["error"] if whole else entry["bound"]  # the floor of whole numbers is no error
    return bool(told >= NEAR_MOVEMENT * moved)


def _explained(model: ModelProto, output: str, label: str, error: float) -> tuple[int, float | None]:
    """Depth, and what it explains where the error is beyond that."""
    precision = next((one for one in _ROUNDED if one.label == label), None)
    if precision is None or error <= EXPLAINED * precision.unit_roundoff:
        return 0, None
    depth = depths(model).get(output, 1)
    explained = EXPLAINED * precision.unit_roundoff * math.sqrt(max(depth, 1))
    return depth, explained if error > explained else None


def depths(model: ModelProto) -> dict[str, int]:
    """By tensor, the most operators that compute on the way to it; a recurrent layer counts once a step."""
    held, shapes = constants(model), tensor_shapes(model)
    found: dict[str, int] = {}
    for node in model.graph.node:
        before = max((found.get(name, 0) for name in node.input if name not in held), default=0)
        step = _steps(node, shapes)
        found.update(dict.fromkeys(filter(None, node.output), before + step))
    return found


def _steps(node: NodeProto, shapes: Mapping[str, Sequence[int | str | None]]) -> int:
    """How many operators that compute a node stands for."""
    if node.op_type in RECURRENT:
        axes = shapes.get(node.input[0], ())
        return axes[0] if axes and isinstance(axes[0], int) else _UNKNOWN_LENGTH
    bodies = [sum(_steps(inner, shapes) for inner in body.node) for body in subgraphs(node)]
    if bodies:
        return max(bodies) * (1 if node.op_type == "If" else _UNKNOWN_LENGTH)
    return int(node.op_type not in _MOVES)


def cause_of(located: Sequence[Located], error: float) -> Located | None:
    """The tensor at which an error of this size begins: the first that has half of it; else the likeliest cause."""
    large = [one for one in located if 10 ** (-one.cumulative_db / 20) >= _SHARE * error]
    return min(large, key=lambda one: one.place) if large else next(iter(located), None)


def before(model: ModelProto, node: str) -> tuple[str, ...]:
    """A node and those that it computes from, back to the inputs and to layers of weights: what ``keep`` calls them.

    Args:
        model: fp32.
        node: its name, or a tensor that it computes.

    Returns:
        In the graph's order; none where these are more than a few.
    """
    held = constants(model)
    makers = {name: one for one in model.graph.node for name in one.output if name}
    names = Counter(one.name for one in model.graph.node)
    left = [one for one in model.graph.node if node in (one.name, *one.output)][:1]
    found: dict[int, NodeProto] = {}
    while left:
        one = left.pop()
        if id(one) in found or (one.op_type in MATRIX_OPERANDS and found):
            continue
        found[id(one)] = one
        left += [makers[name] for name in one.input if name in makers and name not in held]
    chosen = [one for one in model.graph.node if id(one) in found]
    words = tuple(one.name if one.name and names[one.name] == 1 else str(next(iter(one.output))) for one in chosen)
    return words if len(words) <= _NEIGHBOURS else ()
