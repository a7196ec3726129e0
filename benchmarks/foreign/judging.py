"""Cases through pytest, as users have them: a trt.toml, a process, a record; by this checkout or another.

Only the public face is used, so that another checkout can be asked the very same.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_trt.case.case import Case

__all__ = ["Judged", "Judging"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Judged:
    """What one process said.

    Attributes:
        results: of the record, by case and precision.
        seconds: of CPU, user and system, of the whole process.
        said: its last lines.
    """

    results: Mapping[tuple[str, str], Mapping[str, Any]]
    seconds: float
    said: str


@dataclass(frozen=True)
class Judging:
    """A folder to judge cases in.

    Attributes:
        folder: empty, or kept from a run before.
        checkout: of the project, whose code judges.
        core: the one that processes run on, so that their seconds can be compared.
    """

    folder: Path
    checkout: Path = ROOT
    core: int | None = None

    def __call__(self, name: str, asked: Iterable[tuple[Case, Iterable[str]]], *words: str) -> Judged:
        """Ask for cases, each at its precisions; words are pytest's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file, record = self.folder / f"{name}.trt.toml", self.folder / f"{name}.json"
        record.unlink(missing_ok=True)
        (self.folder / "pytest.ini").write_text("[pytest]\n")
        (self.folder / "trt.toml").unlink(missing_ok=True)
        known = _keys(self.checkout)
        file.write_text("\n".join(_table(case, precisions, known) for case, precisions in asked))
        os.link(file, self.folder / "trt.toml")
        command = [sys.executable, "-m", "pytest", "trt.toml", "-q", "-p", "no:cacheprovider"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = self._run([*command, f"--trt-report={record}", *words])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = sum(getattr(after, what) - getattr(before, what) for what in ("ru_utime", "ru_stime"))
        results = json.loads(record.read_text())["results"] if record.exists() else []
        by = {(result["case"], result["precision"]): result for result in results}
        return Judged(by, seconds, "\n".join((done.stdout + done.stderr).splitlines()[-20:]))

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
        environment["PYTHONPATH"] = str(self.checkout)
        if self.core is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, [self.core])  # the child inherits it
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=1800
        )


@cache
def _keys(checkout: Path) -> frozenset[str]:
    """The keys of a case that a checkout knows."""
    command = "import dataclasses, pytest_trt; print(*(f.name for f in dataclasses.fields(pytest_trt.Case)))"
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=checkout, env=environment, capture_output=True, text=True, check=True
    )
    return frozenset(done.stdout.split())


def _table(case: Case, precisions: Iterable[str], known: frozenset[str]) -> str:
    """The ``[[model]]`` of a case."""
    lines = ["[[model]]"]
    for field in fields(case):
        value = getattr(case, field.name)
        told = field.name in known and field.name not in ("base", "where", "command", "precisions")
        if told and value not in (field.default, {}, ()):
            lines.append(f"{field.name} = {_value(value)}")
    return "\n".join([*lines, f"precisions = {_value(list(precisions))}", ""])


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(name)} = {_value(one)}" for name, one in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)
