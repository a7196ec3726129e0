"""pytest's side: options, marker, fixtures, hooks. Everything heavier is imported when it is used."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trt import options

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from pytest_trt.backends import Engine
    from pytest_trt.by_hand import GoldenCheck
    from pytest_trt.case import Case
    from pytest_trt.latency.found import Latency
    from pytest_trt.precision import Precision
    from pytest_trt.run import Results
    from pytest_trt.verdict import Verdict

__all__: list[str] = []

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
            from pytest_trt.clocks import complaints, remarks

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
            from pytest_trt.clocks import finish

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
        from pytest_trt.run import Results

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
        from pytest_trt.arguments import prepare_options
        from pytest_trt.clocks import begin

        prepare_options(config)
        begin(config)
    elif config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        from pytest_trt.arguments import add_root_cases

        add_root_cases(config)


def pytest_report_header(config: pytest.Config) -> str | None:
    """One line, when any option is given."""
    if not config.stash[_given]:
        return None
    from pytest_trt.run import header

    return header(config)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """trt.toml, *.trt.toml, a pyproject.toml with cases, and the ONNX files of --trt-model."""
    if file_path.suffix not in (".toml", ".onnx"):
        return None
    from pytest_trt.arguments import is_case_file

    if not is_case_file(file_path, parent.config):
        return None
    from pytest_trt.collection import CaseFile

    parent.config.stash[_used] = True
    return CaseFile.from_parent(parent, path=file_path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes a fixture of ours runs once a case and precision."""
    ours = any(name.startswith("trt_") for name in metafunc.fixturenames)
    if ours or metafunc.definition.get_closest_marker("trt") is not None:
        from pytest_trt.parametrize import parametrize

        metafunc.config.stash[_used] = True
        parametrize(metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Words that were not known end the run here, before anything is judged."""
    if _used in config.stash:
        from pytest_trt.collection import finish

        finish(config, items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that is run again (pytest-rerunfailures) begins anew."""
    if any(name.startswith("trt_") for name, _ in item.user_properties):
        from pytest_trt.judging import begin_anew

        begin_anew(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A test that asks for the gate and never runs it does not pass; the last report takes the item's records along."""
    report = yield
    judged = any(name.startswith("trt_") for name, _ in item.user_properties)
    if judged and report.failed and call.excinfo is not None:
        from pytest_trt.judging import speak

        speak(item, call.excinfo.value, report)
    if judged and call.when == "teardown":
        from pytest_trt.judging import ship

        ship(item, report)
    if call.when == "call" and report.outcome == "passed" and not hasattr(report, "wasxfail"):
        fixtures = getattr(item, "fixturenames", None)
        if fixtures is not None and item.get_closest_marker("trt") is not None:
            from pytest_trt.judging import unjudged, untimed

            reason = unjudged(item, fixtures) or untimed(item, fixtures)
            if reason:
                report.outcome, report.longrepr = "failed", reason
    return report


@pytest.fixture
def trt_precision(request: pytest.FixtureRequest) -> Precision:
    """The precision that this test runs at; the test is repeated for each that was asked.

    Example::

        def test_tolerance(trt_precision):
            assert trt_precision.bits <= 32

    Asked for by ``--trt-precision=fp16,int8``, else the ``precisions`` of the marker (or, with a fixture that takes
    a case, of trt.toml), else the ini file.
    """
    from pytest_trt.precision import Precision

    label = _param(request)
    return Precision.FP32 if label == "-" else Precision.parse(label)


@pytest.fixture
def trt_case(request: pytest.FixtureRequest, trt_precision: Precision) -> Case:  # noqa: ARG001 - parametrized in pairs
    """The model that this test is about: from its ``trt`` marker, else each case of the nearest trt.toml.

    Example::

        @pytest.mark.trt(onnx="digits.onnx", calibration="calibration.npz")
        def test_digits(trt_case):
            assert trt_case.name == "digits"
    """
    from pytest_trt.errors import CaseError
    from pytest_trt.judging import note_error

    found = _param(request)
    if isinstance(found, CaseError):
        note_error(request.node, request.node.name, None, found)
        pytest.fail(f"{type(found).__name__}: {found}", pytrace=False)
    case: Case = found
    return case


@pytest.fixture
def trt_engine(request: pytest.FixtureRequest, trt_case: Case, trt_precision: Precision) -> Engine:
    """The case's model, built at the precision; ``run(inputs)`` gives outputs by name.

    Example::

        def test_by_hand(trt_engine, trt_golden):
            outputs = trt_engine.run(trt_golden.inputs)
            trt_golden.check(outputs)
    """
    from pytest_trt.by_hand import open_engine

    engine: Engine = _or_fail(lambda: open_engine(request.node, trt_case, trt_precision))
    return engine


@pytest.fixture
def trt_benchmark(
    request: pytest.FixtureRequest,
    trt_case: Case,
    trt_precision: Precision,
    benchmark: object,  # noqa: ARG001 - so that pytest-benchmark's own options select this test
) -> Callable[..., Latency | None]:
    """Time an engine on inputs and hand the samples to pytest-benchmark; with ``--trt-latency=gate`` also judge them.

    Seconds of the GPU by CUDA events, of the host where nothing runs on one. Returns what was found; None where
    ``--benchmark-disable`` has it run once, untimed.

    Example::

        def test_speed(trt_engine, trt_golden, trt_benchmark):
            trt_golden.check(trt_engine.run(trt_golden.inputs))
            latency = trt_benchmark(trt_engine, trt_golden.inputs)
            assert latency is None or latency.samples.metric.batch == 1
    """
    from pytest_trt.by_hand import time_engine

    return lambda engine, inputs: _or_fail(lambda: time_engine(request.node, trt_case, trt_precision, engine, inputs))


@pytest.fixture
def trt_golden(request: pytest.FixtureRequest, trt_case: Case, trt_precision: Precision) -> GoldenCheck:
    """The case's golden: ``inputs``, reference ``outputs``, and ``check(outputs)``, which judges and records.

    Example::

        def test_by_hand(trt_engine, trt_golden):
            trt_golden.check(trt_engine.run(trt_golden.inputs))
    """
    from pytest_trt.by_hand import open_golden_check

    golden: GoldenCheck = _or_fail(lambda: open_golden_check(request.node, trt_case, trt_precision))
    return golden


@pytest.fixture
def trt_check(request: pytest.FixtureRequest, trt_case: Case, trt_precision: Precision) -> Callable[[], Verdict]:
    """The whole gate: build, run, compare with the golden, judge, record; fails the test unless it passed.

    Example::

        @pytest.mark.trt(onnx="digits.onnx", calibration="calibration.npz")
        def test_digits(trt_check):
            verdict = trt_check()
    """
    from pytest_trt.judging import judge_case

    return lambda: _or_fail(lambda: judge_case(request.node, trt_case, trt_precision))


def _param(request: pytest.FixtureRequest) -> Any:
    """What the fixture was parametrized with."""
    if hasattr(request, "param"):
        return request.param
    pytest.fail(
        f"{request.fixturename} has no model to be about: name it among the test's arguments; unittest classes and"
        " request.getfixturevalue() come too late to repeat a test for each case and precision.",
        pytrace=False,
    )


def _or_fail(step: Callable[[], Any]) -> Any:
    """The step's result; what went wrong fails the test with its message alone."""
    __tracebackhide__ = True
    from pytest_trt.errors import NotPassed, PytestTrtError

    try:
        return step()
    except (NotPassed, PytestTrtError) as error:
        text = str(error) if isinstance(error, NotPassed) else f"{type(error).__name__}: {error}"
    pytest.fail(text, pytrace=False)
