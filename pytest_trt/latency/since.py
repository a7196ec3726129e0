"""Since: a run beside those since the baseline was promoted, where that one can't be run, or the machine changed."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.latency.gate import against_history, decide, suspect
from pytest_trt.latency.machine import differences
from pytest_trt.latency.question import PROMOTE, Reply
from pytest_trt.latency.state import State
from pytest_trt.latency.timing import measure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_trt.latency.baseline import Baseline
    from pytest_trt.latency.compared import Compared, Rule
    from pytest_trt.latency.history import Entry
    from pytest_trt.latency.question import Question
    from pytest_trt.latency.samples import Samples
    from pytest_trt.latency.stopwatch import Stopwatch

__all__ = ["beside_history", "earlier", "in_another_environment"]

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
