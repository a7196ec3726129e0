"""Intervals: how much slower, from blocks of two engines measured in turn, or from one run beside a history."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_trt.latency._spread import (
    Spread,
    effect,
    error_needed,
    half_width,
    ratio_of,
    spread_of,
    tail,
    unseen,
    unusable,
)
from pytest_trt.latency.rule import Compared, noiseless, unjudged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from pytest_trt.latency.rule import Rule

__all__ = ["against_history", "paired", "pairs_needed", "suspect"]

PAIRED = "interleaved"
_PAIR_CUT = 6.0  # a pair that is left out; at 3.5, as for a history, 10 quiet pairs alarm twice as often as they may
_LEAST_PAIRS_TO_CUT = 10
_FEW_VALUES = 3


def paired(baseline: ArrayLike, candidate: ArrayLike, rule: Rule) -> Compared:
    """Compare two engines by the ratios of their blocks, block by block.

    The unit is a pair of blocks and never an iteration, since those of one block share its disturbances; the log-ratios
    have one mean, and a t interval. A pair that is disturbed beyond doubt is left out. What the two sides differ by in
    a whole session for no reason is the rule's margin.

    Args:
        baseline: medians of its blocks in seconds, float64[n], in order of time.
        candidate: medians of those that were measured beside them, float64[n].
        rule: margin, levels, and the least number of blocks.
    """
    import numpy as np

    a, b = (np.atleast_1d(np.asarray(side, dtype=np.float64)) for side in (baseline, candidate))
    problem = _problem_of_blocks(a, b)
    if problem:
        return unjudged(PAIRED, rule, min(a.size, b.size), problem)
    logs = np.log(b) - np.log(a)
    if logs.size < 2:
        return unjudged(PAIRED, rule, 1, "One pair of blocks shows no noise: measure more.", ratio_of(logs[0]))
    spread = spread_of(logs, _PAIR_CUT, _LEAST_PAIRS_TO_CUT)
    return _compared(spread, rule).because(*_reasons(a, b, spread, rule))


def _problem_of_blocks(a: NDArray[np.float64], b: NDArray[np.float64]) -> str | None:
    if a.ndim != 1 or a.shape != b.shape:
        return f"Blocks come in pairs: {a.size} of the baseline do not fit {b.size} of the candidate."
    if not a.size:
        return "No block was measured."
    wrong = unusable(a) + unusable(b)
    return f"{wrong} of {2 * a.size} block times are no times: NaN, infinite, zero or negative." if wrong else None


def _compared(spread: Spread, rule: Rule) -> Compared:
    if spread.sd == 0:
        return noiseless(PAIRED, rule, spread.n, ratio_of(spread.mean))
    error, freedom, margin = spread.sd / math.sqrt(spread.n), spread.n - 1, math.log1p(rule.margin)
    half = half_width(error, freedom, rule.alpha)
    return Compared(
        method=PAIRED,
        ratio=ratio_of(spread.mean),
        low=ratio_of(spread.mean - half),
        high=ratio_of(spread.mean + half),
        p_slow=tail((spread.mean - margin) / error, freedom),
        p_fast=tail((-spread.mean - margin) / error, freedom),
        mde=effect(rule, error, freedom, rule.margin, rule.threshold),
        unseen=unseen(rule, spread.mean, error, freedom, rule.margin),
        n=spread.n,
        spread=spread.sd,
        threshold=rule.threshold,
        notes=_left_out(spread),
    )


def _left_out(spread: Spread) -> tuple[str, ...]:
    if not spread.left_out:
        return ()
    return (f"{spread.left_out} of {spread.n + spread.left_out} pairs of blocks were disturbed and are left out.",)


def _reasons(a: NDArray[np.float64], b: NDArray[np.float64], spread: Spread, rule: Rule) -> list[str]:
    if a.size < rule.least_blocks:
        return [f"{a.size} pairs of blocks are too few: {rule.least_blocks} are needed at the least."]
    coarse = _coarse(a, b, rule)
    if coarse:
        return [coarse]
    if spread.sd == 0 and spread.mean != 0:
        return ["All pairs of blocks have the same ratio: a clock that shows no noise can't tell a difference."]
    return []


def _coarse(a: NDArray[np.float64], b: NDArray[np.float64], rule: Rule) -> str | None:
    """Say that the clock's steps are wider than what is to be told apart."""
    import numpy as np

    distinct = np.unique(np.concatenate([a, b]))
    if not 1 < distinct.size <= _FEW_VALUES:
        return None
    step = float(np.min(distinct[1:] / distinct[:-1])) - 1
    if step <= rule.margin:
        return None
    return (
        f"The clock is too coarse: all blocks have one of {distinct.size} values, {100 * step:.1f} % apart. "
        "Time more inferences in one sample."
    )


def pairs_needed(compared: Compared, rule: Rule) -> int | None:
    """How many pairs of blocks, those measured included, would find the rule's ``must_see``; None where nothing tells.

    To measure on until there are so many is no peeking: it asks how noisy the session is, and not which side is slower.
    The degrees of freedom stay those of the first pairs, as in the two stages of Stein (1945).
    """
    if not compared.spread >= 0 or compared.n < 2 or rule.must_see <= rule.threshold:
        return None
    error = error_needed(rule, compared.n - 1, rule.margin, rule.threshold)
    if not 0 < error < math.inf:
        return None
    return max(math.ceil((compared.spread / error) ** 2), compared.n, rule.least_blocks)


HISTORY = "history"
_CUT = 3.5
_LEAST_TO_CUT = 8
_ONE_RUN = 0.05  # what a change has to exceed where one run is all there is, and nothing is known of their drift
_SUSPECT = 0.05
_FEW_RUNS = 5


