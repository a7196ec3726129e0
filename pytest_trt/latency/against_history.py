"""Against a history: one run's latency beside those of earlier runs, where the baseline itself can't be run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_trt.latency.compared import Compared, noiseless, unjudged
from pytest_trt.latency.spread import Spread, effect, half_width, ratio_of, spread_of, tail, unseen, unusable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from pytest_trt.latency.compared import Rule

__all__ = ["METHOD", "against_history", "suspect"]

METHOD = "history"
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
    problem = _problem(values, earlier)
    if problem:
        return unjudged(METHOD, rule, int(earlier.size), problem)
    changes = np.log(values)
    if earlier.size == 1:
        return _against_one(changes - math.log(earlier[0]), rule, tau or 0.0, own_process)
    spread = spread_of(np.log(earlier), _CUT, _LEAST_TO_CUT)
    return _against_runs(changes - spread.mean, spread, rule, own_process)


def _problem(values: NDArray[np.float64], earlier: NDArray[np.float64]) -> str | None:
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
        return unjudged(METHOD, rule, spread.n, reason, ratio)
    return noiseless(METHOD, rule, spread.n, ratio)


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
        method=METHOD,
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
