"""Budgets in a pytest run: what is over one, or could not be measured, fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from timed import RECORD, results

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("quiet")


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
