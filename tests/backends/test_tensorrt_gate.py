"""pytest --trt-backend=tensorrt from end to end, on a fake of TensorRT."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from fakes.tensorrt import install

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ("--trt-backend=tensorrt", "--trt-store=plans")


def results(project: Path) -> list[dict[str, Any]]:
    return list(json.loads((project / "run.json").read_text())["results"])


def run(pytester: pytest.Pytester, *words: str) -> pytest.RunResult:
    return pytester.runpytest(*WORDS, "--trt-report=run.json", *words)


@pytest.mark.usefixtures("golden")
@pytest.mark.parametrize("release", ["8.6", "10.16", "11.4"])
def test_a_real_engine_passes_and_is_not_called_simulated(
    release: str, project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, release)

    found = run(pytester, "--trt-precision=fp32,fp16,int8", "--trt-require-engine")

    assert found.ret == 0
    assert "simulated" not in found.stdout.str().split("short test summary")[0].split("pytest-trt ====")[1]
    found.stdout.fnmatch_lines(["net *int8 *tensorrt *3/3 int8 *passed"])
    assert [r["layers"]["honoured"] for r in results(project)] == [3, 3, 3]


@pytest.mark.usefixtures("golden")
def test_an_engine_in_another_precision_is_never_a_pass(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16", achieved={"int8": 1})

    found = run(pytester, "--trt-precision=int8")

    assert found.ret == 1
    (record,) = results(project)
    assert record["verdict"] == "failed"
    assert record["findings"][0]["code"] == "TRT201"
    assert "2 in fp32, 1 in int8" in record["findings"][0]["message"]
    assert record["layers"]["by_precision"] == {"int8": 1, "fp32": 2}
    assert record["outputs"]["logits"]["rel_rms"] < record["outputs"]["logits"]["bound"]
    found.stdout.fnmatch_lines(["*TRT201*"])


@pytest.mark.usefixtures("golden")
@pytest.mark.parametrize("choice", ["--trt-ignore=TRT201", "--trt-select=TRT3"])
def test_an_engine_in_another_precision_fails_whichever_findings_count(
    choice: str, project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16", achieved={"int8": 1})

    found = run(pytester, "--trt-precision=int8", choice)

    assert found.ret == 1
    assert "int8 was asked, and the engine has 1 of 3" in " ".join(results(project)[0]["warnings"])


@pytest.mark.usefixtures("golden")
def test_a_wrong_engine_in_another_precision_tells_both(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16", achieved={"int8": 1})
    table = (project / "trt.toml").read_text()
    (project / "trt.toml").write_text(table + "tolerance.int8 = { rel_rms = 1e-9 }\n")

    run(pytester, "--trt-precision=int8")

    codes = [finding["code"] for finding in results(project)[0]["findings"]]
    assert codes[0] == "TRT201"
    assert "TRT302" in codes


@pytest.mark.usefixtures("golden")
def test_by_hand_an_engine_in_another_precision_is_an_error(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16", achieved={"int8": 1})
    pytester.makepyfile("def test_hand(trt_engine):\n    pass\n")

    found = run(pytester, "--trt-precision=int8", "-k", "hand")

    assert found.ret == 1
    assert results(project)[0]["kind"] == "PrecisionNotHonoured"


@pytest.mark.usefixtures("golden")
def test_what_is_not_honoured_can_be_accepted_and_stays_in_the_record(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16", achieved={"int8": 1})

    found = run(pytester, "--trt-precision=int8", "--trt-build=honoured=0.3")

    assert found.ret == 0
    layers = results(project)[0]["layers"]
    assert (layers["honoured"], layers["compute"], layers["by_precision"]) == (1, 3, {"int8": 1, "fp32": 2})


@pytest.mark.usefixtures("golden")
def test_a_second_session_builds_nothing(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch, "10.16")

    run(pytester, "--trt-precision=fp16")
    built = len(trt._world.plans)
    found = run(pytester, "--trt-precision=fp16")

    assert found.ret == 0
    assert len(trt._world.plans) == built == 1
    assert "from_store" in results(project)[0]["provenance"]["engine"]


@pytest.mark.usefixtures("golden")
def test_a_store_of_none_keeps_nothing(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch, "10.16")

    for _ in range(2):
        assert run(pytester, "--trt-store=none").ret == 0

    assert len(trt._world.plans) == 2
    assert not (project / "plans").exists()


@pytest.mark.usefixtures("golden")
def test_the_command_line_counts_before_the_case_and_the_case_before_the_ini_file(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch, "10.16")
    toml = '[[model]]\nonnx = "net.onnx"\nbuild = { workspace = "2M", optimization_level = 1 }\n'
    (project / "trt.toml").write_text(toml)
    (project / "pytest.ini").write_text("[pytest]\ntrt_typing = weak\ntrt_build =\n  workspace=1M\n  refit\n")

    assert run(pytester, "--trt-precision=fp16", "--trt-build=optimization_level=4").ret == 0

    made = trt._world.plans[-1]
    assert made["pools"] == {"WORKSPACE": 2 * 2**20}
    assert made["optimization_level"] == 4
    assert {"REFIT", "FP16"} <= set(made["flags"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--trt-build=workspaec=2G"], "did you mean 'workspace'"),
        (["--trt-build=workspace=lots"], "must be a size"),
        (["--trt-typing=stong"], "did you mean 'strong'"),
    ],
)
def test_a_build_word_that_is_not_known_is_a_usage_error(
    words: list[str], told: str, pytester: pytest.Pytester
) -> None:
    found = pytester.runpytest(*words)

    assert found.ret == pytest.ExitCode.USAGE_ERROR
    assert told in found.stderr.str()


@pytest.mark.parametrize("line", ["trt_typing = stong", "trt_build = workspaec=2G"])
def test_a_build_word_of_the_ini_file_is_looked_at_as_closely(line: str, pytester: pytest.Pytester) -> None:
    (pytester.path / "pytest.ini").write_text(f"[pytest]\n{line}\n")

    found = pytester.runpytest()

    assert found.ret == pytest.ExitCode.USAGE_ERROR
    assert "did you mean" in found.stderr.str()


@pytest.mark.parametrize("entry", ['build = { workspaec = "2G" }', 'build = { typing = "stong" }'])
def test_a_build_word_of_a_case_is_looked_at_as_closely(entry: str, project: Path, pytester: pytest.Pytester) -> None:
    (project / "trt.toml").write_text(f'[[model]]\nonnx = "net.onnx"\n{entry}\n')

    found = pytester.runpytest()

    assert found.ret == pytest.ExitCode.USAGE_ERROR
    assert "did you mean" in found.stdout.str() + found.stderr.str()


def plan_of(project: Path, pytester: pytest.Pytester, name: str = "mine.plan") -> None:
    assert run(pytester, "--trt-precision=fp16").ret == 0
    (plan,) = (project / "plans").glob("*.plan")
    plan.rename(project / name)


@pytest.mark.usefixtures("golden")
def test_a_plan_that_was_built_elsewhere_is_judged(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16")
    plan_of(project, pytester)

    found = run(pytester, "--trt-precision=fp16", "--trt-engine=mine.plan")

    assert found.ret == 0
    assert results(project)[0]["provenance"]["engine"]["plan"].endswith("mine.plan")


@pytest.mark.usefixtures("golden")
def test_an_fp16_plan_is_no_int8_engine(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16")
    plan_of(project, pytester)

    found = run(pytester, "--trt-precision=int8", "--trt-engine=mine.plan")

    assert found.ret == 1
    (record,) = results(project)
    assert (record["verdict"], record["findings"][0]["code"]) == ("failed", "TRT201")
    assert record["outputs"]["logits"]["rel_rms"] > 0


@pytest.mark.usefixtures("golden")
def test_one_plan_is_not_judged_at_two_precisions(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16")
    plan_of(project, pytester)

    found = run(pytester, "--trt-precision=fp16,int8", "--trt-engine=mine.plan")

    assert found.ret == 1
    assert all("2 tests would judge it" in record["message"] for record in results(project))


@pytest.mark.usefixtures("golden")
@pytest.mark.parametrize("word", ["--trt-engine=mine.plan", "--trt-build-only", "--trt-require-engine"])
def test_a_backend_that_builds_no_engines_is_refused_where_one_is_asked_for(
    word: str, project: Path, pytester: pytest.Pytester
) -> None:
    found = pytester.runpytest(word, "--trt-report=run.json")

    assert found.ret == 1
    assert "only simulates the precision on the CPU" in results(project)[0]["message"]


def test_a_model_that_is_only_built_is_called_built_and_not_passed(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "rtx-1.7", {"device_count": 0})
    networks.save(networks.convolutional(batch=2), project / "net.onnx")
    words = ["--trt-backend=tensorrt-rtx", "--trt-build-only", "--trt-build=compute_capabilities=8.9"]

    found = run(pytester, *words, "--trt-precision=fp16,int8")

    assert found.ret == 0
    found.stdout.fnmatch_lines(["net *fp16 *tensorrt-rtx *built, not judged"])
    assert [record["verdict"] for record in results(project)] == ["built", "built"]


def test_a_dynamic_model_is_only_built_for_its_goldens_shapes_where_there_is_one(
    golden: Path, project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch, "rtx-1.7", {"device_count": 0})
    words = ["--trt-backend=tensorrt-rtx", "--trt-build-only", "--trt-build=compute_capabilities=8.9"]

    assert run(pytester, *words).ret == 0
    assert trt._world.plans[-1]["profiles"][0]["x"][0][0] == 8
    golden.unlink()
    found = run(pytester, *words)

    assert found.ret == 1
    assert "nothing tells what to build for" in results(project)[0]["message"]


def test_a_build_that_fails_is_never_a_pass(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "rtx-1.7", {"device_count": 0}, build_error="conv1 has no runners")
    networks.save(networks.convolutional(batch=2), project / "net.onnx")

    found = run(pytester, "--trt-backend=tensorrt-rtx", "--trt-build-only", "--trt-build=compute_capabilities=8.9")

    assert found.ret == 1
    assert "conv1 has no runners" in found.stdout.str()
    assert "Traceback" not in found.stdout.str()


@pytest.mark.usefixtures("golden")
def test_by_hand_the_outputs_of_an_engine_in_another_precision_are_judged(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16", achieved={"int8": 1})
    pytester.makepyfile(
        "def test_hand(trt_engine, trt_golden):\n    trt_golden.check(trt_engine.run(trt_golden.inputs))\n"
    )

    found = run(pytester, "--trt-precision=int8", "-k", "hand")

    assert found.ret == 1
    (record,) = results(project)
    assert record["verdict"] == "failed"
    assert record["findings"][0]["code"] == "TRT201"
    assert record["outputs"]


@pytest.mark.usefixtures("golden")
def test_a_test_by_hand_records_the_layers_of_its_engine(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16")
    (project / "trt.toml").unlink()
    (project / "test_net.py").write_text(
        "import pytest\n"
        '@pytest.mark.trt(onnx="net.onnx", calibration="calibration.npz")\n'
        "def test_net(trt_golden, trt_engine):\n"
        "    trt_golden.check(trt_engine.run(trt_golden.inputs))\n"
    )

    assert run(pytester, "--trt-precision=fp16").ret == 0

    assert results(project)[0]["layers"]["honoured"] == 3


@pytest.mark.usefixtures("golden")
def test_what_the_builder_warned_of_is_in_a_failing_tests_message(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "8.6", build_warning="21 weights are affected")
    np.savez(project / "calibration.npz", x=0.01 * networks.images(32, seed=2))

    found = run(pytester, "--trt-precision=int8", "--trt-typing=strong")

    assert found.ret == 1
    text = found.stdout.str()
    assert "warned: 21 weights are affected" in text
    assert re.search(r"engine: TensorRT 8\.6\.0, strong typing, FAKE GPU; 3/3 int8 compute layers", text)


def test_no_context_is_made_and_tensorrt_is_not_imported_by_collecting(
    golden: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cuda = install(monkeypatch, "10.16")
    calls: list[str] = []
    monkeypatch.setattr(cuda, "cudaSetDevice", lambda _: calls.append("context"))
    monkeypatch.setattr(cuda, "cudaGetDeviceCount", lambda: calls.append("count"))

    found = run(pytester, "--collect-only", "-q")

    assert found.ret == 0
    assert calls == []


@pytest.mark.usefixtures("golden")
@pytest.mark.parametrize("plan", ["--trt-engine=nosuch.plan", "case"])
def test_a_plan_that_was_named_is_not_left_unlooked_at_by_building(
    plan: str, project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16")
    if plan == "case":
        (project / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\nengine = "nosuch.plan"\n')

    found = run(pytester, "--trt-build-only", *([plan] if plan != "case" else []))

    assert found.ret == 1
    assert "nosuch.plan is built already" in results(project)[0]["message"]


def test_building_only_is_typed_and_not_kept(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--trt-build-only")
    assert pytester.runpytest().ret == pytest.ExitCode.USAGE_ERROR
    monkeypatch.delenv("PYTEST_ADDOPTS")
    (project / "pytest.ini").write_text("[pytest]\naddopts = --trt-build-only\n")
    assert pytester.runpytest().ret == pytest.ExitCode.USAGE_ERROR


def test_building_only_and_requiring_an_engine_exclude_each_other(pytester: pytest.Pytester) -> None:
    found = pytester.runpytest("--trt-build-only", "--trt-require-engine")

    assert found.ret == pytest.ExitCode.USAGE_ERROR
    assert "leave one of them out" in found.stderr.str()


@pytest.mark.parametrize("word", ["--trt-engine=net.plan", "--trt-build-only"])
def test_a_run_that_was_asked_about_an_engine_and_had_none_to_look_at_is_not_green(
    word: str, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile("def test_nothing(): pass")

    found = pytester.runpytest(
        word, "test_a_run_that_was_asked_about_an_engine_and_had_none_to_look_at_is_not_green.py"
    )

    assert found.ret == 1
    assert f"{word.partition('=')[0]} asks for a verdict, and no case was judged" in found.stdout.str()


def by_hand(project: Path, fixtures: str, body: str) -> None:
    """A test file in place of the trt.toml."""
    (project / "trt.toml").unlink()
    marker = '@pytest.mark.trt(onnx="net.onnx")'
    (project / "test_net.py").write_text(f"import pytest\n{marker}\ndef test_net({fixtures}):\n    {body}\n")


@pytest.mark.usefixtures("golden")
def test_outputs_of_anywhere_are_not_judged_as_those_of_a_plan(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16")
    by_hand(project, "trt_golden", "trt_golden.check(trt_golden.outputs)")

    found = run(pytester, "--trt-engine=nosuch.plan")

    assert found.ret == 1
    assert "may come from anywhere" in found.stdout.str()


@pytest.mark.usefixtures("golden")
def test_a_test_that_runs_its_engine_is_not_only_built(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16")
    by_hand(project, "trt_golden, trt_engine", "trt_golden.check(trt_engine.run(trt_golden.inputs))")

    found = run(pytester, "--trt-build-only")

    assert found.ret == 1
    assert "deselect it" in found.stdout.str()


@pytest.mark.usefixtures("golden")
def test_words_that_a_backend_has_no_use_for_are_not_dropped_by_tests_by_hand(
    project: Path, pytester: pytest.Pytester
) -> None:
    by_hand(project, "trt_golden, trt_engine", "trt_golden.check(trt_engine.run(trt_golden.inputs))")

    found = pytester.runpytest("--trt-build=workspace=2G")

    assert found.ret == 1
    assert "has no use for workspace" in found.stdout.str()


@pytest.mark.usefixtures("golden")
def test_a_test_that_judges_by_hand_is_not_only_built(project: Path, pytester: pytest.Pytester) -> None:
    by_hand(project, "trt_golden", "trt_golden.check(trt_golden.outputs)")

    found = pytester.runpytest("--trt-build-only")

    assert found.ret == 1
    assert "judges nothing, and this test judges by hand" in found.stdout.str()


def test_building_only_is_not_kept_in_a_file_of_arguments(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "args.txt").write_text("--trt-build-only\n")
    monkeypatch.setenv("PYTEST_ADDOPTS", "@args.txt")

    assert pytester.runpytest().ret == pytest.ExitCode.USAGE_ERROR


def test_a_project_that_requires_engines_can_be_built_only(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16")
    networks.save(networks.convolutional(batch=2), project / "net.onnx")
    (project / "pytest.ini").write_text("[pytest]\ntrt_require_engine = true\n")

    assert run(pytester, "--trt-build-only").ret == 0


def test_a_test_that_takes_the_whole_gate_can_be_built_only(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16")
    networks.save(networks.convolutional(batch=2), project / "net.onnx")
    by_hand(project, "trt_check", "trt_check()")

    found = run(pytester, "--trt-build-only")

    assert found.ret == 0
    assert "1 built and nothing of them judged" in found.stdout.str()


@pytest.mark.usefixtures("golden")
def test_outputs_that_stayed_on_the_gpu_are_told_so_and_not_to_make_the_golden_anew(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16")
    by_hand(project, "trt_golden, trt_engine", "trt_golden.check(trt_engine.run(trt_golden.inputs, on_device=True))")

    found = run(pytester)

    assert found.ret == 1
    assert "output 'logits' lies on the GPU" in found.stdout.str()
    assert "--trt-update-golden" not in found.stdout.str()


@pytest.mark.usefixtures("golden")
@pytest.mark.parametrize("word", ["--trt-typing=weak", "--trt-build=dla_core=0"])
def test_a_word_that_the_simulation_has_no_use_for_is_not_dropped(
    word: str, project: Path, pytester: pytest.Pytester
) -> None:
    found = pytester.runpytest(word, "--trt-report=run.json")

    assert found.ret == 1
    assert "has no use for" in results(project)[0]["message"]


@pytest.mark.usefixtures("golden")
def test_a_cases_own_build_table_serves_the_simulation_as_well(project: Path, pytester: pytest.Pytester) -> None:
    (project / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\nbuild = { workspace = "1G" }\n')

    assert pytester.runpytest().ret == 0


@pytest.mark.usefixtures("golden")
def test_a_list_that_is_repeated_grows_and_typing_has_the_last_word(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch, "10.16")
    sources = ["--trt-build=tactic_sources=cublas", "--trt-build=tactic_sources=cudnn"]

    assert run(pytester, *sources, "--trt-build=typing=strong", "--trt-typing=weak").ret == 0

    made = trt._world.plans[-1]
    assert made["tactic_sources"] == (1 << int(trt.TacticSource.CUBLAS)) | (1 << int(trt.TacticSource.CUDNN))
    assert not made["strongly_typed"]


def test_calibration_by_the_goldens_inputs_without_a_golden_says_that_there_is_none(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16")
    networks.save(networks.convolutional(batch=2), project / "net.onnx")

    found = run(pytester, "--trt-build-only", "--trt-precision=int8", "--trt-calibration=golden")

    assert found.ret == 1
    assert "there is no golden of 'net'" in results(project)[0]["message"]


def test_a_dynamic_model_is_only_built_for_its_cases_inputs_where_there_is_no_golden(
    project: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch, "10.16")
    np.savez(project / "inputs.npz", x=networks.images(5))
    (project / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\ninputs = "inputs.npz"\n')

    assert run(pytester, "--trt-build-only").ret == 0

    assert trt._world.plans[-1]["profiles"][0]["x"][0][0] == 5


@pytest.mark.usefixtures("golden")
def test_outputs_that_can_not_stay_on_a_gpu_are_refused_in_words(project: Path, pytester: pytest.Pytester) -> None:
    by_hand(project, "trt_golden, trt_engine", "trt_engine.run(trt_golden.inputs, on_device=True)")

    found = pytester.runpytest()

    assert found.ret == 1
    assert "hands its outputs out in numpy alone" in found.stdout.str()


@pytest.mark.parametrize("word", ["--trt-typing=foo", "--trt-build=typing=foo"])
def test_a_word_is_named_as_it_was_typed(word: str, pytester: pytest.Pytester) -> None:
    told = pytester.runpytest(word).stderr.str()

    assert "unknown value of typing 'foo'" in told or "unknown value of --trt-build typing 'foo'" in told
