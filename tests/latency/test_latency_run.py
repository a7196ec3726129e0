"""Latency in a pytest run: what is timed, what pytest-benchmark keeps, what fails."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from click.testing import CliRunner
from fakes.stopwatches import Clockwork
from fakes.tensorrt import install

from pytest_trt.cli.main import main
from pytest_trt.latency import _answer as comparing
from pytest_trt.latency import check as keeper
from pytest_trt.latency._machine import Machine
from pytest_trt.latency._telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUICK = ("warmup_s=0", "least_s=0", "most_s=0.02")
RECORD = ("--trt-latency=record", "--trt-store=store", *(f"--trt-timing={word}" for word in QUICK))
GATE = ("--trt-latency=gate", *RECORD[1:], "--trt-timing=pairs=10")
BY_HAND = """
import pytest

@pytest.mark.trt(onnx="net.onnx")
def test_speed(trt_engine, trt_golden, trt_benchmark):
    trt_golden.check(trt_engine.run(trt_golden.inputs))
    trt_benchmark(trt_engine, trt_golden.inputs)
"""


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine of this name, on which nobody disturbs; to be called with what does."""

    def tell(*sentences: str, name: str = "one") -> None:
        monkeypatch.setattr(keeper, "machine_of", lambda _: Machine({"gpu": name}, {"driver": "1"}))
        monkeypatch.setattr(keeper, "telemetry_of", lambda _: Telemetry())
        monkeypatch.setattr(keeper, "disturbances", lambda *_: sentences)

    tell()
    return tell


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Have the engine, which is opened first, and its baseline take so many seconds, another time for each opening."""

    def take(candidate: float, baseline: float = 1e-3, noise: float = 0.01, wander: float = 0.0) -> None:
        under_test: list[object] = []
        seeds, draw = iter(range(1000)), np.random.default_rng(0)

        def opened(of: object, *_: object) -> Clockwork:
            seconds = candidate if of is under_test[-1] else baseline
            return Clockwork(seconds * float(np.exp(wander * draw.standard_normal())), noise, seed=next(seeds))

        def opened_first(of: object, *_: object) -> Clockwork:
            under_test.append(of)
            return opened(of)

        monkeypatch.setattr(keeper, "stopwatch_of", opened_first)
        monkeypatch.setattr(comparing, "stopwatch_of", opened)

    take(1e-3)
    return take


def benchmarks(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["benchmarks"]
    return found


def results(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["results"]
    return found


def promote(pytester: pytest.Pytester, *words: str) -> None:
    """Record a run and make it the baseline."""
    pytester.runpytest(*RECORD).assert_outcomes(passed=1)
    pytester.path.joinpath("store").chmod(0o700)
    done = CliRunner().invoke(main, ["baseline", "promote", "0001", "--store", "store", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output


# --- what is recorded


def test_samples_reach_pytest_benchmark_to_the_bit(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[np.ndarray] = []
    real = keeper.measure
    monkeypatch.setattr(keeper, "measure", lambda *told: taken.append(found := real(*told)) or found)

    pytester.runpytest(*RECORD, "--benchmark-json=run.json").assert_outcomes(passed=1)

    [benchmark] = benchmarks(pytester.path / "run.json")
    [samples] = taken
    assert benchmark["stats"]["data"] == samples.lap.latency.tolist()
    assert benchmark["options"]["timer"] == "cuda_event"


def test_extra_info_tells_what_was_timed_where_and_that_it_was_right(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    words = ("--trt-timing=least=700", "--trt-timing=most_s=30")
    pytester.runpytest(*RECORD, *words, "--benchmark-json=run.json").assert_outcomes(passed=1)

    [benchmark] = benchmarks(pytester.path / "run.json")
    told = benchmark["extra_info"]["trt"]
    assert (told["case"], told["precision"], told["backend"], told["verdict"]) == (
        "net", "fp32", "onnxruntime", "passed",
    )  # fmt: skip
    assert told["machine"]["hard"] == {"gpu": "one"}
    assert told["metric"] == {
        "clock": "cuda_event", "graph": True, "spin": True, "transfers": False, "inferences": 1, "batch": 1,
        "shapes": {"x": [1, 2, 6, 6]},
    }  # fmt: skip
    assert told["simulated"] is True
    assert benchmark["extra_info"]["p99_s"] == pytest.approx(1.023e-3, rel=0.01)
    assert benchmark["extra_info"]["rel_rms"] == told["rel_rms"] < 1e-5
    assert "UNSERIALIZABLE" not in (pytester.path / "run.json").read_text()


def test_a_percentile_of_too_few_samples_is_left_out(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    words = ("--trt-timing=least=100", "--trt-timing=most=100")
    pytester.runpytest(*RECORD, *words, "--trt-report=run.json")

    [result] = results(pytester.path / "run.json")
    assert result["latency"]["p90_s"] > 0
    assert result["latency"]["p99_s"] is None


def test_the_run_is_saved_with_its_samples_without_being_asked(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    pytester.runpytest(*RECORD)

    [path] = pytester.path.glob(".benchmarks/*/0001_trt.json")
    assert len(benchmarks(path)[0]["stats"]["data"]) >= 30


def test_pytest_benchmarks_own_comparison_works_on_saved_runs(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    engine(1e-3, noise=0)
    pytester.runpytest(*RECORD)
    engine(1.2e-3, noise=0)

    result = pytester.runpytest(*RECORD, "--benchmark-compare=0001", "--benchmark-compare-fail=median:5%")

    assert result.ret != 0
    result.stdout.fnmatch_lines(["*net?fp32? (0001_trt)*", "*net?fp32? (NOW)*"])
    result.stderr.fnmatch_lines(["*Field 'median' has failed PercentageRegressionCheck: 20.*"])


def test_an_engine_that_is_wrong_is_not_timed(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    proto = networks.with_weight(networks.convolutional(), "w3", lambda weights: 2 * weights)
    networks.save(proto, pytester.path / "other.onnx")
    toml = '[[model]]\nname = "net"\nonnx = "other.onnx"\nreference = "net.onnx"\n'
    (pytester.path / "trt.toml").write_text(toml)

    result = pytester.runpytest(*RECORD, "--trt-report=run.json", "--benchmark-json=bench.json", "-W", "error")

    result.assert_outcomes(failed=1)
    assert results(pytester.path / "run.json")[0]["latency"] is None
    assert not (pytester.path / "bench.json").exists() or benchmarks(pytester.path / "bench.json") == []


def test_a_test_with_trt_check_is_timed_too(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    (pytester.path / "trt.toml").unlink()
    pytester.makepyfile('import pytest\n@pytest.mark.trt(onnx="net.onnx")\ndef test_net(trt_check):\n    trt_check()\n')

    pytester.runpytest(*RECORD, "--benchmark-json=run.json", "--benchmark-only").assert_outcomes(passed=1)

    assert benchmarks(pytester.path / "run.json")[0]["name"] == "test_net[fp32]"


def test_without_pytest_benchmark_a_latency_is_in_the_record_alone(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    pytester.runpytest(*RECORD, "--trt-report=run.json", "-p", "no:benchmark").assert_outcomes(passed=1)

    assert results(pytester.path / "run.json")[0]["latency"]["p50_s"] == pytest.approx(1e-3, rel=0.01)


def test_a_second_run_takes_as_many_inferences_a_sample_as_the_first(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    engine(150e-6)
    pytester.runpytest(*RECORD, "--trt-report=first.json").assert_outcomes(passed=1)
    engine(250e-6)  # alone, one inference would do
    pytester.runpytest(*RECORD, "--trt-report=second.json").assert_outcomes(passed=1)

    first, second = (results(pytester.path / f"{name}.json")[0]["latency"] for name in ("first", "second"))
    assert first["metric"]["inferences"] == 2
    assert second["metric"] == first["metric"]
    assert [run["run"] for run in second["history"]] == ["0001_trt"]


# --- what is refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-n", "1"), "refused under xdist"),
        (("--benchmark-skip",), "--benchmark-skip skips that"),
        (("--trt-latency=gait",), "did you mean 'gate'"),
        (("--trt-timing=warmup=1",), "unknown key of --trt-timing: 'warmup'"),
        (("--trt-timing=warmup_s=soon",), "must be a time such as 0.5"),
        (("--trt-gate=threshold=3",), "must be a share"),
        (("--trt-gate=ambiguous=ignore",), "unknown value of --trt-gate ambiguous"),
    ],
)
def test_what_can_not_be_timed_ends_the_run(
    pytester: pytest.Pytester, golden: Path, words: tuple[str, ...], said: str
) -> None:
    result = pytester.runpytest("--trt-latency=gate", *words)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in "".join([*result.errlines, *result.outlines])


def test_a_threshold_inside_the_margin_is_refused(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    result = pytester.runpytest(*GATE, "--trt-gate=margin=5%", "--trt-gate=threshold=2%")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*threshold 0.02 is below margin 0.05*"])


# --- the gate


def test_a_case_without_a_baseline_fails_and_says_how_to_make_one(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    result = pytester.runpytest(*GATE)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TRT603 error*no baseline of net at fp32 on onnxruntime*baseline promote RUN*"])


def test_an_engine_as_fast_as_its_baseline_passes(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)

    result = pytester.runpytest(*GATE, "--trt-report=run.json")

    result.assert_outcomes(passed=1)
    latency = results(pytester.path / "run.json")[0]["latency"]
    assert (latency["state"], latency["comparison"]["method"]) == ("same", "onnx")
    assert latency["comparison"]["mde"] < 0.05


def test_an_engine_that_became_slower_fails_its_own_test(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)
    engine(1.05e-3)

    result = pytester.runpytest(*GATE, "--trt-report=run.json", "--junit-xml=junit.xml")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TRT601 error: 5.* slower than the baseline*", "*verdict", "*failed"])
    assert results(pytester.path / "run.json")[0]["latency"]["state"] == "slow"
    assert ET.parse(pytester.path / "junit.xml").getroot()[0].get("failures") == "1"


def test_a_slow_run_never_becomes_the_baseline_by_being_run_again(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)
    engine(1.05e-3)

    pytester.runpytest(*GATE).assert_outcomes(failed=1)
    pytester.runpytest(*GATE).assert_outcomes(failed=1)


def test_an_engine_that_became_faster_passes_and_is_told_of(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)
    engine(0.9e-3)

    result = pytester.runpytest(*GATE, "--trt-report=run.json")

    result.assert_outcomes(passed=1)
    [finding] = [f for f in results(pytester.path / "run.json")[0]["findings"] if f["code"] == "TRT606"]
    assert finding["severity"] == "warning"


def test_a_throttled_gpu_makes_it_ambiguous_and_neither_slow_nor_a_pass(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None], quiet: Callable[..., None]
) -> None:
    promote(pytester)
    engine(1.05e-3)
    quiet("the GPU was throttled for 3 ms")

    result = pytester.runpytest(*GATE)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TRT602 error: *can't be told, since the GPU was throttled for 3 ms*"])


def test_a_state_that_may_warn_passes_and_says_so(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None], quiet: Callable[..., None]
) -> None:
    promote(pytester)
    quiet("the GPU was throttled for 3 ms")

    result = pytester.runpytest(*GATE, "--trt-gate=ambiguous=warn")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*TRT602*"])


def test_noise_that_hides_a_slowdown_is_ambiguous(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)
    engine(1e-3, wander=0.3)

    result = pytester.runpytest(*GATE)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TRT602*"])


def test_a_baseline_of_another_machine_is_not_comparable(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None], quiet: Callable[..., None]
) -> None:
    promote(pytester)
    quiet(name="another")

    result = pytester.runpytest(*GATE, "--trt-store=elsewhere")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TRT604 error*another machine*GPU: one, now another*"])


def test_a_renamed_case_is_told_by_the_name_that_its_baseline_has(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)
    (pytester.path / "trt.toml").write_text('[[model]]\nname = "new"\nonnx = "net.onnx"\n')
    golden.rename(golden.with_name("new.safetensors"))

    result = pytester.runpytest(*GATE)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TRT603*the same model has one as 'net'*baseline rename net new*"])


def test_a_baseline_whose_case_vanished_fails_the_run(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)
    networks.save(networks.convolutional(seed=3), pytester.path / "second.onnx")
    (pytester.path / "trt.toml").write_text('[[model]]\nonnx = "second.onnx"\n')
    pytester.runpytest("--trt-update-golden")

    result = pytester.runpytest(*GATE, "--trt-gate=no-baseline=pass")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["ERROR: the baseline of net at fp32 on onnxruntime has no case any more*"])


def test_a_gate_that_timed_nothing_is_not_green(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_other(): pass")

    result = pytester.runpytest("--trt-latency=gate")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*--trt-latency=gate asks for a latency, and no case was timed*"])


def test_a_damaged_baseline_is_an_error_and_no_pass(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)
    [path] = pytester.path.glob("baseline/*/*.json")
    path.write_text(path.read_text()[:100])

    result = pytester.runpytest(*GATE)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*DataError: the baseline *net.fp32.onnxruntime.json can't be read*promote*"])


def test_a_baseline_with_a_latency_of_zero_is_refused(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)
    [path] = pytester.path.glob("baseline/*/*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "p50_s": 0}))

    pytester.runpytest(*GATE).assert_outcomes(failed=1)


def test_a_finding_that_is_ignored_fails_nothing(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    pytester.runpytest(*GATE, "--trt-ignore=TRT603").assert_outcomes(passed=1)


def test_what_only_the_whole_run_shows_fails_its_item_at_the_end(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(pytester)
    monkeypatch.setattr(keeper.Suite, "add", lambda *_: False)
    monkeypatch.setattr(keeper.Suite, "finish", lambda _: {"net at fp32 on onnxruntime": SLOW})
    words = ("--trt-report=run.json", "--junit-xml=junit.xml", "--benchmark-json=bench.json")

    result = pytester.runpytest(*GATE, *words)

    result.assert_outcomes(passed=1, errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*net at fp32 on onnxruntime is slower, which the whole run shows*"])
    [record] = results(pytester.path / "run.json")
    assert (record["verdict"], record["latency"]["state"]) == ("failed", "slow")
    assert benchmarks(pytester.path / "bench.json")[0]["extra_info"]["trt"]["state"] == "slow"
    assert ET.parse(pytester.path / "junit.xml").getroot()[0].get("errors") == "1"


class SLOW:
    ratio = 1.04


# --- budgets


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("p50_ms = 0.5", "p50_ms 1 is over the budget 0.5"),
        ("throughput = 2000", "throughput 9* is under the budget 2000"),
        ("memory_mb = 0.5", "memory_mb 1 is over the budget 0.5"),
        ("p99_ms = 5", "p99_ms = 5 could not be measured: too few samples"),
        ('speedup = { over = "torch", at_least = 2.0 }', "speedup over torch = 2 could not be measured: *torch*"),
        ("fp32.p50_ms = 0.5", "p50_ms 1 is over the budget 0.5"),
    ],
)
def test_a_budget_that_is_not_kept_or_not_measured_fails(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None], limits: str, said: str
) -> None:
    engine(1.0004e-3, noise=0)
    with (pytester.path / "trt.toml").open("a") as file:
        file.write(f"latency = {{ {limits} }}\n")
    few = ("--trt-timing=least=100", "--trt-timing=most=100")

    result = pytester.runpytest(*RECORD, *few)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*TRT605 error: *{said}*"])


def test_budgets_that_are_kept_pass_and_are_told(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    with (pytester.path / "trt.toml").open("a") as file:
        file.write("latency = { p50_ms = 2, int8.p50_ms = 0.1 }\n")

    pytester.runpytest(*RECORD, "--trt-report=run.json").assert_outcomes(passed=1)

    [budget] = results(pytester.path / "run.json")[0]["latency"]["budgets"]
    assert (budget["budget"], budget["limit"], budget["met"]) == ("p50_ms", 2, True)


@pytest.mark.parametrize("limits", ["p50 = 1", "int9.p50_ms = 1", "p50_ms = 0", "speedup = 2", 'p50_ms = "fast"'])
def test_a_budget_that_is_none_is_refused(pytester: pytest.Pytester, golden: Path, limits: str) -> None:
    with (pytester.path / "trt.toml").open("a") as file:
        file.write(f"latency = {{ {limits} }}\n")

    assert pytester.runpytest(*RECORD).ret in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.TESTS_FAILED)


# --- by hand


def test_trt_benchmark_times_the_tests_engine_without_any_option(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    (pytester.path / "trt.toml").unlink()
    pytester.makepyfile(BY_HAND)

    pytester.runpytest("--benchmark-json=bench.json", "--trt-report=run.json").assert_outcomes(passed=1)

    assert benchmarks(pytester.path / "bench.json")[0]["extra_info"]["trt"]["state"] == "recorded"
    [record] = results(pytester.path / "run.json")
    assert (record["verdict"], record["latency"]["state"]) == ("passed", "recorded")


@pytest.mark.parametrize("words", [("--benchmark-disable",), ("-n", "1")])
def test_trt_benchmark_runs_once_where_benchmarks_are_disabled(
    pytester: pytest.Pytester, golden: Path, words: tuple[str, ...]
) -> None:
    (pytester.path / "trt.toml").unlink()
    pytester.makepyfile(BY_HAND)

    result = pytester.runpytest(*words, "--trt-report=run.json", "-W", "error")

    result.assert_outcomes(passed=1)
    assert results(pytester.path / "run.json")[0]["latency"] is None


def test_trt_benchmark_of_another_engine_is_refused(pytester: pytest.Pytester, golden: Path) -> None:
    (pytester.path / "trt.toml").unlink()
    pytester.makepyfile(BY_HAND.replace("trt_benchmark(trt_engine,", "trt_benchmark(object(),"))

    result = pytester.runpytest()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*trt_benchmark times the engine of trt_engine, and was given another*"])


def test_trt_benchmark_is_judged_by_the_gate(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)
    (pytester.path / "trt.toml").unlink()
    pytester.makepyfile(BY_HAND)
    engine(1.05e-3)

    result = pytester.runpytest(*GATE)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TRT601 error*"])


def test_a_test_that_only_times_has_a_record_that_says_so(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    (pytester.path / "trt.toml").unlink()
    pytester.makepyfile(BY_HAND.replace("    trt_golden.check(trt_engine.run(trt_golden.inputs))\n", ""))

    result = pytester.runpytest("--trt-report=run.json")

    result.assert_outcomes(passed=1)
    assert results(pytester.path / "run.json")[0]["verdict"] == "timed"


@pytest.mark.parametrize("fixtures", ["trt_check, trt_benchmark", "trt_engine, trt_benchmark"])
def test_a_test_that_takes_trt_benchmark_and_never_calls_it_is_not_green(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None], fixtures: str
) -> None:
    first = fixtures.partition(",")[0]
    (pytester.path / "trt.toml").unlink()
    pytester.makepyfile(
        f'import pytest\n@pytest.mark.trt(onnx="net.onnx")\ndef test_net({fixtures}):\n'
        f"    {first}{'()' if first == 'trt_check' else ''}\n"
    )

    result = pytester.runpytest(*RECORD)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*takes trt_benchmark and never calls it: nothing was timed*"])


TIMED_FIRST = """
import pytest

