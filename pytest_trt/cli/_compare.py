"""``pytest-trt compare`` and ``report``: two records and what changed between them; one, rendered again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pytest_trt.cli._console import Line, Table, as_json, comma_lists, json_text, require_free, say, written
from pytest_trt.report.compare.changes import differences
from pytest_trt.report.compare.fail_on import fired, read_condition
from pytest_trt.report.compare.page import as_html, as_markdown, environment_of, note_of, summary_of, table_of

if TYPE_CHECKING:
    from pytest_trt.cli._console import Part
    from pytest_trt.report.compare.changes import RunDifference

__all__ = ["compare", "report"]

_FILE = click.Path(path_type=Path)
_SUFFIXES = (".md", ".html", ".json")


@click.command(name="compare", short_help="Tell what changed between two records.")
@click.argument("before", type=_FILE)
@click.argument("after", type=_FILE)
@click.option(
    "--fail-on",
    "fail_on",
    multiple=True,
    metavar="WORDS",
    help="verdict, missing, finding, finding:error, layers, error:1.5x, top1:0.01, latency:5%; a comma list.",
)
@click.option("-o", "--output", type=_FILE, multiple=True, help="Write it, by suffix: .md, .html or .json; repeatable.")
@click.option("--all", "everything", is_flag=True, help="Tell of cases that did not change, too.")
@click.option("--partial", is_flag=True, help="Take records of runs that were cut short.")
@click.option("--newer", is_flag=True, help="Take records of a later release.")
@as_json
@click.pass_context
def compare(
    ctx: click.Context,
    before: Path,
    after: Path,
    fail_on: tuple[str, ...],
    output: tuple[Path, ...],
    everything: bool,
    partial: bool,
    newer: bool,
    as_json: bool,
) -> None:
    """Compare the records BEFORE and AFTER: versions, GPUs, TensorRT 10 against 11, branches.

    Latencies are told side by side and not judged: that takes the samples of both. Exit code 1 if something of
    --fail-on happened, or could not be looked at.
    """
    from pytest_trt.report.record_file import read_whole, telling

    conditions = [read_condition(word) for word in comma_lists(fail_on)]
    if fail_on and not conditions:
        raise click.UsageError("--fail-on is empty, and nothing would ever fail: name a word, or leave it out.")
    for path in output:
        if path.suffix not in _SUFFIXES:
            raise click.UsageError(f"-o {path}: its suffix must be one of {', '.join(_SUFFIXES)}.")
        require_free(path, True, before, after)
    first, second = (read_whole(path, partial=partial, newer=newer) for path in (before, after))
    with telling(before, after):
        found = differences(first, second, (str(before), str(after)))
        reasons = fired(found, conditions)
        texts = [_rendered(path.suffix, found, reasons, everything) for path in output]
        parts = _parts(found, reasons, everything)
    for path, text in zip(output, texts, strict=True):
        written(path, text.encode(errors="replace"))
    say([*parts, *(f"wrote {path}" for path in output)], _facts(found, reasons), json_wanted=as_json)
    ctx.exit(1 if reasons else 0)


def _rendered(suffix: str, found: RunDifference, reasons: list[str], everything: bool) -> str:
    if suffix == ".json":
        return json_text(_facts(found, reasons)) + "\n"
    return (as_html if suffix == ".html" else as_markdown)(found, reasons, everything=everything)


def _facts(found: RunDifference, reasons: list[str]) -> dict[str, object]:
    changes = [{**asdict(one), "moved": one.moved, "missing": one.missing, "new": one.new} for one in found.changes]
    return {**asdict(found), "changes": changes, "failed": reasons}


def _parts(found: RunDifference, reasons: list[str], everything: bool) -> list[Part]:
    head, rows = table_of(found, everything=everything)
    parts: list[Part] = [Line(f"{found.before} -> {found.after}", "head")]
    parts += [f"  {line}" for line in environment_of(found)]
    if rows:
        parts.append(Table(head, tuple(rows)))
    if note := note_of(found):
        parts.append(Line(note, "quiet"))
    parts.append(summary_of(found))
    return [*parts, *(Line(f"FAIL {reason}", "bad") for reason in reasons)]


@click.command(name="report", short_help="Render a record again.")
@click.argument("run", type=_FILE)
@click.option(
    "-o", "--output", type=_FILE, multiple=True, required=True, help="By suffix: .md, .html or .json; repeatable."
)
@click.option("--newer", is_flag=True, help="Take a record of a later release.")
@as_json
def report(run: Path, output: tuple[Path, ...], newer: bool, as_json: bool) -> None:
    """Render the record RUN, which --trt-report=FILE.json wrote; one of a run that was cut short says so."""
    from pytest_trt.report.record_file import known, read_record, render, telling

    for path in output:
        known(path.name)
        if path.resolve() == run.resolve():
            raise click.UsageError(f"{path} is what is read: name another file with -o.")
    document = read_record(run, newer=newer)
    with telling(run):
        texts = [render(document, path.suffix) for path in output]
    for path, text in zip(output, texts, strict=True):
        written(path, text.encode(errors="replace"))
    say([f"wrote {path}" for path in output], {"wrote": [str(path) for path in output]}, json_wanted=as_json)
