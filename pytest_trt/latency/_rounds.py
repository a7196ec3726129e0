"""Rounds: two engines in turns, ABBA, so that what drifts drifts under both; opened anew for every round."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pytest_trt.backends.cuda import allocate
from pytest_trt.errors import BackendError
from pytest_trt.latency._timing import choose_inferences, samples_lasting, warm_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pytest_trt.backends.stopwatch import Stopwatch

__all__ = ["Design", "Rounds", "in_rounds", "interleave", "trimmed_mean"]

_COARSE = 1e-3  # of a sample: a tenth of the margin that a gate usually grants
_FEWEST = 5
_TRIMMED = 0.1


@dataclass(frozen=True)
class Design:
    """How two engines take turns.

    Attributes:
        pairs: blocks of each.
        block_s: seconds that one block takes about.
        least: samples in a block at the least.
        most_s: seconds that all blocks take about, at the most: slow engines get fewer samples, five at the least.
        warmup_s: seconds of inferences of each before the first block.
        sample_s: seconds that one sample takes at the least.
    """

    pairs: int = 10
    block_s: float = 0.05
    least: int = 40
    most_s: float = 20.0
    warmup_s: float = 0.2
    sample_s: float = 200e-6


@dataclass(frozen=True)
class Blocks:
    """One figure a block, in seconds an inference; blocks of the same index were neighbours.

    Attributes:
        baseline: of the engine that was there before, float64[pairs].
        candidate: of the engine under test, float64[pairs].
        per_block: samples in a block.
        inferences: back to back in one sample, of both engines.
        centre: what stands for a block: its median, or its 10 %-trimmed mean where the clock's step is coarse.
        wall_s: seconds that all of it took, the warm-up too.
    """

    baseline: NDArray[np.float64]
    candidate: NDArray[np.float64]
    per_block: int
    inferences: int
    centre: Literal["median", "trimmed mean"]
    wall_s: float


def interleave(
    baseline: Stopwatch,
    candidate: Stopwatch,
    design: Design | None = None,
    inferences: int | None = None,
    *,
    clock: Callable[[], float] = perf_counter,
) -> Blocks:
    """Blocks of two engines in turns: baseline, candidate, candidate, baseline, baseline ...

    Args:
        baseline: the engine that was there before.
        candidate: the engine under test.
        design: how many blocks, and how long.
        inferences: back to back in one sample; chosen for the faster engine where it is None.
        clock: of the host, seconds.

    Raises:
        BackendError: one of them fails.
    """
    design, started = design or Design(), clock()
    both = (baseline, candidate)
    seconds = [warm_up(stopwatch, design.warmup_s, clock) for stopwatch in both]
    inferences = inferences or max(
        choose_inferences(stopwatch, design.sample_s, took) for stopwatch, took in zip(both, seconds, strict=True)
    )
    per_block = _samples_in_block(both, design, inferences, seconds, clock)
    laps: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
    for pair in range(design.pairs):
        for side in (0, 1) if pair % 2 == 0 else (1, 0):
            laps[side].append(both[side].lap(per_block, inferences).latency)
    coarse = _step(np.concatenate([*laps[0], *laps[1]])) > _COARSE
    centre = trimmed_mean if coarse else np.median
    first, second = (np.array([float(centre(block)) for block in blocks]) for blocks in laps)
    name: Literal["median", "trimmed mean"] = "trimmed mean" if coarse else "median"
    return Blocks(first, second, per_block, inferences, name, clock() - started)


def trimmed_mean(values: NDArray[np.float64]) -> float:
    """The mean of what is left when a tenth is cut off at either end."""
    cut = int(len(values) * _TRIMMED)
    return float(np.sort(values)[cut : len(values) - cut].mean())


def _samples_in_block(
    both: tuple[Stopwatch, Stopwatch],
    design: Design,
    inferences: int,
    seconds: list[float],
    clock: Callable[[], float],
) -> int:
    """The same for both engines: those of the slower one's block."""

    def lasting(wanted: float) -> int:
        return min(
            samples_lasting(stopwatch, wanted, inferences, took, clock)
            for stopwatch, took in zip(both, seconds, strict=True)
        )

    at_most = lasting(design.most_s / (2 * design.pairs))
    return max(_FEWEST, min(max(design.least, lasting(design.block_s)), at_most))


def _step(samples: NDArray[np.float64]) -> float:
    """The least difference of two samples, as a share of their median: how finely the clock tells."""
    middle = np.median(samples)
    if not middle > 0:
        return 0.0
    values = np.unique(np.round(samples / middle, 6))
    return float(np.diff(values).min()) if len(values) > 1 else 0.0


_BLOCKS = 2  # of each engine in a round: A B B A
_WARM_S = 0.03  # the GPU's clocks are up already
_PAGE = 2 << 20
_MOST_PAGES = 32


@dataclass(frozen=True)
class Rounds:
    """How to open both engines anew.

    Attributes:
        baseline: opens the engine that was there before.
        candidate: opens the engine under test.
    """

    baseline: Callable[[], Stopwatch]
    candidate: Callable[[], Stopwatch]


def in_rounds(
    rounds: Rounds,
    design: Design,
    inferences: int | None = None,
    *,
    seed: int = 0,
    clock: Callable[[], float] = perf_counter,
) -> Blocks:
    """One figure a round and engine: the geometric mean of its two blocks.

    Args:
        rounds: the engines.
        design: ``pairs`` is the number of rounds.
        inferences: back to back in one sample; chosen in the first round where it is None.
        seed: of the gaps in memory that move what is opened from round to round.
        clock: of the host, seconds.

    Raises:
        BackendError: one of them can't be opened, or fails.
    """
    started, draw = clock(), np.random.default_rng(seed)
    within = replace(design, pairs=_BLOCKS, most_s=design.most_s / design.pairs)
    found: list[Blocks] = []
    for number in range(design.pairs):
        held = [_gap(draw)]  # noqa: F841 - memory that lies between, for this round
        # who is opened first changes too: what comes first takes the place that was free before
        first, second = (rounds.baseline, rounds.candidate) if number % 2 == 0 else (rounds.candidate, rounds.baseline)
        opened = first(), second()
        baseline, candidate = opened if number % 2 == 0 else opened[::-1]
        blocks = interleave(baseline, candidate, within, inferences, clock=clock)
        found.append(blocks)
        inferences, within = blocks.inferences, replace(within, warmup_s=min(within.warmup_s, _WARM_S))
    return replace(
        found[0],
        baseline=np.array([_centre(blocks.baseline) for blocks in found]),
        candidate=np.array([_centre(blocks.candidate) for blocks in found]),
        wall_s=clock() - started,
    )


def _centre(blocks: Any) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):  # what is no time stays none, and the gate says so
        return float(np.exp(np.mean(np.log(blocks))))


def _gap(draw: np.random.Generator) -> object:
    """Some memory on the GPU that nobody uses, where CUDA can be called; None elsewhere."""
    pages = int(draw.integers(1, _MOST_PAGES + 1))
    try:
        return allocate((pages * _PAGE,), np.dtype(np.uint8))
    except BackendError:
        return None
