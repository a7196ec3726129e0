"""TRT4xx: the same again is not the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.evidence.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.evidence.evidence import Evidence
    from pytest_trt.evidence.reproducibility import Again

__all__ = ["RULES"]

_TOLD = 3
_ACROSS = "engine plan file across different"


def rerun(evidence: Evidence) -> Iterator[Finding]:
    """TRT401: the same engine on the same inputs gives other bits."""
    again = evidence.repeated.rerun if evidence.repeated else None
    said = "run twice on the same inputs"
    remedy = "Look for kernels that add up atomically, memory that is read before it is written, or a plugin's race."
    yield from _differing("TRT401", Severity.WARNING, again, said, remedy)


def reload(evidence: Evidence) -> Iterator[Finding]:
    """TRT402: the plan, loaded again, gives other bits."""
    again = evidence.repeated.reload if evidence.repeated else None
    said = "loaded again from its plan"
    remedy = "Look for plugins that do not serialize all of their state, and build the plan again."
    yield from _differing("TRT402", Severity.ERROR, again, said, remedy)


def _differing(code: str, severity: Severity, again: Again | None, said: str, remedy: str) -> Iterator[Finding]:
    if again is not None and again.differs:
        message = f"{said}, the engine gives other outputs: {_apart(again)}."
        yield Finding(code, severity, message, remedy, _facts(again))


def rebuild(evidence: Evidence) -> Iterator[Finding]:
    """TRT403: built again, the engine is outside its tolerance."""
    builds = evidence.repeated.rebuilds if evidence.repeated else ()
    outside = [(number, again) for number, again in enumerate(builds, 1) if again.reasons]
    if outside:
        number, again = outside[0]
        changed = [f"{layer}: {before} -> {after}" for layer, before, after in again.tactics[:_TOLD]]
        told = f"; {len(again.tactics)} tactics changed ({'; '.join(changed)})" if changed else ""
        yield Finding(
            "TRT403",
            Severity.ERROR,
            f"{len(outside)} of {len(builds)} builds more are outside tolerance, the first of them number {number}:"
            f" {again.reasons[0]}{told}.",
            "Keep the plan or a timing cache, restrict tactic_sources, or widen the tolerance to what builds do.",
            {**_facts(again), "builds": len(builds), "outside": len(outside)},
        )


def foreign(evidence: Evidence) -> Iterator[Finding]:
    """TRT404: the plan is of another GPU or release, or damaged."""
    why = evidence.refused
    if why is not None and why.kind == "ForeignPlan":
        yield Finding(
            "TRT404", Severity.ERROR, why.message, "Build the plan with this release on this GPU.", dict(why.facts)
        )
    for warning in evidence.warnings:
        if _ACROSS in warning:
            yield Finding(
                "TRT404",
                Severity.WARNING,
                f"the plan was built for another GPU than runs it: {warning}",
                "Build it on the GPU that runs it, or with a hardware compatibility level.",
                {"warning": warning},
            )


RULES = (foreign, reload, rebuild, rerun)


def _apart(again: Again) -> str:
    return f"output {again.output!r} by a relative RMS of {again.rel_rms:.2g}, {again.different} elements"


def _facts(again: Again) -> dict[str, object]:
    return {
        "output": again.output,
        "rel_rms": again.rel_rms,
        "different": again.different,
        "reasons": list(again.reasons),
        "tactics": [list(change) for change in again.tactics],
    }
