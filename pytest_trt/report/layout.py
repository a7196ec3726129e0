"""Layout: which lines of a message are shown where not all fit, what is coloured, and what comes first of an output."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Block", "Message", "accuracy", "blocks_of", "columns", "fitted", "number", "pieces", "visible"]

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


def accuracy(output: dict[str, Any]) -> str:
    """The share of samples whose class is the true one, and fp32's; empty where there are no labels."""
    found = output["accuracy"]
    return f"{found['actual']:.4f} (fp32 {found['reference']:.4f})" if found else ""


def blocks_of(name: str, o: dict[str, Any], later: int = 0) -> Iterator[Block]:
    """What there is to say of one output.

    Args:
        name: of the output.
        o: its record.
        later: added to the ranks of all that is said, which is left out sooner.
    """
    run = f" in {o['run']}" if o["run"] else ""
    limit = f", bound by the {o['bound_from']}" if o["bound"] is not None else ""
    head = f"  output {name!r}{run}: {o['dtype']}{o['shape']} against golden {o['golden_dtype']}{limit}"
    worst = _worst(o["worst"])
    yield Block(later, [head, *(f"    {reason}" for reason in o["reasons"])])
    yield Block(
        later + 3,
        [f"    {o['beyond']} of {o['count']} elements differ by more than is allowed ({_share(o)})", *_nonfinite(o)],
    )
    yield Block(later + 4, _parts(o))
    yield Block(later + 3, worst[:3])
    yield Block(later + 6, worst[3:])
    yield Block(
        later + 4,
        [
            f"    distribution of |difference|: p99 {number(o['p99'])}, p99.9 {number(o['p999'])},"
            f" max {number(o['max_abs'])}; bias {number(o['mean_error'])}; cosine {number(o['cosine'], 6)};"
            f" SQNR {number(o['sqnr_db'])} dB"
        ],
    )
    yield Block(later + 4, _ranking(o))
    if o.get("near_ties"):
        told = "other indices pick values as good as the golden's, and count as equal (near ties)"
        yield Block(later + 4, [f"    {o['near_ties']} {told}"])


def _share(o: dict[str, Any]) -> str:
    return f"{100 * (o['beyond'] or 0) / max(o['count'], 1):.3g} %"


def _nonfinite(o: dict[str, Any]) -> list[str]:
    counts = [o["nan"]["actual"], o["inf"]["actual"], o["nan"]["golden"], o["inf"]["golden"]]
    if not any(counts):
        return []
    return ["    NaN {}, Inf {} in the output; NaN {}, Inf {} in the golden".format(*counts)]


def _parts(o: dict[str, Any]) -> list[str]:
    """The parts of an output that is judged in several."""
    parts = o.get("parts", [])
    told = [f"{part['name']} {number(part['error'])} of {number(part['bound'])}" for part in parts]
    return [f"    parts: {', '.join(told)}"] if len(parts) > 1 else []


def _worst(elements: list[dict[str, Any]]) -> list[str]:
    if not elements:
        return []
    rows: list[tuple[str, ...]] = [("worst", "index", "actual", "golden", "difference", "allowed")]
    for rank, e in enumerate(elements, 1):
        figures = (number(e[key], 6) for key in ("actual", "golden", "difference", "allowed"))
        rows.append((f"{rank}.", str(e["index"]), *figures))
    return [f"    {line}" for line in columns(rows)]


def _ranking(o: dict[str, Any]) -> list[str]:
    if o["top1"] is None:
        return []
    flips = ", ".join(f"sample {f['sample']}: class {f['reference']} -> {f['actual']}" for f in o["flips"])
    kept = round(o["top1"] * o["samples"])
    line = f"    top-1 agrees on {kept} of {o['samples']} samples, top-5 on {round(o['top5'] * o['samples'])}"
    lines = [f"{line}; first flips: {flips}" if flips else line]
    if o.get("sequences"):
        whole = round(o["top1_all"] * o["sequences"])
        lines = [line.replace("samples", "positions") for line in lines]
        lines.append(f"    {whole} of {o['sequences']} samples keep their best class at every position")
    if o["accuracy"]:
        lines.append(f"    accuracy {accuracy(o)}")
    return lines


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of one length, their cells under each other."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def number(value: Any, digits: int = 3) -> str:
    """A figure to so many digits, a count whole; what JSON has no number for stays a word."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
