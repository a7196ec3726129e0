"""Rules on latency: what a case's comparison with its baseline, and its budgets, say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.evidence.finding import Finding, Severity
from pytest_trt.latency.rule import State

if TYPE_CHECKING:
    from pytest_trt.latency.result import Latency

__all__ = ["of_latency"]

_SEVERITY = {"fail": Severity.ERROR, "warn": Severity.WARNING, "pass": Severity.NOTE}

_PROMOTE = "record a run (--trt-latency=record) and promote it: pytest-trt baseline promote RUN."

_CODES = {
    State.SLOW: ("TRT601", "If the change is worth it, " + _PROMOTE),
    State.AMBIGUOUS: (
        "TRT602",
        "Keep other work off the GPU, lock its clocks (nvidia-smi --lock-gpu-clocks), or measure longer"
        " (--trt-timing pairs=40); --trt-gate ambiguous=warn lets it pass.",
    ),
    State.NO_BASELINE: ("TRT603", ""),  # as below, the message says it: it alone is an annotation in CI
    State.RENAMED: ("TRT603", ""),
    State.NOT_COMPARABLE: ("TRT604", "Or gate on the machine of the baseline."),
    State.FAST: ("TRT606", "To hold what was gained, " + _PROMOTE),
}


def of_latency(found: Latency) -> tuple[Finding, ...]:
    """Findings of one case's latency: its state, where there is anything to say, and the budgets that it broke."""
    return (*_of_state(found), *(_over(one.sentence, one) for one in found.broken))


def _of_state(found: Latency) -> tuple[Finding, ...]:
    if found.state not in _CODES or found.action == "pass":
        return ()
    code, remedy = _CODES[found.state]
    evidence: dict[str, Any] = {"state": found.state.value, "method": found.method}
    if found.compared is not None:
        evidence |= {"ratio": found.compared.ratio, "low": found.compared.low, "high": found.compared.high}
    return (Finding(code, _SEVERITY[found.action], found.message, remedy, evidence),)


def _over(sentence: str, one: Any) -> Finding:
    evidence = {"budget": one.budget.name, "limit": one.budget.limit, "actual": one.actual}
    remedy = "Make the engine faster, or raise the case's budget."
    if one.actual is None:
        remedy = "Mend what keeps it from being measured, or take this limit out of the case's budget."
    return Finding("TRT605", Severity.ERROR, sentence, remedy, evidence)
