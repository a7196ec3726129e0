"""Findings in a pytest run: shown, chosen, left out, counted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import networks
import numpy as np
import pytest

from pytest_trt.errors import SpecError
from pytest_trt.evidence.finding import read_codes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def broken(golden: Path, project: Path) -> Path:
    """The project with calibration data of a tenth of the size."""
    assert golden.exists()
    np.savez(project / "calibration.npz", x=np.float32(0.1) * networks.images(32, seed=2))
    return project


def record(project: Path) -> dict[str, object]:
    [found] = json.loads((project / "run.json").read_text())["results"]
    return dict(found)


def test_a_failed_case_reads_like_a_linter(broken: Path, pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--trt-precision=int8", "--trt-report=run.json")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*TRT10? error: *", "*hops: *to blame: fp32 -> simulated", "*from 'x'*"])
    found = record(broken)
    assert found["findings"][0].keys() == {"code", "severity", "message", "remedy", "evidence"}  # type: ignore[index]
    assert found["blame"] == "fp32 -> simulated"


def test_ignored_findings_are_counted_and_do_not_loosen_the_tolerance(broken: Path, pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--trt-precision=int8", "--trt-report=run.json", "--trt-ignore=TRT1,TRT2,TRT3")

    assert result.ret == 1
    found = record(broken)
    assert (found["verdict"], found["findings"]) == ("failed", [])
    assert set(found["ignored"]) >= {"TRT205", "TRT302"}  # type: ignore[call-overload]
    result.stdout.fnmatch_lines(["*findings left out by --trt-select and --trt-ignore*"])


def test_the_command_lines_codes_replace_those_of_the_ini_file(broken: Path, pytester: pytest.Pytester) -> None:
    (broken / "pytest.ini").write_text("[pytest]\ntrt_select = TRT2\n")

    pytester.runpytest("--trt-precision=int8", "--trt-report=run.json")
    by_ini = {f["code"] for f in record(broken)["findings"]}  # type: ignore[attr-defined]
    pytester.runpytest("--trt-precision=int8", "--trt-report=run.json", "--trt-select=TRT302")
    by_line = {f["code"] for f in record(broken)["findings"]}  # type: ignore[attr-defined]

    assert (by_ini, by_line) == ({"TRT205"}, {"TRT302"})


@pytest.mark.parametrize("word", ["--trt-ignore=TRT999", "--trt-select=TRT9", "--trt-rebuilds=many"])
def test_a_code_that_is_not_known_is_a_usage_error(word: str, pytester: pytest.Pytester) -> None:
    result = pytester.runpytest(word)

    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_the_nearest_code_is_named_and_families_are_read_as_they_are_written() -> None:
    with pytest.raises(SpecError, match="unknown finding 'TRT1055': did you mean 'TRT105'"):
        read_codes("TRT1055")
    assert read_codes("trt1xx, TRT205,TRT1") == ("TRT1", "TRT205")


def test_a_passed_case_is_localised_when_that_is_asked(golden: Path, project: Path, pytester: pytest.Pytester) -> None:
    assert golden.exists()

    assert pytester.runpytest("--trt-precision=fp16", "--trt-report=run.json").ret == 0
    assert (record(project)["located"], record(project)["hops"]) == ([], [])
    assert pytester.runpytest("--trt-precision=fp16", "--trt-report=run.json", "--trt-localise").ret == 0
    found = record(project)
    assert len(found["located"]) > 3  # type: ignore[arg-type]
    assert [hop["to"] for hop in found["hops"]] == ["fp32", "simulated"]  # type: ignore[attr-defined]


def test_what_was_localised_of_a_passed_case_is_told_with_v(golden: Path, pytester: pytest.Pytester) -> None:
    assert golden.exists()

    result = pytester.runpytest("--trt-precision=fp16", "--trt-localise", "--trt-rebuilds=1", "-v")

    result.stdout.fnmatch_lines(["*from 'c2' of Conv 'conv2'*", "  warned: nothing was built again:*"])


def test_a_word_that_is_no_truth_value_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("-o", "trt_localise=maybe", "--trt-precision=fp16")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*ini option trt_localise: invalid truth value 'maybe'*: write true or false*"])
