"""Timing: from a stopwatch to samples - warm up, choose what one sample is, and stop when more would tell no more."""

from __future__ import annotations

from itertools import count
from math import ceil, log2, sqrt
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from pytest_trt.backends.stopwatch import Lap, Metric, Samples
from pytest_trt.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pytest_trt.backends.stopwatch import Stopwatch, Timing

__all__ = ["choose_inferences", "measure", "samples_lasting", "stable", "warm_up"]

_BLOCKS = 20  # that least_s is cut into
_LEAST_BLOCKS = 10
_STANDARD_ERROR = 0.0025  # of the median, relative: a tenth of the slowdown that a gate should see
_MOST_ERROR = 0.01  # of a median whose noise is known
_WINDOW = 8  # estimates of the noise that are compared with each other
_NOISE_SPREAD = 0.05
_MOST_INFERENCES = 1024
_MOST_BLOCKS = 512  # that are looked at
_TRIAL = 9  # samples
_HOST_LIMIT = 0.8
_UNSTEADY = 0.025


def measure(
    stopwatch: Stopwatch,
    timing: Timing,
    inferences: int | None = None,
    *,
    clock: Callable[[], float] = perf_counter,
) -> Samples:
    """Samples of an engine, warmed up, until they are stable or the time is over.

    Args:
        stopwatch: of the engine.
        timing: how long, and how many.
        inferences: back to back in one sample; chosen where it is None.
        clock: of the host, seconds.

    Raises:
        BackendError: running fails, or the clock tells what is no time.
    """
    started = clock()
    seconds = warm_up(stopwatch, timing.warmup_s, clock)
    inferences = inferences or choose_inferences(stopwatch, timing.sample_s, seconds)
    per_block = samples_lasting(stopwatch, timing.least_s / _BLOCKS, inferences, seconds, clock)
    warmed = clock()
    laps, settled = _sampled(stopwatch, timing, inferences, min(per_block, timing.most), clock)
    whole = _joined(laps)
    _require_times(whole.latency, stopwatch)
    lap = _thinned(whole, timing.most)
    return Samples(
        metric=metric_of(stopwatch, inferences),
        lap=lap,
        warmup_s=warmed - started,
        wall_s=clock() - started,
        stopped="stable" if settled else "time",
        memory=stopwatch.memory,
        notes=(*stopwatch.notes, *_doubts(whole, stopwatch)),
    )


def metric_of(stopwatch: Stopwatch, inferences: int) -> Metric:
    """What one sample of a stopwatch is."""
    return Metric(
        clock=stopwatch.clock,
        graph=stopwatch.graph,
        spin=stopwatch.spin,
        transfers=stopwatch.transfers,
        inferences=inferences,
        batch=stopwatch.batch,
        shapes=dict(stopwatch.shapes),
    )


def warm_up(stopwatch: Stopwatch, seconds: float, clock: Callable[[], float] = perf_counter) -> float:
    """Run for so long, once at the least: clocks rise, caches fill, lazy code is loaded.

    Returns:
        Seconds of the host that an inference took in the end.
    """
    end = clock() + seconds
    for number in count():
        inferences, before = min(1 << number, 64), clock()
        stopwatch.lap(inferences, 1)
        now = clock()
        if now >= end:
            break
    return (now - before) / inferences


def choose_inferences(stopwatch: Stopwatch, sample_s: float, seconds: float) -> int:
    """How many inferences, a power of two, make a sample last: clocks are coarse, and reading them takes time itself.

    Args:
        stopwatch: which tries.
        sample_s: seconds that a sample should last.
        seconds: of the host that an inference takes about.
    """
    inferences, samples = 1, _TRIAL if seconds < 10 * sample_s else 1
    while inferences < _MOST_INFERENCES:
        took = float(np.median(stopwatch.lap(samples, inferences).compute)) * inferences
        if took >= sample_s:
            break
        inferences *= 1 << max(1, ceil(log2(sample_s / took))) if took > 0 else 2
    return min(inferences, _MOST_INFERENCES)


def samples_lasting(
    stopwatch: Stopwatch, wanted: float, inferences: int, seconds: float, clock: Callable[[], float]
) -> int:
    """How many samples last so many seconds of the host, one at the least."""
    if inferences > 1:
        before = clock()
        stopwatch.lap(_TRIAL, inferences)
        seconds = (clock() - before) / _TRIAL / inferences
    return max(1, round(wanted / max(seconds * inferences, 1e-9)))


