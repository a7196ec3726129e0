"""Screen: which lines of a message are shown where not all fit, and what is coloured in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["COLUMNS", "ROWS", "Block", "Crash", "Message", "fitted", "pieces", "visible"]

ROWS = 24
"""What a terminal shows at once, a screen."""

COLUMNS = 100

_LONGEST = 5 * COLUMNS
_LEFT_OUT = "  ... more of it in the record (--trt-report=FILE.json), or here with -vv"

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_COLOURS: tuple[tuple[re.Pattern[str], dict[str, bool]], ...] = (
    (re.compile(r"(?<=: )(FAILED, .*|could not be judged, .*)$"), {"red": True, "bold": True}),
    (re.compile(r"^ +TRT\d{3} error(?=:)"), {"red": True, "bold": True}),
    (re.compile(r"^ +TRT\d{3} warning(?=:)"), {"yellow": True, "bold": True}),
    (re.compile(r"^ +TRT\d{3} note(?=:)"), {"cyan": True}),
    (re.compile(r"^ +warned(?=:)"), {"yellow": True}),
)


@dataclass(frozen=True)
class Block:
    """Lines that belong together.

    Attributes:
        rank: how soon it is left out: the highest first; 0 never.
        lines: of text.
    """

    rank: int
    lines: Sequence[str]

    @property
    def rows(self) -> int:
        """Rows that it takes of a screen, which breaks long lines."""
        return sum(max(1, -(-len(line) // COLUMNS)) for line in self.lines)


@dataclass(frozen=True)
class Crash:
    """Where and why, in the words that pytest's short summary and JUnit ask a report for."""

    path: str
    lineno: int
    message: str


class Message:
    """A failing case's message as pytest shows it: coloured on a terminal, its reason in the short summary.

    Attributes:
        text: all of it.
        reprcrash: its second line, which is the reason, and the place of the case.
    """

    def __init__(self, text: str, path: str, line: int) -> None:
        lines = [*text.splitlines(), ""]
        self.text = text
        self.reprcrash = Crash(path, line, (lines[1] or lines[0]).strip())

    def __str__(self) -> str:
        return self.text

    def toterminal(self, tw: Any) -> None:
        """Write it, coloured where the writer colours."""
        for line in self.text.splitlines():
            for text, colour in pieces(line):
                tw.write(text, **colour)
            tw.line()


def visible(text: str) -> str:
    r"""One line as a terminal and a log may have it, whatever a model names its tensors.

    What would end the line, move the cursor or turn the text round is told by its escape; and no line begins as a
    command of GitHub's runner does, which reads all that a step prints.

    >>> visible("a\x1b[2J\nb"), visible("  ::error::b")
    ('a\\x1b[2J\\nb', '  : :error::b')
    """
    told = _UNSEEN.sub(lambda found: repr(found[0])[1:-1], text)
    return told.replace("::", ": :", 1) if told.lstrip().startswith("::") else told


def fitted(blocks: Iterable[Block], rows: int = ROWS) -> list[str]:
    """The lines of as many blocks as fit, in their order; a line says so where one was left out or shortened."""
    found = [block for block in blocks if block.lines]
    if sum(block.rows for block in found) <= rows:
        return [line for block in found for line in block.lines]
    kept = [Block(block.rank, [_shortened(line) for line in block.lines]) for block in found]
    out = _left_out(kept, rows - 1)
    last = max(out, default=len(kept) - 1)
    lines = [line for place, block in enumerate(kept[: last + 1]) if place not in out for line in block.lines]
    return [*lines, _LEFT_OUT, *(line for block in kept[last + 1 :] for line in block.lines)]


def _left_out(blocks: Sequence[Block], rows: int) -> set[int]:
    """Places of the blocks that go so that the others fit."""
    total, out = sum(block.rows for block in blocks), set()
    for place in sorted(range(len(blocks)), key=lambda place: (-blocks[place].rank, -place)):
        if total <= rows or not blocks[place].rank:
            break
        out.add(place)
        total -= blocks[place].rows
    return out


def pieces(line: str) -> list[tuple[str, Mapping[str, bool]]]:
    """A line's parts, each with its colour: verdicts and severities have one, all else has none."""
    for pattern, colour in _COLOURS:
        found = pattern.search(line)
        if found:
            first, last = found.span()
            parts: list[tuple[str, Mapping[str, bool]]] = [
                (line[:first], {}),
                (line[first:last], colour),
                (line[last:], {}),
            ]
            return [part for part in parts if part[0]]
    return [(line, {})]


def _shortened(line: str) -> str:
    """The line without its middle, where it is long: what to do stands at the end of messages."""
    end = _LONGEST // 3
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - end - 5]} ... {line[-end:]}"
