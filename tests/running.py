"""Does what the blocks of a page say, in order, in a folder of the page's own."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner
from fences import ROOT, Block
from packaging.requirements import Requirement
from prepared import FOLDERS

from pytest_trt.case.case import Case, cases_of_file
from pytest_trt.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NUMBER = re.compile(r"\d+\.\d+(?:e[+-]?\d+)?|\d+e[+-]?\d+")
_BY_A_SHELL = re.compile(r"[|<>*$`;]|&(?!&)")
_OF_A_SHELL = re.compile(r"(cd|for|if|export) ")  # what follows them depends on them


class Untrue(AssertionError):
    """A block did not do what its page says."""


@dataclass
class Page:
    """A page while it is run: its folder, what its Python has defined, and what was printed last."""

    pytester: pytest.Pytester
    folder: Path
    names: dict[str, Any] = field(default_factory=dict)
    printed: str = ""
    code: int = 0
    left: list[str] = field(default_factory=list)

    def do(self, block: Block) -> None:
        """Run a block as its directives and its language say.

        Raises:
            Untrue: it does something else than the page says, or nothing knows what to do with it.
            Skipped: the page gives a reason.
        """
        for name in block.all("folder"):
            self.enter(name)
        if reason := block.one("skip"):
            pytest.skip(f"{block.where}: {reason}")
        for module in block.all("needs"):
            if importlib.util.find_spec(module) is None:
                pytest.skip(f"{block.where}: needs {module}, which is not installed")
        _AS.get(block.language, _unclaimed)(self, block)
        for command in block.all("then"):
            self.run(command, block, expected=0)

    def enter(self, name: str) -> None:
        """Go to a new folder, prepared as its name says."""
        self.folder = self.pytester.path / f"{name}-{len(list(self.pytester.path.iterdir()))}"
        self.folder.mkdir()
        os.chdir(self.folder)
        self.names = FOLDERS[name](self.folder) or {}

    def run(self, line: str, block: Block, expected: int) -> None:
        """Run a line of a shell and require its exit code."""
        for prefix, _, reason in (entry.partition(";") for entry in block.all("leave")):
            if line.startswith(prefix.strip()):
                self.left.append(f"{block.where}: {line}: {reason.strip()}")
                return
        for word in (word for words in block.all("without") for word in shlex.split(words)):
            line = line.replace(f" {word}", "")
        # what needs a package like torch, which can't be imported twice, has a process of its own
        self.printed, self.code = _command(line, self, apart=bool(block.one("needs")))
        if self.code != expected:
            raise Untrue(f"{block.where}: {line}\nexit code {self.code}, not {expected}\n{self.printed}")

    def require_printed(self, claimed: str, block: Block) -> None:
        """Require what a page claims of the last output: ``...`` stands for anything, numbers may differ by 5 %."""
        if not prints(claimed, self.printed):
            raise Untrue(f"{block.where}: the page says\n{claimed}\n\nand what was printed is\n{self.printed}")


def prints(claimed: str, printed: str) -> bool:
    """Whether whole lines of what was printed are as is claimed; a line of ``...`` alone stands for any, or none."""
    claimed, printed = _trimmed(claimed), _trimmed(printed) + "\n"
    figures = [float(number) for number in _NUMBER.findall(claimed)]
    pattern = "".join(_line_pattern(line) for line in claimed.splitlines())
    found = re.finditer(f"^{pattern}", printed, re.MULTILINE)
    return any(_near(figures, [float(group) for group in match.groups()]) for match in found)


def _line_pattern(line: str) -> str:
    if line.strip() == "...":
        return r"(?:.*\n)*?"
    parts = re.split(rf"(\.\.\.|{_NUMBER.pattern})", line)
    return "".join(map(_part_pattern, parts)) + r"\n"


def _part_pattern(part: str) -> str:
    if part == "...":
        return ".*?"
    return f"({_NUMBER.pattern})" if _NUMBER.fullmatch(part) else re.escape(part)


def _near(claimed: list[float], printed: list[float]) -> bool:
    return all(abs(one - other) <= 0.05 * abs(one) for one, other in zip(claimed, printed, strict=True))


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def _unclaimed(page: Page, block: Block) -> None:
    raise Untrue(f"{block.where}: nothing runs a block of {block.language or 'no language'!r}: skip it with a reason")


def _script(page: Page, block: Block) -> None:
    lines = [line for line in block.text.replace("\\\n", "").splitlines() if line and not line.startswith("#")]
    _lines(page, block, lines)


def _lines(page: Page, block: Block, lines: list[str]) -> None:
    for number, line in enumerate(lines, 1):
        page.run(line, block, int(block.one("exit") or 0) if number == len(lines) else 0)


def _console(page: Page, block: Block) -> None:
    """Lines that begin with ``$`` are run; what stands under one is what it prints."""
    head, *commands = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    if head.strip() or not commands:
        raise Untrue(f"{block.where}: a console's block begins with '$ ' and a command; for a script take sh")
    for number, command in enumerate(commands, 1):
        line, _, claimed = command.partition("\n")
        page.run(line, block, int(block.one("exit") or 0) if number == len(commands) else 0)
        if claimed.strip():
            page.require_printed(claimed, block)


def _python(page: Page, block: Block) -> None:
    if _written(page, block):
        return
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, block.where, "exec"), page.names)
    page.printed = printed.getvalue()


def _text(page: Page, block: Block) -> None:
    if _written(page, block):
        return
    command = block.one("output")
    if command is None:
        _unclaimed(page, block)
    elif command:
        page.run(command, block, int(block.one("exit") or 0))
    page.require_printed(block.text, block)


def _toml(page: Page, block: Block) -> None:
    read = tomllib.loads(block.text)
    tables = read.get("model") or read.get("tool", {}).get("pytest-trt", {}).get("model", [])
    for case in cases_of_file(tables, page.folder, block.where):
        if not isinstance(case, Case):
            raise Untrue(str(case))
    if not tables and not block.one("file"):
        raise Untrue(f"{block.where}: no [[model]] is in it, so name its file: it is only read")
    _written(page, block)


def _ini(page: Page, block: Block) -> None:
    ConfigParser().read_string(block.text)
    if not _written(page, block):
        raise Untrue(f"{block.where}: name its file and `then` a command that reads it")


def _json(page: Page, block: Block) -> None:
    json.loads(block.text)
    _written(page, block)


def _yaml(page: Page, block: Block) -> None:
    """A workflow of GitHub, or a pipeline of GitLab: its commands are run one after the other."""
    read = yaml.safe_load(block.text)
    _written(page, block)
    commands = list(_commands(read))
    if not commands:
        raise Untrue(f"{block.where}: it has no commands, in `run` or `script`, that could be run")
    for command in commands:
        _lines(page, block, [line for line in command.replace("\\\n", "").splitlines() if line.strip()])


def _commands(tree: Any) -> Any:
    if isinstance(tree, list):
        for item in tree:
            yield from _commands(item)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key in ("run", "script", "before_script") and isinstance(value, (str, list)):
                yield from [value] if isinstance(value, str) else value
            else:
                yield from _commands(value)


def _written(page: Page, block: Block) -> bool:
    for name in block.all("file"):
        file = page.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text, encoding="utf-8")
    return bool(block.all("file"))


_AS: dict[str, Callable[[Page, Block], None]] = {
    "console": _console,
    "sh": _script,
    "bash": _script,
    "python": _python,
    "text": _text,
    "toml": _toml,
    "ini": _ini,
    "json": _json,
    "yaml": _yaml,
}


def _command(line: str, page: Page, *, apart: bool) -> tuple[str, int]:
    """What a line prints and its exit code: parts that are joined by ``&&``, until one fails."""
    if _OF_A_SHELL.match(line):
        return _by_a_shell(line, page)
    printed = ""
    for part in line.split("&&"):
        said, code = _part(part, page, apart)
        printed += said
        if code:
            return printed, code
    return printed, 0


def _part(part: str, page: Page, apart: bool) -> tuple[str, int]:
    """Ours runs in this process, where imports are paid for once, if it is plain and not to be kept apart."""
    words = shlex.split(part, comments=True)
    if "pip" in words[:3] and "install" in words:
        return _installed(words)
    if apart or _BY_A_SHELL.search(part.split(" #")[0]):
        return _by_a_shell(part, page)
    if words[0] == "pytest":
        found = page.pytester.runpytest_inprocess(*words[1:])
        return "\n".join([*found.outlines, *found.errlines]), int(found.ret)
    if words[0] == "pytest-trt":
        result = CliRunner().invoke(main, words[1:], prog_name="pytest-trt")
        return result.output, result.exit_code
    return _by_a_shell(part, page)


def _installed(words: list[str]) -> tuple[str, int]:
    """Nothing is installed here: that our extras are there, and what else is named can be read, is looked at."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    wanted = [word for word in words[words.index("install") + 1 :] if not word.startswith("-")]
    for word in wanted:
        asked = Requirement(f"pytest-trt{word.removeprefix('.')}" if word.startswith(".") else word)
        unknown = asked.extras - set(extras) if asked.name == "pytest-trt" else set()
        if unknown:
            return f"pyproject.toml has no extra {', '.join(sorted(unknown))}", 1
    return f"would install {' '.join(wanted)}", 0


def _by_a_shell(line: str, page: Page) -> tuple[str, int]:
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(
        ["bash", "-c", line],
        cwd=page.folder,
        env={**os.environ, "PATH": scripts, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return found.stdout, found.returncode
