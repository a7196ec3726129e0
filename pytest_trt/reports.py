"""Reports: the files that a run's record goes to, kept valid from the first moment on."""

from __future__ import annotations

import math
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from pytest_trt.atomic import write_whole
from pytest_trt.errors import PytestTrtError
from pytest_trt.report.environment import environment, times
from pytest_trt.report.record import document, write
from pytest_trt.report.rendering import render

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
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

    def __init__(self, paths: Sequence[Path], root: Path, options: Iterable[str], started: datetime) -> None:
        self.paths = paths
        self._environment = environment(root, options)
        self._started = started
        self._began = time.monotonic()
        self._spent = 0.0

    def keep(self, results: list[dict[str, Any]]) -> None:
        """Write the record of what is known so far, unless that was done too often; other reports wait for the end."""
        began = time.monotonic()
        records = [path for path in self.paths if path.suffix == ".json"]
        if not records or self._spent > _FREE_S + _SHARE * (began - self._began):
            return
        told = self.document(results, partial=True, exit_status=None)
        try:
            for path in records:
                write(path, told)
        except OSError:
            self._spent = math.inf  # the end says why
        else:
            self._spent += time.monotonic() - began

    def finish(self, told: dict[str, Any]) -> list[str]:
        """Write every report; why one could not be, a sentence each."""
        return [complaint for path in self.paths if (complaint := _written(path, told))]

    def document(self, results: list[dict[str, Any]], *, partial: bool, exit_status: int | None) -> dict[str, Any]:
        """The record, up to now."""
        now = times(self._started, datetime.now(timezone.utc), ended=exit_status is not None)
        return document(results, {**self._environment, **now}, partial=partial, exit_status=exit_status)


def _written(path: Path, told: dict[str, Any]) -> str:
    try:
        write_whole(path, render(told, path.suffix).encode(errors="replace"))
    except OSError as error:
        return f"the report {path} can't be written: {error.strerror or error}."
    except PytestTrtError as error:
        return f"the report {path} can't be written: {error}"
    return ""
