"""Check: times an engine and says whether it became slower: the whole story of a case's latency."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.backend import choose
from pytest_trt.backends.stopwatch import stopwatch_of
from pytest_trt.case.budgets import Budgets, held
from pytest_trt.errors import DataError, PytestTrtError
from pytest_trt.latency._answer import answer
from pytest_trt.latency._artifacts import Materials, keep_materials
from pytest_trt.latency._decision import Suite
from pytest_trt.latency._machine import machine_of
from pytest_trt.latency._rounds import interleave
from pytest_trt.latency._telemetry import disturbances, telemetry_of
from pytest_trt.latency._timing import measure
from pytest_trt.latency.baseline import Identity, read_baselines
from pytest_trt.latency.options import gate_of, timing_of
from pytest_trt.latency.question import Keeper, Question
from pytest_trt.latency.result import Latency, figures_of
from pytest_trt.latency.rule import State
from pytest_trt.latency.runs import History, read_history
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from pytest_trt.backends.backend import Built
    from pytest_trt.backends.stopwatch import Samples, Stopwatch, Timing
    from pytest_trt.case.budgets import SpeedUp
    from pytest_trt.case.case import Case
    from pytest_trt.latency._rounds import Design
    from pytest_trt.latency.question import Reply
    from pytest_trt.model.feeds import Arrays

__all__ = ["find_latency", "open_keeper", "vanished"]


def speedup_over(
    told: SpeedUp, built: Built, inputs: Arrays, stopwatch: Stopwatch, timing: Timing, design: Design
) -> float:
    """The median of the other's time over this one's, block by block.

    Args:
        told: over which backend, and in which precision that one runs.
        built: the engine.
        inputs: that both run.
        stopwatch: of the engine.
        timing: how each is timed.
        design: how they take turns.

    Raises:
        LoweringError, ModelError, BackendError: the other backend can't run the case.
    """
    precision = Precision.parse(told.precision)
    calibration = built.recipe.calibration if precision is built.recipe.precision else None
    other = choose(told.over).build(replace(built.recipe, precision=precision, calibration=calibration, plan=None))
    blocks = interleave(stopwatch_of(other, inputs, timing), stopwatch, design)
    with np.errstate(divide="ignore", invalid="ignore"):  # what is no time is no speed-up, and the budget says so
        return float(np.median(blocks.baseline / blocks.candidate))


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


def find_latency(keeper: Keeper, case: Case, built: Built, inputs: Arrays) -> Latency:
    """Time an engine; in a gate, compare it with its baseline, and with its budgets in any case.

    Args:
        keeper: of the run.
        case: what is timed.
        built: the engine, which tells at which precision.
        inputs: arrays by input name; the first run of them is timed.

    Raises:
        DataError, BackendError: it can't be timed.
    """
    engine, recipe = built.engine, built.recipe
    identity = Identity(case.name, recipe.precision.label, engine.backend)
    gpu = None if engine.simulated else recipe.options.device
    machine, before = machine_of(gpu), telemetry_of(gpu)
    stopwatch = stopwatch_of(engine, inputs, keeper.timing)
    question = Question(identity, built, inputs, machine, keeper)
    samples = measure(stopwatch, keeper.timing, question.inferences)
    reply = answer(question, stopwatch, samples)
    limits = _held(case, built, inputs, stopwatch, samples, keeper)
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
    built: Built,
    inputs: Arrays,
    stopwatch: Stopwatch,
    samples: Samples,
    keeper: Keeper,
) -> tuple[Any, ...]:
    budgets = _budgets_of(case, built.recipe.precision.label)
    times, why = None, ""
    if budgets.speedup:
        try:
            times = speedup_over(budgets.speedup, built, inputs, stopwatch, keeper.timing, keeper.design)
        except PytestTrtError as error:
            why = str(error)
    return held(budgets, figures_of(samples), times, why)


def _budgets_of(case: Case, precision: str) -> Budgets:
    """Those of every precision, and those of this one in place of them where both are told."""
    common, own = (case.latency.get(key, Budgets()) for key in ("", precision))
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
