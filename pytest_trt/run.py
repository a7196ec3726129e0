"""A pytest run's results: records gathered from the items' reports, the table, the exit status, the report file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trt import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Results", "header"]

_COLOURS = {"passed": {"green": True}, "failed": {"red": True}, "error": {"red": True}}


def header(config: pytest.Config) -> str:
    """What the run was asked for, in a line; looks at package metadata only."""
    from pytest_trt.report.record import environment

    packages = environment()["packages"]
    asked = ", ".join(settings.precisions_asked(config)) or "as each case says"
    backend = settings.backend_for(config, None)
    version = packages.get(backend) or packages.get(f"{backend}-gpu") or "not installed"
    kind = ", simulated on the CPU" if backend == "onnxruntime" else ""
    return f"trt: precision {asked}; backend {backend} {version}{kind}; goldens in {settings.golden_dir(config)}"


class Results:
    """Verdicts as they arrive (in xdist's controller too), and what they mean for the run."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.records: list[dict[str, Any]] = []
        self.written: list[str] = []
        self.complaints: list[str] = []
        self.usage: list[str] = []

    def take(self, report: pytest.TestReport) -> None:
        """Take the records and the golden's changes that an item left."""
        from pytest_trt.judging import RECORD, WRITTEN

        for name, value in report.user_properties:
            if name == RECORD:
                self.records.append({"nodeid": report.nodeid, **json.loads(str(value))})
            elif name == WRITTEN:
                self.written.append(str(value))

    def refuse(self, words: list[str]) -> None:
        """Take words that were not known; several workers find the same."""
        self.usage += [text for text in words if text not in self.usage]

    def finish(self, session: pytest.Session) -> None:
        """A run that was asked for a precision and judged nothing at it is not green; write the report."""
        if self.usage:
            self.complaints += self.usage
            session.exitstatus = pytest.ExitCode.USAGE_ERROR
        elif not self.config.option.collectonly:
            self.complaints += self._not_judged()
        if self.complaints and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self._write_report(session)

    def show(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table, what was written, what is left over, and why the run is not green."""
        if not (self.records or self.written or self.complaints):
            return
        from pytest_trt.report.terminal import table

        terminalreporter.section("pytest-trt")
        for line, verdict in table(self.records) if self.records else ():
            terminalreporter.write_line(line, **_COLOURS.get(verdict, {"bold": True}))
        for text in [*self.written, *self._unused()]:
            terminalreporter.write_line(text)
        for text in self.complaints:
            terminalreporter.write_line(f"ERROR: {text}", red=True)

    def _not_judged(self) -> Iterator[str]:
        judged = {record["precision"] for record in self.records if record["verdict"] != "error"}
        failed = {record["precision"] for record in self.records if record["verdict"] == "error"}
        for precision in settings.precisions_asked(self.config):
            if precision not in judged:
                tried = " (every attempt ended in an error)" if precision in failed else ""
                yield (
                    f"--trt-precision={precision} was asked for, and no case was judged at {precision}{tried}."
                    " Name models in a trt.toml, with @pytest.mark.trt, or with --trt-model."
                )

    def _write_report(self, session: pytest.Session) -> None:
        path = settings.report_file(self.config)
        if path is None:
            return
        from pytest_trt.report.record import document, write

        status = int(session.exitstatus)
        partial = status in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR) or bool(session.shouldstop)
        partial = partial or bool(session.shouldfail)
        try:
            write(path, document(self.records, partial=partial, exit_status=status))
        except OSError as error:
            self.complaints.append(f"the report {path} can't be written: {error.strerror or error}.")
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def _unused(self) -> list[str]:
        """Goldens that no collected case uses, where the whole suite was collected."""
        if self.config.args_source is pytest.Config.ArgsSource.ARGS or settings.models(self.config):
            return []
        from pytest_trt.judging import collected

        cases = self.config.stash.get(collected, [])
        if not cases or not self.records:
            return []
        from pytest_trt.reference import find_golden

        folder = settings.golden_dir(self.config)
        used = {str(find_golden(case, folder).resolve()) for case in cases}
        stray = [path for path in sorted(folder.glob("*.safetensors")) if str(path.resolve()) not in used]
        return [f"unused golden: {path} belongs to no collected case" for path in stray]
