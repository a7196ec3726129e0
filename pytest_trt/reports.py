"""Reports: the files that a run's record goes to, kept valid from the first moment on."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_trt.atomic import write_whole
from pytest_trt.errors import PytestTrtError
from pytest_trt.locate import blame
from pytest_trt.report.environment import environment, times
from pytest_trt.report.record import document, write
from pytest_trt.report.rendering import render

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Reports"]

_FREE_S = 0.5  # records in between may take so long, and
_SHARE = 0.05  # this much of the run


class Reports:
    """The record of a run that goes on, and the files that it is written to.

    Whatever ends the process, records on disk are whole and say that they are partial: they are written before the
    first test and again as results come, never in place.

    Attributes:
        paths: of the files.
    """

    def __init__(self, paths: Sequence[Path], root: Path, options: Sequence[str], started: datetime) -> None:
        self.paths = paths
        self._root = root
        self._options = options
        self._started = started
        self._ended: dict[str, Any] = {"partial": True, "exit_status": None}
        self._results: list[dict[str, Any]] = []
        self._began = time.monotonic()
        self._spent = 0.0

    def keep(self, results: list[dict[str, Any]]) -> None:
        """Write the record of what is known so far, unless that was done too often; other reports wait for the end."""
        began = time.monotonic()
        records = [path for path in self.paths if path.suffix == ".json"]
        if not records or self._spent > _FREE_S + _SHARE * (began - self._began):
            return
        told = self._document(results, partial=True, exit_status=None)
        for path in records:
            with suppress(OSError):  # where it stays so, the end says why; Windows has files that are busy for a moment
                write(path, told)
        self._spent += time.monotonic() - began

    def finish(
        self, results: list[dict[str, Any]], partial: bool, exit_status: int, complaints: Sequence[str] = ()
    ) -> list[str]:
        """Write every report, records first; why one could not be, a sentence each."""
        self._ended = {"partial": partial, "exit_status": exit_status, "complaints": tuple(complaints)}
        self._results = results
        ordered = sorted(self.paths, key=lambda path: path.suffix != ".json")
        return [complaint for path in ordered if (complaint := _written(path, self.told))]

    @cached_property
    def told(self) -> dict[str, Any]:
        """The record of the run that has ended."""
        return self._document(self._results, **self._ended)

    @cached_property
    def _environment(self) -> dict[str, Any]:
        return environment(self._root, self._options)

    def _document(self, results: list[dict[str, Any]], **state: Any) -> dict[str, Any]:
        now = times(self._started, datetime.now(timezone.utc), ended=state["exit_status"] is not None)
        return document(results, {**self._environment, **now}, **state)


def _written(path: Path, told: dict[str, Any]) -> str:
    try:
        write_whole(path, render(told, path.suffix).encode(errors="replace"))
    except OSError as error:
        why = f"{error.strerror or error}."
    except PytestTrtError as error:
        why = str(error)
    except Exception as error:  # one report's fault is not another's
        why = f"a fault of pytest-trt, please report it: {blame(error)}"
    else:
        return ""
    return f"the report {path} can't be written: {why}"
