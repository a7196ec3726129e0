"""``pytest-trt report``: a record, rendered again."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_trt.cli.said import as_json, say, written

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["command"]

_FILE = click.Path(path_type=Path)
_MODULES = {".md": "pytest_trt.report.markdown", ".html": "pytest_trt.report.html"}


@click.command(name="report")
@click.argument("run", type=_FILE)
@click.option(
    "-o", "--output", type=_FILE, multiple=True, required=True, help="By suffix: .md, .html or .json; repeatable."
)
@click.option("--newer", is_flag=True, help="Take a record of a later release.")
@as_json
def command(run: Path, output: tuple[Path, ...], newer: bool, as_json: bool) -> None:
    """Render the record RUN, which --trt-report=FILE.json wrote; one of a run that was cut short says so."""
    from pytest_trt.records.reading import read_record

    renderers = [_renderer(path) for path in output]
    for path in output:
        if path.resolve() == run.resolve():
            raise click.UsageError(f"{path} is what is read: name another file with -o.")
    document = read_record(run, partial=True, newer=newer)
    for path, render in zip(output, renderers, strict=True):
        written(path, render(document).encode())
    say([f"wrote {path}" for path in output], {"wrote": [str(path) for path in output]}, json_wanted=as_json)


def _renderer(path: Path) -> Callable[[dict[str, Any]], str]:
    from pytest_trt.cli.said import json_text
    from pytest_trt.errors import DataError, unknown

    if path.suffix == ".json":
        return lambda document: json_text(document) + "\n"
    if path.suffix not in _MODULES:
        raise unknown(f"suffix of {path}:", path.suffix, [*_MODULES, ".json"])
    try:
        render: Callable[[dict[str, Any]], str] = importlib.import_module(_MODULES[path.suffix]).render
    except ImportError as error:
        raise DataError(f"{path.suffix} reports need {error.name}, which can't be imported.") from error
    return render
