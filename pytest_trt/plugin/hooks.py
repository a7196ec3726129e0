"""pytest's side: options, marker, fixtures, hooks. Everything heavier is imported when it is used."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trt.plugin import _options as options

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from pytest_trt.plugin._results import Results

_MARKER = (
    "trt(onnx=None, torch=None, calibration=None, precisions=None, tolerance=None, ...): the model that this test's"
    " trt fixtures are about; takes the keys of a [[model]] table of trt.toml."
)

_results = pytest.StashKey["Results"]()
_used = pytest.StashKey[bool]()
_given = pytest.StashKey[bool]()


class _Listener:
    """Hears of reports; the results are made when the first one of ours arrives, or an option asks for them."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.started = datetime.now(timezone.utc)
        self.finished: set[str] = set()
        self.crashed = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Put a record in place that says that nothing is done yet, where one was asked for."""
        if self.config.stash[_given] and not self._in_worker():
            self._results().begin()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take verdicts and written goldens; the teardown report comes last and carries all."""
        if report.when == "teardown":
            self.finished.add(report.nodeid)
        if any(name.startswith("trt_") for name, _ in report.user_properties) and not self._in_worker():
            self._results().hear(report)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take the words that one of xdist's workers did not know, and that it crashed."""
        self.crashed = self.crashed or bool(error)
        usage = getattr(node, "workeroutput", {}).get("trt_usage")
        if usage:
            self._results().refuse(usage)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Let the verdicts decide the exit status, and write the report."""
        if not self._in_worker() and self._anything():
            from pytest_trt.plugin._benchmarks import complaints, remarks

            results = self._results()
            results.finished, results.crashed = len(self.finished), self.crashed
            results.complaints += complaints(session)
            results.remarks += remarks(session)
            results.finish(session)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, Any, Any]:
        """Fail what only the whole run shows to be slower, while tests can still fail."""
        done = yield
        if _used in self.config.stash and not self._in_worker():
            from pytest_trt.plugin._benchmarks import finish

            finish(session)
        return done

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the table."""
        if self._anything():
            self._results().show(terminalreporter)

    def _in_worker(self) -> bool:
        """Whether this is one of xdist's workers, whose reports the controller hears too."""
        return hasattr(self.config, "workerinput")

    def _anything(self) -> bool:
        return _results in self.config.stash or self.config.stash[_given]

    def _results(self) -> Results:
        from pytest_trt.plugin._results import Results

        if _results not in self.config.stash:
            self.config.stash[_results] = Results(self.config, self.started)
        return self.config.stash[_results]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and their ini twins."""
    options.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, refuse what can't be done, and collect the models that the command line names."""
    config.addinivalue_line("markers", _MARKER)
    config.pluginmanager.register(_Listener(config), "trt-listener")
    config.stash[_given] = options.given(config)
    if config.stash[_given]:
        from pytest_trt.plugin._arguments import prepare_options
        from pytest_trt.plugin._benchmarks import begin

        prepare_options(config)
        begin(config)
    elif config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        from pytest_trt.plugin._arguments import add_root_cases

        add_root_cases(config)


def pytest_report_header(config: pytest.Config) -> str | None:
    """One line, when any option is given."""
    if not config.stash[_given]:
        return None
    from pytest_trt.plugin._results import header

    return header(config)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """trt.toml, *.trt.toml, a pyproject.toml with cases, and the ONNX files of --trt-model."""
    if file_path.suffix not in (".toml", ".onnx"):
        return None
    from pytest_trt.plugin._arguments import is_case_file

    if not is_case_file(file_path, parent.config):
        return None
    from pytest_trt.plugin._collection import CaseFile

    parent.config.stash[_used] = True
    return CaseFile.from_parent(parent, path=file_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes a fixture of ours runs once a case and precision."""
    ours = any(name.startswith("trt_") for name in metafunc.fixturenames)
    if ours or metafunc.definition.get_closest_marker("trt") is not None:
        from pytest_trt.plugin._collection import parametrize

        metafunc.config.stash[_used] = True
        parametrize(metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Words that were not known end the run here, before anything is judged."""
    if _used in config.stash:
        from pytest_trt.plugin._collection import finish

        finish(config, items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that is run again (pytest-rerunfailures) begins anew."""
    if any(name.startswith("trt_") for name, _ in item.user_properties):
        from pytest_trt.plugin._verdict_items import begin_anew

        begin_anew(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A test that asks for the gate and never runs it does not pass; the last report takes the item's records along."""
    report = yield
    judged = any(name.startswith("trt_") for name, _ in item.user_properties)
    if judged and report.failed and call.excinfo is not None:
        from pytest_trt.plugin._verdict_items import speak

        speak(item, call.excinfo.value, report)
    if judged and call.when == "teardown":
        from pytest_trt.plugin._verdict_items import ship

        ship(item, report)
    if call.when == "call" and report.outcome == "passed" and not hasattr(report, "wasxfail"):
        fixtures = getattr(item, "fixturenames", None)
        if fixtures is not None and item.get_closest_marker("trt") is not None:
            from pytest_trt.plugin._verdict_items import unjudged, untimed

            reason = unjudged(item, fixtures) or untimed(item, fixtures)
            if reason:
                report.outcome, report.longrepr = "failed", reason
    return report
