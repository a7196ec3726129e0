"""Result: what was found of one engine's latency, and all that the record tells of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cache
from math import floor
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pytest_trt.backends.stopwatch import Samples
    from pytest_trt.case.budgets import Held
    from pytest_trt.latency._artifacts import Materials
    from pytest_trt.latency._machine import Machine
    from pytest_trt.latency._telemetry import Telemetry
    from pytest_trt.latency.baseline import Baseline, Identity
    from pytest_trt.latency.rule import Compared, State

__all__ = ["Latency", "as_info", "as_record", "figures_of", "least_samples", "percentile"]

_DOUBT = 0.01


@cache
def least_samples(percent: float) -> int:
    """How many samples a percentile above the median needs: 64 for p90, 130 for p95, 662 for p99.

    The least n of which, 99 times in 100, at least two lie above the true percentile, so that the second largest
    bounds it: q^n + n (1 - q) q^(n-1) <= 0.01 with q = percent / 100. MLPerf's early stopping has the same counts.

    Raises:
        ValueError: it is not above 50 and under 100.
    """
    if not 50 < percent < 100:
        raise ValueError(f"a percentile above the median lies between 50 and 100, not at {percent}")
    q, n = percent / 100, 2
    while q**n + n * (1 - q) * q ** (n - 1) > _DOUBT:
        n += 1
    return n


def percentile(samples: NDArray[np.float64], percent: float) -> float | None:
    """A percentile; None where there are too few samples for it.

    As trtexec has it: the median is the usual one; any other is a sample, ``sorted[n - 1 - int((1 - p) n)]``, not
    interpolated.

    Args:
        samples: float64[n], in any order.
        percent: 50 or more, less than 100.
    """
    if percent == 50:
        return float(np.median(samples)) if len(samples) else None
    if len(samples) < least_samples(percent):
        return None
    # rounded, since 0.1 of 10 is 0.99... in binary
    above = floor(round((100 - percent) / 100 * len(samples), 6))
    return float(np.sort(samples)[len(samples) - 1 - above])


_BARS = 40


@dataclass(frozen=True)
class Latency:
    """What was found of one engine's latency.

    Attributes:
        identity: what was timed.
        mode: "record" or "gate".
        state: against the baseline.
        action: what the state does to the case: "fail", "warn" or "pass".
        message: the state in a sentence, with its numbers.
        samples: what was measured.
        machine: what it was measured on.
        simulated: whether no engine was built: the time of a simulation says nothing of an engine's.
        compared: with the baseline, where it could be.
        method: how: "plan" or "onnx" (side by side with the kept one), "history".
        baseline: what it was compared with.
        past: runs of the history, the oldest first: run, when, p50_s, baseline.
        interval: where the history expects this run's median, in seconds: low and high.
        held: budgets, and what was measured for them.
        before: telemetry before timing.
        after: telemetry after timing.
        disturbances: what makes the figures doubtful, a sentence each.
        materials: what was kept of the engine.
        notes: what there is to say beside, a sentence each.
    """

    identity: Identity
    mode: str
    state: State
    action: str
    message: str
    samples: Samples
    machine: Machine
    simulated: bool
    compared: Compared | None = None
    method: str | None = None
    baseline: Baseline | None = None
    past: tuple[Mapping[str, Any], ...] = ()
    interval: tuple[float, float] | None = None
    held: tuple[Held, ...] = ()
    before: Telemetry | None = None
    after: Telemetry | None = None
    disturbances: tuple[str, ...] = ()
    materials: Materials | None = None
    notes: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[Held, ...]:
        """The budgets that were not kept, or could not be measured."""
        return tuple(one for one in self.held if not one.met)

    @property
    def fails(self) -> bool:
        """Whether the case fails for its latency."""
        return self.action == "fail" or bool(self.broken)


def figures_of(samples: Samples) -> dict[str, float | None]:
    """Plain numbers of the samples, in seconds; a percentile is None where there are too few of them."""
    latency = samples.lap.latency
    p50 = float(np.median(latency))
    return {
        "min_s": float(latency.min()),
        "p50_s": p50,
        "mean_s": float(latency.mean()),
        "stddev_s": float(latency.std(ddof=1)) if len(latency) > 1 else 0.0,
        "iqr_s": float(np.subtract(*np.quantile(latency, (0.75, 0.25)))),
        "max_s": float(latency.max()),
        "p90_s": percentile(latency, 90),
        "p95_s": percentile(latency, 95),
        "p99_s": percentile(latency, 99),
        "throughput_per_s": samples.metric.batch / p50 if p50 > 0 else None,
        "memory_bytes": samples.memory,
    }


def as_record(found: Latency) -> dict[str, Any]:
    """The record's ``latency``."""
    return {
        "mode": found.mode,
        "state": found.state.value,
        "action": found.action,
        "fails": found.fails,
        "message": found.message,
        "metric": found.samples.metric.plain,
        "samples": len(found.samples.lap.compute),
        "batch": found.samples.metric.batch,
        **figures_of(found.samples),
        "parts": _parts(found.samples),
        "histogram": _histogram(found.samples.lap.latency),
        "stopped": found.samples.stopped,
        "notes": [*found.samples.notes, *found.notes],
        "comparison": _comparison(found),
        "history": [dict(run) for run in found.past],
        "interval": {"low_s": found.interval[0], "high_s": found.interval[1]} if found.interval else None,
        "budgets": [_budget(one) for one in found.held],
        "machine": _machine(found.machine),
        "telemetry": _telemetry(found),
    }


