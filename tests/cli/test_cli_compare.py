"""``pytest-trt compare`` and ``report``: records read again, set side by side, rendered."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import networks
import pytest
from click.testing import CliRunner, Result

from pytest_trt.case.case import Case
from pytest_trt.cli.main import main
from pytest_trt.gate import check
from pytest_trt.golden.create import update
from pytest_trt.report.compare.changes import RunDifference, differences
from pytest_trt.report.compare.fail_on import WORDS, fired, read_condition
from pytest_trt.report.record import document, environment, record_of

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "<script>alert(1)</script>|`x`*"


def output(error: float | str = 0.01, bound: float | None = 0.05, **others: Any) -> dict[str, Any]:
    return {"error": error, "bound": bound, "top1": None, "accuracy": None, **others}


def latency(p50_ms: float, state: str = "same", key: str = "machine-a") -> dict[str, Any]:
    p50 = p50_ms / 1e3
    return {
        "p50_s": p50,
        "p99_s": 2 * p50,
        "state": state,
        "machine": {"key": key},
        "metric": {"clock": "cuda"},
        "batch": 1,
    }


def result(case: str = "net", precision: str = "int8", **others: Any) -> dict[str, Any]:
    plain = {"backend": "tensorrt", "simulated": False, "verdict": "passed", "outputs": {"y": output()}}
    return {"case": case, "precision": precision, **plain, "findings": [], "latency": None, **others}


def finding(code: str, severity: str = "error", tensor: str = "") -> dict[str, Any]:
    return {"code": code, "severity": severity, "evidence": {"tensor": tensor} if tensor else {}}


def record(*results: dict[str, Any], **others: Any) -> dict[str, Any]:
    environment = {"python": "3.11.7", "platform": "Linux", "packages": {"tensorrt": "10.16.1"}}
    return {
        "schema": 1,
        "partial": False,
        "exit_status": 0,
        "environment": environment,
        "results": [*results],
        **others,
    }


def between(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> RunDifference:
    return differences(record(*before), record(*after), ("a.json", "b.json"))


def reasons(word: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    return fired(between(before, after), [read_condition(word)])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compared(folder: Path, before: dict[str, Any], after: dict[str, Any], *words: str) -> Result:
    (folder / "a.json").write_text(json.dumps(before))
    (folder / "b.json").write_text(json.dumps(after))
    return CliRunner().invoke(main, ["compare", "a.json", "b.json", *words])


def test_two_equal_records_have_nothing_that_changed(folder: Path) -> None:
    found = compared(folder, record(result()), record(result()))

    assert found.exit_code == 0, found.output
    assert "1 in both records, 0 of them changed" in found.output
    assert "tensorrt" not in found.output


def test_all_tells_of_what_did_not_change_too(folder: Path) -> None:
    assert "tensorrt" in compared(folder, record(result()), record(result()), "--all").output


def test_a_case_tells_its_verdict_its_error_its_findings_and_its_latency(folder: Path) -> None:
    before = result(
        latency=latency(1.0), findings=[finding("TRT301")], layers={"honoured": 20, "compute": 20, "asked": "int8"}
    )
    after = result(
        verdict="failed",
        outputs={"y": output(0.2)},
        latency=latency(1.5, "slow"),
        findings=[finding("TRT105", tensor="relu")],
        layers={"honoured": 18, "compute": 20, "asked": "int8"},
    )

    told = compared(folder, record(before), record(after)).output

    assert "passed -> failed" in told
    assert "0.01 -> 0.2 (20 times)" in told
    assert "+TRT105 relu, -TRT301" in told
    assert "20/20 int8 -> 18/20 int8" in told
    assert "1 -> 1.5 (+50 %)" in told
    assert "same -> slow" in told
    assert "not judged" in told


def test_versions_gpus_branches_and_engines_that_changed_are_told(folder: Path) -> None:
    before = record(
        result(provenance={"engine": {"tensorrt": "TensorRT 10.16.1", "gpu": "H100"}, "model_sha256": "aa"})
    )
    after = record(result(provenance={"engine": {"tensorrt": "TensorRT 11.4.0", "gpu": "H200"}, "model_sha256": "bb"}))
    after["environment"] = {
        **before["environment"],
        "packages": {"tensorrt": "11.4.0"},
        "source": {"branch": "trt11"},
        "gpus": [{"gpu": "H200"}],
    }

    told = compared(folder, before, after).output

    for line in (
        "tensorrt: 10.16.1 -> 11.4.0",
        "branch: none -> trt11",
        "gpus: none -> H200",
        "net at int8: tensorrt TensorRT 10.16.1 -> TensorRT 11.4.0",
        "net at int8: gpu H100 -> H200",
        "net at int8: model_sha256 aa -> bb",
    ):
        assert line in told


def test_cases_in_one_record_only_are_told(folder: Path) -> None:
    told = compared(folder, record(result(), result("old")), record(result(), result("new"))).output

    assert "passed (missing now)" in told
    assert "passed (new)" in told
    assert "1 only in a.json; 1 only in b.json" in told


def test_another_backend_is_set_against_the_one_before() -> None:
    [change] = between([result(backend="onnxruntime", simulated=True)], [result()]).changes

    assert change.backend == ("onnxruntime (simulated)", "tensorrt")


def test_each_result_has_its_own_partner_where_a_case_is_judged_twice() -> None:
    first = [result(nodeid="a::net", outputs={"y": output(0.01)}), result(nodeid="b::net", outputs={"y": output(0.02)})]

    changes = between(first, first[::-1]).changes

    assert [change.moved for change in changes] == [False, False]


def test_an_older_record_without_what_is_new_is_compared(folder: Path) -> None:
    bare = {
        "case": "net",
        "precision": "int8",
        "backend": "tensorrt",
        "verdict": "passed",
        "outputs": {},
        "findings": [],
    }

    assert compared(folder, record(bare), record(result())).exit_code == 0


# --fail-on


def test_a_verdict_that_is_lost_fails_and_one_that_was_lost_before_does_not() -> None:
    assert reasons("verdict", [result()], [result(verdict="error")]) == [
        "net at int8 on tensorrt: passed before, and error now"
    ]
    assert reasons("verdict", [result(verdict="failed")], [result(verdict="error")]) == []


def test_a_case_that_is_missing_fails() -> None:
    assert reasons("missing", [result(), result("old")], [result()]) == ["old at int8 on tensorrt is only in a.json"]
    assert reasons("missing", [result()], [result(), result("new")]) == []


@pytest.mark.parametrize(("word", "severity", "fires"), [
    ("finding", "warning", True),
    ("finding", "note", False),
    ("finding:error", "warning", False),
    ("finding:error", "error", True),
])  # fmt: skip
def test_a_finding_that_appeared_fails_by_its_severity(word: str, severity: str, fires: bool) -> None:
    after = result(findings=[finding("TRT105", severity, "relu")])

    assert bool(reasons(word, [result()], [after])) == fires
    assert reasons(word, [after], [after]) == []


def test_a_finding_of_the_same_code_on_another_tensor_is_another_one() -> None:
    before, after = (result(findings=[finding("TRT105", tensor=name)]) for name in ("relu", "conv"))

    assert "TRT105 appeared (conv)" in reasons("finding", [before], [after])[0]


@pytest.mark.parametrize(("before", "after", "fires"), [
    (0.01, 0.0149, False),
    (0.01, 0.0151, True),
    (0.0, 5e-6, False),
    (0.0, 1e-3, True),
    (0.01, "nan", True),
    ("nan", "nan", False),
    ("nan", 0.01, False),
    (0.01, "inf", True),
])  # fmt: skip
def test_an_error_that_grew_beyond_its_factor_fails(before: float | str, after: float | str, fires: bool) -> None:
    sides = [[result(outputs={"y": output(error)})] for error in (before, after)]

    assert bool([one for one in reasons("error:1.5x", *sides) if "the error of 'y' grew" in one]) == fires


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.2), (0.01, "nan"), (0.01, "inf")])
def test_an_error_without_a_factor_is_told_without_one(folder: Path, before: float, after: float | str) -> None:
    sides = [result(outputs={"y": output(error)}) for error in (before, after)]

    told = compared(folder, record(sides[0]), record(sides[1]), "--fail-on", "error:2x").output

    assert f"{before:g} -> {after}" in told
    assert f"grew from {before:g} to {after}\n" in told
    assert "times" not in told


def test_top_1_that_fell_fails() -> None:
    sides = [[result(outputs={"y": output(top1=top1)})] for top1 in (1.0, 0.98)]

    assert "fell from 1 to 0.98" in reasons("top1:0.01", *sides)[0]
    assert reasons("top1:0.03", *sides) == []


def test_fewer_layers_in_the_asked_precision_fail() -> None:
    sides = [[result(layers={"honoured": count, "compute": 20, "asked": "int8"})] for count in (20, 19)]

    assert "20/20 int8 compute layers before, 19/20 int8 now" in reasons("layers", *sides)[0]


def test_a_latency_that_grew_fails_by_its_share() -> None:
    sides = [[result(latency=latency(ms))] for ms in (1.0, 1.06)]

    assert "grew from 1 to 1.06 ms (6 %)" in reasons("latency:5%", *sides)[0]
    assert reasons("latency:10%", *sides) == []


@pytest.mark.parametrize("after", [latency(2.0, key="machine-b"), {**latency(2.0), "batch": 8}, None])
def test_latencies_that_can_not_be_set_side_by_side_fail_too(after: dict[str, Any] | None) -> None:
    sides = [result(latency=latency(1.0))], [result(latency=after)]

    assert reasons("latency:5%", *sides) == [
        "latency was to be looked at, and the two records have nothing in common that tells of it"
    ]


@pytest.mark.parametrize("word", ["verdict", "finding", "error:2x", "layers", "top1:0.1", "latency:5%"])
def test_two_records_with_nothing_in_common_are_no_pass(word: str) -> None:
    assert "nothing in common" in reasons(word, [result("a")], [result("b")])[0]


@pytest.mark.parametrize(("word", "said"), [
    ("verdic", "did you mean 'verdict'"),
    ("verdict:1", "write it as in"),
    ("error", "error:1.5x"),
    ("error:50%", "error:1.5x"),
    ("latency:5", "latency:5%"),
    ("latency:x%", "latency:5%"),
    ("finding:TRT105", "finding:error"),
    ("top1:2", "top1:0.01"),
])  # fmt: skip
def test_a_word_that_is_no_condition_says_how_one_is_written(folder: Path, word: str, said: str) -> None:
    found = compared(folder, record(result()), record(result()), "--fail-on", word)

    assert found.exit_code == 2
    assert said in found.output


def test_the_command_fails_with_exit_code_1_and_says_why(folder: Path) -> None:
    after = record(result(verdict="failed", outputs={"y": output(0.2)}))

    found = compared(folder, record(result()), after, "--fail-on", "verdict,missing", "--fail-on", "error:2x")

    assert found.exit_code == 1
    assert found.output.count("FAIL net at int8") == 2


def both(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A case that did not change in any way, and beside it the one that the test is about."""
    calm = result(
        "calm",
        outputs={"y": output(top1=1.0)},
        latency=latency(1.0),
        layers={"honoured": 9, "compute": 9, "asked": "int8"},
    )
    return [calm, before], [calm, after]


