"""Answer: the best way to a baseline that can be gone here, and what a run beside it says."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.stopwatch import stopwatch_of
from pytest_trt.errors import PytestTrtError
from pytest_trt.latency._artifacts import kept_plan, kept_recipe
from pytest_trt.latency._decision import decide
from pytest_trt.latency._intervals import against_history, paired, pairs_needed, suspect
from pytest_trt.latency._machine import differences
from pytest_trt.latency._rounds import Rounds, in_rounds
from pytest_trt.latency._timing import measure
from pytest_trt.latency.question import PROMOTE, Reply
from pytest_trt.latency.rule import State
from pytest_trt.storage.engine_store import StoreWarning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_trt.backends.backend import Engine
    from pytest_trt.backends.stopwatch import Samples, Stopwatch
    from pytest_trt.latency.baseline import Baseline
    from pytest_trt.latency.question import Question
    from pytest_trt.latency.rule import Compared, Rule
    from pytest_trt.latency.runs import Entry

__all__ = ["answer"]

_NO_STATES = ("slow", "ambiguous", "fast")


def earlier(question: Question, samples: Samples) -> tuple[Entry, ...]:
    """Earlier runs of the same case on the same machine in the same metric, the oldest first."""
    of = question.identity
    return question.keeper.history.of(
        case=of.case,
        precision=of.precision,
        backend=of.backend,
        machine=question.machine.key,
        metric=samples.metric.plain,
    )


def beside_history(
    question: Question, baseline: Baseline, entries: Sequence[Entry], stopwatch: Stopwatch, samples: Samples
) -> Reply:
    """Beside the runs since the baseline was promoted; what looks slower is measured once more."""
    rule, own = question.keeper.rule, samples.metric.plain
    if _metric_of(baseline) != own:
        return Reply(State.NOT_COMPARABLE, _other_metric(baseline, own), baseline=baseline, method="history")
    history = _epoch(entries, baseline)
    compared = _against(history, stopwatch, samples, question)
    state, message = decide(compared, rule, rejected=question.keeper.suite.add(str(question.identity), compared))
    reply = Reply(state, message, compared, "history", baseline, interval=_interval(history, compared))
    return _crept(reply, baseline, float(np.median(samples.lap.latency)), rule) if state is State.SAME else reply


def _crept(reply: Reply, baseline: Baseline, p50: float, rule: Rule) -> Reply:
    """Like its history, which nobody judged where it was only recorded: the promoted run alone has the last word.

    Slow runs that were recorded would else be what the next ones are compared with, and nobody promoted them.
    """
    before = reply.compared
    assert before is not None
    alone = against_history(p50, [baseline.p50_s], rule, tau=before.spread)
    state, message = decide(alone, rule, rejected=alone.p_slow <= rule.level)
    if state is not State.SLOW:
        return reply
    message = f"Like its {before.n} runs since, which crept away from the promoted one: {message}"
    return replace(reply, state=state, message=message, compared=alone)


def in_another_environment(
    question: Question,
    baseline: Baseline,
    entries: Sequence[Entry],
    stopwatch: Stopwatch,
    samples: Samples,
    reply: Reply,
) -> Reply:
    """As fast as the baseline side by side: where the driver or TensorRT changed, the history tells of both."""
    _, soft = differences(baseline.machine, asdict(question.machine))
    history = _epoch(entries, baseline)
    if len(history) < 5 or _metric_of(baseline) != samples.metric.plain:
        return reply
    compared = _against(history, stopwatch, samples, question)
    interval = _interval(history, compared)
    state, message = decide(compared, question.keeper.rule, rejected=compared.p_slow <= question.keeper.rule.level)
    if state is not State.SLOW:
        return replace(reply, interval=interval)
    said = f"As fast as the baseline side by side, and slower than its history of {len(history)} runs: {message}"
    if not soft:
        return replace(reply, interval=interval, notes=(*reply.notes, said))
    return replace(
        reply,
        state=State.SLOW,
        message=f"{said} Since then: {' '.join(soft)}",
        compared=compared,
        method="history",
        interval=interval,
    )


def _against(history: list[float], stopwatch: Stopwatch, samples: Samples, question: Question) -> Compared:
    p50, rule = float(np.median(samples.lap.latency)), question.keeper.rule
    compared = against_history(p50, history, rule)
    if not suspect(compared):
        return compared
    again = measure(stopwatch, question.keeper.timing, samples.metric.inferences)
    return against_history(p50, history, rule, again=float(np.median(again.lap.latency)))


def _epoch(entries: Sequence[Entry], baseline: Baseline) -> list[float]:
    """Medians of the promoted run and of those after it that were right, and neither slower, faster nor doubtful."""
    since = datetime.fromisoformat(baseline.recorded)
    return [baseline.p50_s, *(entry.p50_s for entry in entries if entry.when > since and _counts(entry))]


def _counts(entry: Entry) -> bool:
    right = entry.table.get("verdict") not in ("failed", "error")
    return right and entry.state not in _NO_STATES and not entry.disturbances


def _interval(history: list[float], compared: Compared) -> tuple[float, float] | None:
    """Where the history expects this run's median: what ``low`` and ``high`` say of the ratio, turned round."""
    if not np.isfinite([compared.ratio, compared.low, compared.high]).all() or compared.low <= 0:
        return None
    centre = float(np.exp(np.mean(np.log(history))))
    return centre * compared.ratio / compared.high, centre * compared.ratio / compared.low


