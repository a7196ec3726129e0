"""The latency gate in a pytest run: which engine passes, which fails, and which baselines lost their case."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import networks
import pytest
from click.testing import CliRunner
from timed import GATE, RECORD, benchmarks, promote, results

from pytest_trt.cli.main import main
from pytest_trt.latency import check as keeper
from pytest_trt.latency._decision import Suite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("quiet")


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
    monkeypatch.setattr(Suite, "add", lambda *_: False)
    monkeypatch.setattr(Suite, "finish", lambda _: {"net at fp32 on onnxruntime": SLOW})
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

    class Hesitant(Suite):
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
    monkeypatch.setattr(Suite, "add", lambda *_: False)
    monkeypatch.setattr(Suite, "finish", lambda _: {"net at fp32 on onnxruntime": SLOW})

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


def test_a_gate_of_the_ini_file_leaves_other_tests_alone_and_not_the_whole_suite(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ntrt_latency = gate\n")
    path = pytester.makepyfile("def test_other(): pass")

    part, whole = pytester.runpytest(path), pytester.runpytest()

    assert (part.ret, whole.ret) == (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
