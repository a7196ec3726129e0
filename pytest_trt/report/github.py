"""GitHub: a step summary and annotations, where a workflow of GitHub Actions runs us."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.report.markdown import fitted
from pytest_trt.report.terminal import asked, backend_label, reason

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["annotated", "is_running", "summarise"]

Record = dict[str, Any]

SUMMARY_BYTES = 1 << 20
"""What a step's summary may hold; GitHub drops all of one that is larger."""

_MOST = 10  # annotations of a kind that GitHub shows of one step
_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = {**_DATA, ":": "%3A", ",": "%2C"}


def is_running(variables: Mapping[str, str]) -> bool:
    """Whether a workflow runs us."""
    return variables.get("GITHUB_ACTIONS") == "true"


def annotated(document: Record, root: Path, variables: Mapping[str, str]) -> list[str]:
    """Workflow commands: of each case that did not pass, at the line where it is written, and of what else is wrong.

    Args:
        document: the record of the run.
        root: pytest's root folder, which the record's files are told from.
        variables: of the process; the workspace is among them.
    """
    bad = [record for record in document["results"] if record["verdict"] in ("failed", "error")]
    workspace = Path(variables.get("GITHUB_WORKSPACE") or root)
    lines = [_command({"title": "pytest-trt"}, text) for text in document["complaints"]]
    lines += [_annotation(record, root, workspace) for record in bad]
    more = len(lines) - _MOST + 1
    rest = f"{more} more are in the step's summary and in the log."
    return lines if len(lines) <= _MOST else [*lines[: _MOST - 1], _command({"title": "pytest-trt"}, rest)]


def summarise(document: Record, variables: Mapping[str, str]) -> None:
    """Append the record to the step's summary, where there is one, as far as there is room.

    Raises:
        OSError: it can't be written.
    """
    named = variables.get("GITHUB_STEP_SUMMARY")
    if not named:
        return
    path = Path(named)
    taken = path.stat().st_size if path.exists() else 0
    with path.open("a", encoding="utf-8", errors="replace", newline="\n") as file:
        file.write(fitted(document, SUMMARY_BYTES - taken))


def _annotation(record: Record, root: Path, workspace: Path) -> str:
    told = {
        "file": _relative(root / record["file"], workspace),
        "line": str(record["line"] or 1),
        "title": f"{record['case']} at {asked(record)} on {backend_label(record)}",
    }
    return _command(told, reason(record))


def _relative(path: Path, workspace: Path) -> str:
    try:
        return Path(os.path.relpath(path, workspace)).as_posix()
    except ValueError:  # another drive
        return path.as_posix()


def _command(properties: Mapping[str, str], message: str) -> str:
    told = ",".join(f"{name}={_escaped(value, _PROPERTY)}" for name, value in properties.items())
    return f"::error {told}::{_escaped(message, _DATA)}"


def _escaped(text: str, escapes: Mapping[str, str]) -> str:
    return "".join(escapes.get(letter, letter) for letter in text)
