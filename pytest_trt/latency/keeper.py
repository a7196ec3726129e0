"""Keeper: times an engine and says whether it became slower: the whole story of a case's latency."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import DataError, PytestTrtError
from pytest_trt.findings.codes import Choice
from pytest_trt.findings.finding import Severity
from pytest_trt.findings.latency import of_latency
from pytest_trt.latency.baseline import Baseline, Identity, read_baselines
from pytest_trt.latency.budgets import Budgets, held
from pytest_trt.latency.comparing import answer
from pytest_trt.latency.found import Latency, figures_of
from pytest_trt.latency.gate import Suite
from pytest_trt.latency.history import History, read_history
from pytest_trt.latency.kept import Materials, keep_materials
from pytest_trt.latency.machine import machine_of
from pytest_trt.latency.opening import stopwatch_of
from pytest_trt.latency.question import Question
from pytest_trt.latency.speedup import speedup_over
from pytest_trt.latency.state import State
from pytest_trt.latency.telemetry import disturbances, telemetry_of
from pytest_trt.latency.timing import measure
from pytest_trt.latency.words import gate_of, timing_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from pytest_trt.case import Case
    from pytest_trt.feeds import Arrays
    from pytest_trt.latency.compared import Rule
    from pytest_trt.latency.interleaved import Design
    from pytest_trt.latency.policy import Policy
    from pytest_trt.latency.question import Reply
    from pytest_trt.latency.samples import Samples, Timing
    from pytest_trt.latency.stopwatch import Stopwatch
    from pytest_trt.precision import Precision
    from pytest_trt.trial import Built
    from pytest_trt.verdict import Verdict

__all__ = ["Keeper", "find_latency", "open_keeper", "vanished", "with_found"]


@dataclass(frozen=True)
class Keeper:
    """All that a run knows about latency.

    Attributes:
        mode: "record" measures, "gate" compares too.
        timing: how one engine is timed.
        design: how two engines are timed in turns.
        rule: what counts as slower.
        policy: what each state does to a case.
        folder: of the baselines.
        store: of plans and models that were kept; None keeps nothing.
        history: earlier runs that pytest-benchmark kept, read once a run.
        baselines: of every machine.
        suite: the p-values of the cases that were judged so far.
        collected: all cases of the run, those that are not timed too.
    """

    mode: str
    timing: Timing
    design: Design
    rule: Rule
    policy: Policy
    folder: Path
    store: Path | None
    history: History
    suite: Suite
    baselines: tuple[Baseline, ...] = ()
    collected: frozenset[Identity] = field(default_factory=frozenset)


def open_keeper(
    mode: str,
    *,
    timing_words: Iterable[str],
    gate_words: Iterable[str],
    folder: Path,
    store: Path | None,
    history: str,
    size: int,
    collected: frozenset[Identity],
) -> Keeper:
    """The keeper of a run.

    Args:
        mode: "record" or "gate".
        timing_words: of ``--trt-timing``.
        gate_words: of ``--trt-gate``.
        folder: of the baselines.
        store: of plans.
        history: where pytest-benchmark keeps its runs.
        size: how many cases the run judges, which their p-values are corrected for.
        collected: all cases of the run.

    Raises:
        SpecError: a word is not known.
        DataError: a baseline can't be read.
    """
    timing, design = timing_of(timing_words)
    rule, policy = gate_of(gate_words)
    rule = replace(rule, cases=max(size, 1))
    baselines = read_baselines(folder) if mode == "gate" else ()
    suite = Suite(rule)
    earlier = _earlier(history)
    return Keeper(mode, timing, design, rule, policy, folder, store, earlier, suite, baselines, collected)


def _earlier(place: str) -> History:
    try:
        return read_history(place)
    except DataError:  # nothing was saved yet
        return History(())


def find_latency(keeper: Keeper, case: Case, precision: Precision, built: Built, inputs: Arrays) -> Latency:
    """Time an engine; in a gate, compare it with its baseline, and with its budgets in any case.

    Args:
        keeper: of the run.
        case: what is timed.
        precision: at which.
        built: the engine.
        inputs: arrays by input name; the first run of them is timed.

    Raises:
        DataError, BackendError: it can't be timed.
    """
    engine, recipe = built.engine, built.recipe
    identity = Identity(case.name, precision.label, engine.backend)
    gpu = None if engine.simulated else recipe.options.device
    machine, before = machine_of(gpu), telemetry_of(gpu)
    stopwatch = stopwatch_of(engine, inputs, keeper.timing)
    question = Question(identity, built, inputs, machine, keeper)
    samples = measure(stopwatch, keeper.timing, question.inferences)
    reply = answer(question, stopwatch, samples)
    limits = _held(case, precision, built, inputs, stopwatch, samples, keeper)
    after = telemetry_of(gpu)
    doubts = disturbances(before, after)
    state, message = _settled(question, reply, doubts)
    return Latency(
        identity=identity,
        mode=keeper.mode,
        state=state,
        action=keeper.policy.action(state),
        message=message,
        samples=samples,
        machine=machine,
        simulated=engine.simulated,
        compared=reply.compared,
        method=reply.method,
        baseline=reply.baseline,
        past=reply.past,
        interval=reply.interval,
        held=limits,
        before=before,
        after=after,
        disturbances=doubts,
        materials=_materials(keeper, built),
        notes=(*reply.notes, *_told(built)),
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


def vanished(keeper: Keeper, machines: Collection[str], asked: Collection[str] = ()) -> Iterator[str]:
    """What a run of the whole suite lacks: baselines of these machines whose case is not there any more.

    Args:
        keeper: of the run.
        machines: keys of those that something was timed on.
        asked: the precisions that the run was confined to; none if it was not.
    """
    backends = {identity.backend for identity in keeper.collected}
    for baseline in keeper.baselines:
        of = baseline.identity
        if baseline.key not in machines or of in keeper.collected or of.backend not in backends:
            continue
        if not asked or of.precision in asked:
            yield (
                f"the baseline of {of} has no case any more ({State.VANISHED.value}): if that is meant, remove it with"
                f" `pytest-trt baseline remove {of.case} --precision {of.precision}`."
            )


def _settled(question: Question, reply: Reply, doubts: tuple[str, ...]) -> tuple[State, str]:
    """A throttled or shared GPU tells nothing, neither that an engine is slower nor that it is not."""
    if not doubts or reply.state in (State.RECORDED, State.NO_BASELINE, State.NOT_COMPARABLE, State.RENAMED):
        return reply.state, reply.message
    if reply.compared is not None:  # nor does it help other cases, or turn slow when all were seen
        question.keeper.suite.add(str(question.identity), reply.compared.because(*doubts))
    return State.AMBIGUOUS, f"It can't be told, since {'; '.join(doubts)}. What was seen: {reply.message}"


def _held(
    case: Case,
    precision: Precision,
    built: Built,
    inputs: Arrays,
    stopwatch: Stopwatch,
    samples: Samples,
    keeper: Keeper,
) -> tuple[Any, ...]:
    budgets = _budgets_of(case, precision)
    times, why = None, ""
    if budgets.speedup:
        try:
            times = speedup_over(budgets.speedup, built, inputs, stopwatch, keeper.timing, keeper.design)
        except PytestTrtError as error:
            why = str(error)
    return held(budgets, figures_of(samples), times, why)


def _budgets_of(case: Case, precision: Precision) -> Budgets:
    """Those of every precision, and those of this one in place of them where both are told."""
    common, own = (case.latency.get(key, Budgets()) for key in ("", precision.label))
    names = {budget.name for budget in own.limits}
    limits = (*(budget for budget in common.limits if budget.name not in names), *own.limits)
    return Budgets(limits, own.speedup or common.speedup)


def _materials(keeper: Keeper, built: Built) -> Materials:
    try:
        return keep_materials(keeper.store, built.recipe, built.engine.facts)
    except PytestTrtError as error:
        return Materials(why=str(error))


def _told(built: Built) -> tuple[str, ...]:
    return ("simulated: this is the time of the simulation on the CPU, and says nothing of an engine.",) * (
        built.engine.simulated and not built.backend.builds_engines
    )
