from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pytest_trt.errors import BackendError
from pytest_trt.latency.runs import changes


def runs(count: int = 30, noise: float = 0.005, seed: int = 0) -> np.ndarray:
    return 1e-3 * np.exp(noise * np.random.default_rng(seed).normal(size=count))


def stepped(at: int, ratio: float, **words: Any) -> np.ndarray:
    values = runs(**words)
    values[at:] *= ratio
    return values


@pytest.mark.parametrize("ratio", [1.05, 1 / 1.05, 1.5])
def test_a_step_is_found_where_it_is_and_as_large_as_it_is(ratio: float) -> None:
    [found] = changes(stepped(20, ratio))
    assert found.index == 20
    assert found.ratio == pytest.approx(ratio, rel=0.01)
    assert found.p < 0.001


def test_two_steps_are_two() -> None:
    values = stepped(10, 1.06)
    values[20:] *= 1.06
    assert [one.index for one in changes(values)] == [10, 20]


def test_a_quiet_history_has_no_step() -> None:
    assert not any(changes(runs(seed=seed)) for seed in range(50))


@pytest.mark.parametrize("at", [0, 7, 28, 29])
def test_one_bad_run_is_no_step(at: int) -> None:
    values = runs()
    values[at] *= 1.3
    assert changes(values) == []


def test_two_bad_runs_in_a_row_are_no_step() -> None:
    values = runs()
    values[12:14] *= 1.1
    assert changes(values) == []


def test_a_bad_run_does_not_hide_a_step() -> None:
    values = stepped(20, 1.06)
    values[5] *= 1.2
    assert [one.index for one in changes(values)] == [20]


def test_the_index_counts_bad_runs_too() -> None:
    values = stepped(20, 1.06)
    values[[3, 9, 15]] *= 1.3
    assert [one.index for one in changes(values)] == [20]


def test_a_step_under_the_threshold_is_none() -> None:
    assert changes(stepped(15, 1.02, noise=0.001)) == []
    assert len(changes(stepped(15, 1.02, noise=0.001), threshold=0.01)) == 1


def test_a_step_of_identical_values_is_found() -> None:
    assert [one.index for one in changes([1e-3] * 10 + [1.1e-3] * 10)] == [10]


@pytest.mark.parametrize("values", [[], [1e-3] * 7, [1e-3] * 20, [1e-3, float("nan")] * 10, [1e-3, -1e-3] * 10])
def test_what_shows_no_step_has_none(values: list[float]) -> None:
    assert changes(values) == []


def test_without_ruptures_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ruptures", None)
    with pytest.raises(BackendError, match=r'Looking for changes needs ruptures.*"pytest-trt\[latency\]"'):
        changes(runs())
