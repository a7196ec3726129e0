"""What a terminal shows: a failure on one screen, colours that mean something, -q, -v and -vv as in pytest."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from fakes.latency import LATENCY

from pytest_trt.gate import check
from pytest_trt.report.layout import Block, Message, fitted, number, pieces
from pytest_trt.report.record import record_of
from pytest_trt.report.terminal import beside, counted, message, reason, table

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_trt.case.case import Case

RED, GREEN, YELLOW, PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"


@pytest.fixture
def broken(golden: Path, pytester: pytest.Pytester) -> Path:
    """A project whose calibration data are ten times too small."""
    np.savez(pytester.path / "calibration.npz", x=0.1 * networks.images(32, seed=2))
    return pytester.path


def rows(text: str) -> int:
    """Rows that a terminal of 100 columns takes for a text."""
    return sum(max(1, -(-len(line) // 100)) for line in text.splitlines())


def worst_record(case: Case) -> dict[str, Any]:
    """A record with as much to say as there can be."""
    np.savez(case.base / "calibration.npz", x=0.1 * networks.images(64, seed=2))
    record = record_of(check(case, "int8", golden_dir=case.base / "golden"))
    output = record["outputs"]["logits"]
    record["outputs"] = {f"logits{i}": output for i in range(30)} | {"logits": output}
    record["findings"] = record["findings"] * 10
    record["located"] = record["located"] * 5
    record["warnings"] = ["missing scale for a tensor " * 10] * 20
    return record


# --- names of anyone's

EVIL = "a\x1b[2J\n::error::b\r\u202ec"


def test_a_name_breaks_no_line_and_moves_no_cursor(case: Case) -> None:
    record = worst_record(case)
    record["outputs"] = {EVIL: record["outputs"]["logits"]}
    record |= {"worst_output": EVIL, "warnings": [EVIL], "blame": EVIL}
    record["findings"] = [{**record["findings"][0], "message": EVIL, "severity": "warning"}]
    passed = {**record, "verdict": "passed"}
    told = [message(record, whole=True), *(line for line, _ in table([record])), *beside([passed], 2)]

    for line in "\n".join(told).split("\n"):
        assert not set(line) & set("\x1b\r\u202e")
        assert not line.lstrip().startswith("::")


def test_an_error_of_several_lines_keeps_them(case: Case) -> None:
    record = record_of(check(case, "int8", golden_dir=case.base / "golden"))
    record |= {"verdict": "error", "kind": "ModelError", "message": "two errors:\n  node a\n  ::error::b"}

    assert message(record).split("\n")[1:4] == ["ModelError: two errors:", "  node a", "  : :error::b"]


def test_a_name_too_long_for_the_table_loses_its_middle(case: Case) -> None:
    record = worst_record(case)
    record["outputs"]["x" * 300] = record["outputs"]["logits"]
    record["worst_output"] = "x" * 300

    assert all(len(line) < 200 for line, _ in table([record]))


# --- one screen


def test_a_failure_with_much_to_say_fits_one_screen_and_says_that_there_is_more(case: Case) -> None:
    told = message(worst_record(case))

    assert rows(told) <= 24
    assert "more of it in the record (--trt-report=FILE.json), or here with -vv" in told
    lines = told.splitlines()
    assert lines[0] == "net at int8 on onnxruntime (simulated): FAILED, outside tolerance"
    assert lines[1].startswith("  TRT108 error: ")
    assert "relative RMS" in told
    assert "write tolerance.int8 = " in lines[-1]


def test_an_error_with_much_to_say_fits_one_screen_and_keeps_what_to_do(case: Case) -> None:
    record = worst_record(case)
    record |= {"verdict": "error", "kind": "ModelError", "message": f"{'no ' * 2000}. Run pytest --trt-update-golden"}

    told = message(record)

    assert rows(told) <= 24
    assert "Run pytest --trt-update-golden" in told


def test_asked_for_all_of_it_the_message_holds_all(case: Case) -> None:
    told = message(worst_record(case), whole=True)

    assert told.count("TRT108 error") == 10
    assert told.count("  output 'logits") == 31
    assert "more of it in the record" not in told


def test_what_fits_is_shown_in_its_order_and_whole() -> None:
    blocks = [Block(0, ["title"]), Block(5, ["a" * 150]), Block(3, ["b"])]

    assert fitted(blocks, 4) == ["title", "a" * 150, "b"]


def test_the_highest_ranks_go_first_and_a_row_is_kept_for_saying_so() -> None:
    blocks = [Block(0, ["title"]), Block(2, ["a"]), Block(5, ["b"]), Block(1, ["c"])]

    assert fitted(blocks, 3) == ["title", fitted(blocks, 3)[1], "c"]
    assert "in the record" in fitted(blocks, 3)[1]


def test_a_failing_test_shows_as_much_as_was_asked(broken: Path, pytester: pytest.Pytester) -> None:
    short = pytester.runpytest("--trt-precision=int8").stdout.str()
    long = pytester.runpytest("--trt-precision=int8", "-vv").stdout.str()

    assert ("or here with -vv" in short, "or here with -vv" in long) == (True, False)
    assert ("    5.     [" in short, "    5.     [" in long) == (False, True)


# --- the reason, in a line


def test_the_short_summary_gives_the_reason(broken: Path, pytester: pytest.Pytester) -> None:
    for words in ([], ["-n1"]):
        result = pytester.runpytest("--trt-precision=int8", *words)
        result.stdout.fnmatch_lines(["FAILED trt.toml::net[[]int8[]] - TRT108 error: the calibration data*"])


def test_a_test_function_gives_its_reason_and_colours_as_a_case_of_a_file_does(
    broken: Path, pytester: pytest.Pytester
) -> None:
    (broken / "trt.toml").unlink()
    pytester.makepyfile(
        "import pytest\n@pytest.mark.trt(onnx='net.onnx', calibration='calibration.npz')\n"
        "def test_net(trt_check):\n    trt_check()\n"
    )

    told = pytester.runpytest("--trt-precision=int8", "--color=yes").stdout.str()

    assert f"{RED}\x1b[1m  TRT108 error{PLAIN}" in told
    assert "- TRT108 error: the calibration data" in told


def test_in_ci_the_short_summary_is_a_line_too(
    broken: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")

    told = pytester.runpytest("--trt-precision=int8").stdout.str()

    assert told.count("elements differ by more than is allowed") == 1


def test_a_reason_is_the_first_error_found_else_the_limit(case: Case) -> None:
    record = worst_record(case)
    assert reason(record).startswith("TRT108: the calibration data are unlike")

    record["findings"] = []
    assert reason(record).startswith("output 'logits0': relative RMS")

    record |= {"verdict": "error", "kind": "GoldenError", "message": "it is not there"}
    assert reason(record) == "GoldenError: it is not there"


def test_all_are_counted() -> None:
    records = [{"verdict": v, "simulated": v == "passed"} for v in ("passed", "failed", "error", "passed", "built")]

    assert counted(records) == "1 failed, 1 could not be judged, 1 built, not judged, 2 passed (2 simulated)"
    assert counted([]) == "nothing judged"


def test_a_latency_has_its_column_and_its_line(case: Case) -> None:
    record = record_of(check(case, "fp16", golden_dir=case.base / "golden"))
    assert "latency" not in table([record])[0][0]

    record |= {"latency": LATENCY, "verdict": "failed"}

    assert table([record])[1][0].endswith("1.1 ms x1.040 slow  failed")
    told = message(record)
    assert told.startswith("net at fp16 on onnxruntime (simulated): FAILED, for its latency")
    assert "  latency: p50 1.1 ms, p90 1.2 ms, max 2 ms, 300 samples; slower by 4 %" in told


def test_what_a_finding_says_of_a_latency_is_said_once(case: Case) -> None:
    record = record_of(check(case, "int8", golden_dir=case.base / "golden"))
    said = {"code": "TRT601", "severity": "error", "message": LATENCY["message"], "remedy": "", "evidence": {}}
    record |= {"verdict": "failed", "latency": {**LATENCY, "fails": True}, "findings": [said]}

    assert message(record, whole=True).count(LATENCY["message"]) == 1


def test_a_count_is_told_whole() -> None:
    assert (number(3459), number(3459.2), number("nan"), number(None)) == ("3459", "3.46e+03", "nan", "-")


def test_what_was_timed_and_not_judged_says_so(case: Case) -> None:
    record = record_of(check(case, "fp16", golden_dir=case.base / "golden"))
    record |= {"latency": LATENCY, "verdict": "timed", "outputs": {}, "worst_output": None}

    assert table([record])[1][0].endswith("timed, not judged")
    assert counted([record]) == "1 timed, not judged (1 simulated)"


# --- colours


def test_verdicts_and_severities_have_a_colour_and_nothing_else_has() -> None:
    coloured = {line: [text for text, colour in pieces(line) if colour] for line in (
        "net at int8: FAILED, outside tolerance", "net: could not be judged, which is never a pass.",
        "  TRT105 error: 'x' FAILED, truly", "  TRT301 warning: y", "  TRT205 note: z", "  golden: TRT105 error: x",
    )}  # fmt: skip

    assert list(coloured.values()) == [
        ["FAILED, outside tolerance"], ["could not be judged, which is never a pass."],
        ["  TRT105 error"], ["  TRT301 warning"], ["  TRT205 note"], [],
    ]  # fmt: skip


def test_a_line_stays_itself_whatever_is_coloured() -> None:
    for line in ("", "  TRT105 error: x", "net: FAILED, outside", "plain"):
        assert "".join(text for text, _ in pieces(line)) == line


def test_a_message_is_coloured_where_the_writer_colours() -> None:
    from _pytest._io import TerminalWriter

    told = {}
    for colours in (True, False):
        written = io.StringIO()
        writer = TerminalWriter(written)
        writer.hasmarkup = colours
        Message("net: FAILED, outside\n  TRT105 error: x\n  plain", "trt.toml", 3).toterminal(writer)
        told[colours] = written.getvalue()

    assert told[True].count(RED) == 2
    assert told[False] == "net: FAILED, outside\n  TRT105 error: x\n  plain\n"


@pytest.mark.parametrize(
    ("words", "variables", "coloured"),
    [
        (["--color=yes"], {}, True),
        (["--color=no"], {}, False),
        ([], {"FORCE_COLOR": "1"}, True),
        ([], {"NO_COLOR": "1"}, False),
        ([], {}, False),
    ],
)
def test_colours_are_pytests(
    broken: Path,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    variables: dict[str, str],
    coloured: bool,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    told = pytester.runpytest("--trt-precision=fp16,int8", *words).stdout.str()

    row = next(line for line in told.splitlines() if "net   fp16" in line)
    message = next(line for line in told.splitlines() if "TRT108 error" in line)
    assert row.startswith(GREEN) is coloured
    assert ("\x1b[" in message, "\x1b[" in told) == (coloured, coloured)


# --- how much of what passed


@pytest.fixture
def warned(golden: Path, pytester: pytest.Pytester) -> Path:
    """A project whose int8 case passes with a warning: its calibration data are one sample."""
    np.savez(pytester.path / "calibration.npz", x=1.7 * networks.images()[6:7])
    with (pytester.path / "trt.toml").open("a") as file:
        file.write("tolerance.int8 = { rel_rms = 0.5 }\n")
    return pytester.path


def section(result: pytest.RunResult) -> str:
    """What we print at the end."""
    told = result.stdout.str()
    return told[told.index("= pytest-trt =") :] if "= pytest-trt =" in told else told


def test_quiet_passes_take_one_line(golden: Path, pytester: pytest.Pytester) -> None:
    told = pytester.runpytest("--trt-precision=fp16,bf16", "-q").stdout.str()

    assert "trt: 2 passed (2 simulated)" in told
    assert "rel. RMS" not in told
    assert "pytest-trt" not in told


def test_quiet_shows_the_rows_of_what_did_not_pass(broken: Path, pytester: pytest.Pytester) -> None:
    told = pytester.runpytest("--trt-precision=fp16,int8", "-q").stdout.str()

    assert "trt: 1 failed, 1 passed (2 simulated)" in told
    assert "net   int8" in told
    assert "net   fp16" not in told


def test_by_default_all_rows_and_no_findings_of_what_passed(golden: Path, pytester: pytest.Pytester) -> None:
    told = section(pytester.runpytest("--trt-precision=fp16,int8"))

    assert "net   fp16" in told
    assert "net   int8" in told
    assert "TRT205" not in told
    assert "SQNR" not in told


def test_each_warning_of_what_passed_has_a_line_and_what_to_do_is_told_with_v(
    warned: Path, pytester: pytest.Pytester
) -> None:
    plain = section(pytester.runpytest("--trt-precision=int8"))
    quiet = pytester.runpytest("--trt-precision=int8", "-q").stdout.str()
    told = section(pytester.runpytest("--trt-precision=int8", "-v"))

    for text in (plain, quiet):
        assert "net at int8: TRT108 warning: trt.toml: model number 1: calibration 'calibration.npz' is 1" in text
        assert "what to do: -v tells it, and the record" in text
        assert "Calibrate on some hundreds" not in text
    assert "net at int8 on onnxruntime (simulated): passed\n  TRT108 warning: " in told
    assert "TRT205 note: " not in told


def test_vv_tells_all_findings_and_all_figures_of_what_passed(golden: Path, pytester: pytest.Pytester) -> None:
    told = section(pytester.runpytest("--trt-precision=int8", "-vv", "--trt-localise"))

    for part in ("TRT205 note: ", "p99.9", "SQNR", "hops: ", "from 'r1'", "elements differ by more"):
        assert part in told


def test_reports_are_named_but_for_quiet(golden: Path, pytester: pytest.Pytester) -> None:
    assert "report: out/run.json\n" in section(pytester.runpytest("--trt-report=out/run.json"))
    assert "report: " not in pytester.runpytest("--trt-report=run.json", "-q").stdout.str()
