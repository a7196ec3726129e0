"""Hops: the error of each step from PyTorch to the engine, and the step to blame."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pytest_trt.comparison.comparison import compare
from pytest_trt.golden.create import fp32_limit
from pytest_trt.model.feeds import is_float

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
        output: its name.
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
    """PyTorch -> ONNX fp32, as it was when the golden was made; none where it was not made from PyTorch."""
    if not golden.onnx_outputs:
        return ()
    limits = {name: fp32_limit(golden, name) for name in golden.outputs}
    return hop("torch", "onnx fp32", golden.outputs, golden.onnx_outputs, limits)


def hop(start: str, end: str, before: Arrays, after: Arrays, limits: Mapping[str, float | None]) -> tuple[Hop, ...]:
    """One step, for every output that both ends have.

    Args:
        start: name of where it starts.
        end: name of where it ends.
        before: outputs by name at its start.
        after: outputs by name at its end.
        limits: what its error may be, by output.
    """
    return tuple(
        Hop(start, end, name, _error(after[name], reference), limits.get(name))
        for name, reference in before.items()
        if name in after and after[name].shape == reference.shape
    )


def limits_of(judgements: Sequence[Judgement]) -> dict[str, float | None]:
    """The bounds of a case's outputs, which the lowering alone may spend."""
    return {judgement.output: judgement.bound for judgement in judgements}


def fp32_limits(
    judgements: Sequence[Judgement],
    told: Tolerance | None,
    envelope: Mapping[str, Mapping[str, float]],
    rounding: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, float | None]:
    """What a model in fp32 may differ by from a golden that another file made, by output.

    Args:
        judgements: of the outputs; whole numbers may differ as they may at the precision, and so may outputs whose
            limits at the precision are the user's own, who says what is right.
        told: the user's own tolerance at fp32, whose ``rel_rms`` counts where it is given.
        envelope: of fp32, by output: a network that is chaotic in fp32 has a wide one.
        rounding: what the rounding of stored weights alone moves each output by.
    """
    own = {j.output: told.of(j.output, whole=j.whole).rel_rms if told else None for j in judgements}
    bounds = {
        j.output: max(
            FP32_LIMIT,
            envelope.get(j.output, {}).get("bound", 0.0),
            ROUNDING_SPREAD * rounding.get(j.output, 0.0),
        )
        for j in judgements
    }
    return {
        j.output: own[j.output] or (j.bound if j.whole or j.origin == "tolerance" else bounds[j.output])
        for j in judgements
    }


def blamed(hops: Sequence[Hop]) -> Hop | None:
    """The first step that is larger than it may be, on the output where it is the most beyond; None if all are fine."""
    first = next((found for found in hops if found.over), None)
    alike = [found for found in hops if first and found.over and str(found) == str(first)]
    return max(alike, key=lambda found: found.rel_rms / found.limit if found.limit else found.rel_rms, default=None)


def _error(actual: NDArray[Any], reference: NDArray[Any]) -> float:
    return compare(actual, reference).error(whole=not is_float(reference.dtype))
