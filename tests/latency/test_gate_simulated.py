"""The promises of the latency gate on simulated noise, as benchmarks/gate.py measures them with many more trials."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.gate import (
    AMONG,
    Noise,
    bars,
    history,
    interleaved,
    measure,
    sessions,
    states_history,
    states_interleaved,
    stepping,
    suites_interleaved,
)

HARDEST = Noise(sigma=0.10, tau=0.03)


@pytest.fixture(scope="module")
def blocks() -> dict[str, Any]:
    return interleaved(HARDEST, trials=300, seed=1)


@pytest.fixture(scope="module")
def runs() -> dict[str, Any]:
    return history(Noise(sigma=0.05, tau=0.01), trials=300, seed=1)


def test_twenty_pairs_find_five_percent_in_the_hardest_noise_and_alarm_for_nothing_hardly_ever(
    blocks: dict[str, Any],
) -> None:
    assert blocks["false 20"] <= 1
    assert blocks["power 20"] >= 95
    assert blocks["power 20 of 50"] >= 88


def test_a_design_that_grows_as_the_noise_asks_is_as_good_and_takes_fewer_pairs(blocks: dict[str, Any]) -> None:
    assert blocks["false growing"] <= 1
    assert blocks["power growing"] >= 90
    assert blocks["power growing of 50"] >= 88
    assert blocks["false growing pairs"] < 20


def test_fixed_percents_are_a_coin_toss_at_five_percent(blocks: dict[str, Any]) -> None:
    assert all(35 < power < 65 for power in blocks["power pytest-benchmark"].values())
    assert blocks["false pytest-benchmark"]["min:5%"] > 5


def test_disturbed_blocks_alarm_for_nothing_no_more_often() -> None:
    row = interleaved(Noise(sigma=0.05, tau=0.02, disturbed=0.05), trials=300, seed=2)
    assert row["false 20"] <= 1
    assert row["power 20"] >= 90


def test_fifty_cases_that_did_not_change_do_not_alarm() -> None:
    told = suites_interleaved(HARDEST, count=10, seed=1)
    assert told["false slow"] == told["false beside it"] == 0
    assert told["found"] >= 70


def test_a_history_at_one_percent_drift_finds_five_percent_and_alarms_for_nothing_rarely(runs: dict[str, Any]) -> None:
    assert runs["false 20 runs"] <= 2.7
    assert runs["power 20 runs"] >= 90
    assert runs["false again here"] <= runs["false 20 runs"]
    assert runs["false again elsewhere"] <= 0.7
    assert runs["power again elsewhere"] >= 92


def test_one_run_is_no_history_to_find_five_percent_with(runs: dict[str, Any]) -> None:
    assert runs["false 1 runs"] <= 1
    assert runs["power 1 runs"] < 60


def test_what_is_five_percent_slower_is_hardly_ever_called_the_same_and_what_is_the_same_mostly_is() -> None:
    told = [
        states_interleaved(HARDEST, trials=200, seed=1, rule=AMONG),
        *(states_history(Noise(sigma=0.05, tau=tau), trials=200, seed=1, rule=AMONG) for tau in (0.01, 0.02)),
    ]
    assert all(row["slower same"] <= 10 for row in told)
    assert told[0]["unchanged same"] >= 85
    assert told[1]["unchanged same"] >= 85


def test_steps_are_found_and_bad_runs_are_none() -> None:
    row = stepping(Noise(sigma=0.05, tau=0.01), trials=60, seed=1)
    bad = stepping(Noise(sigma=0.05, tau=0.01, disturbed=0.05), trials=60, seed=1)
    assert row["false"] <= 2
    assert bad["false"] <= 5
    assert row["found, 5 runs behind it"] >= 90


def test_the_simulated_engines_differ_by_what_the_model_says() -> None:
    quiet = Noise(sigma=0.05, tau=0.0)
    logs = np.median(sessions(np.random.default_rng(0), quiet, 400, 20), axis=-1)
    assert np.std((logs[1] - logs[0]).mean(axis=1)) == pytest.approx(
        np.hypot(0.003, 1.25 * 0.05 / np.sqrt(400)), rel=0.2
    )


def test_a_missed_bar_is_told() -> None:
    document = measure(trials=10, seed=0)
    assert len(bars(document)) == 6
    document["interleaved"][0]["false 20"] = 3.0
    assert ("false alarms a case, interleaved", 1.0, 3.0, False) in bars(document)