@pytest.mark.parametrize(("word", "before", "after", "said"), [
    ("error:2x", {}, {"verdict": "error", "outputs": {}}, "the error of 'y'"),
    ("error:2x", {}, {"outputs": {"z": output()}}, "the error of 'y'"),
    ("top1:0.01", {"outputs": {"y": output(top1=1.0)}}, {"outputs": {"y": output()}}, "top-1 agreement of 'y'"),
    ("layers", {"layers": {"honoured": 5, "compute": 5, "asked": "int8"}}, {"layers": {}}, "layers"),
    ("latency:5%", {"latency": latency(1.0)}, {}, "only one was timed"),
    ("latency:5%", {"latency": latency(1.0)}, {"latency": latency(1.0, key="b")}, "on another machine"),
    ("finding", {}, {"verdict": "error", "outputs": {}}, "findings"),
])  # fmt: skip
def test_what_one_case_alone_does_not_tell_any_more_fails_too(
    word: str, before: dict[str, Any], after: dict[str, Any], said: str
) -> None:
    [reason] = reasons(word, *both(result(**before), result(**after)))

    assert reason.startswith("net at int8 on tensorrt: ")
    assert said in reason


def test_what_only_the_second_record_tells_fails_nothing() -> None:
    before, after = both(result(verdict="error", outputs={}), result(latency=latency(1.0)))

    assert [reasons(word, before, after) for word in ("error:2x", "finding", "layers", "latency:5%")] == [[]] * 4


