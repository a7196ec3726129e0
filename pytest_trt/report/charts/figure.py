"""Figure: a chart with what is said of it: caption, legend, numbered names, and its data as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

__all__ = ["Figure", "Rows", "bins_of", "rows_of"]


@dataclass(frozen=True)
class Rows:
    """A table.

    Attributes:
        head: names of the columns.
        cells: a tuple of texts a row.
        total: how many rows there would be; more than there are where only the first are shown.
        words: how many columns from the left are words and not numbers.
        order: what comes first.
    """

    head: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    total: int
    words: int = 1
    order: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart and what belongs to it.

    Attributes:
        name: what it shows.
        drawing: its SVG.
        told: the same in a sentence: its caption and its text alternative.
        legend: class name and meaning of each kind of mark.
        marks: what the numbered marks are: name and figures.
        rows: its data.
        wide: whether it wants the page's width.
    """

    name: str
    drawing: Markup
    told: str
    legend: tuple[tuple[str, str], ...] = ()
    marks: tuple[tuple[str, str], ...] = ()
    rows: Rows | None = None
    wide: bool = False


def rows_of(
    head: Sequence[str], cells: Sequence[Sequence[str]], most: int | None = None, *, words: int = 1, order: str = ""
) -> Rows:
    """A table of at most so many rows; those that are left out are counted."""
    shown = tuple(tuple(row) for row in cells[:most])
    return Rows(tuple(head), shown, len(cells), words, order)


def bins_of(head: Sequence[str], cells: Sequence[Sequence[str]], most: int) -> Rows | None:
    """A table of a histogram's bins, which is whole or not there: a part of them says nothing."""
    return rows_of(head, cells) if len(cells) <= most else None
