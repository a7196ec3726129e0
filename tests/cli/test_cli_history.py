from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fakes.saved_runs import benchmark, save, save_all, table

from pytest_trt.cli import _console as shown
from pytest_trt.cli import _history as history
from pytest_trt.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; runs are saved to its .benchmarks."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".benchmarks"


def ran(*words: str) -> Result:
    return CliRunner().invoke(main, ["history", *words])


def stepped(count: int = 20, at: int = 12, ratio: float = 1.065) -> list[float]:
    values = 2e-4 * np.exp(0.004 * np.random.default_rng(0).normal(size=count))
    values[at:] *= ratio
    return [float(value) for value in values]


def test_runs_are_listed_with_their_change_from_one_to_the_next(folder: Path) -> None:
    save_all(folder, [1e-3, 1.1e-3])
    found = ran("net")
    assert found.exit_code == 0
    assert "net at int8 on tensorrt, machine 0123456789abcdef" in found.stdout
    assert "cuda_event, graph, spin, batch 1, inferences 1" in found.stdout
    rows = [line.split() for line in found.stdout.splitlines() if "_main" in line]
    assert rows == [
        ["2026-01-02", "12:00", "0001_main", "1.0000", "recorded"],
        ["2026-01-03", "12:00", "0002_main", "1.1000", "+10.0", "%", "recorded"],
    ]


def test_a_step_is_flagged_at_its_run(folder: Path) -> None:
    save_all(folder, stepped())
    lines = ran("net").stdout.splitlines()
    [flag] = [at for at, line in enumerate(lines) if ">> a step: 6." in line and "slower from here on" in line]
    assert "0013_main" in lines[flag + 1]
    assert "steps: 0013_main (+6." in lines[-1]


def test_few_runs_are_not_searched_and_that_is_said(folder: Path) -> None:
    save_all(folder, [1e-3, 1e-3, 2e-3])
    assert "3 runs are too few to look for steps (8)" in ran().stdout


def test_a_bad_run_is_no_step(folder: Path) -> None:
    values = stepped(ratio=1.0)
    values[6] *= 1.4
    save_all(folder, values)
    assert "no step found" in ran("net").stdout


def test_the_newest_runs_are_listed_and_all_are_searched(folder: Path) -> None:
    save_all(folder, stepped(at=5))
    found = ran("net", "--limit", "3")
    assert sum("_main " in line for line in found.stdout.splitlines() if "steps" not in line) == 3
    assert "steps: 0006_main" in found.stdout


def test_a_baseline_is_marked_and_compared_with(folder: Path) -> None:
    save_all(folder, [1e-3, 1.1e-3, 1.2e-3])
    lines = ran("net", "--baseline", "0001").stdout.splitlines()
    assert lines == ran("net", "--baseline", "0001_main").stdout.splitlines()
    assert lines[3].endswith("recorded, baseline")
    assert "+20.0 %" in lines[5]


def test_the_promoted_run_is_marked_and_compared_with(folder: Path) -> None:
    save_all(folder, [1e-3, 1.1e-3, 1.2e-3], model_sha256="a" * 64, machine={"key": "0123456789abcdef", "hard": {}})
    promoted = CliRunner().invoke(main, ["baseline", "promote", "0002", "--reason", "a release"])
    assert promoted.exit_code == 0, promoted.output
    lines = ran("net").stdout.splitlines()
    assert "to base" in lines[2]
    assert [line.split("main")[1].split() for line in lines[3:6]] == [
        ["1.0000", "-9.1", "%", "recorded"],
        ["1.1000", "+0.0", "%", "recorded,", "baseline"],
        ["1.2000", "+9.1", "%", "recorded"],
    ]


def test_an_unknown_baseline_is_refused(folder: Path) -> None:
    save_all(folder, [1e-3])
    found = ran("net", "--baseline", "0002_main")
    assert found.exit_code == 2
    assert "unknown run '0002_main': did you mean '0001_main'?" in found.stderr


