"""Diagnosis: evidence about a case that ran, or could not, and what the rules find in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pytest_trt.backends import DEFAULT, choose
from pytest_trt.envelope import simulate
from pytest_trt.errors import PytestTrtError
from pytest_trt.findings import Choice, Evidence, Severity, diagnose
from pytest_trt.findings.evidence import Refusal
from pytest_trt.half import half_weights
from pytest_trt.hops import FP32_LIMIT, export_hops, hop, limits_of
from pytest_trt.observed import observe
from pytest_trt.precision import Precision
from pytest_trt.repeated import Again, Repeated, rebuilt, rerun

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_trt.backends import Backend, Engine
    from pytest_trt.case import Case
    from pytest_trt.feeds import Arrays
    from pytest_trt.findings import Finding
    from pytest_trt.golden import Golden
    from pytest_trt.half import HalfWeights
    from pytest_trt.hops import Hop
    from pytest_trt.model import Model
    from pytest_trt.recipe import Recipe
    from pytest_trt.verdict import Judgement, Verdict

__all__ = ["Built", "Scrutiny", "Trial", "diagnosed", "refusal"]


@dataclass(frozen=True)
class Scrutiny:
    """How closely a case is looked at.

    Attributes:
        choice: which findings count.
        localise: whether to look for the tensors that the error comes from, also where the case passed.
        rebuilds: how many times an engine is built again, to be judged as the first.
    """

    choice: Choice = field(default_factory=Choice)
    localise: bool = False
    rebuilds: int = 0


@dataclass(frozen=True)
class Built:
    """An engine, with what it was built from and by."""

    engine: Engine
    recipe: Recipe
    backend: Backend


@dataclass(frozen=True)
class Trial:
    """A case that ran.

    Attributes:
        case: what was checked.
        precision: what was asked.
        held: the precision that the file under test holds.
        model: under test.
        golden: the reference.
        outputs: one set a run of the golden.
        judged: outputs against the golden, one judgement an output.
        built: what ran, where we built it; None for outputs of the user's own code.
    """

    case: Case
    precision: Precision
    held: str
    model: Model
    golden: Golden
    outputs: Sequence[Arrays]
    judged: Callable[[list[Arrays]], tuple[Judgement, ...]]
    built: Built | None = None


def diagnosed(verdict: Verdict, trial: Trial, scrutiny: Scrutiny) -> Verdict:
    """The verdict with its hops and findings; one that is an error fails a case that passed.

    Where evidence can't be gathered, a warning says so: the outputs were judged without it.
    """
    failures: list[str] = []
    gather = _Gather(trial, verdict, scrutiny, failures)
    hops = gather.hops()
    evidence = Evidence(
        case=verdict.case,
        precision=trial.precision,
        held=trial.held,
        backend=verdict.backend,
        simulated=verdict.simulated,
        observed=observe(verdict.judgements, trial.golden.runs, trial.outputs, trial.case.constant_outputs),
        hops=hops,
        layers=trial.built.engine.layers() if trial.built else (),
        half=gather.half(),
        overflow=_overflow(trial),
        warnings=verdict.warnings,
        repeated=gather.repeated(),
    )
    findings, ignored = scrutiny.choice.split(diagnose(evidence))
    return replace(
        _failed(verdict, findings),
        hops=hops,
        findings=findings,
        ignored=ignored,
        warnings=(*verdict.warnings, *failures),
    )


def refusal(case: str, precision: Precision, backend: str, error: Exception, choice: Choice) -> dict[str, Any]:
    """What the rules find in an error that kept a case from being judged: a verdict's ``findings`` and ``ignored``."""
    evidence = Evidence(
        case=case,
        precision=precision,
        held="",
        backend=backend,
        simulated=False,
        refused=Refusal(type(error).__name__, str(error), getattr(error, "facts", {})),
    )
    findings, ignored = choice.split(diagnose(evidence))
    return {"findings": findings, "ignored": ignored}


def _failed(verdict: Verdict, findings: Sequence[Finding]) -> Verdict:
    errors = list(dict.fromkeys(finding.code for finding in findings if finding.severity is Severity.ERROR))
    if verdict.verdict != "passed" or not errors:
        return verdict
    hint = (
        f"The outputs are inside their bounds. If you know better, leave it out with --trt-ignore={','.join(errors)}."
    )
    return replace(verdict, verdict="failed", accept=hint)


