"""What becomes a baseline, and what does not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from fakes.saved_runs import benchmark, save
from fakes.saved_runs import table as plain

from pytest_trt.cli.main import main
from pytest_trt.errors import DataError
from pytest_trt.latency.baseline import read_baseline, read_baselines

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

KEY = "0123456789abcdef"
FILE = "net.int8.tensorrt.json"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(case: str = "net", **words: Any) -> dict[str, Any]:
    machine = {"key": KEY, "hard": {"gpu": "one"}, "soft": {"driver": "1"}}
    return {**plain(case, machine=machine, verdict="passed"), **words}


def promote(run: str, *words: str) -> Result:
    command = ["baseline", "promote", run, "--store", "store", *words]
    return CliRunner().invoke(main, command, catch_exceptions=False)


def saved(folder: Path, number: int, p50_s: float, *cases: str, **words: Any) -> None:
    save(folder / ".benchmarks", number, *(benchmark(p50_s, table(case, **words)) for case in cases or ("net",)))


def p50_of(folder: Path) -> dict[str, float]:
    return {one.identity.case: one.p50_s for one in read_baselines(folder / "baseline")}


@pytest.mark.parametrize("run", ["0001", "1", "0001_main", ".benchmarks/Linux-CPython-3.11-64bit/0001_main.json"])
def test_a_run_is_named_by_its_number_its_name_or_its_file(folder: Path, run: str) -> None:
    saved(folder, 1, 1e-3)
    saved(folder, 11, 2e-3)

    done = promote(run)

    assert done.exit_code == 0, done.output
    assert p50_of(folder) == {"net": 1e-3}


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("0003", "0003 holds no latency of pytest-trt (.benchmarks). The newest saved runs: 0001_main"),
        ("", "holds no latency of pytest-trt"),
        ("other.json", "it is no file of pytest-benchmark"),
    ],
)
def test_a_run_that_is_not_there_is_told(folder: Path, run: str, said: str) -> None:
    saved(folder, 1, 1e-3)
    (folder / "other.json").write_text("{}")

    done = promote(run)

    assert done.exit_code == 2
    assert said in done.output


def test_without_any_saved_run_the_storage_is_told() -> None:
    assert ".benchmarks is not there" in promote("0001").output


def test_a_part_of_a_run_is_promoted_and_the_rest_stays(folder: Path) -> None:
    saved(folder, 1, 1e-3, "net", "other")
    promote("0001")
    saved(folder, 2, 0.9e-3, "net", "other")

    promote("0002", "--case", "other")

    assert p50_of(folder) == {"net": 1e-3, "other": 0.9e-3}


def test_a_case_that_is_not_in_the_run_is_told(folder: Path) -> None:
    saved(folder, 1, 1e-3)
    assert "the run has no case 'nat'" in promote("0001", "--case", "nat").output


def test_a_run_that_is_promoted_twice_is_the_same_baseline(folder: Path) -> None:
    saved(folder, 1, 1e-3)
    assert (promote("0001").exit_code, promote("0001").exit_code) == (0, 0)
    assert p50_of(folder) == {"net": 1e-3}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"verdict": "failed"}, "was not right (failed)"),
        ({"verdict": "error"}, "was not right (error)"),
        ({"verdict": None}, "does not tell that it was right"),
        ({"state": "ambiguous"}, "was measured badly: too noisy to tell"),
        ({"telemetry": {"disturbances": ["throttled"]}}, "was measured badly: throttled"),
        ({"state": "slow"}, "was found slower than its baseline"),
        ({"machine": {}}, "does not tell the machine"),
        ({"machine": {"key": KEY}}, "does not tell the machine"),
        ({"machine": {"key": "../../elsewhere", "hard": {}}}, "does not tell the machine"),
        ({"case": "../net"}, "does not tell the machine of its folder"),
        ({"case": "net?"}, "which its file is not called by"),
        ({"metric": None}, "has the metric {}, which is none"),
        ({"kept": {"plan": 1}}, "does not tell what was kept of it"),
    ],
)
def test_what_is_no_baseline_is_refused_and_nothing_is_written(folder: Path, words: dict[str, Any], said: str) -> None:
    save(folder / ".benchmarks", 1, benchmark(1e-3, table("good")), benchmark(1e-3, table(**words)))

    done = promote("0001")

    assert done.exit_code == 2
    assert said in done.output
    assert not (folder / "baseline").exists()


def test_a_slower_run_needs_a_word_and_a_reason(folder: Path) -> None:
    saved(folder, 1, 1e-3, state="slow")

    assert promote("0001", "--accept-slow").exit_code == 2
    assert promote("0001", "--accept-slow", "--reason", "a better model").exit_code == 0
    assert read_baselines(folder / "baseline")[0].reason == "a better model"


def test_a_run_that_was_only_recorded_is_compared_with_what_it_replaces(folder: Path) -> None:
    saved(folder, 1, 1e-3)
    promote("0001")
    saved(folder, 2, 1.1e-3)

    done = promote("0002")

    assert done.exit_code == 2
    assert "takes 1.1 ms in run 0002_main, and its baseline 1 ms: 10.0 % slower" in done.output
    assert promote("0002", "--accept-slow", "--reason", "a better model").exit_code == 0
    assert p50_of(folder) == {"net": 1.1e-3}


def test_of_a_case_that_was_timed_twice_in_a_run_the_faster_is_held_to(folder: Path) -> None:
    save(folder / ".benchmarks", 1, benchmark(2e-3, table()), benchmark(1e-3, table()), benchmark(3e-3, table()))
    assert promote("0001").exit_code == 0
    assert p50_of(folder) == {"net": 1e-3}


def test_a_case_that_was_timed_in_two_ways_in_a_run_is_refused(folder: Path) -> None:
    other = {**table()["metric"], "batch": 8}
    save(folder / ".benchmarks", 1, benchmark(1e-3, table()), benchmark(2e-3, table(metric=other)))
    assert "the run holds net at int8 on tensorrt twice, timed in two ways" in promote("0001").output


def test_what_replaces_a_damaged_baseline_mends_it(folder: Path) -> None:
    saved(folder, 1, 1e-3)
    promote("0001")
    path = folder / "baseline" / KEY / FILE
    path.write_text(path.read_text()[:50])

    assert promote("0001").exit_code == 0
    assert read_baseline(path).p50_s == 1e-3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"p50_s": 0}, "holds the latency 0"),
        ({"p50_s": float("nan")}, "holds the latency nan"),
        ({"p50_s": "1"}, "holds the latency '1'"),
        ({"p50_s": True}, "holds the latency True"),
        ({"schema": 2}, "has schema 2"),
        ({"identity": {"case": "net"}}, "is not whole"),
        ({"identity": []}, "is not whole"),
        ({"identity": {"case": 1, "precision": 2, "backend": 3}}, "does not tell what it is of"),
        ({"identity": {"case": "other", "precision": "int8", "backend": "tensorrt"}}, "its file is not called by"),
        ({"machine": {}}, "does not tell the machine of its folder"),
        ({"machine": {"key": KEY, "hard": []}}, "does not tell the machine of its folder"),
        ({"recorded": "yesterday"}, "was recorded at 'yesterday'"),
        ({"recorded": "2026-01-01T12:00:00"}, "was recorded at '2026-01-01T12:00:00', which is no time with its zone"),
        ({"promoted": None}, "has promoted None"),
        ({"metric": []}, "has the metric []"),
        ({"metric": {"clock": "cuda_event", "inferences": 0}}, "which is none"),
        ({"metric": {"clock": "cuda_event", "inferences": 10**9}}, "which is none"),
        ({"metric": {"clock": "cuda_event", "inferences": 1, "shapes": {"x": 5}}}, "which is none"),
        ({"kept": []}, "does not tell what was kept"),
        ({"plan_sha256": 5}, "does not tell what was kept"),
    ],
)
def test_a_baseline_that_was_edited_into_nonsense_is_refused(folder: Path, words: dict[str, Any], said: str) -> None:
    saved(folder, 1, 1e-3)
    promote("0001")
    path = folder / "baseline" / KEY / FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **words}))

    with pytest.raises(DataError) as caught:
        read_baselines(folder / "baseline")

    assert said in str(caught.value)
    assert "Promote a run again" in str(caught.value)


def test_a_baseline_is_renamed_and_removed(folder: Path) -> None:
    saved(folder, 1, 1e-3)
    promote("0001")

    for words in (["rename", "net", "new"], ["list"], ["remove", "new"]):
        done = CliRunner().invoke(main, ["baseline", *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output

    assert read_baselines(folder / "baseline") == ()


@pytest.mark.parametrize("new", ["a/b", "", "nul", "net?"])
def test_a_baseline_takes_no_name_that_no_case_can_have(folder: Path, new: str) -> None:
    saved(folder, 1, 1e-3)
    promote("0001")

    done = CliRunner().invoke(main, ["baseline", "rename", "net", new])

    assert done.exit_code == 2
    assert p50_of(folder) == {"net": 1e-3}
