"""The pytest face: what is collected, at which precisions, how it ends, what is written."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from onnx import helper
from outcomes import ids

if TYPE_CHECKING:
    from pathlib import Path

MARKED = """
import pytest

@pytest.mark.trt(onnx="net.onnx", calibration="calibration.npz")
def test_net(trt_check):
    trt_check()
"""


# --- collection


def test_a_trt_toml_is_collected_as_a_case_and_precision_an_item(pytester: pytest.Pytester, golden: Path) -> None:
    result = pytester.runpytest("--trt-precision=fp16,int8", "-v")

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["trt.toml::net[[]fp16] PASSED*", "trt.toml::net[[]int8] PASSED*"])


def test_an_item_is_run_alone_by_its_id(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.runpytest("trt.toml::net[int8]", "--trt-precision=fp16,int8").assert_outcomes(passed=1)
    pytester.runpytest("trt.toml::net", "--trt-precision=fp16,int8").assert_outcomes(passed=2)


def test_files_of_another_stem_and_pyproject_hold_cases_too(pytester: pytest.Pytester, golden: Path) -> None:
    toml = (pytester.path / "trt.toml").read_text()
    (pytester.path / "trt.toml").rename(pytester.path / "more.trt.toml")
    pytester.makepyprojecttoml(toml.replace("[[model]]", '[[tool.pytest-trt.model]]\nname = "other"'))

    result = pytester.runpytest("--co", "-q")

    assert sorted(ids(result)) == ["more.trt.toml::net[fp32]", "pyproject.toml::other[fp32]"]


def test_a_pyproject_without_cases_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyprojecttoml('[tool.other]\nkey = "[broken')

    assert pytester.runpytest("-c", "/dev/null", "--co", "-q").ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_the_roots_cases_are_collected_beside_testpaths(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makeini("[pytest]\ntestpaths = tests\n")
    pytester.mkdir("tests").joinpath("test_a.py").write_text("def test_a(): pass\n")

    assert sorted(ids(pytester.runpytest("--co", "-q"))) == ["tests/test_a.py::test_a", "trt.toml::net[fp32]"]


def test_a_model_needs_no_test_file_and_is_all_that_is_collected(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile("def test_other(): assert False")

    result = pytester.runpytest("--trt-model=net.onnx", "--trt-precision=fp16", "-v")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["net.onnx::net[[]fp16] PASSED*"])


def test_a_folder_of_models_is_searched(pytester: pytest.Pytester) -> None:
    for name in ("a", "b"):
        networks.save(networks.convolutional(), pytester.path / "zoo" / name / "model.onnx")

    result = pytester.runpytest("--trt-model=zoo", "--co", "-q")

    assert sorted(ids(result)) == ["zoo/a/model.onnx::a[fp32]", "zoo/b/model.onnx::b[fp32]"]


def test_a_model_beside_named_tests_is_collected_with_them(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile(test_a="def test_a(): pass")

    result = pytester.runpytest("test_a.py", "--trt-model=net.onnx", "--co", "-q")

    assert sorted(ids(result)) == ["net.onnx::net[fp32]", "test_a.py::test_a"]


@pytest.mark.parametrize(
    ("path", "message"),
    [("none.onnx", "there is no file"), ("empty", "no .onnx file in the folder"), ("trt.toml", "neither a folder nor")],
)
def test_a_model_that_is_not_there_is_a_usage_error(
    pytester: pytest.Pytester, project: Path, path: str, message: str
) -> None:
    (project / "empty").mkdir()

    result = pytester.runpytest(f"--trt-model={path}")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{message}*"])


def test_onnx_test_data_are_judged_without_a_golden(pytester: pytest.Pytester) -> None:
    from onnx_test_data import write

    write(pytester.path / "net", networks.convolutional(), 0, [networks.images()])

    pytester.runpytest("--trt-model=net", "--trt-precision=fp32,fp16").assert_outcomes(passed=2)


def test_int8_of_a_bare_model_takes_its_calibration_from_the_command_line(
    pytester: pytest.Pytester, golden: Path
) -> None:
    bare = ["--trt-model=net.onnx", "--trt-precision=int8"]

    without = pytester.runpytest(*bare)
    without.assert_outcomes(failed=1)
    without.stdout.fnmatch_lines(["*needs calibration data and names none*"])
    for data in ("calibration.npz", "golden"):
        pytester.runpytest(*bare, f"--trt-calibration={data}").assert_outcomes(passed=1)


# --- precedence


def test_precision_is_the_command_lines_then_the_cases_then_the_inis_then_fp32(
    pytester: pytest.Pytester, golden: Path
) -> None:
    def collected(*arguments: str) -> list[str]:
        return ids(pytester.runpytest("--co", "-q", *arguments))

    assert collected() == ["trt.toml::net[fp32]"]
    pytester.makeini("[pytest]\ntrt_precision = tf32\n")
    assert collected() == ["trt.toml::net[tf32]"]
    with (pytester.path / "trt.toml").open("a") as file:
        file.write('precisions = ["fp16"]\n')
    assert collected() == ["trt.toml::net[fp16]"]
    assert collected("--trt-precision=int8", "--trt-precision=bf16") == ["trt.toml::net[int8]", "trt.toml::net[bf16]"]


def test_the_golden_folder_is_the_command_lines_then_the_inis(pytester: pytest.Pytester, golden: Path) -> None:
    golden.parent.rename(pytester.path / "elsewhere")
    pytester.runpytest("--trt-golden-dir=elsewhere").assert_outcomes(passed=1)
    pytester.runpytest().assert_outcomes(failed=1)
    pytester.makeini("[pytest]\ntrt_golden_dir = elsewhere\n")
    pytester.runpytest().assert_outcomes(passed=1)
    pytester.runpytest("--trt-golden-dir=nowhere").assert_outcomes(failed=1)


def test_every_option_but_those_of_one_run_has_an_ini_twin(pytester: pytest.Pytester) -> None:
    listing = pytester.runpytest("--help").stdout.str()

    flags = set(re.findall(r"^ +--(trt-[a-z-]+)", listing, re.MULTILINE))
    twins = {name.replace("_", "-") for name in re.findall(r"^ +(trt_[a-z_]+) \(", listing, re.MULTILINE)}
    assert "trt-precision" in flags & twins
    assert flags - twins == {"trt-update-golden", "trt-golden-reason", "trt-engine", "trt-build-only"}


def test_require_engine_fails_a_simulation_from_the_ini_too(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.runpytest("--trt-require-engine").assert_outcomes(failed=1)
    pytester.makeini("[pytest]\ntrt_require_engine = true\n")

    result = pytester.runpytest()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*an engine is required*only simulates*"])


# --- usage errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trt-precision=int9"], "unknown precision 'int9': did you mean 'int8'?"),
        (["--trt-precision=int8,fp61"], "unknown precision 'fp61': did you mean 'fp16'?"),
        (["--trt-precision="], "the list of precisions is empty"),
        (["--trt-backend=onnxrutime"], "unknown backend 'onnxrutime': did you mean 'onnxruntime'?"),
        (["--trt-report=report.jsn"], "did you mean '.json'?"),
    ],
)
@pytest.mark.parametrize("ini", [False, True])
def test_an_unknown_word_of_an_option_is_a_usage_error(
    pytester: pytest.Pytester, golden: Path, arguments: list[str], message: str, ini: bool
) -> None:
    if ini:
        name, _, value = arguments[0].lstrip("-").partition("=")
        pytester.makeini(f"[pytest]\n{name.replace('-', '_')} = {value}\n")
    result = pytester.runpytest(*([] if ini else arguments))

    if ini and arguments == ["--trt-precision="]:
        assert result.ret == 0  # an empty ini value is none
        return
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('calibraton = "c.npz"', "unknown key in trt.toml: model 'a': 'calibraton': did you mean 'calibration'?"),
        ('precisions = ["int9"]', "unknown precision 'int9': did you mean 'int8'?"),
        ("tolerance.int8 = { rel_rsm = 1 }", "'rel_rsm': did you mean 'rel_rms'?"),
        ('backend = "tensorr"', "unknown backend 'tensorr'"),
    ],
)
@pytest.mark.parametrize("workers", [[], ["-n1"]])
def test_an_unknown_word_of_a_trt_toml_is_a_usage_error(
    pytester: pytest.Pytester, golden: Path, line: str, message: str, workers: list[str]
) -> None:
    (pytester.path / "trt.toml").write_text(f'[[model]]\nname = "a"\nonnx = "net.onnx"\n{line}\n')

    result = pytester.runpytest(*workers)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str() + result.stdout.str()


def test_an_unknown_table_of_a_trt_toml_is_a_usage_error(pytester: pytest.Pytester, golden: Path) -> None:
    (pytester.path / "trt.toml").write_text('[[modle]]\nonnx = "net.onnx"\n')

    result = pytester.runpytest()

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "'modle': did you mean 'model'?" in result.stderr.str()


@pytest.mark.parametrize("fixture", ["trt_check", ""])
def test_an_unknown_argument_of_the_marker_is_a_usage_error(pytester: pytest.Pytester, fixture: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.trt(onxx='net.onnx')\ndef test_net({fixture}): pass\n")

    result = pytester.runpytest()

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "'onxx': did you mean 'onnx'?" in result.stderr.str()


# --- fixtures and the marker


def test_a_marked_test_is_repeated_for_each_precision(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile(MARKED)

    result = pytester.runpytest(
        "test_a_marked_test_is_repeated_for_each_precision.py", "-v", "--trt-precision=fp16,int8"
    )

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*::test_net[[]fp16] PASSED*", "*::test_net[[]int8] PASSED*"])


def test_a_test_without_marker_takes_the_cases_beside_it(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.mkdir("tests").joinpath("test_hand.py").write_text(
        "def test_hand(trt_engine, trt_golden):\n"
        "    assert trt_engine.simulated\n"
        "    trt_golden.check(trt_engine.run(trt_golden.inputs))\n"
    )

    result = pytester.runpytest("tests", "-v", "--trt-precision=int8")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["tests/test_hand.py::test_hand[[]net-int8] PASSED*", "net *int8 *onnxruntime (simulated)*passed"]
    )


def test_outputs_checked_by_hand_fail_like_any(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile(
        "def test_hand(trt_golden):\n"
        "    trt_golden.check({name: 1.5 * array for name, array in trt_golden.outputs.items()})\n"
    )

    result = pytester.runpytest("test_outputs_checked_by_hand_fail_like_any.py", "--trt-precision=int8")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*net at int8 on given outputs: FAILED, outside tolerance", "*relative RMS 0.5 is over*"]
    )


@pytest.mark.parametrize(
    ("given", "kind"), [("{}", "DataError"), ("{'logits': trt_golden.outputs['logits'][:3]}", "GoldenMismatch")]
)
def test_outputs_that_are_missing_or_of_another_shape_fail(
    pytester: pytest.Pytester, golden: Path, given: str, kind: str
) -> None:
    pytester.makepyfile(f"def test_hand(trt_golden):\n    trt_golden.check({given})\n")

    result = pytester.runpytest("--trt-precision=int8", "-k", "hand")

    result.assert_outcomes(failed=1, deselected=1)
    assert f"error: {kind}" in result.stdout.str()


def test_a_test_may_take_the_precision_or_the_case_alone(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile(
        "def test_precision(trt_precision):\n    assert trt_precision.label in ('fp16', 'int8')\n"
        "def test_case(trt_case):\n    assert trt_case.name == 'net'\n"
    )

    pytester.runpytest("--trt-precision=fp16,int8", "-k", "test_").assert_outcomes(passed=4, deselected=2)


def test_a_fixture_without_any_case_fails_and_says_what_to_write(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_lost(trt_check): trt_check()")

    result = pytester.runpytest()

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*asks for a trt fixture and no model is named*"])


def test_positional_arguments_of_the_marker_are_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.trt('net.onnx')\ndef test_net(trt_check): trt_check()\n")

    result = pytester.runpytest()

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*takes named arguments only*"])


def test_fixtures_have_docstrings_with_examples(pytester: pytest.Pytester) -> None:
    told = pytester.runpytest("--fixtures", "-v").stdout.str()

    for name in ("trt_precision", "trt_case", "trt_engine", "trt_golden", "trt_check"):
        assert name in told
    assert "no docstring available" not in told.partition("pytest_trt")[2].partition("fixtures defined from")[0]
    assert "trt_golden.check(trt_engine.run(trt_golden.inputs))" in told


def test_the_marker_is_registered_and_selects(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile(MARKED + "def test_other(): pass\n")

    pytester.runpytest("--strict-markers", "-m", "trt", "-W", "error").assert_outcomes(passed=2, deselected=1)


# --- how a run ends


def test_a_run_asked_for_a_precision_that_judged_nothing_fails_and_says_so(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_other(): pass")

    result = pytester.runpytest("--trt-precision=int8")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["ERROR: --trt-precision=int8 was asked for, and no case was judged at int8.*"])


def test_an_empty_run_asked_for_a_precision_says_so_too(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--trt-precision=int8")

    assert result.ret != 0
    result.stdout.fnmatch_lines(["ERROR: --trt-precision=int8 was asked for*"])


def test_a_skipped_case_is_not_judged(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makeconftest(
        "import pytest\n"
        "def pytest_collection_modifyitems(items):\n"
        "    for item in items: item.add_marker(pytest.mark.skip(reason='no'))\n"
    )

    result = pytester.runpytest("--trt-precision=int8")

    result.assert_outcomes(skipped=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_deselected_precision_is_not_judged(pytester: pytest.Pytester, golden: Path) -> None:
    result = pytester.runpytest("--trt-precision=fp16,int8", "-k", "fp16")

    result.assert_outcomes(passed=1, deselected=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["ERROR: --trt-precision=int8 was asked for*"])


def test_collecting_alone_judges_nothing_and_is_fine(pytester: pytest.Pytester, golden: Path) -> None:
    assert pytester.runpytest("--trt-precision=int8", "--co").ret == 0


def test_a_failure_is_a_failed_item_with_its_message_alone(pytester: pytest.Pytester, golden: Path) -> None:
    np.savez(pytester.path / "calibration.npz", x=0.1 * networks.images(32, seed=2))

    result = pytester.runpytest("--trt-precision=int8")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*trt.toml::net[[]int8]*",
            "net at int8 on onnxruntime (simulated): FAILED, outside tolerance",
            "*relative RMS * is over the bound * (* times)",
            "*worst *index *actual *golden *difference *allowed",
            "*If this error is right for you, write tolerance.int8 = *",
            "net *int8 *onnxruntime (simulated)*failed",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert ".py:" not in result.stdout.str()


def test_nothing_is_shown_where_the_plugin_is_unused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_other(): pass")

    told = pytester.runpytest().stdout.str()

    assert "pytest-trt" not in told
    assert "trt:" not in told


def test_the_header_tells_precision_backend_and_that_it_simulates(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.runpytest("--trt-precision=int8").stdout.fnmatch_lines(
        ["trt: precision int8; backend onnxruntime *simulated on the CPU; goldens in *golden"]
    )


def test_the_table_has_a_row_a_verdict(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.runpytest("--trt-precision=fp16,int8").stdout.fnmatch_lines(
        [
            "case *precision *backend *rel. RMS *bound *worst element *verdict",
            "net *fp16 *onnxruntime (simulated) *logits[[]*] off by *passed",
            "net *int8 *onnxruntime (simulated) *logits[[]*] off by *passed",
        ]
    )


# --- goldens


def test_goldens_are_not_written_unless_asked(pytester: pytest.Pytester, project: Path) -> None:
    result = pytester.runpytest()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(['*there is no golden *net.safetensors*pytest "trt.toml::net" --trt-update-golden'])
    assert not (project / "golden").exists()


def test_the_command_of_the_message_makes_the_golden(pytester: pytest.Pytester, project: Path) -> None:
    result = pytester.runpytest("trt.toml::net", "--trt-update-golden", "--trt-golden-reason=first")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["net: new golden *net.safetensors", "*int8 'logits': simulated error *, bound *"])
    assert b"first" in (project / "golden" / "net.safetensors").read_bytes()


def test_writing_goldens_is_refused_in_ci(
    pytester: pytest.Pytester, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")

    result = pytester.runpytest("--trt-update-golden")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*refused where CI is set*"])
    assert not (project / "golden").exists()


def test_a_golden_that_can_not_be_made_leaves_the_old_one(pytester: pytest.Pytester, golden: Path) -> None:
    before = golden.read_bytes()
    networks.save(
        networks.with_weight(networks.convolutional(), "b3", lambda b: b * np.nan), pytester.path / "net.onnx"
    )

    result = pytester.runpytest("--trt-update-golden", "--trt-precision=fp32,fp16")

    result.assert_outcomes(failed=2)
    assert golden.read_bytes() == before


def test_a_golden_that_no_case_uses_is_reported(pytester: pytest.Pytester, golden: Path) -> None:
    (golden.parent / "old.safetensors").write_bytes(golden.read_bytes())

    pytester.runpytest().stdout.fnmatch_lines(["unused golden: *old.safetensors belongs to no collected case"])
    assert "unused" not in pytester.runpytest("trt.toml").stdout.str()


def test_two_cases_of_one_name_and_different_models_do_not_share_a_golden(
    pytester: pytest.Pytester, golden: Path
) -> None:
    networks.save(networks.convolutional(seed=3), pytester.path / "sub" / "net.onnx")
    (pytester.path / "sub" / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\n')
    before = golden.read_bytes()

    result = pytester.runpytest("--trt-update-golden")

    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*the name 'net' is taken by another model too (*"])
    assert golden.read_bytes() == before


def test_a_marked_test_and_a_file_may_name_the_same_model(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile(MARKED)

    pytester.runpytest("--trt-precision=int8").assert_outcomes(passed=2)


# --- reports


def report(pytester: pytest.Pytester, *arguments: str) -> dict[str, Any]:
    pytester.runpytest("--trt-report=out/run.json", *arguments)
    found: dict[str, Any] = json.loads((pytester.path / "out" / "run.json").read_text())
    return found


def test_the_record_holds_every_verdict_and_the_environment(pytester: pytest.Pytester, golden: Path) -> None:
    found = report(pytester, "--trt-precision=fp16,int8")

    assert (found["schema"], found["partial"], found["exit_status"]) == (1, False, 0)
    assert found["environment"]["packages"]["onnxruntime"]
    assert [(r["case"], r["precision"], r["simulated"], r["verdict"]) for r in found["results"]] == [
        ("net", "fp16", True, "passed"),
        ("net", "int8", True, "passed"),
    ]
    output = found["results"][1]["outputs"]["logits"]
    assert 0 < output["rel_rms"] < output["bound"]
    assert {"max_abs", "cosine", "sqnr_db", "nonfinite", "top1", "p99", "p999", "mean_error"} <= set(output)


def test_the_record_is_json_even_of_nan(pytester: pytest.Pytester, golden: Path) -> None:
    broken = networks.with_weight(networks.convolutional(), "b3", lambda b: b * np.nan)
    networks.save(broken, pytester.path / "nan.onnx")
    (pytester.path / "trt.toml").write_text('[[model]]\nname = "net"\nonnx = "nan.onnx"\nreference = "net.onnx"\n')

    output = report(pytester)["results"][0]["outputs"]["logits"]

    assert (output["rel_rms"], output["nonfinite"], output["worst"][0]["actual"]) == ("inf", 24, "nan")


def test_a_stopped_run_writes_a_partial_record(pytester: pytest.Pytester, golden: Path) -> None:
    golden.unlink()

    found = report(pytester, "--trt-precision=fp16,int8", "-x")

    assert found["partial"] is True
    assert [r["verdict"] for r in found["results"]] == ["error"]


def test_a_record_that_can_not_be_written_fails_the_run(pytester: pytest.Pytester, golden: Path) -> None:
    (pytester.path / "out").touch()

    result = pytester.runpytest("--trt-report=out/run.json")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["ERROR: the report *run.json can't be written*"])


def test_junit_carries_the_verdict_and_its_figures(pytester: pytest.Pytester, golden: Path) -> None:
    np.savez(pytester.path / "calibration.npz", x=0.1 * networks.images(32, seed=2))
    pytester.runpytest("--trt-precision=int8", "--junit-xml=junit.xml", "-W", "error")

    suite = ET.parse(pytester.path / "junit.xml").getroot()[0]

    assert suite.get("failures") == "1"
    properties = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert (properties["trt_case"], properties["trt_verdict"], properties["trt_simulated"]) == ("net", "failed", "True")
    assert float(properties["trt_rel_rms"] or 0) > float(properties["trt_bound"] or 0)


def test_workers_bring_the_same_record(pytester: pytest.Pytester, golden: Path) -> None:
    arguments = ["--trt-precision=fp32,tf32,fp16,bf16,int8"]
    alone = report(pytester, *arguments)["results"]

    shared = report(pytester, *arguments, "-n2")["results"]

    assert sorted(shared, key=str) == sorted(alone, key=str)


# --- weak bounds, and outputs that are left out


def two_outputs(folder: Path, more: str = "") -> None:
    """A case of waves over large steps, whose fp16 is far from fp32, with a second output of indices."""
    nodes = [
        helper.make_node("Mul", ["x", "rate"], ["phase"], "angle"),
        helper.make_node("Sin", ["phase"], ["y"], "wave"),
        helper.make_node("ArgMax", ["y"], ["best"], "best", axis=1, keepdims=0),
    ]
    outputs: dict[str, Any] = {"y": (networks.FLOAT, ["N", 6]), "best": (7, ["N"])}
    rate = np.linspace(0.1, 1, 6, dtype=np.float32)
    proto = networks.model(nodes, {"x": (networks.FLOAT, ["N", 6])}, outputs, {"rate": rate})
    networks.save(proto, folder / "net.onnx")
    np.savez(folder / "in.npz", x=np.random.default_rng(0).uniform(0, 500, (40, 6)).astype(np.float32))
    (folder / "trt.toml").write_text(f'[[model]]\nonnx = "net.onnx"\ninputs = "in.npz"\nprecisions = ["fp16"]\n{more}')


def test_a_weak_bound_warns_and_fails_where_that_was_asked(pytester: pytest.Pytester) -> None:
    two_outputs(pytester.path)
    pytester.runpytest("--trt-update-golden").assert_outcomes(passed=1)

    warned = pytester.runpytest()
    asked = pytester.runpytest("--trt-weak-bounds=fail")
    pytester.makeini("[pytest]\ntrt_weak_bounds = fail\n")

    warned.assert_outcomes(passed=1)
    warned.stdout.fnmatch_lines(["net at fp16: TRT307 warning: *begins at tensor 'y' of Sin 'wave'*"])
    asked.assert_outcomes(failed=1)
    asked.stdout.fnmatch_lines(["*TRT307 error: output 'y'*begins at tensor 'y' of Sin 'wave'*"])
    pytester.runpytest().assert_outcomes(failed=1)
    pytester.runpytest("--trt-weak-bounds=warn").assert_outcomes(passed=1)


def test_the_case_says_what_weak_bounds_do_before_the_ini_file(pytester: pytest.Pytester) -> None:
    two_outputs(pytester.path, 'weak_bounds = "warn"\n')
    pytester.runpytest("--trt-update-golden").assert_outcomes(passed=1)
    pytester.makeini("[pytest]\ntrt_weak_bounds = fail\n")

    pytester.runpytest().assert_outcomes(passed=1)


@pytest.mark.parametrize("where", ["option", "ini"])
def test_an_unknown_word_for_weak_bounds_is_a_usage_error(where: str, pytester: pytest.Pytester) -> None:
    two_outputs(pytester.path)
    if where == "ini":
        pytester.makeini("[pytest]\ntrt_weak_bounds = fial\n")

    result = pytester.runpytest(*(["--trt-weak-bounds=fial"] if where == "option" else []))

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unknown word for weak bounds 'fial'*"])


def test_outputs_that_are_left_out_are_told_in_table_record_and_reports(pytester: pytest.Pytester) -> None:
    two_outputs(pytester.path, 'ignore_outputs = ["best"]\n')
    pytester.runpytest("--trt-update-golden").assert_outcomes(passed=1)

    brief = pytester.runpytest("--trt-report=run.json", "--trt-report=run.md", "--trt-report=run.html")
    full = pytester.runpytest("-v")

    brief.stdout.fnmatch_lines(["1 case judges some outputs only: -v tells which are left out, and the record"])
    full.stdout.fnmatch_lines(["*not judged, as the case says (outputs, ignore_outputs): 'best'"])
    [record] = json.loads((pytester.path / "run.json").read_text())["results"]
    assert record["unjudged"] == ["best"]
    assert list(record["outputs"]) == ["y"]
    assert "not judged, as the case says: best" in (pytester.path / "run.md").read_text()
    assert "Not judged, as the case says: <code>best</code>" in (pytester.path / "run.html").read_text()