def against_history(
    value: float,
    history: ArrayLike,
    rule: Rule,
    *,
    again: float | None = None,
    own_process: bool = False,
    tau: float | None = None,
) -> Compared:
    """Compare a run's latency with a prediction interval over earlier runs of the same key.

    The unit is a run: what drifts between runs is in the spread of the history, so no margin is added to the test. One
    bad run of eight or more is left out. Where there is one earlier run, its drift is taken to be a third of 5 %, or
    ``tau`` where that is known and more, and a change has to exceed 5 % or three times tau.

    Args:
        value: the run's p50 in seconds.
        history: those of earlier runs, in order of time, float64[n].
        rule: levels, and how many of the newest runs count.
        again: the p50 of a second measurement, taken because the first was ``suspect``: both then have to be beyond
            the threshold, and their mean decides.
        own_process: whether ``again`` was measured in a process of its own. Only then is it a second run, and the mean
            of two; within one process both share what drifts between runs, and the second can only disprove the first.
        tau: share that runs of one engine are known to differ by on this machine (a standard deviation).
    """
    import numpy as np

    earlier = np.atleast_1d(np.asarray(history, dtype=np.float64)).ravel()[-rule.history :]
    values = np.asarray([value] if again is None else [value, again], dtype=np.float64)
    problem = _problem_of_history(values, earlier)
    if problem:
        return unjudged(HISTORY, rule, int(earlier.size), problem)
    changes = np.log(values)
    if earlier.size == 1:
        return _against_one(changes - math.log(earlier[0]), rule, tau or 0.0, own_process)
    spread = spread_of(np.log(earlier), _CUT, _LEAST_TO_CUT)
    return _against_runs(changes - spread.mean, spread, rule, own_process)


def _problem_of_history(values: NDArray[np.float64], earlier: NDArray[np.float64]) -> str | None:
    if unusable(values):
        return f"A p50 of {', '.join(f'{value:g}' for value in values)} s is no time."
    if not earlier.size:
        return "There is no earlier run to compare with."
    wrong = unusable(earlier)
    return f"{wrong} of {earlier.size} earlier runs have a p50 that is no time." if wrong else None


def _against_one(changes: NDArray[np.float64], rule: Rule, tau: float, own_process: bool) -> Compared:
    assumed = max(tau, _ONE_RUN / 3)
    threshold = max(_ONE_RUN, 3 * tau, rule.threshold)
    note = f"One earlier run shows no noise: runs are taken to differ by {100 * assumed:.1f} % (a standard deviation)."
    error = _error(Spread(0.0, assumed, 1, 0), changes, own_process)
    return _judged(changes, Spread(0.0, assumed, 1, 0), error, math.inf, rule, threshold, (note,))


def _against_runs(changes: NDArray[np.float64], spread: Spread, rule: Rule, own_process: bool) -> Compared:
    if spread.sd == 0:
        return _against_identical(changes, spread, rule)
    notes = [] if not spread.left_out else [f"{spread.left_out} of the earlier runs far from all others: left out."]
    if spread.n < _FEW_RUNS:
        notes.append(f"{spread.n} earlier runs show little of the noise: the interval is wide.")
    error = _error(spread, changes, own_process)
    return _judged(changes, spread, error, spread.n - 1, rule, rule.threshold, tuple(notes))


def _error(spread: Spread, changes: NDArray[np.float64], own_process: bool) -> float:
    """Standard error of the new runs' mean less the history's."""
    new_runs = changes.size if own_process else 1
    return spread.sd * math.sqrt(1 / new_runs + 1 / spread.n)


def _against_identical(changes: NDArray[np.float64], spread: Spread, rule: Rule) -> Compared:
    ratio = ratio_of(float(changes.mean()))
    if spread.n < _LEAST_TO_CUT or changes.any():
        reason = f"All {spread.n} earlier runs have the same p50: a clock that shows no noise can't tell a difference."
        return unjudged(HISTORY, rule, spread.n, reason, ratio)
    return noiseless(HISTORY, rule, spread.n, ratio)


def _judged(
    changes: NDArray[np.float64],
    spread: Spread,
    error: float,
    freedom: float,
    rule: Rule,
    threshold: float,
    notes: tuple[str, ...],
) -> Compared:
    mean = float(changes.mean())
    half = half_width(error, freedom, rule.alpha)
    least = math.log1p(threshold)
    agree = bool((changes > least).all() or (changes < -least).all()) or changes.size == 1
    return Compared(
        method=HISTORY,
        ratio=ratio_of(mean),
        low=ratio_of(mean - half),
        high=ratio_of(mean + half),
        p_slow=tail(mean / error, freedom) if agree else 1.0,
        p_fast=tail(-mean / error, freedom) if agree else 1.0,
        mde=effect(rule, error, freedom, 0.0, threshold),
        unseen=math.inf if math.isinf(freedom) else unseen(rule, mean, error, freedom, 0.0),
        n=spread.n,
        spread=spread.sd,
        threshold=threshold,
        reasons=() if agree or abs(mean) <= least else (_disagreement(changes),),
        notes=notes,
    )


def _disagreement(changes: NDArray[np.float64]) -> str:
    first, second = (ratio_of(change) for change in changes)
    return f"A second measurement did not confirm the first: {first:.3f} and then {second:.3f} times the history."


def suspect(compared: Compared) -> bool:
    """Whether it is worth to measure again: it looks changed, and one run in twenty may look so by chance.

    Measured again in another process where that can be had: what drifts between runs is shared within one.
    """
    return not compared.reasons and compared.beyond and compared.p <= _SUSPECT
