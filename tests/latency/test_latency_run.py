"""Latency in a pytest run: what is timed, what pytest-benchmark keeps, what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import pytest
from timed import GATE, RECORD, benchmarks, results

from pytest_trt.latency import check as keeper
from pytest_trt.latency._timing import measure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_trt.backends.stopwatch import Samples


pytestmark = pytest.mark.usefixtures("quiet")


# --- what is recorded


def test_samples_reach_pytest_benchmark_to_the_bit(
    pytester: pytest.Pytester, golden: Path, engine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Samples] = []

    def kept(*told: Any) -> Samples:
        taken.append(measure(*told))
        return taken[-1]

    monkeypatch.setattr(keeper, "measure", kept)

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


def test_under_xdist_a_mode_of_the_ini_file_can_be_taken_back(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ntrt_latency = gate\n")
    path = pytester.makepyfile("def test_other(): pass")

    refused, done = (pytester.runpytest(path, "-n", "1", *words) for words in ((), ("-o", "trt_latency=")))

    refused.stderr.fnmatch_lines(["*refused under xdist*drop -n, or add -o trt_latency=*"])
    assert done.ret == 0


@pytest.mark.parametrize("words", [[], RECORD], ids=["untimed", "timed"])
def test_what_nobody_foresaw_is_a_traceback_of_its_own_test(
    pytester: pytest.Pytester, golden: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr("pytest_trt.plugin._collection.judge_case", lambda *_: 1 / 0)

    result = pytester.runpytest("--trt-precision=fp16", *words)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*ZeroDivisionError*"])
