"""The record on disk: whole and partial whatever ends the run, small in JUnit, refused where it is not ours."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from fakes.latency import LATENCY
from jsonschema import Draft202012Validator

from pytest_trt.errors import ReportError
from pytest_trt.plugin._results import Reports
from pytest_trt.report.record import document, environment, gpus_of, source_of, write
from pytest_trt.report.record_file import read_record

if TYPE_CHECKING:
    from pathlib import Path

HANGS = "import time\ndef test_hangs():\n    time.sleep(60)\n"


def checked(path: Path, schema: Draft202012Validator) -> dict[str, Any]:
    """The record in a file, valid."""
    found = read_record(path)
    schema.validate(found)
    return found


# --- whatever ends the run


def test_a_process_that_exits_inside_a_test_leaves_what_was_judged(
    pytester: pytest.Pytester, golden: Path, record_schema: Draft202012Validator
) -> None:
    pytester.makepyfile(test_zz="import os, time\ndef test_out():\n    time.sleep(0.5)\n    os._exit(7)\n")

    done = pytester.runpytest_subprocess("trt.toml", "test_zz.py", "--trt-precision=fp16,int8", "--trt-report=run.json")

    found = checked(pytester.path / "run.json", record_schema)
    assert done.ret == 7
    assert (found["partial"], found["exit_status"], found["environment"]["finished"]) == (True, None, None)
    assert found["results"][0]["precision"] == "fp16"


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_killed_leaves_a_partial_record(
    pytester: pytest.Pytester, golden: Path, record_schema: Draft202012Validator, sign: int
) -> None:
    pytester.makepyfile(test_zz=HANGS)
    command = [sys.executable, "-m", "pytest", "trt.toml", "test_zz.py", "--trt-report=run.json"]
    path = pytester.path / "run.json"

    with subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (path.exists() and read_record(path)["results"]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(sign)

    found = checked(path, record_schema)
    assert (found["partial"], len(found["results"])) == (True, 1)
    assert not list(pytester.path.glob(".run.json*"))


def test_an_older_record_is_gone_before_the_first_test(
    pytester: pytest.Pytester, golden: Path, record_schema: Draft202012Validator
) -> None:
    pytester.runpytest("--trt-report=run.json")
    pytester.makepyfile(test_aa="import os\nos._exit(3)\n")

    pytester.runpytest_subprocess("test_aa.py", "--trt-report=run.json")

    found = checked(pytester.path / "run.json", record_schema)
    assert (found["partial"], found["results"]) == (True, [])


def test_an_internal_error_leaves_a_partial_record(
    pytester: pytest.Pytester, golden: Path, record_schema: Draft202012Validator
) -> None:
    pytester.makeconftest(
        "def pytest_runtest_logfinish(nodeid):\n    if 'zz' in nodeid:\n        raise RuntimeError('broken')\n"
    )
    pytester.makepyfile(test_zz="def test_a(): pass\n")

    done = pytester.runpytest("trt.toml", "test_zz.py", "--trt-report=run.json")

    found = checked(pytester.path / "run.json", record_schema)
    assert done.ret == pytest.ExitCode.INTERNAL_ERROR
    assert (found["partial"], found["exit_status"], len(found["results"])) == (True, 3, 1)


def test_a_worker_that_crashes_leaves_a_partial_record(
    pytester: pytest.Pytester, golden: Path, record_schema: Draft202012Validator
) -> None:
    pytester.makepyfile(test_zz="import os\ndef test_out():\n    os._exit(1)\n")

    done = pytester.runpytest("trt.toml", "test_zz.py", "--trt-report=run.json", "-n1", "--max-worker-restart=0")

    found = checked(pytester.path / "run.json", record_schema)
    assert done.ret != 0
    assert found["partial"] is True


def test_records_in_between_take_a_twentieth_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 100.0, 101.5, 119.0, 121.0, 121.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    reports = Reports([tmp_path / "run.json"], tmp_path, [], datetime.now(timezone.utc))
    reports.keep([])
    reports.finish([], True, 0)

    reports.keep([])  # at 119: 1.5 seconds were spent, and 0.5 + 19 / 20 are free
    assert read_record(tmp_path / "run.json")["exit_status"] == 0

    reports.keep([])
    assert read_record(tmp_path / "run.json")["exit_status"] is None


def test_a_record_that_can_not_be_kept_is_told_at_the_end(pytester: pytest.Pytester, golden: Path) -> None:
    (pytester.path / "out").touch()

    result = pytester.runpytest("--trt-report=out/run.json", "--trt-precision=fp16,int8")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.stdout.str().count("run.json can't be written") == 1


# --- where it goes along


def test_junit_is_not_blown_up(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.runpytest("--trt-precision=int8", "--junit-xml=junit.xml", "--trt-report=run.json")

    suite = ET.parse(pytester.path / "junit.xml").getroot()[0]
    names = [p.get("name") for p in suite.iter("property")]
    assert names == [
        "trt_case", "trt_precision", "trt_backend", "trt_simulated", "trt_verdict", "trt_rel_rms", "trt_bound",
        "trt_findings",
    ]  # fmt: skip
    assert (pytester.path / "junit.xml").stat().st_size < 3000


def test_workers_bring_the_figures_and_junit_stays_small(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.runpytest("--trt-precision=fp16,int8", "--trt-report=run.json", "--junit-xml=junit.xml", "-n2")

    found = read_record(pytester.path / "run.json")
    assert [result["figures"]["outputs"].keys() for result in found["results"]] == [{"logits"}, {"logits"}]
    assert found["partial"] is False
    assert (pytester.path / "junit.xml").stat().st_size < 5000


def test_a_test_that_judges_twice_leaves_two_results(pytester: pytest.Pytester, golden: Path) -> None:
    body = "def test_both(trt_check):\n    trt_check()\n    trt_check()\n"
    pytester.makepyfile(test_both=f"import pytest\n@pytest.mark.trt(onnx='net.onnx')\n{body}")

    pytester.runpytest("test_both.py", "--trt-report=run.json")

    assert len(read_record(pytester.path / "run.json")["results"]) == 2


# --- what it says


def test_each_result_says_where_its_case_was_written(pytester: pytest.Pytester, golden: Path) -> None:
    (pytester.path / "trt.toml").write_text('# the net\n\n[[model]]\nonnx = "net.onnx"\n')
    pytester.mkdir("sub").joinpath("test_net.py").write_text(
        "import pytest\n\n@pytest.mark.trt(onnx='../net.onnx')\ndef test_net(trt_check):\n    trt_check()\n"
    )

    pytester.runpytest("--trt-report=run.json")

    found = read_record(pytester.path / "run.json")["results"]
    assert [(r["file"], r["line"]) for r in found] == [("sub/test_net.py", 3), ("trt.toml", 3)]


def test_the_environment_says_what_was_asked_and_when(pytester: pytest.Pytester, golden: Path) -> None:
    before = datetime.now(timezone.utc)

    pytester.runpytest("--trt-report=run.json", "--trt-precision=fp16", "--trt-localise", "-k", "net", "-q")

    told = read_record(pytester.path / "run.json")["environment"]
    assert told["options"] == ["--trt-precision=fp16", "--trt-report=run.json", "--trt-localise"]
    began, ended = datetime.fromisoformat(told["started"]), datetime.fromisoformat(told["finished"])
    assert before.timestamp() - 1 < began.timestamp() <= ended.timestamp()
    assert told["started"].endswith("+00:00")
    assert told["duration_s"] == pytest.approx((ended - began).total_seconds(), abs=0.01)


def test_credentials_in_an_address_are_left_out(tmp_path: Path) -> None:
    told = environment(tmp_path, ["--trt-store=s3://me:secret@bucket/plans"])

    assert told["options"] == ["--trt-store=s3://bucket/plans"]


def test_the_gpus_are_those_of_the_engines_each_once() -> None:
    engine = {"gpu": "NVIDIA H200", "compute_capability": "9.0", "cuda_driver": "13.0", "tensorrt": "TensorRT 10.9"}
    results: list[dict[str, Any]] = [
        {"provenance": {"engine": engine}},
        {"provenance": {"engine": engine}},
        {"provenance": {}},
    ]

    assert gpus_of(results) == [
        {"gpu": "NVIDIA H200", "compute_capability": "9.0", "cuda_driver": "13.0", "cuda_runtime": None,
         "tensorrt": "TensorRT 10.9"}
    ]  # fmt: skip


def test_github_tells_commit_branch_and_run(tmp_path: Path) -> None:
    variables = {
        "GITHUB_ACTIONS": "true", "GITHUB_SHA": "abc", "GITHUB_REF_NAME": "7/merge", "GITHUB_HEAD_REF": "topic",
        "GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "me/net", "GITHUB_RUN_ID": "5",
    }  # fmt: skip

    assert source_of(tmp_path, variables) == {
        "service": "github", "commit": "abc", "branch": "topic", "run": "https://github.com/me/net/actions/runs/5",
    }  # fmt: skip


def test_gitlab_and_jenkins_tell_theirs(tmp_path: Path) -> None:
    gitlab = {"GITLAB_CI": "true", "CI_COMMIT_SHA": "abc", "CI_COMMIT_REF_NAME": "main", "CI_JOB_URL": "https://g/1"}
    jenkins = {"JENKINS_URL": "https://j", "GIT_COMMIT": "def", "GIT_BRANCH": "origin/main", "BUILD_URL": "https://j/2"}

    assert source_of(tmp_path, gitlab) == {
        "service": "gitlab", "commit": "abc", "branch": "main", "run": "https://g/1",
    }  # fmt: skip
    assert source_of(tmp_path, jenkins) == {
        "service": "jenkins", "commit": "def", "branch": "origin/main", "run": "https://j/2",
    }  # fmt: skip


def test_elsewhere_git_tells_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (["init", "-q", "-b", "topic"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=b@c", *command], cwd=tmp_path, check=True)
    runs: list[Any] = []
    run = subprocess.run

    def counted(*args: Any, **words: Any) -> Any:
        runs.append(args)
        return run(*args, **words)

    monkeypatch.setattr(subprocess, "run", counted)

    told = source_of(tmp_path, {})

    assert (len(str(told["commit"])), told["branch"], told["service"], len(runs)) == (40, "topic", None, 1)


def test_without_git_or_a_commit_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"service": None, "commit": None, "branch": None, "run": None}
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert source_of(tmp_path, {}) == nothing

    monkeypatch.setenv("PATH", "")
    assert source_of(tmp_path, {}) == nothing


def test_the_schema_is_itself_valid_and_knows_latency(record_schema: Draft202012Validator) -> None:
    Draft202012Validator.check_schema(record_schema.schema)

    latency = {**LATENCY, "state": "quick"}
    wrong = [error.json_path for error in record_schema.evolve(schema=_latency(record_schema)).iter_errors(latency)]

    assert wrong == ["$.state"]


def test_the_schema_takes_latency_as_it_will_be(record_schema: Draft202012Validator) -> None:
    record_schema.evolve(schema=_latency(record_schema)).validate(LATENCY)


def _latency(schema: Draft202012Validator) -> dict[str, Any]:
    return {"$defs": schema.schema["$defs"], "$ref": "#/$defs/latency"}


# --- read again


def record(tmp_path: Path, **changes: Any) -> Path:
    told = document([], environment(tmp_path), partial=False, exit_status=0)
    (tmp_path / "run.json").write_text(json.dumps({**told, **changes}))
    return tmp_path / "run.json"


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    told = document([], environment(tmp_path), partial=True, exit_status=None)
    write(tmp_path / "run.json", told)

    assert read_record(tmp_path / "run.json") == told


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"of schema 2, and this pytest-trt reads up to 1: update it"):
        read_record(record(tmp_path, schema=2))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is damaged, or no JSON at all"),
        (b'{"schema": 1, "partial": fa', "is damaged, or no JSON at all"),
        (b"\x89PNG\r\n\x1a\n\xff", "is not text"),
        (b"[" * 100_000, "is damaged, or no JSON at all"),
        (b"[1, 2]", "no record of pytest-trt: list stands in place of an object"),
        (b'{"benchmarks": []}', "no record of pytest-trt: it has no 'schema'"),
        (b'{"schema": true, "partial": false}', "'schema' is bool"),
        (b'{"schema": 1, "partial": false, "environment": {}, "results": [3]}', "result number 1: int stands in place"),
        (b'{"schema": 1, "partial": false, "environment": {}, "results": [{}]}', "result number 1: it has no 'case'"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "run.json").write_bytes(content)

    with pytest.raises(ReportError) as caught:
        read_record(tmp_path / "run.json")

    assert said in str(caught.value)
    assert "run.json" in str(caught.value)


def test_a_record_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"run\.json can't be read: No such file"):
        read_record(tmp_path / "run.json")