@pytest.mark.trt(name="net", onnx="other.onnx", reference="net.onnx")
def test_speed(trt_engine, trt_golden, trt_benchmark):
    trt_benchmark(trt_engine, trt_golden.inputs)
    trt_golden.check(trt_engine.run(trt_golden.inputs))
"""


def test_an_engine_that_was_timed_first_and_is_wrong_can_not_be_promoted(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    proto = networks.with_weight(networks.convolutional(), "w3", lambda weights: 2 * weights)
    networks.save(proto, pytester.path / "other.onnx")
    pytester.makepyfile(TIMED_FIRST)
    (pytester.path / "trt.toml").unlink()
    pytester.runpytest(*RECORD, "--trt-report=run.json").assert_outcomes(failed=1)

    done = CliRunner().invoke(main, ["baseline", "promote", "0001", "--store", "store"])

    assert done.exit_code == 2
    assert "net at fp32 on onnxruntime of run 0001_trt was not right (failed)" in done.output
    assert [record["verdict"] for record in results(pytester.path / "run.json")] == ["failed"]


def test_what_is_timed_by_hand_keeps_its_accuracy_and_its_model_in_the_history(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    (pytester.path / "trt.toml").unlink()
    pytester.makepyfile(BY_HAND)

    pytester.runpytest(*RECORD, "--benchmark-json=run.json").assert_outcomes(passed=1)

    told = benchmarks(pytester.path / "run.json")[0]["extra_info"]["trt"]
    assert told["verdict"] == "passed"
    assert told["rel_rms"] < 1e-5
    assert len(told["model_sha256"]) == 64


@pytest.mark.parametrize("seconds", [0.0, -1e-3, float("nan"), float("inf")])
@pytest.mark.filterwarnings("error")
def test_a_clock_that_tells_no_times_keeps_no_budget(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None], seconds: float
) -> None:
    engine(seconds)
    with (pytester.path / "trt.toml").open("a") as file:
        file.write("latency = { p50_ms = 2 }\n")

    result = pytester.runpytest(*RECORD)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*BackendError: the clock cuda_event told * samples that are no times*"])


@pytest.mark.parametrize("seconds", [0.0, float("nan")])
def test_a_baseline_whose_clock_tells_no_times_is_ambiguous(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None], seconds: float
) -> None:
    promote(pytester)
    engine(1e-3, baseline=seconds)

    result = pytester.runpytest(*GATE)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TRT602 error: * block times are no times*"])


# --- corners


def test_a_disturbed_case_does_not_turn_slow_when_all_were_seen(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None], quiet: Callable[..., None]
) -> None:
    promote(pytester)
    engine(1.2e-3)
    quiet("the GPU was throttled for 3 ms")

    class Hesitant(keeper.Suite):
        """Tells nothing before all were seen."""

        def add(self, case: str, compared: Any) -> bool:
            super().add(case, compared)
            self._told.discard(case)
            return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper, "Suite", Hesitant)
        result = pytester.runpytest(*GATE, "--trt-gate=ambiguous=warn")

    result.assert_outcomes(passed=1, errors=0)


@pytest.mark.parametrize("words", [("--trt-gate=slow=warn",), ("--trt-ignore=TRT601",), ("--trt-ignore=TRT6",)])
def test_what_only_the_whole_run_shows_fails_nothing_where_slow_does_not(
    pytester: pytest.Pytester,
    golden: Path,
    engine: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    promote(pytester)
    monkeypatch.setattr(keeper.Suite, "add", lambda *_: False)
    monkeypatch.setattr(keeper.Suite, "finish", lambda _: {"net at fp32 on onnxruntime": SLOW})

    result = pytester.runpytest(*GATE, *words, "--benchmark-json=bench.json")

    result.assert_outcomes(passed=1, errors=0)
    assert benchmarks(pytester.path / "bench.json")[0]["extra_info"]["trt"]["state"] == "slow"


def test_a_slow_engine_fails_whichever_findings_are_selected(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)
    engine(1.2e-3)

    pytester.runpytest(*GATE, "--trt-select=TRT302").assert_outcomes(failed=1)


@pytest.mark.parametrize(("action", "said"), [("warn", ["WARNING: the baseline of net at fp32*"]), ("pass", [])])
def test_a_vanished_case_that_may_is_told_or_not(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None], action: str, said: list[str]
) -> None:
    promote(pytester)
    (pytester.path / "trt.toml").write_text('[[model]]\nname = "new"\nonnx = "net.onnx"\n')
    golden.rename(golden.with_name("new.safetensors"))

    result = pytester.runpytest(*GATE, "--trt-gate=renamed=pass", f"--trt-gate=vanished={action}")

    assert result.ret == 0
    result.stdout.fnmatch_lines(said)
    assert ("has no case any more" in result.stdout.str()) is bool(said)


def test_a_precision_that_a_case_lost_has_vanished(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    with (pytester.path / "trt.toml").open("a") as file:
        file.write('precisions = ["fp32", "fp16"]\n')
    pytester.runpytest(*RECORD).assert_outcomes(passed=2)
    assert CliRunner().invoke(main, ["baseline", "promote", "1", "--store", "store"]).exit_code == 0
    (pytester.path / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\nprecisions = ["fp32"]\n')

    whole, part = (pytester.runpytest(*GATE, *words) for words in ((), ("--trt-precision=fp32",)))

    assert (whole.ret, part.ret) == (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.OK)
    whole.stdout.fnmatch_lines(["ERROR: the baseline of net at fp16 on onnxruntime has no case any more*"])


@pytest.mark.parametrize("words", [("-k", "net"), ("trt.toml",), ("--lf",), ("--deselect", "x"), ("--sw",)])
def test_no_case_vanished_where_a_part_of_the_suite_is_run(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None], words: tuple[str, ...]
) -> None:
    promote(pytester)
    assert CliRunner().invoke(main, ["baseline", "rename", "net", "gone"]).exit_code == 0

    result = pytester.runpytest(*GATE, "--trt-gate=no-baseline=pass", "--trt-gate=renamed=pass", *words)

    assert result.ret == 0


def test_a_case_that_was_deselected_was_not_renamed(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    promote(pytester)
    with (pytester.path / "trt.toml").open("a") as file:
        file.write('[[model]]\nname = "twin"\nonnx = "net.onnx"\n')
    golden.with_name("twin.safetensors").write_bytes(golden.read_bytes())

    result = pytester.runpytest(*GATE, "-k", "twin")

    result.stdout.fnmatch_lines(["*TRT603 error: There is no baseline of twin at fp32*"])


OWN_BENCHMARK = """
import pytest

