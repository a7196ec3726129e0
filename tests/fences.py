"""The blocks of code in README and docs, as CommonMark reads them, with what the comments before them say to do.

A comment stands on its own lines right before its block and holds a directive a line, ``<!-- skip: needs a GPU -->``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
PAGES = tuple(
    str(page.relative_to(ROOT))
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
)
DIRECTIVES = {
    "folder": "start a new folder, prepared with the files of that name (prepared.py)",
    "file": "write the block into this file; it need not run by itself",
    "then": "a command that is run when the block is done",
    "output": "the block is what the last command printed; with a command, what that one prints",
    "exit": "the exit code that the block's last command has, in place of 0",
    "without": "words that are left out of the block's commands, since they need what is not here",
    "leave": "lines that begin with this are not run; a semicolon, then the reason",
    "needs": "a module without which the block is skipped",
    "skip": "the block is not run; the reason",
}


class Misread(AssertionError):
    """A page says something about a block that nothing here understands."""


@dataclass(frozen=True)
class Block:
    """One block of code: where it begins, its language, its text without its fence, and its directives."""

    page: str
    line: int
    language: str
    text: str
    directives: tuple[tuple[str, str], ...] = ()

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    def all(self, word: str) -> list[str]:
        """Each value of a directive, in the order of the page."""
        return [value for name, value in self.directives if name == word]

    def one(self, word: str) -> str | None:
        """The last value of a directive, or None."""
        return next(reversed(self.all(word)), None)


def blocks_of(page: str, text: str | None = None) -> list[Block]:
    """Every block of a page, fenced or indented, in lists too.

    Raises:
        Misread: a directive is not known, or a skip gives no reason.
    """
    found: list[Block] = []
    said: list[tuple[str, str]] = []
    for token in MarkdownIt("commonmark").parse(text or (ROOT / page).read_text(encoding="utf-8")):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "html_block":
            said += _directives(token.content, f"{page}:{line}")
            continue
        if token.type in ("fence", "code_block"):
            found.append(Block(page, line, (token.info.split() or [""])[0], token.content, tuple(said)))
        elif said and token.nesting >= 0:
            raise Misread(f"{page}:{line}: {said[0][0]!r} is said of no block: the comment stands right before one")
        said = said if token.nesting < 0 else []
    return found


def _directives(html: str, where: str) -> list[tuple[str, str]]:
    lines = html.strip().removeprefix("<!--").removesuffix("-->").strip().splitlines()
    return [_directive(line.strip(), where) for line in lines]


def _directive(line: str, where: str) -> tuple[str, str]:
    word, _, value = (part.strip() for part in line.partition(":"))
    if word not in DIRECTIVES:
        raise Misread(f"{where}: {word!r} is none of {', '.join(DIRECTIVES)}")
    if not value and word != "output":
        raise Misread(f"{where}: {word!r} says nothing: {DIRECTIVES[word]}")
    if word == "leave" and not all(part.strip() for part in (*value.split(";", 1), value.partition(";")[2])):
        raise Misread(f"{where}: {value!r} has no reason: {DIRECTIVES[word]}")
    return word, value