def test_a_case_that_passed_and_is_only_built_now_fails() -> None:
    assert "passed before, and built now" in reasons("verdict", [result()], [result(verdict="built")])[0]
    assert reasons("verdict", [result(verdict="built")], [result()]) == []
    assert reasons("verdict", [result(verdict="built")], [result(verdict="built")]) == []


def test_a_finding_that_became_worse_fails_and_one_that_became_milder_does_not() -> None:
    sides = [[result(findings=[finding("TRT105", severity, "relu")])] for severity in ("warning", "error")]

    assert "error TRT105 appeared (relu)" in reasons("finding:error", *sides)[0]
    assert reasons("finding", *sides[::-1]) == []


@pytest.mark.parametrize(("word", "after"), [
    ("top1:0.1", result(outputs={"y": output(top1="nan")})),
    ("latency:5%", result(latency={**latency(1.0), "p50_s": "nan"})),
])  # fmt: skip
def test_a_figure_that_is_nan_now_is_no_pass(word: str, after: dict[str, Any]) -> None:
    before = result(outputs={"y": output(top1=1.0)}, latency=latency(1.0))

    assert "nan" in reasons(word, [before], [after])[0]


def test_no_case_is_missing_from_a_record_without_cases_and_that_is_no_pass() -> None:
    assert "nothing in common" in reasons("missing", [], [result()])[0]
    assert "nothing in common" in reasons("missing", [], [])[0]


