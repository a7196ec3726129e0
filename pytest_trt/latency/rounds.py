"""Rounds: two engines in turns, each opened anew for every round.

Where an engine's weights and buffers happen to lie on the GPU makes it faster or slower for as long as they lie there:
one plan, loaded twice, differed from itself by up to 2.4 % on an H100, and by 1 % as a standard deviation, while its
blocks side by side scattered by 0.02 %. So the round is the unit, and not the block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import BackendError
from pytest_trt.latency.interleaved import Blocks, interleave

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_trt.latency.interleaved import Design
    from pytest_trt.latency.stopwatch import Stopwatch

__all__ = ["Rounds", "in_rounds"]

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
        from pytest_trt.backends.cuda import allocate

        return allocate((pages * _PAGE,), np.dtype(np.uint8))
    except BackendError:
        return None
