"""Corners of the pytest face where a run could end green without a verdict, or break over a trifle."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import networks
import numpy as np
import pytest
from outcomes import ids

if TYPE_CHECKING:
    from pathlib import Path


# --- xdist's workers collect what the controller was told


@pytest.mark.parametrize("workers", [[], ["-n2"]])
@pytest.mark.parametrize(
    "arguments", [["--trt-model=net.onnx"], ["--trt-model=net.onnx", "test_ok.py"], ["--trt-report=r.json"]]
)
def test_workers_judge_what_one_process_judges(
    pytester: pytest.Pytester, project: Path, arguments: list[str], workers: list[str]
) -> None:
    pytester.makepyfile(test_ok="def test_ok(): pass")
    pytester.makeini("[pytest]\ntestpaths = test_ok.py\n")

    result = pytester.runpytest(*arguments, *workers)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*there is no golden*"])


def test_goldens_are_not_written_by_several_workers(pytester: pytest.Pytester, project: Path) -> None:
    result = pytester.runpytest("--trt-update-golden", "-n2")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--trt-update-golden is refused under xdist*"])
    assert not (project / "golden").exists()


# --- a run that was asked for a verdict and gave none


def test_a_precision_asked_by_the_ini_is_asked_of_the_whole_suite(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_ok="def test_ok(): pass")
    pytester.makeini("[pytest]\ntrt_precision = int8\n")

    result = pytester.runpytest()

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["ERROR: trt_precision in the ini file asks for a verdict, and no case was judged.*"])
    assert pytester.runpytest("test_ok.py").ret == 0
    assert pytester.runpytest("-k", "ok").ret == 0


@pytest.mark.parametrize("option", ["--trt-model=net.onnx", "--trt-require-engine"])
def test_other_options_ask_for_a_verdict_too(pytester: pytest.Pytester, golden: Path, option: str) -> None:
    pytester.makeconftest(
        "import pytest\n"
        "def pytest_collection_modifyitems(items):\n"
        "    for item in items: item.add_marker(pytest.mark.skip(reason='no'))\n"
    )

    result = pytester.runpytest(option)

    result.assert_outcomes(skipped=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    "body",
    [
        "def test_net(trt_check): trt_check",
        "@pytest.mark.usefixtures('trt_check')\ndef test_net(): pass",
        "@pytest.mark.trt(onnx='net.onnx')\ndef test_net(): pass",
    ],
)
def test_a_test_that_never_runs_the_gate_does_not_pass(pytester: pytest.Pytester, golden: Path, body: str) -> None:
    pytester.makepyfile(f"import pytest\n{body}\n")

    result = pytester.runpytest("-k", "test_net")

    result.assert_outcomes(failed=1, deselected=1)
    result.stdout.fnmatch_lines(["*nothing was judged*"])


def test_work_by_hand_needs_no_gate(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile("def test_hand(trt_engine, trt_golden): assert trt_engine.run(trt_golden.inputs)")

    pytester.runpytest("-k", "test_hand").assert_outcomes(passed=1, deselected=1)


def test_data_sets_are_not_judged_by_their_first_alone(pytester: pytest.Pytester) -> None:
    from onnx_test_data import write

    for number in (0, 1):
        write(pytester.path, networks.convolutional(), number, [networks.images(seed=number)])
    pytester.makepyfile(
        "import pytest\n@pytest.mark.trt(onnx='model.onnx')\n"
        "def test_hand(trt_engine, trt_golden): trt_golden.check(trt_engine.run(trt_golden.inputs))\n"
    )

    result = pytester.runpytest()

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*holds 2 data sets*trt_check()*"])


def test_a_required_engine_is_not_taken_on_trust(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile("def test_hand(trt_golden): trt_golden.check(trt_golden.outputs)")

    result = pytester.runpytest("--trt-require-engine", "-k", "test_hand")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*may come from anywhere*"])


# --- collection goes on


def test_models_of_the_ini_are_added_to_the_suite(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile(test_ok="def test_ok(): pass")
    (pytester.path / "trt.toml").unlink()
    pytester.makeini("[pytest]\ntestpaths = test_ok.py\ntrt_model = net.onnx\n")

    assert sorted(ids(pytester.runpytest("--co", "-q"))) == ["net.onnx::net[fp32]", "test_ok.py::test_ok"]
    assert ids(pytester.runpytest("--co", "-q", "test_ok.py")) == ["test_ok.py::test_ok"]


def test_a_model_may_be_named_from_a_subfolder(
    pytester: pytest.Pytester, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pytester.mkdir("sub"))

    result = pytester.runpytest("--trt-model=../net.onnx", f"--rootdir={pytester.path}")

    result.assert_outcomes(passed=1)


def test_a_path_that_pytest_can_not_name_is_refused_by_name(pytester: pytest.Pytester, project: Path) -> None:
    (project / "net.onnx").rename(project / "n[1].onnx")

    result = pytester.runpytest("--trt-model=n[1].onnx")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*whose path holds*rename it*"])


@pytest.mark.parametrize("toml", ["[[model]", "", "model = 3"])
def test_a_bad_file_beside_a_test_fails_the_test_alone(pytester: pytest.Pytester, golden: Path, toml: str) -> None:
    folder = pytester.mkdir("bad")
    (folder / "trt.toml").write_text(toml)
    (folder / "test_bad.py").write_text("def test_bad(trt_check): trt_check()\n")

    result = pytester.runpytest()

    told = result.parseoutcomes()
    assert told["passed"] == 1
    assert told.get("failed", 0) + told.get("errors", 0) == 2
    assert "Interrupted" not in result.stdout.str()


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("tolerance.int8.outputs = 3", "tolerance.int8.outputs = 3 must hold a table an output"),
        ("input = { x = { low = nan, high = 1 } }", "input.x.low = nan must be a finite number"),
        ('input = { x = { dtype = "flot" } }', "input.x.dtype = 'flot' is no numeric dtype"),
        (f'name = "{"n" * 300}"', "keep it under 200 characters"),
        ("samples = 99999999999999", "samples can't be drawn as `input` and `samples` say"),
    ],
)
def test_values_of_a_case_that_can_not_be_are_told(
    pytester: pytest.Pytester, golden: Path, toml: str, message: str
) -> None:
    (pytester.path / "more.trt.toml").write_text(f'[[model]]\nonnx = "net.onnx"\n{toml}\n')

    result = pytester.runpytest("more.trt.toml", "--trt-update-golden")

    result.assert_outcomes(failed=1)
    assert message in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


def test_a_function_that_exits_does_not_end_the_run(pytester: pytest.Pytester, golden: Path) -> None:
    (pytester.path / "data.py").write_text("def get(): raise SystemExit(0)\n")

    result = pytester.runpytest("--trt-precision=int8", "--trt-calibration=data:get")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*raised SystemExit*"])


def test_a_golden_folder_that_is_a_file_is_told(pytester: pytest.Pytester, project: Path) -> None:
    result = pytester.runpytest("--trt-golden-dir=trt.toml", "--trt-update-golden")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*net.safetensors can't be written*"])


# --- pyproject


@pytest.mark.parametrize(
    "toml", ['[[tool.pytest-trt.model]]\nonnx = "net.onnx"', '[tool."pytest-trt"]\nmodel = [{ onnx = "net.onnx" }]']
)
def test_our_table_is_found_however_it_is_written(pytester: pytest.Pytester, project: Path, toml: str) -> None:
    (project / "trt.toml").unlink()
    pytester.makepyprojecttoml(toml)

    assert ids(pytester.runpytest("--co", "-q")) == ["pyproject.toml::net[fp32]"]


def test_a_table_misspelt_is_told(pytester: pytest.Pytester, project: Path) -> None:
    pytester.makepyprojecttoml('[[tool.pytest_trt.model.model]]\nonnx = "net.onnx"\n')

    result = pytester.runpytest()

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'tool.pytest_trt': did you mean 'tool.pytest-trt'?*"])


def test_a_mere_mention_of_us_is_no_case(pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml("# see the docs of pytest-trt\n[tool.other]\n")

    assert pytester.runpytest("--co", "-q").ret == pytest.ExitCode.NO_TESTS_COLLECTED


# --- names and fixtures of others


def test_a_users_fixture_of_our_name_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import pytest\n@pytest.fixture\ndef trt_engine(): return 3\ndef test_own(trt_engine): assert trt_engine == 3\n"
    )

    pytester.runpytest().assert_outcomes(passed=1)


def test_a_test_may_choose_its_precisions_itself(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile(
        "import pytest\n@pytest.mark.parametrize('trt_precision', ['fp16'], indirect=True)\n"
        "def test_own(trt_check, trt_precision): assert trt_check().precision == 'fp16'\n"
    )

    pytester.runpytest("-k", "test_own", "--trt-precision=fp16,int8").assert_outcomes(passed=1, deselected=2)


def test_a_fixture_that_comes_too_late_says_so(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile("def test_late(request): request.getfixturevalue('trt_check')")

    result = pytester.runpytest("-k", "test_late")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*name it among the test's arguments*"])


def test_tests_that_take_our_fixtures_are_selected_by_the_marker(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile("def test_hand(trt_check): trt_check()\ndef test_other(): pass\n")

    pytester.runpytest("-m", "trt").assert_outcomes(passed=2, deselected=1)


# --- goldens


def test_two_cases_that_would_make_different_goldens_of_one_name_make_none(
    pytester: pytest.Pytester, golden: Path
) -> None:
    before = golden.read_bytes()
    pytester.makepyfile(
        "import pytest\n@pytest.mark.trt(onnx='net.onnx', samples=3)\ndef test_net(trt_check): trt_check()\n"
    )
    pytester.runpytest().assert_outcomes(passed=1, failed=1)

    result = pytester.runpytest("--trt-update-golden")

    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*would make another golden*"])
    assert golden.read_bytes() == before


def test_the_command_that_mends_names_the_golden_folder(pytester: pytest.Pytester, project: Path) -> None:
    result = pytester.runpytest("--trt-golden-dir=elsewhere")

    result.stdout.fnmatch_lines(['*pytest "trt.toml::net" --trt-golden-dir=elsewhere --trt-update-golden'])


def test_a_golden_is_not_called_unused_while_a_case_can_not_be_read(pytester: pytest.Pytester, golden: Path) -> None:
    (golden.parent / "more.safetensors").write_bytes(golden.read_bytes())
    (pytester.path / "more.trt.toml").write_text("[[model]")

    assert "unused golden" not in pytester.runpytest().stdout.str()


# --- reports


def test_collecting_alone_leaves_the_report(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.runpytest("--trt-report=run.json")
    before = (pytester.path / "run.json").read_bytes()

    pytester.runpytest("--trt-report=run.json", "--co")

    assert (pytester.path / "run.json").read_bytes() == before


def test_a_run_that_ends_early_is_partial(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile(test_zz="import pytest\ndef test_out(): pytest.exit('enough', returncode=0)\n")

    pytester.runpytest("test_zz.py", "trt.toml", "--trt-report=run.json")

    assert json.loads((pytester.path / "run.json").read_text())["partial"] is True


def test_a_word_not_known_is_told_though_an_item_was_named(pytester: pytest.Pytester, golden: Path) -> None:
    (pytester.path / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\nprecision = "int8"\n')

    result = pytester.runpytest("trt.toml::net[int8]", "--trt-precision=int8")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "'precision': did you mean 'precisions'?" in result.stdout.str() + result.stderr.str()


def test_a_passed_case_carries_no_advice(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.runpytest("--trt-report=run.json")

    assert json.loads((pytester.path / "run.json").read_text())["results"][0]["accept"] == ""


def test_a_nan_in_calibration_is_told_with_its_case(pytester: pytest.Pytester, golden: Path) -> None:
    x = networks.images()
    x[2, 0, 0, 0] = np.nan
    np.savez(pytester.path / "calibration.npz", x=x)

    result = pytester.runpytest("--trt-precision=int8")

    result.stdout.fnmatch_lines(["*trt.toml: model number 1: calibration 'calibration.npz': 'x' has 1 NaN*sample 2*"])