@pytest.mark.parametrize("words", ["", ",", " , "])
def test_a_condition_without_a_word_is_refused(folder: Path, words: str) -> None:
    found = compared(folder, record(result()), record(result()), "--fail-on", words)

    assert found.exit_code == 2
    assert "--fail-on is empty" in found.output


def test_a_comparison_is_not_written_over_a_record(folder: Path) -> None:
    found = compared(folder, record(result()), record(result()), "-o", "b.json")

    assert found.exit_code == 2
    assert "is what is read" in found.output
    assert json.loads((folder / "b.json").read_text()) == record(result())


def test_every_word_is_in_the_help() -> None:
    told = CliRunner().invoke(main, ["compare", "--help"]).output

    assert all(word in told for word in WORDS)


# refused records


@pytest.mark.parametrize(("change", "option", "said"), [
    ({"partial": True}, "--partial", "is partial"),
    ({"schema": 99}, "--newer", "is of schema 99"),
])  # fmt: skip
def test_a_record_that_may_mislead_is_taken_by_its_option_alone(
    folder: Path, change: dict[str, Any], option: str, said: str
) -> None:
    before = record(result())

    refused = compared(folder, before, {**before, **change})

    assert refused.exit_code == 2
    assert said in refused.output
    assert option in refused.output
    assert compared(folder, before, {**before, **change}, option).exit_code == 0


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": "1", "results": []}', '{"schema": 1, "results": [{}]}', "\0"]
)
def test_what_is_no_record_is_a_message(folder: Path, text: str) -> None:
    (folder / "a.json").write_text(text)
    (folder / "b.json").write_text(json.dumps(record(result())))

    found = CliRunner().invoke(main, ["compare", "a.json", "b.json"])

    assert found.exit_code == 2
    assert "a.json" in found.output
    assert "Traceback" not in found.output


@pytest.mark.parametrize("change", [
    {"findings": ["x"]},
    {"outputs": {"y": [1]}},
    {"latency": "fast"},
    {"layers": {"honoured": 1}},
    {"provenance": [1]},
    {"outputs": {"y": output(10**400)}},
])  # fmt: skip
@pytest.mark.parametrize("command", [
    ["compare", "a.json", "b.json"],
    ["report", "a.json", "-o", "out.md", "-o", "out.html"],
])  # fmt: skip
def test_a_record_of_another_shape_is_a_message_and_no_report(
    folder: Path, change: dict[str, Any], command: list[str]
) -> None:
    (folder / "a.json").write_text(json.dumps(record(result(**change))))
    (folder / "b.json").write_text(json.dumps(record(result())))

    found = CliRunner().invoke(main, command)

    assert found.exit_code == 2
    assert "a.json" in found.output
    assert "can't be told" in found.output
    assert not (folder / "out.md").exists()


