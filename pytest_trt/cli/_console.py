"""Console: lines, tables and progress on a terminal, and the end of a command as lines or as JSON."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pytest_trt.errors import DataError
from pytest_trt.report.layout import visible
from pytest_trt.storage.atomic_write import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from typing import TypeAlias

__all__ = [
    "CALIBRATED",
    "Finite",
    "Line",
    "Part",
    "Table",
    "as_json",
    "comma_lists",
    "force_cache",
    "json_text",
    "require_free",
    "require_header_heeded",
    "say",
    "text_of",
    "watched",
    "written",
]

_COLOURS = {"good": "green", "doubt": "yellow", "bad": "red", "quiet": "bright_black", "head": ""}
_GAP = "  "
_LEAST_WIDTH = 10  # a column that is broken into less can't be read


@dataclass(frozen=True)
class Line:
    """A line that means something.

    Attributes:
        text: the line; further lines of it are indented by the caller.
        style: good, doubt, bad, quiet or head; empty for none.
    """

    text: str
    style: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under a head; a cell is a text or a :class:`Line`."""

    head: tuple[str, ...]
    rows: tuple[tuple[str | Line, ...], ...]


Part: TypeAlias = "str | Line | Table"


def show(parts: Iterable[Part]) -> None:
    """Print them to standard output."""
    found = list(parts)
    console = _console() if _is_watched() else None
    if console is None:
        click.echo(text_of(found))
        return
    for part in found:
        for shown in _rich(part, console.width):
            console.print(shown, soft_wrap=True)


def text_of(parts: Iterable[Part]) -> str:
    """The same as plain text, without colours."""
    return "\n".join(line for part in parts for line in _plain(part))


def _is_watched() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _console() -> Any | None:
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(markup=False, highlight=False, emoji=False)


def _plain(part: Part) -> list[str]:
    if not isinstance(part, Table):
        return [_words(part)]
    rows = [part.head, *(tuple(_words(cell) for cell in row) for row in part.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(part.head))]
    return [_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _words(cell: str | Line) -> str:
    text = cell.text if isinstance(cell, Line) else cell
    return "\n".join(map(visible, text.split("\n")))


def _rich(part: Part, width: int) -> list[Any]:
    """What rich prints of a part; a table that has no room for its columns is told row by row."""
    if not isinstance(part, Table):
        return [_rich_text(part)]
    rows = [part.head, *part.rows]
    needed = sum(min(max(len(_words(row[i])) for row in rows), _LEAST_WIDTH) + len(_GAP) for i in range(len(part.head)))
    if needed <= width:
        return [_rich_table(part)]
    pairs = [(name, cell) for row in part.rows for name, cell in zip(part.head, row, strict=True)]
    return [_rich_pair(name, cell, first=name == part.head[0]) for name, cell in pairs if _words(cell)]


def _rich_pair(name: str, cell: str | Line, *, first: bool) -> Any:
    from rich.text import Text

    return Text.assemble((f"{'' if first else _GAP}{name} ", "bold" if first else "dim"), _rich_text(cell))


def _rich_text(cell: str | Line) -> Any:
    from rich.text import Text

    style = cell.style if isinstance(cell, Line) else ""
    return Text(_words(cell), style="bold" if style == "head" else _COLOURS.get(style, ""))


def _rich_table(table: Table) -> Any:
    from rich.table import Table as RichTable

    shown = RichTable(box=None, pad_edge=False, header_style="bold")
    for name in table.head:
        shown.add_column(name, overflow="fold")
    for row in table.rows:
        shown.add_row(*(_rich_text(cell) for cell in row))
    return shown


_SECONDS_BETWEEN = 0.2

CALIBRATED = ("int8", "fp8")
"""The precisions that take ranges, by the names on the command line, which is told before anything is imported."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


force_cache = click.option("--force", is_flag=True, help="Write over a calibration cache that is there.")


class Finite(click.FloatRange):
    """A number inside its range: click's own takes "nan", which no comparison puts outside, and "inf"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; anything else ends the command with a message."""
        found = super().convert(value, param, ctx)
        return found if math.isfinite(found) else self.fail(f"{value!r} is no finite number.", param, ctx)


def require_free(output: Path, force: bool, *sources: Path | None) -> None:
    """Refuse to write over what is read, or over a calibration cache: TensorRT's own can't be made again elsewhere."""
    for source in sources:
        if source is not None and output.resolve() == source.resolve():
            raise click.UsageError(f"{output} is what is read: name another file with -o.")
    if output.suffix == ".cache" and output.exists() and not force:
        raise click.UsageError(f"{output} is there already, and may be TensorRT's own: name another, or add --force.")


def require_header_heeded(header: str | None, output: Path) -> None:
    """Refuse the first line of a cache for what is none."""
    if header and output.suffix != ".cache":
        raise click.UsageError(f"--header is the first line of a TensorRT calibration cache, and {output} is none.")


def say(parts: Iterable[Part], facts: Mapping[str, Any], *, json_wanted: bool) -> None:
    """Print facts for a program, or lines and tables for a person."""
    if json_wanted:
        click.echo(json_text(facts))
        return

    show(parts)


def json_text(facts: Mapping[str, Any]) -> str:
    """Facts as JSON."""
    return json.dumps(_as_json(facts), indent=1, allow_nan=False)


def _as_json(value: Any) -> Any:
    """The value in JSON's words; numbers that it has none for are texts, as in the record."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def comma_lists(texts: Iterable[str]) -> tuple[str, ...]:
    """The words of an option that is repeated, a comma list, or both; each once, in order."""
    words = (word.strip() for text in texts for word in text.split(","))
    return tuple(dict.fromkeys(word for word in words if word))


def watched() -> Callable[[str, float | None], None] | None:
    """What to tell progress to: the last line of a terminal, None where nobody watches."""
    if not sys.stderr.isatty():
        return None
    last = 0.0

    def tell(phase: str, share: float | None) -> None:
        nonlocal last
        if phase and time.monotonic() - last < _SECONDS_BETWEEN:
            return
        last = time.monotonic()
        done = "" if share is None else f" {100 * share:.0f} %"
        click.echo(f"\r\x1b[2K{phase}{done}", nl=False, err=True)

    return tell


def written(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        DataError: it can't be written there.
    """
    try:
        write_whole(path, data)
    except OSError as error:
        raise DataError(f"{path} can't be written: {error.strerror or error}.") from error