def as_info(found: Latency, beside: Mapping[str, Any]) -> dict[str, Any]:
    """``extra_info`` of its benchmark: our own table, and flat copies of what readers of pytest-benchmark look for.

    Args:
        found: what was found.
        beside: hashes and accuracy figures of the verdict, plain.
    """
    figures = figures_of(found.samples)
    identity = asdict(found.identity)
    told = {
        "schema": 1,
        **identity,
        "simulated": found.simulated,
        "metric": found.samples.metric.plain,
        "machine": _machine(found.machine),
        "telemetry": _telemetry(found),
        **{key: figures[key] for key in ("p50_s", "p90_s", "p95_s", "p99_s", "throughput_per_s", "memory_bytes")},
        "parts": _parts(found.samples),
        "notes": [*found.samples.notes, *found.notes],
        "stopped": found.samples.stopped,
        "state": found.state.value,
        "kept": {"plan": found.materials.plan, "onnx": found.materials.onnx} if found.materials else {},
        **beside,
    }
    flat = (
        "precision",
        "backend",
        "simulated",
        "p90_s",
        "p95_s",
        "p99_s",
        "throughput_per_s",
        "plan_sha256",
        "rel_rms",
    )
    return {"trt": told, **{key: told[key] for key in flat if told.get(key) is not None}}


def _parts(samples: Samples) -> dict[str, float | None]:
    lap = samples.lap
    parts = {"compute_s": lap.compute, "h2d_s": lap.h2d, "d2h_s": lap.d2h, "enqueue_s": lap.enqueue}
    return {name: None if part is None else float(np.median(part)) for name, part in parts.items()}


def _histogram(latency: NDArray[np.float64]) -> dict[str, list[float]]:
    """Up to the 99.5th percentile, where all but the last stragglers are; those count in the last bar."""
    top = float(np.quantile(latency, 0.995))
    counts, edges = np.histogram(np.minimum(latency, top), bins=min(_BARS, max(len(latency) // 4, 1)))
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _comparison(found: Latency) -> dict[str, Any] | None:
    compared = found.compared
    if compared is None:
        return None
    plain = {key: _plain(value) for key, value in asdict(compared).items()}
    return {**plain, "method": found.method, "baseline": found.baseline.run if found.baseline else None}


def _budget(one: Held) -> dict[str, Any]:
    actual = None if one.actual is None else _plain(one.actual)
    return {
        "budget": one.budget.name,
        "limit": one.budget.limit,
        "actual": actual,
        "met": one.met,
        "message": "" if one.met else one.sentence,
    }


def _machine(machine: Machine) -> dict[str, Any]:
    return {
        "key": machine.key,
        "hard": dict(machine.hard),
        "soft": dict(machine.soft),
        "record": dict(machine.record),
    }


def _telemetry(found: Latency) -> dict[str, Any]:
    return {
        "before": asdict(found.before) if found.before else None,
        "after": asdict(found.after) if found.after else None,
        "disturbances": list(found.disturbances),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value