def _overflow(trial: Trial) -> str:
    """What the golden says where this precision overflows: it was seen when the golden was made."""
    why = trial.golden.refused.get(trial.held if trial.precision is Precision.MODEL else trial.precision.label, "")
    return why if "overflows" in why else ""


@dataclass(frozen=True)
class _Gather:
    """Each part of the evidence that has to be run for; what fails is noted and left out."""

    trial: Trial
    verdict: Verdict
    scrutiny: Scrutiny
    failures: list[str]

    @property
    def closely(self) -> bool:
        """Whether to spend time on why: the case failed, or that was asked."""
        return self.scrutiny.localise or self.verdict.verdict == "failed"

    def hops(self) -> tuple[Hop, ...]:
        """PyTorch -> ONNX; and where we look closely, golden -> today's fp32 -> simulated -> engine."""
        exported = export_hops(self.trial.golden)
        return (*exported, *self._tried("hops", self._later_hops, ())) if self.closely else exported

    def half(self) -> HalfWeights | None:
        trial = self.trial
        asked = trial.precision is Precision.FP16 and trial.held == "fp32"
        return half_weights(trial.model, trial.case.keep) if asked else None

    def repeated(self) -> Repeated | None:
        """Runs of an engine again, and builds of it as often as was asked."""
        built = self.trial.built
        if built is None or not built.backend.builds_engines:
            return None
        feeds = [run.inputs for run in self.trial.golden.runs]
        again = self._tried("rerun", lambda: rerun(built.engine, feeds[0], self.trial.outputs[0]), None)
        if not self.scrutiny.rebuilds:
            return Repeated(again)
        return Repeated(
            again,
            self._tried("reload", lambda: self._reloaded(built, feeds[0]), None),
            self._tried("rebuilds", lambda: self._rebuilt(built, feeds), ()),
        )

    def _later_hops(self) -> tuple[Hop, ...]:
        trial, golden = self.trial, self.trial.golden
        start, inputs, found = golden.onnx_outputs or golden.outputs, golden.inputs, trial.outputs[0]
        limits = limits_of(self.verdict.judgements)
        ends = [("golden", start)]
        if trial.held == "fp32":
            ends.append(("fp32", simulate(trial.model, Precision.FP32, inputs, trial.case.batch)))
        if trial.precision is not Precision.FP32 or trial.held != "fp32":
            ends += self._simulated(inputs, found)
        if not self.verdict.simulated:
            ends.append(("engine", found))
        steps = pairwise(ends)
        return tuple(
            step
            for (before, first), (after, second) in steps
            for step in hop(before, after, first, second, _fp32_limits(golden) if after == "fp32" else limits)
        )

    def _simulated(self, inputs: Arrays, found: Arrays) -> list[tuple[str, Arrays]]:
        built = self.trial.built
        if self.verdict.simulated:
            return [("simulated", found)]
        if built is None or built.recipe.plan is not None:
            return []  # nobody knows the ranges that a plan was built with
        simulated = choose(DEFAULT).build(built.recipe)
        return [("simulated", simulated.run(inputs))]

    def _reloaded(self, built: Built, inputs: Arrays) -> Again | None:
        again = built.backend.build(built.recipe)
        loaded = built.recipe.plan is not None or "from_store" in again.facts
        return rerun(again, inputs, self.trial.outputs[0]) if loaded else None

    def _rebuilt(self, built: Built, feeds: list[Arrays]) -> tuple[Again, ...]:
        anew = replace(built.recipe, store=None, plan=None)
        return rebuilt(
            self.scrutiny.rebuilds,
            lambda: built.backend.build(anew),
            feeds,
            self.trial.outputs,
            built.engine.layers(),
            self.trial.judged,
        )

    def _tried(self, what: str, step: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return step()
        except PytestTrtError as error:
            self.failures.append(f"no evidence of {what}: {error}")
            return otherwise


def _fp32_limits(golden: Golden) -> Mapping[str, float]:
    return dict.fromkeys(golden.outputs, FP32_LIMIT)