def stable(medians: Sequence[float]) -> bool:
    """Whether more blocks would change little: the median is known, or nearly, and so is its noise.

    The noise is the blocks' interquartile range as a standard deviation (IQR / 1.349), over their median; the standard
    error of the median of n blocks is 1.253 noise / sqrt(n). 0.25 % is small enough. Up to 1 % is taken where the
    noise is known, its last estimates being within 5 % of each other (as nvbench has it).
    """
    if len(medians) < _LEAST_BLOCKS:
        return False
    error = 1.253 * _noise(medians) / sqrt(len(medians))
    if error <= _STANDARD_ERROR:
        return True
    if error > _MOST_ERROR or len(medians) < 2 * _WINDOW:
        return False
    recent = [_noise(medians[:end]) for end in range(len(medians) - _WINDOW + 1, len(medians) + 1)]
    return float(np.std(recent)) <= _NOISE_SPREAD * float(np.mean(recent))


def _noise(medians: Sequence[float]) -> float:
    if not np.isfinite(medians).all():
        return 0.0
    low, middle, high = np.quantile(medians, (0.25, 0.5, 0.75))
    return float((high - low) / 1.349 / middle) if middle > 0 else 0.0


def _sampled(
    stopwatch: Stopwatch, timing: Timing, inferences: int, per_block: int, clock: Callable[[], float]
) -> tuple[list[Lap], bool]:
    """Laps of one block each, and whether they are stable."""
    laps: list[Lap] = []
    started = clock()
    while True:
        laps.append(stopwatch.lap(per_block, inferences))
        seconds = clock() - started
        enough = seconds >= timing.least_s and len(laps) * per_block >= timing.least
        if enough and stable([float(np.median(lap.latency)) for lap in laps[-_MOST_BLOCKS:]]):
            return laps, True
        if seconds >= timing.most_s:
            return laps, False


def _joined(laps: list[Lap]) -> Lap:
    def whole(parts: list[NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
        found = [part for part in parts if part is not None]
        return np.concatenate(found) if found else None

    return Lap(
        np.concatenate([lap.compute for lap in laps]),
        whole([lap.h2d for lap in laps]),
        whole([lap.d2h for lap in laps]),
        whole([lap.enqueue for lap in laps]),
    )


def _require_times(latency: NDArray[np.float64], stopwatch: Stopwatch) -> None:
    """A few zeros are a coarse clock; more of them, or anything negative or not finite, is a broken one."""
    wrong = int(np.sum(~(np.isfinite(latency) & (latency >= 0))))
    if wrong or not float(np.median(latency)) > 0:
        raise BackendError(
            f"the clock {stopwatch.clock} told {wrong or int(np.sum(latency == 0))} of {len(latency)} samples that are"
            " no times (NaN, infinite, negative or zero): nothing can be said of this engine's latency."
        )


def _thinned(lap: Lap, most: int) -> Lap:
    """Every second, third ... sample, where there are more than are kept: all of the time stays represented."""
    step = ceil(len(lap.compute) / most)
    parts = (lap.compute, lap.h2d, lap.d2h, lap.enqueue)
    compute, h2d, d2h, enqueue = (part if part is None else part[::step] for part in parts)
    assert compute is not None
    return Lap(compute, h2d, d2h, enqueue)


def _doubts(lap: Lap, stopwatch: Stopwatch) -> tuple[str, ...]:
    """What trtexec warns of too."""
    found = []
    compute = float(np.median(lap.compute))
    if lap.enqueue is not None and float(np.median(lap.enqueue)) > _HOST_LIMIT * compute:
        found.append(
            f"the host takes {np.median(lap.enqueue) * 1e6:.0f} us to hand an inference over, of"
            f" {compute * 1e6:.0f} us: it may be the limit, and not the GPU"
            f"{'' if stopwatch.graph else '; a CUDA graph would take it out'}."
        )
    spread = float(np.std(lap.compute) / np.mean(lap.compute))
    if spread > _UNSTEADY and stopwatch.clock == "cuda_event":
        found.append(
            f"the GPU's time varies by {spread:.1%} (coefficient of variation): lock its clocks, as with"
            " nvidia-smi --lock-gpu-clocks, or keep other work away."
        )
    for name, part in (("to the GPU", lap.h2d), ("back", lap.d2h)):
        if part is not None and float(np.median(part)) >= compute:
            found.append(f"copying {name} takes {np.median(part) * 1e6:.0f} us, no less than computing does.")
    return tuple(found)
