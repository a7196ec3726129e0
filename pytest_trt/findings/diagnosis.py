"""Diagnosis: all rules in their order, and what they find in a case that ran, or could not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_trt.backends.tensorrt.parser import answer_of_rtx, unparsed
from pytest_trt.case.reference import mend
from pytest_trt.errors import PytestTrtError
from pytest_trt.evidence.evidence import (
    Evidence,
    Refusal,
    begun,
    covered,
    departed,
    explained_by_rounding,
    fp32_hop,
    fp32_outputs,
    half_of,
    inner_of,
    is_of_another,
    later_hops,
    located_of,
    origin_of,
    quantised_of,
    repeated_of,
    stored_weights,
    unparsed_unrun,
    weak_of,
    weights_unrun,
)
from pytest_trt.evidence.finding import Choice, Finding, Severity
from pytest_trt.evidence.hops import export_hops
from pytest_trt.evidence.judgement import settled
from pytest_trt.evidence.output_errors import observe
from pytest_trt.evidence.quant_ranges import Quantised, QuantisedTensor
from pytest_trt.evidence.rounding import Grid
from pytest_trt.findings import _bounds as bounds
from pytest_trt.findings import _calibration as calibration
from pytest_trt.findings import _coverage as coverage
from pytest_trt.findings import _golden as golden
from pytest_trt.findings import _numerics as numerics
from pytest_trt.findings import _parser as parser
from pytest_trt.findings import _precision as precision
from pytest_trt.findings import _reproducibility as reproducibility
from pytest_trt.findings._calibration import partial, placeholders, refused, uncalibrated
from pytest_trt.findings._calibration_data import stale, unlike
from pytest_trt.findings._latency import of_latency
from pytest_trt.findings._weights import alone, differing, one_scale
from pytest_trt.findings.verdict import figures_of
from pytest_trt.golden.load import ages
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_trt.case.case import Case
    from pytest_trt.evidence.bisection import Departure
    from pytest_trt.evidence.evidence import Trial
    from pytest_trt.evidence.finding import Scrutiny
    from pytest_trt.evidence.reproducibility import Repeated
    from pytest_trt.findings.verdict import Verdict
    from pytest_trt.latency.result import Latency

__all__ = ["CALIBRATION_RULES", "diagnose", "diagnosed", "refusal", "with_found"]

CALIBRATION_RULES: tuple[Callable[[Evidence], Iterable[Finding]], ...] = (
    uncalibrated,
    refused,
    parser.refused,
    differing,
    placeholders,
    unlike,
    stale,
    *calibration.RULES,
    partial,
    one_scale,
    alone,
)
"""Those of TRT1xx; what is missing is told before what does not fit."""

RULES: tuple[Callable[[Evidence], Iterable[Finding]], ...] = (
    precision.not_honoured,
    *CALIBRATION_RULES,
    *precision.RULES,
    *coverage.RULES,
    *golden.RULES,
    *reproducibility.RULES,
    *numerics.RULES,
    *bounds.RULES,
)
"""All rules, those that name a cause before those that name a sign of one: the first finding is the reason."""

_WEIGHT = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """What all rules find: errors first, then warnings, then notes, each in the order of the rules."""
    found = [finding for rule in RULES for finding in rule(evidence)]
    return tuple(sorted(found, key=lambda finding: _WEIGHT[finding.severity]))


T = TypeVar("T")


def diagnosed(verdict: Verdict, trial: Trial, scrutiny: Scrutiny) -> Verdict:
    """The verdict with its hops and findings; one that is an error fails a case that passed.

    A model that is not the one that made the golden is run in fp32 too: what it differs by there is no fault of the
    precision, and may hide inside a wide bound. Other hops and the tensors that the error comes from cost further
    runs: they are looked for where the case failed, by its outputs or by a finding, or that was asked. Where evidence
    can't be gathered, a warning says so; rebuilds that were asked for and can't be had are an error.

    Raises:
        BackendError: the engine can't be built again, as was asked.
    """
    failures: list[str] = []

    def tried(what: str, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except PytestTrtError as error:
            failures.append(f"no evidence of {what}: {error}")
            return None

    def rerun() -> Repeated | None:
        return repeated_of(trial, 0)

    asks_weak = scrutiny.choice.takes("TRT307")
    known, found, _ = settled(trial.subject, trial.golden, trial.outputs)
    exported = export_hops(trial.golden)
    another = is_of_another(trial)
    exact = tried("fp32", lambda: fp32_outputs(trial)) if another else None
    rounding = tried("rounded weights", lambda: explained_by_rounding(trial)) if exact is not None else None
    rounded = trial.subject.held != "fp32"
    evidence = Evidence(
        case=verdict.case,
        precision=trial.subject.precision,
        held=trial.subject.held,
        backend=verdict.backend,
        simulated=verdict.simulated,
        observed=observe(
            verdict.judgements, known.runs, found, trial.subject.case.constant_outputs, trial.subject.model.inputs
        ),
        envelope=trial.golden.envelope,
        hops=(*exported, *fp32_hop(trial, verdict.judgements, exact, rounding)),
        older=ages(trial.golden),
        anew=mend(trial.subject.case),
        refused=_of_another_precision(trial),
        layers=trial.built.engine.layers() if trial.built else (),
        half=half_of(trial),
        weights=tried("weights", lambda: stored_weights(trial)) if rounded and another else None,
        overflow=_overflow(trial),
        inner=tried("inner tensors", lambda: inner_of(trial)),
        warnings=verdict.warnings,
        repeated=repeated_of(trial, scrutiny.rebuilds) if scrutiny.rebuilds else tried("a rerun", rerun),
        quantised=tried("ranges", lambda: quantised_of(trial)),
        coverage=tried("coverage", lambda: covered(trial)),
        honoured=trial.built.recipe.options.honoured if trial.built else 0.0,
        weak=(tried("weak bounds", lambda: weak_of(trial, verdict.judgements)) or ()) if asks_weak else (),
        weak_fails=trial.subject.case.weak_bounds == "fail",
        kept=trial.subject.case.keep,
        unparsed=unparsed(trial.subject.model.proto) if verdict.simulated else (),
        parser=answer_of_rtx(trial.subject.model) if verdict.simulated else None,
    )
    if evidence.weak:
        weak, begins = tried("single tensors", lambda: begun(trial, evidence.weak)) or (evidence.weak, None)
        evidence = replace(evidence, weak=weak, located=begins)
    if scrutiny.rebuilds and evidence.repeated is None:
        failures.append("nothing was built again: rebuilds were asked for, and no engine was built here.")
    if scrutiny.localise or _fails(verdict, scrutiny.choice.split(diagnose(evidence))[0]):
        exact = exact if another else tried("fp32", lambda: fp32_outputs(trial))
        steps = tried(
            "hops", lambda: later_hops(trial, verdict.judgements, exact, rounding, simulated=verdict.simulated)
        )
        located = evidence.located or tried("single tensors", lambda: located_of(trial, evidence.quantised))
        hops = (*exported, *(steps or ()))
        left = tried("the engine's tensors", lambda: departed(trial, located, hops, asked=scrutiny.localise))
        evidence = replace(evidence, hops=hops, located=located, departure=left, origin=origin_of(located or (), left))
        if not rounded and any(step.end == "fp32" and step.over for step in hops):
            evidence = replace(evidence, weights=tried("weights", lambda: stored_weights(trial)))
        failures += _told_of(left, verdict)
    findings, ignored = scrutiny.choice.split(diagnose(evidence))
    if evidence.refused and not any(finding.code == "TRT201" for finding in findings):
        failures.append(evidence.refused.message)
    return replace(
        _failed(verdict, findings),
        hops=evidence.hops,
        findings=findings,
        ignored=ignored,
        located=evidence.located or (),
        coverage=evidence.coverage,
        figures=figures_of(verdict.judgements, known.runs, found, evidence.located or (), evidence.quantised),
        warnings=(*verdict.warnings, *failures),
    )


def with_found(verdict: Verdict, found: Latency, choice: Choice | None = None) -> Verdict:
    """The verdict with its latency: a right engine that is too slow, or of which that can't be told, does not pass.

    Args:
        verdict: on the outputs.
        found: of the latency.
        choice: which findings count; all if not given.
    """
    # a latency that was asked for counts whichever other findings are selected; it can be ignored by its code
    findings, ignored = Choice(ignore=choice.ignore if choice else ()).split(of_latency(found))
    fails = any(finding.severity is Severity.ERROR for finding in findings)
    return replace(
        verdict,
        latency=found,
        verdict="failed" if verdict.passed and fails else verdict.verdict,
        findings=(*findings, *verdict.findings),
        ignored={**verdict.ignored, **ignored},
    )


def refusal(case: Case, precision: Precision, backend: str, error: Exception, choice: Choice) -> dict[str, Any]:
    """What the rules find in an error that kept a case from being judged: a verdict's ``findings`` and ``ignored``."""
    facts = getattr(error, "facts", {})
    evidence = Evidence(
        case=case.name,
        precision=precision,
        held="fp32",
        backend=backend,
        simulated=False,
        refused=Refusal(type(error).__name__, str(error), facts),
        quantised=_quantised(facts, str(error)),
        weights=weights_unrun(case, precision),
        kept=case.keep,
        unparsed=unparsed_unrun(case, precision) if facts.get("engine") else (),
    )
    findings, ignored = choice.split(diagnose(evidence))
    return {"findings": findings, "ignored": ignored}


