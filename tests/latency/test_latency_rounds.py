"""Rounds: both engines are opened anew for each, since where they lie makes them faster or slower."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes.stopwatches import Clockwork

from pytest_trt.latency._decision import Suite, decide
from pytest_trt.latency._intervals import paired
from pytest_trt.latency._rounds import Design, Rounds, in_rounds, interleave
from pytest_trt.latency.rule import Rule, State

DESIGN = Design(pairs=10, block_s=0.001, warmup_s=0.0, least=10)
RULE = Rule()


class Lying:
    """Opens an engine whose place in memory makes it faster or slower, by 1 % as a standard deviation."""

    def __init__(self, seconds: float, seed: int, log: list[str] | None = None, name: str = "") -> None:
        self.seconds, self.log, self.name = seconds, log, name
        self.draw = np.random.default_rng(seed)

    def __call__(self) -> Clockwork:
        if self.log is not None:
            self.log.append(self.name)
        seconds = self.seconds * float(np.exp(0.01 * self.draw.standard_normal()))
        return Clockwork(seconds, noise=0.001, seed=int(self.draw.integers(1 << 30)))


def state_of(seed: int, seconds: float) -> State:
    rounds = Rounds(Lying(1e-3, 2 * seed), Lying(seconds, 2 * seed + 1))
    blocks = in_rounds(rounds, DESIGN, 1)
    compared = paired(blocks.baseline, blocks.candidate, RULE)
    return decide(compared, RULE, rejected=Suite(RULE).add("case", compared))[0]


def test_each_round_opens_both_anew_and_the_other_first() -> None:
    log: list[str] = []

    in_rounds(Rounds(Lying(1e-3, 0, log, "baseline"), Lying(1e-3, 1, log, "candidate")), replace(DESIGN, pairs=3), 1)

    assert log == ["baseline", "candidate", "candidate", "baseline", "baseline", "candidate"]


def test_one_figure_a_round_is_the_geometric_mean_of_its_blocks() -> None:
    steady = Rounds(lambda: Clockwork(2e-3, noise=0), lambda: Clockwork(1e-3, noise=0))

    blocks = in_rounds(steady, replace(DESIGN, pairs=4), 1)

    assert blocks.baseline == pytest.approx([2e-3] * 4)
    assert blocks.candidate == pytest.approx([1e-3] * 4)


def test_an_engine_is_not_called_slower_or_faster_for_where_it_lies() -> None:
    states = [state_of(seed, 1e-3) for seed in range(60)]

    assert State.SLOW not in states
    assert State.FAST not in states


def test_a_slowdown_is_found_wherever_the_engines_lie() -> None:
    assert sum(state_of(seed, 1.05e-3) is State.SLOW for seed in range(60)) >= 54


def test_opened_once_an_engine_would_be_called_slower_for_where_it_lies() -> None:
    """The fault that rounds exist for: side by side the difference is as plain as a real one."""
    rule = replace(RULE, threshold=0.015)
    blocks = interleave(Clockwork(1e-3, noise=0.001), Clockwork(1.02e-3, noise=0.001, seed=1), DESIGN, 1)
    compared = paired(blocks.baseline, blocks.candidate, rule)

    assert decide(compared, rule, rejected=Suite(rule).add("case", compared))[0] is State.SLOW