def test_runs_of_two_machines_are_listed_apart(folder: Path) -> None:
    save(folder, 1, benchmark(1e-3, table()))
    save(folder, 2, benchmark(5e-4, table(machine={"key": "f" * 16})))
    found = ran("net").stdout
    assert found.count("measured on 2 machines, which can't be compared") == 2
    assert "%" not in found


def test_a_change_of_the_environment_is_said_where_it_happened(folder: Path) -> None:
    save(folder, 1, benchmark(1e-3, table()))
    save(folder, 2, benchmark(1e-3, table(machine={"key": "0123456789abcdef", "soft": {"TensorRT": "10.4"}})))
    lines = ran("net").stdout.splitlines()
    assert lines[4] == "  -- environment changed: TensorRT 10.3 -> 10.4"


def test_disturbed_runs_are_marked(folder: Path) -> None:
    save(folder, 1, benchmark(1e-3, table(state="ambiguous", telemetry={"disturbances": ["The GPU was throttled."]})))
    assert "ambiguous, disturbed: The GPU was throttled." in ran("net").stdout


def test_one_precision_is_listed(folder: Path) -> None:
    save(folder, 1, benchmark(1e-3, table()), benchmark(2e-3, table(precision="fp16")))
    assert "net at int8" not in ran("net", "--precision", "fp16").stdout


def test_json_tells_the_same(folder: Path) -> None:
    save_all(folder, stepped())
    [series] = json.loads(ran("net", "--json").stdout)["series"]
    assert [len(series["runs"]), series["steps"][0]["run"]] == [20, "0013_main"]
    assert series["runs"][0]["change"] is None
    assert series["runs"][0]["samples"] == 200


def test_json_stays_json_where_a_file_is_damaged(folder: Path) -> None:
    save_all(folder, [1e-3])
    (folder / "other.json").write_text("{")
    found = ran("--json")
    assert json.loads(found.stdout)["complaints"] == [".benchmarks/other.json: skipped, it is no JSON, or was cut off."]
    assert "pytest-trt: .benchmarks/other.json: skipped" in found.stderr


def test_an_unknown_case_is_refused_and_the_nearest_named(folder: Path) -> None:
    save_all(folder, [1e-3])
    found = ran("ned")
    assert found.exit_code == 2
    assert "unknown case 'ned': did you mean 'net'?" in found.stderr


def test_an_unknown_precision_is_refused(folder: Path) -> None:
    save_all(folder, [1e-3])
    assert "unknown precision 'int4': did you mean 'int8'?" in ran("net", "--precision", "int4").stderr


def test_no_storage_is_a_message(folder: Path) -> None:
    found = ran("net")
    assert found.exit_code == 2
    assert ".benchmarks is not there" in found.stderr


def test_a_storage_without_a_latency_of_ours_is_a_message(folder: Path) -> None:
    save(folder, 1, benchmark(1e-3, None))
    found = ran("net")
    assert found.exit_code == 2
    assert "holds no latency of pytest-trt: runs with --trt-latency=record" in found.stderr


def test_without_ruptures_runs_are_listed_and_the_rest_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    save_all(folder, stepped())
    monkeypatch.setitem(sys.modules, "ruptures", None)
    found = ran("net")
    assert "0020_main" in found.stdout
    assert 'pip install "pytest-trt[latency]"' in found.stdout


def test_a_terminal_gets_a_chart_and_colours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_is_drawn", lambda: True)
    monkeypatch.setattr(shown, "_is_watched", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    save_all(folder, stepped(ratio=1.5))
    found = CliRunner().invoke(main, ["history", "net"], color=True)
    assert "▁" * 12 + "█" * 8 in found.stdout
    assert "\x1b[31m  >> a step" in found.stdout


def test_a_chart_of_noise_is_flat(folder: Path) -> None:
    assert len(set(history._sparkline([1e-3, 1.002e-3, 0.998e-3]).split()[0])) <= 2


def test_what_is_no_terminal_gets_plain_text(folder: Path) -> None:
    save_all(folder, stepped())
    found = ran("net").stdout
    assert "\x1b" not in found
    assert "▁" not in found


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_wants_plain_text_gets_it(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    import io

    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert history._is_drawn()
    monkeypatch.setenv(name, value)
    assert not history._is_drawn()
