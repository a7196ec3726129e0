"""Paired: blocks of two engines that were measured in turn, ABBA, in one session."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_trt.latency.compared import Compared, noiseless, unjudged
from pytest_trt.latency.spread import effect, error_needed, half_width, ratio_of, spread_of, tail, unseen, unusable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from pytest_trt.latency.compared import Rule
    from pytest_trt.latency.spread import Spread

__all__ = ["METHOD", "paired", "pairs_needed"]

METHOD = "interleaved"
_CUT = 6.0  # a pair that is left out; at 3.5, as for a history, 10 quiet pairs alarm twice as often as they may
_LEAST_TO_CUT = 10
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
    problem = _problem(a, b)
    if problem:
        return unjudged(METHOD, rule, min(a.size, b.size), problem)
    logs = np.log(b) - np.log(a)
    if logs.size < 2:
        return unjudged(METHOD, rule, 1, "One pair of blocks shows no noise: measure more.", ratio_of(logs[0]))
    spread = spread_of(logs, _CUT, _LEAST_TO_CUT)
    return _compared(spread, rule).because(*_reasons(a, b, spread, rule))


def _problem(a: NDArray[np.float64], b: NDArray[np.float64]) -> str | None:
    if a.ndim != 1 or a.shape != b.shape:
        return f"Blocks come in pairs: {a.size} of the baseline do not fit {b.size} of the candidate."
    if not a.size:
        return "No block was measured."
    wrong = unusable(a) + unusable(b)
    return f"{wrong} of {2 * a.size} block times are no times: NaN, infinite, zero or negative." if wrong else None


def _compared(spread: Spread, rule: Rule) -> Compared:
    if spread.sd == 0:
        return noiseless(METHOD, rule, spread.n, ratio_of(spread.mean))
    error, freedom, margin = spread.sd / math.sqrt(spread.n), spread.n - 1, math.log1p(rule.margin)
    half = half_width(error, freedom, rule.alpha)
    return Compared(
        method=METHOD,
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
