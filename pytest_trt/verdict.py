"""Verdict: what was found about one case at one precision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_trt.comparison import Comparison
    from pytest_trt.figures import Figures
    from pytest_trt.findings.finding import Finding
    from pytest_trt.hops import Hop
    from pytest_trt.latency.found import Latency
    from pytest_trt.tolerance import Tolerance

__all__ = ["Accuracy", "Judgement", "Verdict"]


@dataclass(frozen=True)
class Accuracy:
    """Share of samples whose best class is the true one: of the engine, and of the fp32 golden."""

    actual: float
    reference: float
    samples: int


@dataclass(frozen=True)
class Judgement:
    """One output against its golden.

    Attributes:
        output: its name.
        comparison: the figures.
        tolerance: every limit that was applied.
        origin: "envelope" or "tolerance": where the limit on the error's size came from.
        reasons: why it is outside, a sentence each; none when inside.
        whole: whether the output is integer or boolean, and judged by its share of unequal elements.
        run: the data set, where there are several.
        accuracy: on the golden's labels, for the output that they belong to.
    """

    output: str
    comparison: Comparison
    tolerance: Tolerance
    origin: Literal["envelope", "tolerance"]
    reasons: tuple[str, ...]
    whole: bool = False
    run: str = ""
    accuracy: Accuracy | None = None

    @property
    def error(self) -> float:
        """The figure that the main bound is of: relative RMS, or for whole numbers the share that differs."""
        if self.whole:
            return self.comparison.different / max(self.comparison.count, 1)
        return self.comparison.rel_rms

    @property
    def bound(self) -> float | None:
        """The main bound; None where the user's limits are of another kind."""
        return self.tolerance.mismatch if self.whole else self.tolerance.rel_rms


@dataclass(frozen=True)
class Verdict:
    """What was found about one case at one precision.

    Attributes:
        case: its name.
        precision: what was asked.
        backend: what ran it.
        simulated: whether no engine was built, and the rounding was simulated on the CPU.
        verdict: "passed", "failed" (judged, outside) or "error" (could not be judged, never a pass); "built" where
            only building was asked, "timed" where a test measured an engine and judged nothing.
        judgements: one an output, the worst of several data sets.
        held: the precision that the file holds, where it was judged as it is.
        message: why it could not be judged.
        kind: name of the exception that says so.
        where: the file that the case was written in.
        accept: how to accept the error, if it is right.
        provenance: model, golden and backend: names, hashes, versions.
        layers: how many compute layers run in the asked precision, and all layers, where an engine tells.
        warnings: what the builder warned of, and what could not be looked at, and why.
        hops: error of each step that is known, the first one first.
        findings: why it drifts, causes before signs; one of severity error fails a case that is inside its bounds too.
        ignored: how many findings were left out by --trt-select and --trt-ignore, by code.
        located: the tensors that the error comes from, where that was looked for, the worst first.
        figures: what reports draw of it; None where nothing ran.
        latency: what was found of it, where the engine was timed.
    """

    case: str
    precision: str
    backend: str
    simulated: bool
    verdict: Literal["passed", "failed", "error", "built", "timed"]
    judgements: tuple[Judgement, ...] = ()
    held: str | None = None
    message: str = ""
    kind: str = ""
    where: str = ""
    accept: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    hops: tuple[Hop, ...] = ()
    findings: tuple[Finding, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    located: tuple[Any, ...] = ()
    figures: Figures | None = None
    latency: Latency | None = None

    @property
    def passed(self) -> bool:
        """Whether it was judged, inside every bound and without an error found; or built, or timed, as was asked."""
        return self.verdict in ("passed", "built", "timed")

    @property
    def worst(self) -> Judgement | None:
        """The output furthest beyond its bound, or nearest to it."""
        return max(self.judgements, key=_strain, default=None)


def _strain(judgement: Judgement) -> tuple[bool, float]:
    bound = judgement.bound
    return bool(judgement.reasons), judgement.error / bound if bound else judgement.error
