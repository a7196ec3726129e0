"""The latency gate beside the history of saved runs, and beside the plan or model that was kept."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from fakes.tensorrt import install
from timed import GATE, promote, results

from pytest_trt.latency import check as keeper
from pytest_trt.latency._machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("quiet")


# --- beside the history


def saved_again(pytester: pytest.Pytester, values: list[float]) -> None:
    """Copies of the promoted run, a minute later each, with these medians."""
    [first] = pytester.path.glob(".benchmarks/*/0001_trt.json")
    told = json.loads(first.read_text())
    start = datetime.fromisoformat(told["datetime"])
    for number, value in enumerate(values, 2):
        told["datetime"] = (start + timedelta(minutes=number)).isoformat()
        told["benchmarks"][0]["stats"]["median"] = value
        first.with_name(f"{number:04}_trt.json").write_text(json.dumps(told))


NO_STORE = (*GATE, "--trt-store=none", "--trt-report=run.json")
NEAR = [1e-3 * (1 + 0.001 * step) for step in (-3, 2, -1, 4, -2, 0, 3, -4, 1, 2, -1, 0, 3, -2, 1, -3, 2, 0, -1, 1)]


def test_beside_five_runs_an_engine_as_fast_is_the_same_and_a_slower_one_slow(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)
    saved_again(pytester, NEAR[:5])

    pytester.runpytest(*NO_STORE).assert_outcomes(passed=1)
    assert results(pytester.path / "run.json")[0]["latency"]["comparison"]["method"] == "history"
    engine(1.06e-3)
    result = pytester.runpytest(*NO_STORE)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TRT601 error: *slower than the baseline*"])


@pytest.mark.parametrize(("seconds", "state"), [(1e-3, "ambiguous"), (1.04e-3, "ambiguous"), (1.2e-3, "slow")])
def test_beside_the_promoted_run_alone_only_a_large_change_is_told(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None], seconds: float, state: str
) -> None:
    promote(pytester)
    engine(seconds)

    pytester.runpytest(*NO_STORE).assert_outcomes(failed=1)

    assert results(pytester.path / "run.json")[0]["latency"]["state"] == state


def test_slow_runs_that_were_only_recorded_do_not_become_the_baseline(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)
    saved_again(pytester, [1.1 * value for value in NEAR])
    engine(1.1e-3)

    result = pytester.runpytest(*NO_STORE)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TRT601 error: Like its 20 runs since, which crept away from the promoted one: *"])


def test_a_baseline_of_another_metric_is_not_compared_with_its_history(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)
    [path] = pytester.path.glob("baseline/*/*.json")
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "metric": {**told["metric"], "transfers": True}}))

    result = pytester.runpytest(*NO_STORE)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TRT604 error: The baseline was timed otherwise: transfers True and now False*"])


def test_an_environment_that_made_both_slower_is_slow_and_named(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(pytester)
    saved_again(pytester, NEAR[:6])
    engine(1.1e-3, baseline=1.1e-3)
    monkeypatch.setattr(keeper, "machine_of", lambda _: Machine({"gpu": "one"}, {"driver": "2"}))

    result = pytester.runpytest(*GATE, "--trt-report=run.json")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TRT601 error: As fast as the baseline side by side*driver: 1, now 2*"])
    assert results(pytester.path / "run.json")[0]["latency"]["comparison"]["method"] == "history"


def test_a_store_that_is_gone_or_damaged_leaves_the_history(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)
    saved_again(pytester, NEAR[:5])
    for path in (pytester.path / "store" / "latency").glob("*.plan"):
        path.chmod(0o600)
        path.write_bytes(b"damaged")

    pytester.runpytest(*GATE, "--trt-report=run.json").assert_outcomes(passed=1)

    latency = results(pytester.path / "run.json")[0]["latency"]
    assert latency["comparison"]["method"] == "history"


# --- beside the kept plan


@pytest.mark.parametrize(("kept", "method"), [("plan", "plan"), ("onnx", "onnx")])
def test_an_engine_is_compared_with_the_kept_plan_else_with_the_kept_model(
    pytester: pytest.Pytester,
    golden: Path,
    engine: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    kept: str,
    method: str,
) -> None:
    install(monkeypatch, "10.16")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--trt-backend=tensorrt")
    promote(pytester)
    [path] = pytester.path.glob("baseline/*/*.json")
    told = json.loads(path.read_text())
    assert sorted(told["kept"]) == ["onnx", "plan"]
    path.write_text(json.dumps({**told, "kept": {"plan": None, "onnx": None, kept: told["kept"][kept]}}))
    engine(1.06e-3)

    pytester.runpytest(*GATE, "--trt-report=run.json").assert_outcomes(failed=1)

    latency = results(pytester.path / "run.json")[0]["latency"]
    assert (latency["state"], latency["comparison"]["method"]) == ("slow", method)
