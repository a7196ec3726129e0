"""Question: whether an engine became slower; and what the reply to it tells."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_trt.backends.backend import Built
    from pytest_trt.backends.stopwatch import Timing
    from pytest_trt.latency._decision import Suite
    from pytest_trt.latency._machine import Machine
    from pytest_trt.latency._rounds import Design
    from pytest_trt.latency.baseline import Baseline, Identity
    from pytest_trt.latency.rule import Compared, Policy, Rule, State
    from pytest_trt.latency.runs import History
    from pytest_trt.model.feeds import Arrays

__all__ = ["PROMOTE", "Keeper", "Question", "Reply"]

PROMOTE = "Record a run (--trt-latency=record) and promote it: pytest-trt baseline promote RUN."


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


@dataclass(frozen=True)
class Question:
    """Whether an engine became slower.

    Attributes:
        identity: what it is.
        built: the engine.
        inputs: that it is timed on.
        machine: that it runs on.
        keeper: of the run.
    """

    identity: Identity
    built: Built
    inputs: Arrays
    machine: Machine
    keeper: Keeper

    @property
    def own(self) -> Baseline | None:
        """The baseline of this machine."""
        return next((b for b in self._named if b.key == self.machine.key), None)

    @property
    def foreign(self) -> Baseline | None:
        """The newest baseline of another machine."""
        others = [b for b in self._named if b.key != self.machine.key]
        return max(others, key=lambda b: b.promoted, default=None)

    @property
    def inferences(self) -> int | None:
        """Inferences in one sample, as in the baseline or else the newest run here, so that all are of one metric."""
        of = self.identity
        runs = self.keeper.history.of(
            case=of.case, precision=of.precision, backend=of.backend, machine=self.machine.key
        )
        metric = self.own.metric if self.own else json.loads(runs[-1].key.metric) if runs else {}
        told = metric.get("inferences")
        return told if isinstance(told, int) and told > 0 else None

    @property
    def _named(self) -> list[Baseline]:
        return [b for b in self.keeper.baselines if b.identity == self.identity]


@dataclass(frozen=True)
class Reply:
    """What was found of it; the attributes are those of :class:`Latency`."""

    state: State
    message: str
    compared: Compared | None = None
    method: str | None = None
    baseline: Baseline | None = None
    past: tuple[Mapping[str, Any], ...] = ()
    interval: tuple[float, float] | None = None
    notes: tuple[str, ...] = field(default=())
