"""Gate: what the comparison of two latencies means, in a word and a sentence with the numbers.

Statistics are in ``paired`` (blocks of both engines in turn), ``against_history`` (a run beside earlier ones) and
``suite`` (many cases at once); this is the front of all of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_trt.latency.against_history import against_history, suspect
from pytest_trt.latency.compared import Compared, Rule
from pytest_trt.latency.paired import paired, pairs_needed
from pytest_trt.latency.state import State
from pytest_trt.latency.suite import Suite

if TYPE_CHECKING:
    from typing import Final

__all__ = ["Compared", "Rule", "Suite", "against_history", "decide", "paired", "pairs_needed", "suspect"]

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
