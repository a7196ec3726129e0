"""Shown: lines and tables on a terminal by rich where it is installed, else, and everywhere else, as plain text."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pytest_trt.report.screen import visible

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

__all__ = ["Cell", "Line", "Part", "Table", "show", "text_of"]

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


Cell = Line
"""What stands in a table, with its own style."""


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