# files


def test_markdown_shows_names_as_text(folder: Path) -> None:
    before, after = (record(result(HOSTILE, outputs={HOSTILE: output(error)})) for error in (0.01, 0.2))

    compared(folder, before, after, "-o", "c.md", "--fail-on", "error:2x")

    told = (folder / "c.md").read_text()
    assert "<script>" not in told
    assert "&lt;script" in told
    rows = [line for line in told.splitlines() if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in rows}) == 1
    assert "## It fails" in told


def test_html_shows_names_as_text_and_loads_nothing(folder: Path) -> None:
    before, after = (record(result(HOSTILE, outputs={HOSTILE: output(error)})) for error in (0.01, 0.2))

    compared(folder, before, after, "-o", "c.html", "--fail-on", "error:2x")

    told = (folder / "c.html").read_text()
    assert "<script" not in told
    assert "&lt;script&gt;alert(1)" in told
    assert "http" not in told
    assert 'scope="col"' in told


def test_html_without_jinja2_says_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)

    found = compared(folder, record(result()), record(result()), "-o", "c.html")

    assert found.exit_code == 2
    assert "needs jinja2" in found.output
    assert not (folder / "c.html").exists()


def test_json_is_the_same_on_the_terminal_and_in_a_file(folder: Path) -> None:
    before, after = record(result()), record(result(outputs={"y": output("nan")}))

    found = compared(folder, before, after, "--json", "-o", "c.json")

    told = json.loads(found.output)
    assert told == json.loads((folder / "c.json").read_text())
    assert told["changes"][0]["outputs"][0]["error"] == [0.01, "nan"]
    assert told["failed"] == []


def test_a_suffix_that_is_not_known_is_refused_before_anything_is_written(folder: Path) -> None:
    found = compared(folder, record(result()), record(result()), "-o", "c.md", "-o", "c.pdf")

    assert found.exit_code == 2
    assert not (folder / "c.md").exists()


# report


def reported(folder: Path, document: dict[str, Any], *words: str) -> Result:
    (folder / "run.json").write_text(json.dumps(document))
    return CliRunner().invoke(main, ["report", "run.json", *words])


def judged(folder: Path) -> dict[str, Any]:
    """The record of a run that judged a case, as reports take it."""
    networks.save(networks.convolutional(), folder / "net.onnx")
    case = Case(onnx="net.onnx", base=folder, where="trt.toml")
    update(case, folder / "golden")
    found = record_of(check(case, "fp16", golden_dir=folder / "golden"))
    return document([{"nodeid": "trt.toml::net[fp16]", **found}], environment(folder), partial=False, exit_status=0)


def test_a_report_is_rendered_by_its_suffix(folder: Path) -> None:
    found = reported(folder, judged(folder), "-o", "run.md", "-o", "again.json")

    assert found.exit_code == 0, found.output
    assert "net" in (folder / "run.md").read_text(encoding="utf-8")
    assert json.loads((folder / "again.json").read_text())["results"][0]["case"] == "net"


def test_a_real_record_is_the_same_as_itself(folder: Path) -> None:
    found = compared(folder, judged(folder), judged(folder), "--fail-on", "verdict,missing,finding,error:1.01x")

    assert found.exit_code == 0, found.output
    assert "1 in both records, 0 of them changed" in found.output


def test_a_record_of_a_run_that_was_cut_short_is_rendered_too(folder: Path) -> None:
    assert reported(folder, record(partial=True), "-o", "again.json").exit_code == 0


@pytest.mark.parametrize(("words", "said"), [
    (("-o", "run.pdf"), "unknown report suffix"),
    (("-o", "run.json"), "is what is read"),
    ((), "Missing option"),
])  # fmt: skip
def test_a_report_that_can_not_be_written_is_refused(folder: Path, words: tuple[str, ...], said: str) -> None:
    found = reported(folder, record(result()), *words)

    assert found.exit_code == 2
    assert said in found.output


def test_a_renderer_that_can_not_be_imported_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest_trt.report.html", None)

    found = reported(folder, record(result()), "-o", "run.html")

    assert found.exit_code == 2
    assert "'run.html'" in found.output
