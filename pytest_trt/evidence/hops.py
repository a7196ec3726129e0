"""Hops: the error of each step from PyTorch to the engine, and the step to blame."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pytest_trt.comparison.comparison import compare
from pytest_trt.golden.create import fp32_limit
from pytest_trt.model.feeds import is_float

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from pytest_trt.comparison.tolerance import Tolerance
    from pytest_trt.evidence.judgement import Judgement
    from pytest_trt.golden.golden import Golden
    from pytest_trt.model.feeds import Arrays

__all__ = ["Hop", "blamed", "export_hops", "fp32_limits", "hop", "limits_of"]

FP32_LIMIT = 1e-4
"""Largest relative RMS between the golden and today's fp32 model: onnxruntime's optimisation levels and threads
differ by up to 5e-6, other releases and CPUs by little more; a changed network by far more."""

ROUNDING_SPREAD = 3.0
"""How many times what rounding to nearest does to its weights a quantised file may differ by: scales of powers of two,
or of seven bits, double it."""


@dataclass(frozen=True)
class Hop:
    """One step for one output.

    Attributes:
        start: what it starts from: "torch", "golden", "fp32", "simulated".
        end: what it ends at: "onnx fp32", "fp32", "simulated", "engine".
        output: its name, or that of one of its parts.
        rel_rms: its error: relative RMS, of whole numbers the share that differs.
        limit: what it may be; None where nothing says.
    """

    start: str
    end: str
    output: str
    rel_rms: float
    limit: float | None = None

    @property
    def over(self) -> bool:
        """Whether it is larger than it may be."""
        return self.limit is not None and not self.rel_rms <= self.limit

    def __str__(self) -> str:
        return f"{self.start} -> {self.end}"


def export_hops(golden: Golden) -> tuple[Hop, ...]:
    """PyTorch -> ONNX fp32, as it was when the golden was made; none where it was not made from PyTorch.

    Indices, which may be near ties, were looked at then.
    """
    if not golden.onnx_outputs:
        return ()
    exact = golden.envelope.get("fp32", {})
    known = golden.parts("fp32") or golden.outputs
    compared = [name for name in golden.outputs if name in known and "near" not in exact.get(name, {})]
    limits = {name: fp32_limit(golden, name) for name in compared}
    return hop("torch", "onnx fp32", golden.outputs, golden.onnx_outputs, limits)


def hop(
    start: str,
    end: str,
    before: Arrays,
    after: Arrays,
    limits: Mapping[str, float | None],
    split: Callable[[Arrays], Arrays] = lambda arrays: arrays,
) -> tuple[Hop, ...]:
    """One step, for every output that both ends have, or for each of its parts.

    Args:
        start: name of where it starts.
        end: name of where it ends.
        before: outputs by name at its start.
        after: outputs by name at its end.
        limits: what its error may be, by output or part.
        split: tells outputs apart into their parts.
    """
    first, second = split(before), split(after)
    return tuple(
        Hop(start, end, name, _error(second[name], reference), limits.get(name))
        for name, reference in first.items()
        if name in second and second[name].shape == reference.shape
    )


def limits_of(judgements: Sequence[Judgement]) -> dict[str, float | None]:
    """The bounds of a case's outputs and their parts, which the lowering alone may spend.

    There are none of indices, which may be near ties.
    """
    told = [judgement for judgement in judgements if judgement.near_ties is None]
    return {name: bound for judgement in told for name, bound in _bounds(judgement).items()}


def fp32_limits(
    judgements: Sequence[Judgement],
    told: Tolerance | None,
    envelope: Mapping[str, Mapping[str, Any]],
    rounding: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, float | None]:
    """What a model in fp32 may differ by from a golden that another file made, by output.

    Args:
        judgements: of the outputs; whole numbers may differ as they may at the precision, and so may outputs whose
            limits at the precision are the user's own, who says what is right.
        told: the user's own tolerance at fp32, whose ``rel_rms`` (``mismatch`` of whole numbers) counts where it is
            given.
        envelope: of fp32, by output or part: a network that is chaotic in fp32 has a wide one.
        rounding: what the rounding of stored weights alone moves each output, or part, by.
    """
    limits: dict[str, float | None] = {}
    for judgement in judgements:
        own = _own_limit(told.of(judgement.output, whole=judgement.whole), judgement) if told else None
        for name, bound in _bounds(judgement).items():
            at_precision = judgement.whole or judgement.origin == "tolerance"
            exact = max(FP32_LIMIT, _in_fp32(judgement, name, envelope), ROUNDING_SPREAD * rounding.get(name, 0.0))
            limits[name] = own or (bound if at_precision else exact)
    return limits


def _bounds(judgement: Judgement) -> dict[str, float | None]:
    return {judgement.output: judgement.bound} | {one.part.name: one.bound for one in judgement.parts}


def _in_fp32(judgement: Judgement, name: str, envelope: Mapping[str, Mapping[str, Any]]) -> float:
    """The bound of a part in fp32, where outputs may fall into others: then the widest of them."""
    if name in envelope:
        return float(envelope[name]["bound"])
    own = (entry for entry in envelope.values() if entry.get("part", {}).get("output") == judgement.output)
    return max((float(entry["bound"]) for entry in own), default=0.0)


def _own_limit(told: Tolerance, judgement: Judgement) -> float | None:
    return told.mismatch if judgement.whole else told.rel_rms


def blamed(hops: Sequence[Hop]) -> Hop | None:
    """The first step that is larger than it may be, on the output where it is the most beyond; None if all are fine."""
    first = next((found for found in hops if found.over), None)
    alike = [found for found in hops if first and found.over and str(found) == str(first)]
    return max(alike, key=lambda found: found.rel_rms / found.limit if found.limit else found.rel_rms, default=None)


def _error(actual: NDArray[Any], reference: NDArray[Any]) -> float:
    return compare(actual, reference).error(whole=not is_float(reference.dtype))
