"""Reports by suffix, on GitHub, in JUnit and in pytest-html: names from a model do no harm, no fault is silent."""

from __future__ import annotations

import base64
import json
import re
import shlex
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import networks
import numpy as np
import pytest
from markdown_it import MarkdownIt
from places import ROOT

from pytest_trt.errors import ReportError, SpecError
from pytest_trt.gate import check
from pytest_trt.report.markdown import annotated, escaped, fitted, is_running, render, summarise
from pytest_trt.report.record import document, record_of
from pytest_trt.report.record_file import known, read_record
from pytest_trt.report.record_file import render as render_as

if TYPE_CHECKING:
    from pathlib import Path

    from jsonschema import Draft202012Validator

EVIL = "<script>alert('1')</script>|`x`*_[a](javascript:b)\n\r# @you ::error::%25 é\\"


class Tags(HTMLParser):
    """The tags, the links and the text of an HTML page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002 - as the class that is extended
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(markdown: str) -> Tags:
    """The Markdown as GitHub would show it: with tables, and HTML let through."""
    return Tags(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))


@pytest.fixture
def broken(golden: Path, pytester: pytest.Pytester) -> Path:
    """A project whose calibration data are ten times too small."""
    np.savez(pytester.path / "calibration.npz", x=0.1 * networks.images(32, seed=2))
    return pytester.path


@pytest.fixture
def failed(case: Any) -> dict[str, Any]:
    """The record of a run of one failed case, everything in it named by somebody evil."""
    np.savez(case.base / "calibration.npz", x=0.1 * networks.images(64, seed=2))
    verdict = check(case, "int8", golden_dir=case.base / "golden")
    plain = {"nodeid": "trt.toml::net[int8]", "file": "sub/trt.toml", "line": 7, **record_of(verdict)}
    return document([plain], {"python": "3.11", "packages": {}, "options": []}, partial=False, exit_status=1)


def evil(told: dict[str, Any]) -> dict[str, Any]:
    """The same with every text that a model or a case may name replaced."""
    [record] = told["results"]
    output = record["outputs"]["logits"]
    texts = dict.fromkeys(("case", "message", "kind", "accept", "precision", "backend", "blame", "worst_output"), EVIL)
    changed = {
        **record, **texts,
        "outputs": {EVIL: {**output, "reasons": [EVIL]}},
        "findings": [{"code": "TRT105", "severity": "error", "message": EVIL, "remedy": EVIL, "evidence": {}}],
        "hops": [{**hop, "from": EVIL, "output": EVIL} for hop in record["hops"]],
        "located": [{**one, "tensor": EVIL, "node": EVIL, "op": EVIL} for one in record["located"]],
        "warnings": [EVIL],
        "figures": {**record["figures"], "ranges": [{**one, "tensor": EVIL} for one in record["figures"]["ranges"]]},
        "provenance": {"model": EVIL, "engine": {"tensorrt": EVIL}},
        "layers": {"by_precision": {EVIL: 3}, "asked": "int8", "honoured": 0, "compute": 3},
    }  # fmt: skip
    return {**told, "results": [changed], "environment": {"python": EVIL, "options": [EVIL], "packages": {EVIL: EVIL}}}


# --- Markdown


def test_the_markdown_tells_the_table_the_findings_and_the_figures(failed: dict[str, Any]) -> None:
    told = render(failed)

    assert told.startswith("## pytest-trt: 1 failed (1 simulated)\n")
    assert "### ❌ net at int8 on onnxruntime (simulated): failed" in told
    assert "- **TRT108** error: the calibration data are unlike" in told
    page = shown(told)
    assert page.tags.count("details") == 2
    assert page.tags.count("table") == 7
    assert "<details><summary>Details</summary>" in told


def test_a_part_inside_its_limit_is_not_to_blame_where_another_part_of_that_step_is(failed: dict[str, Any]) -> None:
    hop = {"from": "golden", "to": "fp32", "rel_rms": 0.5, "limit": 0.1}
    steps = [hop | {"output": "boxes"}, hop | {"output": "scores", "limit": 0.9}]
    failed["results"][0] |= {"blame": "golden -> fp32", "hops": steps}

    rows = [line for line in render(failed).splitlines() if "boxes" in line or "scores" in line]

    assert ["to blame" in row for row in rows] == [True, False]


def test_a_finding_and_its_remedy_are_two_sentences(failed: dict[str, Any]) -> None:
    failed["results"][0]["findings"][0] |= {"message": "too slow", "remedy": "Make it faster."}

    assert "error: too slow. Make it faster.\n" in render(failed)


def test_a_passed_case_is_a_row_alone(case: Any) -> None:
    record = record_of(check(case, "fp16", golden_dir=case.base / "golden"))
    told = render(document([record], {}, partial=False, exit_status=0))

    assert "| ✅ | net | fp16 |" in told
    assert "###" not in told


def test_a_partial_record_says_so_in_markdown(failed: dict[str, Any]) -> None:
    assert "**Partial:** the run was cut short" in render({**failed, "partial": True})
    assert "Nothing was judged." in render({**failed, "results": []})


def test_evil_names_are_harmless_in_markdown(failed: dict[str, Any]) -> None:
    honest, page = shown(render(failed)), shown(render(evil(failed)))

    assert set(page.tags) == set(honest.tags)
    assert page.tags.count("table") == honest.tags.count("table") + 1  # the layers'
    assert page.tags.count("th") == honest.tags.count("th") + 3  # and their column in the first
    assert "<script>alert('1')</script>|`x`*_[a](javascript:b) # @you" in page.text


@pytest.mark.parametrize(
    "text",
    [EVIL, "```", "``", "a|b", "\\|", "~~x~~", "$x$", "<!-- x", "&lt;", "**b**", "- a", "1. a", "> q", "a\x00b\u2028c"],
)
def test_an_escaped_text_shows_as_it_is_in_one_cell(text: str) -> None:
    page = shown(f"| a | b |\n|---|---|\n| x {escaped(text)} | y |\n")

    assert page.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
    cells = page.text.split("x ", 1)[1]
    assert re.sub(r"\s+", "", text.replace("\x00", "")) in re.sub(r"\s+", "", cells)


def test_markdown_that_is_too_long_is_cut_between_cases_and_says_so(failed: dict[str, Any]) -> None:
    many = {**failed, "results": failed["results"] * 50}

    told = fitted(many, 40_000)

    assert len(told.encode()) <= 40_000
    assert "Cut here: the whole is more than 40000 bytes." in told
    assert told.count("| ❌ |") == 50
    page = shown(told)
    assert page.tags.count("details") == told.count("</details>")


def test_rows_too_many_are_cut_too(failed: dict[str, Any]) -> None:
    told = fitted({**failed, "results": failed["results"] * 500}, 5_000)

    assert len(told.encode()) <= 5_000
    assert "Cut here" in told
    assert fitted(failed, 10) == ""


# --- by suffix


def test_reports_of_several_suffixes_are_written_at_once(broken: Path, pytester: pytest.Pytester) -> None:
    pytester.runpytest("--trt-precision=fp16,int8", "--trt-report=out/run.json", "--trt-report=out/run.md")

    told = (broken / "out" / "run.md").read_text(encoding="utf-8")
    assert told.startswith("## pytest-trt: 1 failed, 1 passed (2 simulated)")
    assert len(read_record(broken / "out" / "run.json")["results"]) == 2


def test_the_ini_file_names_reports_a_line_each(golden: Path, pytester: pytest.Pytester) -> None:
    (golden.parent.parent / "pytest.ini").write_text("[pytest]\ntrt_report =\n  a.json\n  b.md\n")

    pytester.runpytest()
    assert (pytester.path / "a.json").exists()
    assert (pytester.path / "b.md").exists()

    pytester.runpytest("--trt-report=c.json")
    assert read_record(pytester.path / "c.json")["environment"]["options"] == ["--trt-report=c.json"]


@pytest.mark.parametrize(
    "word", ["--collect-only", "--fixtures", "--fixtures-per-test", "--cache-show", "--setup-plan"]
)
def test_a_run_that_runs_nothing_leaves_the_record_alone(pytester: pytest.Pytester, golden: Path, word: str) -> None:
    (pytester.path / "run.json").write_text("kept")

    pytester.runpytest("--trt-report=run.json", word)

    assert (pytester.path / "run.json").read_text() == "kept"


def test_xml_is_refused_with_the_word_for_it(pytester: pytest.Pytester, golden: Path) -> None:
    result = pytester.runpytest("--trt-report=out/run.xml")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--junit-xml=out/run.xml" in result.stderr.str()


@pytest.mark.parametrize("name", [".json", "out/.md", "", "out/"])
def test_a_name_that_is_a_suffix_alone_or_none_is_refused(pytester: pytest.Pytester, golden: Path, name: str) -> None:
    result = pytester.runpytest(f"--trt-report={name}")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "unknown report suffix of" in result.stderr.str()


def test_an_unknown_suffix_in_the_ini_file_is_refused(pytester: pytest.Pytester, golden: Path) -> None:
    (pytester.path / "pytest.ini").write_text("[pytest]\ntrt_report = run.txt\n")

    result = pytester.runpytest()

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "ini option trt_report: unknown report suffix of 'run.txt'" in result.stderr.str()


def test_a_renderer_that_is_not_there_is_refused_before_the_run(
    pytester: pytest.Pytester, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytest_trt.report.html", None)

    result = pytester.runpytest("--trt-report=run.html")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert ".html reports are not in this release of pytest-trt: write .json or .md" in result.stderr.str()


def test_a_package_that_a_renderer_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules["pytest_trt.report.record_file"]._MODULES, ".html", "needy")

    with pytest.raises(ReportError, match=r'\.html reports need no_such_package.*pip install "pytest-trt\[html\]"'):
        render_as({}, ".html")
    with pytest.raises(SpecError, match=r"report 'run\.html': "):
        known("run.html")


def test_a_renderer_of_its_suffix_is_used_and_its_fault_costs_its_report_alone(
    monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester, golden: Path
) -> None:
    (pytester.path / "faulty.py").write_text("def render(document):\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(pytester.path)
    monkeypatch.setitem(sys.modules["pytest_trt.report.record_file"]._MODULES, ".html", "faulty")

    result = pytester.runpytest("--trt-report=run.html", "--trt-report=run.json")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["ERROR: the report *run.html can't be written: a fault of pytest-trt, please report*"])
    assert read_record(pytester.path / "run.json")["partial"] is False


def test_the_door_renders_a_record_that_was_read_again(failed: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(render_as(failed, ".json"))

    assert render_as(read_record(tmp_path / "run.json"), ".md") == render(failed)


# --- GitHub


def test_github_gets_a_summary_and_annotations_where_cases_are_written(
    broken: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(broken.parent))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(broken / "summary.md"))
    (broken / "summary.md").write_text("# before\n")

    result = pytester.runpytest_subprocess("--trt-precision=fp16,int8", "-n1")

    lines = [line for line in result.stderr.lines if line.startswith("::")]
    assert len(lines) == 1
    where = f"file={broken.name}/trt.toml,line=1,title=net at int8 on onnxruntime (simulated)"
    assert lines[0].startswith(f"::error {where}::TRT108: the calibration data are unlike")
    told = (broken / "summary.md").read_text(encoding="utf-8")
    assert told.startswith("# before\n## pytest-trt: 1 failed, 1 passed")
    assert "::error" not in result.stdout.str()


def test_a_marked_test_is_annotated_at_its_function(
    broken: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    pytester.makepyfile(
        test_net="import pytest\n\n@pytest.mark.trt(onnx='net.onnx', calibration='calibration.npz')\n"
        "def test_net(trt_check):\n    trt_check()\n"
    )

    result = pytester.runpytest("test_net.py", "--trt-precision=int8")

    assert "::error file=test_net.py,line=3,title=net at int8" in result.stderr.str()


def test_what_is_wrong_beside_the_cases_is_in_every_report(
    golden: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    (pytester.path / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\nprecisions = ["fp16"]\n')
    pytester.makepyfile("def test_a(): pass")

    words = ["--trt-precision=bf16", "--trt-report=run.json", "--trt-report=run.md"]
    result = pytester.runpytest("test_what_is_wrong_beside_the_cases_is_in_every_report.py", *words)

    said = "--trt-precision=bf16 was asked for, and no case was judged at bf16"
    told = read_record(pytester.path / "run.json")
    assert (told["exit_status"], told["complaints"][0][: len(said)]) == (1, said)
    assert f"- ❌ {said}" in (pytester.path / "run.md").read_text(encoding="utf-8")
    assert f"- ❌ {said}" in (pytester.path / "summary.md").read_text(encoding="utf-8")
    assert f"::error title=pytest-trt::{said}" in result.stderr.str()


def test_elsewhere_github_hears_nothing(
    broken: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(broken / "summary.md"))

    result = pytester.runpytest("--trt-precision=int8")

    assert "::error" not in result.stderr.str() + result.stdout.str()
    assert not (broken / "summary.md").exists()
    assert not is_running({"GITHUB_ACTIONS": "false"})


def test_a_run_without_cases_of_ours_tells_github_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary.md"))
    pytester.makepyfile("def test_a(): assert 0")

    result = pytester.runpytest()

    assert "::" not in result.stderr.str()
    assert not (pytester.path / "summary.md").exists()


def test_evil_names_stay_inside_their_annotation(failed: dict[str, Any], tmp_path: Path) -> None:
    [line] = annotated(evil(failed), tmp_path, {})

    assert "\n" not in line
    assert "\r" not in line
    properties, message = re.fullmatch(r"::error (.*?)::(.*)", line).groups()  # type: ignore[union-attr]
    assert [part.partition("=")[0] for part in properties.split(",")] == ["file", "line", "title"]
    assert "%0A%0D# @you %3A%3Aerror%3A%3A%2525 é" in properties
    assert message.startswith("TRT105: <script>alert('1')</script>|`x`*_[a](javascript:b)%0A%0D# @you ::error::%2525")


def test_ten_annotations_at_most_and_the_last_tells_of_the_rest(failed: dict[str, Any], tmp_path: Path) -> None:
    lines = annotated({**failed, "results": failed["results"] * 30}, tmp_path, {})

    assert len(lines) == 10
    assert lines[-1] == "::error title=pytest-trt::21 more are in the step's summary and in the log."
    assert len(annotated({**failed, "results": failed["results"] * 10}, tmp_path, {})) == 10


def test_a_file_is_told_from_the_workspace(failed: dict[str, Any], tmp_path: Path) -> None:
    [line] = annotated(failed, tmp_path / "repo" / "models", {"GITHUB_WORKSPACE": str(tmp_path / "repo")})

    assert line.startswith("::error file=models/sub/trt.toml,line=7,")


def test_a_summary_keeps_to_what_github_takes(failed: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_bytes(b"x" * (1 << 19))
    many = {**failed, "results": failed["results"] * 400}

    summarise(many, {"GITHUB_STEP_SUMMARY": str(path)})

    assert (1 << 19) + 100_000 < path.stat().st_size <= 1 << 20
    assert "Cut here" in path.read_text(encoding="utf-8")


def test_a_full_summary_is_left_as_it_is(failed: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_bytes(b"x" * (1 << 20))

    summarise(failed, {"GITHUB_STEP_SUMMARY": str(path)})

    assert path.stat().st_size == 1 << 20


def test_a_summary_that_can_not_be_written_is_told_and_fails_nothing(
    golden: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(golden.parent))

    result = pytester.runpytest()

    assert result.ret == 0
    result.stdout.fnmatch_lines(["the step's summary can't be written: *"])


# --- JUnit and pytest-html


def test_junit_tells_the_reason_once_and_the_message_once(broken: Path, pytester: pytest.Pytester) -> None:
    pytester.runpytest("--trt-precision=int8", "--junit-xml=junit.xml")

    [failure] = ET.parse(broken / "junit.xml").getroot().iter("failure")

    assert (failure.get("message") or "").startswith("TRT108 error: the calibration data are unlike")
    assert (failure.text or "").startswith("net at int8 on onnxruntime (simulated): FAILED, outside tolerance")


@pytest.mark.parametrize("words", [[], ["-n1"]])
def test_pytest_html_shows_the_row_and_links_the_record(
    broken: Path, pytester: pytest.Pytester, words: list[str]
) -> None:
    pytester.runpytest("--trt-precision=int8", "--html=report.html", "--self-contained-html", *words)

    page = (broken / "report.html").read_text(encoding="utf-8")
    [blob] = re.findall(r'data-jsonblob="([^"]*)"', page)
    tests = json.loads(Tags(f"<p>{blob}</p>").text)["tests"]
    [extras] = [one["extras"] for one in tests["trt.toml::net[int8]"]]
    by_kind = {extra["format_type"]: extra["content"] for extra in extras}
    assert by_kind["html"].startswith('<table class="pytest-trt"><tr><th>case</th>')
    assert json.loads(base64.b64decode(by_kind["json"].partition("base64,")[2]))["case"] == "net"


def test_evil_names_are_harmless_in_pytest_html(failed: dict[str, Any]) -> None:
    from pytest_trt.plugin._verdict_items import extras

    [record] = evil(failed)["results"]

    assert set(Tags(extras(record)[0]["content"]).tags) == {"table", "tr", "th", "td"}


@pytest.mark.parametrize("words", [["-p", "no:html"], []])
def test_without_pytest_html_or_its_option_nothing_is_attached(
    broken: Path, pytester: pytest.Pytester, words: list[str]
) -> None:
    pytester.makeconftest(
        "def pytest_runtest_logreport(report):\n"
        "    if report.when == 'teardown':\n"
        "        print('EXTRAS', [extra['format_type'] for extra in getattr(report, 'extras', [])])\n"
    )

    result = pytester.runpytest("--trt-precision=int8", "-s", *words)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*EXTRAS []*"])


# --- documented


def test_the_page_on_reports_does_what_it_says(
    pytester: pytest.Pytester, golden: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "reports.md").read_text(), re.DOTALL))

    pytester.runpytest(*shlex.split(blocks["sh"])[1:]).assert_outcomes(passed=2)
    capsys.readouterr()
    exec(blocks["python"])

    assert capsys.readouterr().out == "[('net', 'fp16', 'passed'), ('net', 'int8', 'passed')]\n"
    assert (pytester.path / "out" / "again.md").read_text() == (pytester.path / "out" / "run.md").read_text()


def test_the_reference_names_every_key_of_the_record(record_schema: Draft202012Validator) -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    section = page[page.index("## The record") : page.index("## Python")]
    parts = record_schema.schema["$defs"]

    for part in (
        record_schema.schema,
        *(parts[name] for name in ("environment", "result", "figures", "finding", "hop")),
    ):
        missing = [key for key in part["properties"] if f"`{key}`" not in section]
        assert not missing