@pytest.mark.trt(onnx="net.onnx")
def test_net(trt_check, benchmark):
    assert benchmark(lambda: 7) == 7
    trt_check()
"""


def test_a_test_keeps_its_own_benchmark(pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]) -> None:
    (pytester.path / "trt.toml").unlink()
    pytester.makepyfile(OWN_BENCHMARK)

    result = pytester.runpytest(*RECORD, "--trt-report=run.json", "--benchmark-json=bench.json")

    result.assert_outcomes(passed=1)
    assert results(pytester.path / "run.json")[0]["latency"]["state"] == "recorded"
    assert "trt" not in benchmarks(pytester.path / "bench.json")[0]["extra_info"]


def test_a_case_that_is_checked_twice_in_a_test_is_kept_once(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    (pytester.path / "trt.toml").unlink()
    pytester.makepyfile(
        'import pytest\n@pytest.mark.trt(onnx="net.onnx")\ndef test_net(trt_check):\n    trt_check()\n    trt_check()\n'
    )

    pytester.runpytest(*RECORD, "--benchmark-json=bench.json").assert_outcomes(passed=1)

    assert len(benchmarks(pytester.path / "bench.json")) == 1


def test_trt_benchmark_times_once_a_test(pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]) -> None:
    (pytester.path / "trt.toml").unlink()
    pytester.makepyfile(BY_HAND + "    trt_benchmark(trt_engine, trt_golden.inputs)\n")

    result = pytester.runpytest(*RECORD)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*trt_benchmark times once a test*parametrize*"])


def test_a_gate_of_the_ini_file_leaves_other_tests_alone_and_not_the_whole_suite(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ntrt_latency = gate\n")
    path = pytester.makepyfile("def test_other(): pass")

    part, whole = pytester.runpytest(path), pytester.runpytest()

    assert (part.ret, whole.ret) == (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)


def test_under_xdist_a_mode_of_the_ini_file_can_be_taken_back(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ntrt_latency = gate\n")
    path = pytester.makepyfile("def test_other(): pass")

    refused, done = (pytester.runpytest(path, "-n", "1", *words) for words in ((), ("-o", "trt_latency=")))

    refused.stderr.fnmatch_lines(["*refused under xdist*drop -n, or add -o trt_latency=*"])
    assert done.ret == 0


def test_a_budget_that_could_not_be_measured_does_not_ask_for_a_faster_engine(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    with (pytester.path / "trt.toml").open("a") as file:
        file.write("latency = { p99_ms = 5 }\n")

    result = pytester.runpytest(*RECORD, "--trt-timing=least=100", "--trt-timing=most=100")

    result.stdout.fnmatch_lines(["*could not be measured*", "*Mend what keeps it from being measured*"])
    assert "Make the engine faster" not in result.stdout.str()


def test_a_speed_up_over_another_int8_engine_has_the_cases_ranges(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    with (pytester.path / "trt.toml").open("a") as file:
        file.write('latency = { speedup = { over = "onnxruntime", at_least = 1e-6, precision = "int8" } }\n')

    pytester.runpytest(*RECORD, "--trt-precision=int8", "--trt-timing=block_s=0").assert_outcomes(passed=1)


def test_a_budget_whose_key_is_no_text_is_refused(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile(
        'import pytest\n@pytest.mark.trt(onnx="net.onnx", latency={1: {}})\ndef test_net(trt_check):\n    trt_check()\n'
    )

    result = pytester.runpytest(*RECORD)

    assert result.ret != 0
    assert "must have texts for keys" in "".join([*result.errlines, *result.outlines])


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


# --- run again

AGAIN = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    runtestprotocol(item, nextitem=None, log=False)
    item._initrequest()
    for report in runtestprotocol(item, nextitem=nextitem, log=False):
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""


def test_a_test_that_is_run_again_is_timed_again_and_judged_by_that(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None]
) -> None:
    (pytester.path / "trt.toml").unlink()
    pytester.makeconftest(AGAIN)
    pytester.makepyfile(BY_HAND)

    result = pytester.runpytest(*RECORD, "--benchmark-json=bench.json", "--trt-report=run.json")

    result.assert_outcomes(passed=1)
    assert [record["verdict"] for record in results(pytester.path / "run.json")] == ["passed"]
    assert len(benchmarks(pytester.path / "bench.json")) == 2