def _metric_of(baseline: Baseline) -> dict[str, Any]:
    metric = baseline.metric
    return {**metric, "shapes": {name: list(shape) for name, shape in dict(metric.get("shapes", {})).items()}}


def _other_metric(baseline: Baseline, own: Mapping[str, Any]) -> str:
    before = _metric_of(baseline)
    told = [f"{key} {before.get(key)!r} and now {own[key]!r}" for key in own if before.get(key) != own[key]]
    return f"The baseline was timed otherwise: {'; '.join(told)}. Time as it was, or promote a new run. {PROMOTE}"


_MOST_PAIRS = 4  # times the design's: how far a noisy session is measured on
_SHOWN = 50


def answer(question: Question, stopwatch: Stopwatch, samples: Samples) -> Reply:
    """Whether the engine became slower, found by the best way there is here."""
    entries = earlier(question, samples)
    past = tuple(_shown(entry, question) for entry in entries[-_SHOWN:])
    if question.keeper.mode != "gate":
        return Reply(State.RECORDED, "Recorded, and compared with nothing.", past=past)
    baseline = question.own or question.foreign
    if baseline is None:
        return replace(_without(question), past=past)
    notes: list[str] = []
    reply = _beside(question, baseline, stopwatch, notes)
    if reply is None and question.own is not None:
        reply = beside_history(question, question.own, entries, stopwatch, samples)
    elif reply is None:
        hard, _ = differences(baseline.machine, asdict(question.machine))
        message = f"The baseline is of another machine: {' '.join(hard)} {PROMOTE}"
        reply = Reply(State.NOT_COMPARABLE, message, baseline=baseline)
    elif reply.state is State.SAME and question.own is not None:
        reply = in_another_environment(question, question.own, entries, stopwatch, samples, reply)
    return replace(reply, past=past, notes=(*notes, *reply.notes, *_changed(question, baseline)))


def _without(question: Question) -> Reply:
    """There is no baseline of that name: the model may have one by another."""
    sha256 = question.built.recipe.model.sha256
    of = question.identity
    for baseline in question.keeper.baselines:
        known = baseline.identity
        same = baseline.model_sha256 == sha256 and (known.precision, known.backend) == (of.precision, of.backend)
        if same and known not in question.keeper.collected:
            message = (
                f"There is no baseline of {of.case!r}, and the same model has one as {known.case!r}, which is not run"
                f" any more: rename it with `pytest-trt baseline rename {known.case} {of.case}`."
            )
            return Reply(State.RENAMED, message, baseline=baseline)
    return Reply(State.NO_BASELINE, f"There is no baseline of {of} in {question.keeper.folder}. {PROMOTE}")


