"""Case files: trt.toml, ``*.trt.toml`` and pyproject.toml, read into cases; nothing here knows pytest."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import CaseError, unknown

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_trt.case.case import Case

__all__ = ["cases_in", "files_of", "has_cases", "parse", "quoted", "shown_from"]


def files_of(folder: Path) -> list[Path]:
    """The files of cases in a folder, by name."""
    return [path for path in sorted(folder.glob("*.toml")) if has_cases(path)]


def has_cases(path: Path) -> bool:
    """Whether the file is one that holds cases; of a pyproject.toml, whether it has our table."""
    if path.name == "pyproject.toml":
        return _names_us(path)
    return path.name == "trt.toml" or path.name.endswith(".trt.toml")


def parse(path: Path) -> dict[str, Any]:
    """The document of a TOML file.

    Raises:
        ValueError, OSError: it can't be read.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    return document


def cases_in(path: Path, label: str, options: str = "") -> list[Case | CaseError]:
    """The cases of one file, in order; one that can't be read is its own error.

    Args:
        path: the file.
        label: what messages call it, as the user would type it.
        options: of pytest, that find the same goldens.

    Raises:
        SpecError: a word is not known.
        CaseError: it is no TOML, or its tables are not ours.
    """
    from pytest_trt.case.case import cases_of_file  # brings numpy, which asking whether a file has cases must not

    found = cases_of_file(_tables(path, label), path.parent, label)
    return [
        case if isinstance(case, CaseError) else replace(case, command=f'"{label}::{case.name}"{options}')
        for case in found
    ]


def quoted(word: str) -> str:
    """A path or a name as cmd, PowerShell and sh take it."""
    return word if re.fullmatch(r"[\w./:=+,~-]+", word) else f'"{word}"'


def shown_from(path: Path, folder: Path) -> str:
    """The path as the user would type it in that folder, with slashes on every system."""
    try:
        return os.path.relpath(path, folder).replace(os.sep, "/")
    except ValueError:  # another drive
        return str(path)


def _tables(path: Path, label: str) -> Any:
    try:
        document = parse(path)
    except (ValueError, OSError) as error:
        raise CaseError(f"{label} can't be read as TOML: {error}. None of its cases was checked.") from error
    if path.name != "pyproject.toml":
        return _models(document, label)
    if "pytest_trt" in document["tool"]:
        raise unknown(f"table in {label}:", "tool.pytest_trt", ["tool.pytest-trt"])
    return _models(document["tool"]["pytest-trt"], f"{label} [tool.pytest-trt]")


def _models(table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise CaseError(f"{where} = {table!r} must be a table.")
    for key in table:
        if key != "model":
            raise unknown(f"key in {where}:", key, ["model"])
    if "model" not in table:
        raise CaseError(f"{where} holds no case: write one [[model]] table for each model.")
    return table["model"]


def _names_us(path: Path) -> bool:
    try:
        if b"pytest-trt" not in path.read_bytes().replace(b"_", b"-"):
            return False
        tool = parse(path).get("tool", {})
    except (ValueError, OSError):
        return False  # pytest itself reads this file, and says what is wrong with it
    return isinstance(tool, dict) and ("pytest-trt" in tool or "pytest_trt" in tool)
