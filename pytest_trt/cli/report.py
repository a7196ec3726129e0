"""``pytest-trt report``: a record, rendered again."""

from __future__ import annotations

from pathlib import Path

import click

from pytest_trt.cli.said import as_json, say, written

__all__ = ["command"]

_FILE = click.Path(path_type=Path)


@click.command(name="report", short_help="Render a record again.")
@click.argument("run", type=_FILE)
@click.option(
    "-o", "--output", type=_FILE, multiple=True, required=True, help="By suffix: .md, .html or .json; repeatable."
)
@click.option("--newer", is_flag=True, help="Take a record of a later release.")
@as_json
def command(run: Path, output: tuple[Path, ...], newer: bool, as_json: bool) -> None:
    """Render the record RUN, which --trt-report=FILE.json wrote; one of a run that was cut short says so."""
    from pytest_trt.report.reading import read_record, telling
    from pytest_trt.report.rendering import known, render

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
