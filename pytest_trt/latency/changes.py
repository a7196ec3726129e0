"""Changes: where the latency of a case stepped up or down over its history, and stayed there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_trt.latency.extra import imported
from pytest_trt.latency.spread import tail, unusable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["LEAST_RUNS", "Change", "changes"]

LEAST_RUNS = 8
"""Fewer runs than this are not searched."""

_SEGMENT = 3  # runs on each side of a step: one bad run, or two, is no change
_PENALTY = 4.0
_P = 0.001
_BAD = 4.0  # standard deviations that a run alone is away from the runs before it and from those behind it
_LEAST_NOISE = 1e-3


@dataclass(frozen=True)
class Change:
    """A step.

    Attributes:
        index: of the first run behind it.
        ratio: level behind it over the level before it.
        p: of the two levels being one, by a t test of the runs on both sides.
    """

    index: int
    ratio: float
    p: float


def changes(values: ArrayLike, threshold: float = 0.025) -> list[Change]:
    """Find the steps of a history, in order of time.

    The logarithms are cut into levels by PELT (squared error, penalty 4 ln(n) s^2; Killick et al. 2012), runs that
    stand alone left out; a step counts if both its levels hold three runs, a t test tells them apart and they differ by
    more than the threshold. The newest runs can't be judged so: that is the gate's work.

    Args:
        values: p50 of each run in seconds, float64[n], in order of time.
        threshold: share that levels differ by.

    Raises:
        BackendError: ruptures or scipy is not installed.
    """
    import numpy as np

    times = np.atleast_1d(np.asarray(values, dtype=np.float64)).ravel()
    if times.size < LEAST_RUNS or unusable(times):
        return []
    logs = np.log(times)
    noise = _noise(logs)
    kept = np.flatnonzero(~_alone(logs, noise))
    if kept.size < LEAST_RUNS:
        return []
    cuts = _told_apart(logs[kept], _pelt(logs[kept], noise), math.log1p(threshold))
    return [Change(int(kept[at]), math.exp(step), p) for at, step, p in cuts]


def _noise(logs: NDArray[np.float64]) -> float:
    """Standard deviation from one run to the next, which no step and few bad runs change much."""
    import numpy as np

    return max(1.4826 * float(np.median(np.abs(np.diff(logs)))) / math.sqrt(2), _LEAST_NOISE)


def _alone(logs: NDArray[np.float64], noise: float) -> NDArray[np.bool_]:
    """Which runs are far from those before and from those behind: a bad run, and not the first behind a step."""
    import numpy as np

    def near(at: int) -> float:
        sides = [logs[max(at - _SEGMENT, 0) : at], logs[at + 1 : at + 1 + _SEGMENT]]
        return min(abs(float(logs[at] - np.median(side))) for side in sides if side.size)

    return np.asarray([near(at) > _BAD * noise for at in range(logs.size)])


def _pelt(logs: NDArray[np.float64], noise: float) -> list[int]:
    pelt = imported("ruptures", "Looking for changes").KernelCPD(kernel="linear", min_size=_SEGMENT)
    found = pelt.fit(logs).predict(pen=_PENALTY * math.log(logs.size) * noise**2)
    return [int(cut) for cut in found[:-1]]


def _told_apart(logs: NDArray[np.float64], cuts: list[int], least: float) -> list[tuple[int, float, float]]:
    """Steps that count: the weakest is taken back, and its two levels are one, until all others do."""
    while cuts:
        edges = [0, *cuts, logs.size]
        steps = [_step(logs[edges[i] : cut], logs[cut : edges[i + 2]]) for i, cut in enumerate(cuts)]
        weak = [i for i, (step, p) in enumerate(steps) if p > _P or abs(step) <= least]
        if not weak:
            return [(cut, *step) for cut, step in zip(cuts, steps, strict=True)]
        del cuts[min(weak, key=lambda i: abs(steps[i][0]))]
    return []


def _step(before: NDArray[np.float64], behind: NDArray[np.float64]) -> tuple[float, float]:
    """The difference of both means, and the two-sided p of Student's t test with one variance for both."""
    step, freedom = float(behind.mean() - before.mean()), before.size + behind.size - 2
    squares = float(((before - before.mean()) ** 2).sum() + ((behind - behind.mean()) ** 2).sum())
    error = math.sqrt(max(squares / freedom, _LEAST_NOISE**2) * (1 / before.size + 1 / behind.size))
    return step, 2 * tail(abs(step) / error, freedom)