def _beside(question: Question, baseline: Baseline, stopwatch: Stopwatch, notes: list[str]) -> Reply | None:
    """Side by side with what was kept of the baseline, where it can be run here."""
    for method, opened in (("plan", _by_plan), ("onnx", _by_model)):
        try:
            with _quiet_about_damage(notes):
                other = opened(question, baseline)
            if other is not None:
                return _in_turns(question, baseline, other, stopwatch, method)
        except PytestTrtError as error:
            notes.append(f"the baseline's {'plan' if method == 'plan' else 'model'} can't be run here: {error}")
    return None


def _by_plan(question: Question, baseline: Baseline) -> Engine | None:
    path = kept_plan(question.keeper.store, baseline.kept.get("plan"))
    if path is None or not question.built.backend.builds_engines:
        return None
    return question.built.backend.build(replace(question.built.recipe, plan=path))


def _by_model(question: Question, baseline: Baseline) -> Engine | None:
    recipe = kept_recipe(question.keeper.store, baseline.kept.get("onnx"), question.built.recipe)
    return None if recipe is None else question.built.backend.build(recipe)


def _in_turns(question: Question, baseline: Baseline, other: Engine, stopwatch: Stopwatch, method: str) -> Reply:
    """ABBA; on for as long as a noisy session needs, which is asked of its noise and not of its result."""
    keeper = question.keeper

    def opened(engine: Engine) -> Stopwatch:
        return stopwatch_of(engine, question.inputs, keeper.timing)

    before = opened(other)
    if (before.graph, before.clock) != (stopwatch.graph, stopwatch.clock):
        message = (
            f"The baseline is timed {_how(before)} here, and the engine {_how(stopwatch)}: that is no comparison."
            " Time both alike with --trt-timing graph=false."
        )
        return Reply(State.NOT_COMPARABLE, message, baseline=baseline, method=method)
    del before
    design, rounds = keeper.design, Rounds(lambda: opened(other), lambda: opened(question.built.engine))
    blocks = in_rounds(rounds, design, question.inferences)
    compared = paired(blocks.baseline, blocks.candidate, keeper.rule)
    needed = pairs_needed(compared, keeper.rule) or _MOST_PAIRS * design.pairs
    more = min(needed, _MOST_PAIRS * design.pairs) - design.pairs
    if more > 0:
        further = in_rounds(rounds, replace(design, pairs=more), blocks.inferences, seed=1)
        compared = paired(
            np.concatenate([blocks.baseline, further.baseline]),
            np.concatenate([blocks.candidate, further.candidate]),
            keeper.rule,
        )
    state, message = decide(compared, keeper.rule, rejected=keeper.suite.add(str(question.identity), compared))
    return Reply(state, message, compared, method, baseline, notes=_same_plan(question, baseline, method))


def _shown(entry: Entry, question: Question) -> dict[str, Any]:
    when = entry.when.isoformat()
    promoted = question.own is not None and when == question.own.recorded
    return {"run": entry.run, "when": when, "p50_s": entry.p50_s, "state": entry.state, "baseline": promoted}


def _changed(question: Question, baseline: Baseline) -> tuple[str, ...]:
    """What else is not as it was when the baseline was recorded."""
    _, soft = differences(baseline.machine, asdict(question.machine))
    return tuple(soft)


def _same_plan(question: Question, baseline: Baseline, method: str) -> tuple[str, ...]:
    own = question.built.engine.facts.get("plan_sha256")
    if method == "plan" and own is not None and own == baseline.plan_sha256:
        return ("the engine is the baseline's own plan, byte for byte: side by side they can't differ.",)
    if method == "onnx":
        return (
            "the baseline's model was built again here: a change of TensorRT itself, or of build options, is in both.",
        )
    return ()


def _how(stopwatch: Stopwatch) -> str:
    return f"by {stopwatch.clock}{' as a CUDA graph' if stopwatch.graph else ' without a CUDA graph'}"


@contextmanager
def _quiet_about_damage(notes: list[str]) -> Iterator[None]:
    """A kept file that is damaged is told as a note: there are other ways."""
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", StoreWarning)
        yield
    notes += [str(warning.message) for warning in caught]
