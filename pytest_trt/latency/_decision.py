"""Decision: what a comparison of two latencies means, in a word and a sentence, corrected for the whole suite."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_trt.latency.rule import Compared, Rule, State

if TYPE_CHECKING:
    from typing import Final

__all__ = ["Suite", "decide", "rejected"]


def rejected(p_values: list[float], fdr: float, size: int) -> int:
    """How many of the smallest p values Benjamini and Hochberg reject; those of ``size`` that are not there are 1.

    Args:
        p_values: in any order, of one side.
        fdr: false discovery rate.
        size: cases of the suite.
    """
    held = [rank for rank, p in enumerate(sorted(p_values), 1) if p <= fdr * rank / size]
    return held[-1] if held else 0


@dataclass
class Suite:
    """Benjamini and Hochberg's procedure while the suite still runs.

    A case that was not seen yet counts as p = 1. What is rejected early stays so, since more cases can only reject
    more; ``finish`` tells those that the whole suite rejects and their own turn did not.

    Attributes:
        rule: false discovery rate, one case's level, and the number of cases.
    """

    rule: Rule
    _seen: dict[str, Compared] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def add(self, case: str, compared: Compared) -> bool:
        """Whether the case's difference counts, by all that were seen so far.

        A case that comes again (a rerun) replaces what it was.
        """
        self._seen[case] = compared
        counts = self._counts(case)
        (self._told.add if counts else self._told.discard)(case)
        return counts

    def finish(self) -> dict[str, Compared]:
        """Cases that count now that all were seen, and did not when they came."""
        return {case: seen for case, seen in self._seen.items() if case not in self._told and self._counts(case)}

    def _counts(self, case: str) -> bool:
        compared = self._seen[case]
        if compared.reasons or not compared.beyond:
            return False
        return compared.p <= min(self.rule.alpha, self._limit(slow=compared.ratio > 1))

    def _limit(self, *, slow: bool) -> float:
        values = [seen.p_slow if slow else seen.p_fast for seen in self._seen.values() if not seen.reasons]
        size = max(self.rule.cases, len(self._seen))
        return self.rule.fdr * rejected(values, self.rule.fdr, size) / size


_UNITS: Final = {"interleaved": "block pair", "history": "earlier run"}


def decide(compared: Compared, rule: Rule, *, rejected: bool) -> tuple[State, str]:
    """Say what a comparison means.

    SLOW and FAST need the suite's word and an estimate beyond the threshold. SAME needs more than their absence: that
    a change of ``rule.must_see`` is ruled out. All else is AMBIGUOUS.

    Args:
        compared: what was found.
        rule: what counts.
        rejected: whether the suite counts the difference (``Suite.add``).
    """
    if compared.reasons:
        return State.AMBIGUOUS, " ".join((*compared.reasons, *_measured(compared)))
    state, head = _meant(compared, rule, rejected)
    return state, " ".join((head, *_seen(compared, rule), *compared.notes))


def _meant(compared: Compared, rule: Rule, rejected: bool) -> tuple[State, str]:
    slower = compared.ratio > 1
    if compared.beyond and rejected:
        return (State.SLOW if slower else State.FAST), f"{_change(compared)} than the baseline."
    if compared.beyond:
        return (
            State.AMBIGUOUS,
            f"{_change(compared)}, which the noise does not let tell from chance (p = {compared.p:.2g}).",
        )
    if compared.unseen > rule.must_see:
        return State.AMBIGUOUS, f"Too noisy to tell: a change of {_percent(rule.must_see)} is not ruled out."
    if compared.p <= rule.alpha:
        return State.SAME, f"{_change(compared)}, under the threshold of {_percent(compared.threshold)}."
    return State.SAME, "No change found."


def _change(compared: Compared) -> str:
    share = compared.ratio - 1 if compared.ratio > 1 else 1 - compared.ratio
    return f"{_percent(share)} {'slower' if compared.ratio > 1 else 'faster'}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _measured(compared: Compared) -> tuple[str, ...]:
    return (f"Ratio {compared.ratio:.3f}.",) if math.isfinite(compared.ratio) else ()


def _seen(compared: Compared, rule: Rule) -> tuple[str, ...]:
    """The numbers: ratio, interval, and what could have been seen."""
    if not math.isfinite(compared.high) or not math.isfinite(compared.mde):
        return _measured(compared)
    interval = f"{100 * (1 - 2 * rule.alpha):g} % interval {compared.low:.3f} to {compared.high:.3f}"
    unit = _UNITS.get(compared.method, "value") + ("s" if compared.n != 1 else "")
    return (
        f"Ratio {compared.ratio:.3f} ({interval}, {compared.n} {unit});",
        f"a slowdown of {_percent(compared.mde)} is found with power {rule.power:g}.",
    )
