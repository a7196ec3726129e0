"""Results: records of the items' reports, the table, the exit status, and the files that the record goes to."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trt.backends.backend import packages_of
from pytest_trt.errors import PytestTrtError
from pytest_trt.plugin import settings
from pytest_trt.plugin._benchmarks import LATE
from pytest_trt.plugin._collection import shown, spec_errors
from pytest_trt.plugin._verdict_items import WRITTEN, collected, unreadable
from pytest_trt.report import markdown
from pytest_trt.report.layout import Message, pieces
from pytest_trt.report.record import document, environment, packages, times, write
from pytest_trt.report.record_file import render
from pytest_trt.report.terminal import beside, counted, table
from pytest_trt.storage.atomic_write import write_whole
from pytest_trt.storage.entry_point import blame

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Reports", "Results", "header"]

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


_ALL_ERRORS = ": every attempt ended in an error."
_NAME = ". Name models in a trt.toml, with @pytest.mark.trt, or with --trt-model."

_COLOURS = {
    "passed": {"green": True},
    "built": {"yellow": True},
    "timed": {"yellow": True},
    "failed": {"red": True},
    "error": {"red": True},
}


def header(config: pytest.Config) -> str:
    """What the run was asked for, in a line; looks at package metadata only."""
    installed = packages()
    own = f"{', '.join(settings.precisions_for(config, None))} or each case's own"
    asked = ", ".join(settings.precisions_asked(config)) or own
    backend = settings.backend_for(config, None)
    version = next((installed[name] for name in packages_of(backend) if name in installed), "not installed")
    kind = ", simulated on the CPU" if backend == "onnxruntime" else ""
    kind += ", built only and not judged" if settings.build_only(config) else ""
    return f"trt: precision {asked}; backend {backend} {version}{kind}; goldens in {settings.golden_dir(config)}"


class Results:
    """Verdicts as they arrive (in xdist's controller too), and what they mean for the run."""

    def __init__(self, config: pytest.Config, started: datetime) -> None:
        paths = [] if settings.runs_nothing(config) else settings.report_files(config)
        self.config = config
        self.records: list[dict[str, Any]] = []
        self.written: list[str] = []
        self.complaints: list[str] = []
        self.remarks: list[str] = []
        self.usage: list[str] = []
        self.finished = 0
        self.crashed = False
        self.reports = Reports(paths, config.rootpath, settings.words(config), started)

    def begin(self) -> None:
        """Put partial records in place, if records were asked for."""
        self.reports.keep(self.records)

    def hear(self, report: pytest.TestReport) -> None:
        """Take what a report of ours tells; a failure's message is coloured from here on, and known by its reason."""
        file, line, _ = report.location
        if report.failed and isinstance(report.longrepr, str):
            vars(report)["longrepr"] = Message(report.longrepr, file, (line or 0) + 1)
        if report.when == "teardown":
            self._take(report, {"file": file.replace(os.sep, "/"), "line": None if line is None else line + 1})

    def _take(self, report: pytest.TestReport, place: dict[str, Any]) -> None:
        """Take the records and the golden's changes that an item left."""
        if any(name == LATE for name, _ in report.user_properties):  # what was told of this test before is told anew
            self.records = [record for record in self.records if record["nodeid"] != report.nodeid]
        records = [json.loads(text) for text in getattr(report, "trt_records", ())]
        self.records += [{"nodeid": report.nodeid, **place, **record} for record in records]
        self.written += [str(value) for name, value in report.user_properties if name == WRITTEN]
        self.reports.keep(self.records)

    def refuse(self, words: list[str]) -> None:
        """Take words that were not known; several workers find the same."""
        self.usage += [text for text in words if text not in self.usage]

    def finish(self, session: pytest.Session) -> None:
        """A run that was asked for a precision and judged nothing at it is not green; write the report."""
        if self.usage:
            self.complaints += self.usage
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        elif session.exitstatus == pytest.ExitCode.USAGE_ERROR:
            words: list[str] = self.config.stash.get(spec_errors, [])
            self.complaints += dict.fromkeys(words)
        elif not settings.runs_nothing(self.config):
            self.complaints += self._not_judged(cut=bool(session.shouldstop or session.shouldfail))
        if self.complaints and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self._write_reports(session)

    def show(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table, what was written, what is left over, and why the run is not green."""
        if not (self.records or self.written or self.complaints):
            return
        verbosity = self.config.get_verbosity()
        if self.records and verbosity < 0:
            self._show_briefly(terminalreporter)
        else:
            terminalreporter.section("pytest-trt")
            self._show_table(terminalreporter, self.records)
            self._show_beside(terminalreporter, verbosity)
        for text in [*self.written, *self._unused()]:
            terminalreporter.write_line(text)
        for path in self.reports.paths if verbosity >= 0 else ():
            terminalreporter.write_line(f"report: {shown(path, self.config)}")
        if markdown.is_running(os.environ):
            self._tell_github(terminalreporter)
        for text in self.remarks:
            terminalreporter.write_line(f"WARNING: {text}", yellow=True)
        for text in self.complaints:
            terminalreporter.write_line(f"ERROR: {text}", red=True)

    def _tell_github(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The step's summary, and annotations, which the runner reads off the error stream."""
        try:
            markdown.summarise(self.reports.told, os.environ)
        except OSError as error:
            terminalreporter.write_line(f"the step's summary can't be written: {error.strerror or error}", yellow=True)
        for line in markdown.annotated(self.reports.told, self.config.rootpath, os.environ):
            sys.stderr.write(f"{line}\n")

    def _show_briefly(self, terminalreporter: pytest.TerminalReporter) -> None:
        """What did not pass, what passed with a warning, and a line for all."""
        bad = [record for record in self.records if record["verdict"] in ("failed", "error")]
        self._show_table(terminalreporter, bad)
        self._show_beside(terminalreporter, self.config.get_verbosity())
        terminalreporter.write_line(f"trt: {counted(self.records)}", red=bool(bad), green=not bad)

    def _show_table(self, terminalreporter: pytest.TerminalReporter, records: list[dict[str, Any]]) -> None:
        for line, verdict in table(records, self.config.get_verbosity()) if records else ():
            terminalreporter.write_line(line, **_COLOURS.get(verdict, {"bold": True}))

    def _show_beside(self, terminalreporter: pytest.TerminalReporter, verbosity: int) -> None:
        built = sum(record["verdict"] == "built" for record in self.records)
        for line in beside(self.records, verbosity):
            for text, colour in pieces(line):
                terminalreporter.write(text, **colour)
            terminalreporter.write_line("")
        if built:
            terminalreporter.write_line(f"{built} built and nothing of them judged (--trt-build-only)", yellow=True)

    def _not_judged(self, *, cut: bool) -> Iterator[str]:
        """Why the run is not green: a precision that nothing was judged at, though it was asked for.

        Where the run was cut short, or only what failed before is run again, one verdict is enough.
        """
        judged = {record["precision"] for record in self.records if record["verdict"] != "error"}
        tried = {record["precision"] for record in self.records if record["verdict"] == "error"}
        asked = settings.precisions_asked(self.config)
        for precision in () if (judged or tried) and (cut or self._again()) else asked:
            if precision not in judged:
                what = f"--trt-precision={precision} was asked for, and no case was judged at {precision}"
                yield what + (_ALL_ERRORS if precision in tried else _NAME)
        if not judged and not asked and (by := self._asked_otherwise()):
            yield f"{by} asks for a verdict, and no case was judged{_ALL_ERRORS if tried else _NAME}"

    def _again(self) -> bool:
        """Whether --lf alone chose what to run."""
        option, cache = self.config.option, getattr(self.config, "cache", None)
        chosen = option.keyword or option.markexpr
        return bool(getattr(option, "lf", False) and not chosen and cache and cache.get("cache/lastfailed", {}))

    def _asked_otherwise(self) -> str:
        """What else asks that something is judged; the ini file does where the whole suite is run."""
        option = self.config.option
        if option.trt_model:
            return "--trt-model"
        for word, told in (("require-engine", option.trt_require_engine), ("engine", option.trt_engine)):
            if told:
                return f"--trt-{word}"
        if option.trt_build_only:
            return "--trt-build-only"
        selected = (
            option.keyword or option.markexpr or getattr(option, "deselect", None) or getattr(option, "lf", False)
        )
        whole = self.config.args_source is not pytest.Config.ArgsSource.ARGS and not selected
        return "trt_precision in the ini file" if whole and settings.ini_precisions(self.config) else ""

    def _write_reports(self, session: pytest.Session) -> None:
        status = int(session.exitstatus)
        complaints = self.reports.finish(self.records, self._partial(session), status, self.complaints)
        self.complaints += complaints
        if complaints:
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def _partial(self, session: pytest.Session) -> bool:
        """Whether something is missing: the run was cut short, or a worker crashed."""
        ends = (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR)
        missed = self.finished < getattr(session, "testscollected", 0)
        cut = session.exitstatus in ends or bool(session.shouldstop or session.shouldfail)
        return cut or missed or self.crashed

    def _unused(self) -> list[str]:
        """Goldens that no collected case uses, where the whole suite was collected and could be read."""
        whole = self.config.args_source is not pytest.Config.ArgsSource.ARGS and not settings.models(self.config)
        used = self.config.stash.get(collected, {})
        whole = whole and not getattr(self.config.option, "lf", False)
        if not whole or not used or self.config.stash.get(unreadable, False):
            return []
        found = [
            path
            for path in sorted(settings.golden_dir(self.config).glob("*.safetensors"))
            if not path.name.endswith(".candidate.safetensors")
        ]
        return [
            f"unused golden: {path} belongs to no collected case"
            for path in found
            if os.path.normcase(path.resolve()) not in used
        ]
