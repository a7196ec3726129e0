"""Rule: what the gate holds to, what a comparison of two latencies can say, and what each state does to a case."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from pytest_trt.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ACTIONS", "Compared", "Policy", "Rule", "State", "noiseless", "unjudged"]


class State(Enum):
    """What a comparison with the baseline found.

    ``docs/latency.md`` says which of them fail a case.
    """

    SLOW = "slow"
    """Slower, by more than noise and by more than the threshold."""

    FAST = "fast"
    """Faster, by more than noise and by more than the threshold."""

    SAME = "same"
    """No difference found, and one of the size that matters would have been."""

    AMBIGUOUS = "ambiguous"
    """Could not be told: too noisy, the GPU throttled or shared."""

    NO_BASELINE = "no-baseline"
    """There is nothing to compare with."""

    NOT_COMPARABLE = "not-comparable"
    """The baseline is of another machine, or of another metric."""

    RENAMED = "renamed"
    """The baseline knows the same model at the same precision by another name."""

    VANISHED = "vanished"
    """The baseline knows the case, and it was not run."""

    RECORDED = "recorded"
    """Measured, and compared with nothing, because that was not asked."""


ACTIONS = ("fail", "warn", "pass")
"""A case fails; passes and is told of; passes in silence."""

DEFAULTS: Mapping[State, str] = {
    State.SLOW: "fail",
    State.AMBIGUOUS: "fail",
    State.NO_BASELINE: "fail",
    State.NOT_COMPARABLE: "fail",
    State.RENAMED: "fail",
    State.VANISHED: "fail",
    State.FAST: "warn",
    State.SAME: "pass",
    State.RECORDED: "pass",
}
"""A gate that can't check fails: only SAME and FAST are answers that pass."""


@dataclass(frozen=True)
class Policy:
    """What each state does, where the user says otherwise.

    Attributes:
        told: an action by the state's value.
    """

    told: Mapping[str, str] = field(default_factory=dict)

    def action(self, state: State) -> str:
        """One of :data:`ACTIONS`."""
        return self.told.get(state.value, DEFAULTS[state])

    @staticmethod
    def states() -> list[str]:
        """The states whose action a user may choose."""
        return [state.value for state in DEFAULTS if state not in (State.SAME, State.RECORDED)]


@dataclass(frozen=True)
class Rule:
    """What counts as slower, and how sure one has to be.

    Attributes:
        margin: share that two measurements of one engine in one session may differ by for no reason that is found:
            interleaved comparisons test for more than 1 + margin, a history holds such differences already.
        threshold: share that the estimate has to differ by before anything is said.
        detectable: share that has to be ruled out before SAME is said; twice the threshold if None.
        alpha: level of one case's one-sided test, and of each end of the interval.
        power: of the minimum detectable effect, and with which ``detectable`` is ruled out.
        fdr: false discovery rate over the suite.
        cases: of the suite, known before the first is judged.
        least_blocks: fewer pairs of blocks than this are not judged.
        history: newest runs of the history that count.
    """

    margin: float = 0.01
    threshold: float = 0.025
    detectable: float | None = None
    alpha: float = 0.01
    power: float = 0.9
    fdr: float = 0.05
    cases: int = 1
    least_blocks: int = 6
    history: int = 20

    def __post_init__(self) -> None:
        wrong = [name for name in ("alpha", "power", "fdr") if not 0 < getattr(self, name) < 1]
        wrong += [name for name in ("margin", "threshold") if not 0 <= getattr(self, name) < 1]
        if self.cases < 1 or self.history < 1:
            wrong.append("cases or history")
        if wrong:
            raise SpecError(f"{', '.join(wrong)} of the latency gate out of range: shares from 0 to 1, counts from 1.")

    @property
    def must_see(self) -> float:
        """The share that has to be ruled out before SAME is said."""
        return 2 * self.threshold if self.detectable is None else self.detectable

    @property
    def level(self) -> float:
        """The p that a case has to reach if it is the only slow one of the suite."""
        return min(self.alpha, self.fdr / max(self.cases, 1))


@dataclass(frozen=True)
class Compared:
    """A candidate's latency over its baseline's.

    Attributes:
        method: "interleaved" or "history".
        ratio: the estimate; NaN where there is none.
        low: lower end of the interval, each end at ``Rule.alpha``.
        high: upper end.
        p_slow: one-sided p that the candidate is not slower.
        p_fast: one-sided p that the candidate is not faster.
        mde: the minimum detectable effect, the least slowdown (share) that would have been found with ``Rule.power``.
        unseen: the largest change (share, to either side) that is not ruled out, one-sided at ``Rule.power``.
        n: pairs of blocks, or runs of the history, that count.
        spread: standard deviation of the log-ratios of pairs, or of the history's logs; NaN where there is none.
        threshold: share that the estimate has to differ by.
        reasons: why nothing can be said of it, a sentence each; empty where something can.
        notes: what else there is to say, a sentence each.
    """

    method: str
    ratio: float
    low: float
    high: float
    p_slow: float
    p_fast: float
    mde: float
    unseen: float
    n: int
    spread: float
    threshold: float
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def beyond(self) -> bool:
        """Whether the estimate differs by more than the threshold, to either side."""
        return abs(math.log(self.ratio)) > math.log1p(self.threshold) if self.ratio > 0 else False

    @property
    def p(self) -> float:
        """Of the side that the estimate is on."""
        return self.p_slow if self.ratio > 1 else self.p_fast

    def because(self, *reasons: str) -> Compared:
        """The same, and reasons why nothing can be said: a throttled or shared GPU."""
        return replace(self, reasons=self.reasons + reasons)


def unjudged(method: str, rule: Rule, n: int, reason: str, ratio: float = math.nan) -> Compared:
    """What is left where nothing can be computed: all values are possible, and nothing was seen."""
    return Compared(method, ratio, 0.0, math.inf, 1.0, 1.0, math.inf, math.inf, n, math.nan, rule.threshold, (reason,))


def noiseless(method: str, rule: Rule, n: int, ratio: float) -> Compared:
    """What is left where all values are the same: a clock that shows no noise gives no evidence of a change either."""
    return Compared(method, ratio, ratio, ratio, 1.0, 1.0, rule.threshold, abs(ratio - 1), n, 0.0, rule.threshold)