def _told_of(departure: Departure | None, verdict: Verdict) -> list[str]:
    """A warning, where no finding of an output outside will say it."""
    return [f"{departure}."] if departure is not None and verdict.verdict == "passed" else []


def _fails(verdict: Verdict, findings: Sequence[Finding]) -> bool:
    return verdict.verdict == "failed" or any(finding.severity is Severity.ERROR for finding in findings)


def _failed(verdict: Verdict, findings: Sequence[Finding]) -> Verdict:
    errors = list(dict.fromkeys(finding.code for finding in findings if finding.severity is Severity.ERROR))
    if verdict.verdict != "passed" or not errors:
        besides = ", ".join(code for code in errors if not code.startswith("TRT3"))
        told = f"{verdict.accept} (which alone does not let it pass: there is {besides} besides)"
        return replace(verdict, accept=told) if verdict.accept and besides else verdict
    hint = f"The outputs are inside their bounds. If you know better, leave it out: --trt-ignore={','.join(errors)}"
    return replace(verdict, verdict="failed", accept=hint)


def _of_another_precision(trial: Trial) -> Refusal | None:
    """An engine that runs in another precision was judged all the same."""
    other = trial.built.unhonoured if trial.built else None
    return Refusal(type(other).__name__, str(other), other.facts) if other else None


def _overflow(trial: Trial) -> str:
    """What the golden says where this precision overflows: it was seen when the golden was made."""
    why = trial.golden.refused.get(trial.subject.asked, "")
    return why if "overflows" in why else ""


def _quantised(facts: Mapping[str, Any], said: str) -> Quantised | None:
    """What an error tells of ranges: that there are none, or that those given are of another model."""
    if facts.get("uncalibrated") or "scaling factor" in said:
        return Quantised(source="the model", said=said)
    if "strange" not in facts:
        return None
    tensors = tuple(
        QuantisedTensor(name, Grid(amax / Precision.INT8.largest, 0, "int8"), "", False, None, None)
        for name, amax in facts["amax"].items()
    )
    return Quantised(
        tensors,
        facts["source"],
        made_by=facts["made_by"],
        strange=tuple(facts["strange"]),
        missing=tuple(facts["missing"]),
    )
