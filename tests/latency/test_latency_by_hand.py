"""Latency in tests that people write: trt_benchmark, beside trt_check and beside a test run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networks
import pytest
from click.testing import CliRunner
from timed import GATE, RECORD, benchmarks, promote, results

from pytest_trt.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("quiet")

BY_HAND = """
import pytest

@pytest.mark.trt(onnx="net.onnx")
def test_speed(trt_engine, trt_golden, trt_benchmark):
    trt_golden.check(trt_engine.run(trt_golden.inputs))
    trt_benchmark(trt_engine, trt_golden.inputs)
"""


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
