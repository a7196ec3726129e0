"""pytest's side: options, marker, fixtures, hooks. Everything heavier is imported when it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trt import options
from pytest_trt.errors import CaseError, PytestTrtError, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_trt.backends import Engine
    from pytest_trt.by_hand import GoldenCheck
    from pytest_trt.case import Case
    from pytest_trt.precision import Precision
    from pytest_trt.verdict import Verdict

__all__: list[str] = []

_FIXTURES = ("trt_precision", "trt_case", "trt_engine", "trt_golden", "trt_check")

_MARKER = (
    "trt(onnx=None, torch=None, calibration=None, precisions=None, tolerance=None, ...): the model that this test's"
    " trt fixtures are about; takes the keys of a [[model]] table of trt.toml."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and their ini twins."""
    options.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, refuse what can't be done, and collect the models that the command line names."""
    config.addinivalue_line("markers", _MARKER)
    try:
        options.validate(config)
    except SpecError as error:
        raise pytest.UsageError(str(error)) from error
    if options.update_golden(config):
        _refuse_in_ci()
    if not hasattr(config, "workerinput"):  # a worker is given the controller's arguments
        _add_arguments(config)
    from pytest_trt.run import Results

    config.pluginmanager.register(Results(config), "trt-results")


def pytest_report_header(config: pytest.Config) -> str | None:
    """One line, when any option is given."""
    if not options.active(config):
        return None
    from pytest_trt.run import header

    return header(config)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """trt.toml, *.trt.toml, a pyproject.toml with cases, and the ONNX files of --trt-model."""
    if file_path.suffix not in (".toml", ".onnx"):
        return None
    from pytest_trt import collection

    wanted = collection.has_cases(file_path) if file_path.suffix == ".toml" else _is_named(file_path, parent.config)
    return collection.CaseFile.from_parent(parent, path=file_path) if wanted else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes a fixture of ours runs once a case and precision."""
    if not any(name in metafunc.fixturenames for name in _FIXTURES):
        return
    if metafunc.fixturenames and "trt_case" not in metafunc.fixturenames:
        metafunc.parametrize("trt_precision", options.precisions_for(metafunc.config, None), indirect=True)
        return
    pairs = [
        (case, precision)
        for case in _cases_of_test(metafunc)
        for precision in ("-",) * isinstance(case, CaseError) or options.precisions_for(metafunc.config, _a_case(case))
    ]
    marked = metafunc.definition.get_closest_marker("trt") is not None
    ids = [p if marked else f"{getattr(case, 'name', 'unreadable')}-{p}" for case, p in pairs]
    metafunc.parametrize("trt_case,trt_precision", pairs, indirect=True, ids=ids)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Words that were not known end the run here, before anything is judged."""
    import sys

    if "pytest_trt.collection" not in sys.modules:
        return  # nothing of ours was collected
    from pytest_trt.collection import spec_errors
    from pytest_trt.judging import gather

    gather(config, items)
    errors: list[str] = list(dict.fromkeys(config.stash.get(spec_errors, [])))
    if errors and hasattr(config, "workeroutput"):
        config.workeroutput["trt_usage"] = errors  # the controller ends the run
        items.clear()
    elif errors:
        raise pytest.UsageError("\n".join(errors))


@pytest.fixture
def trt_precision(request: pytest.FixtureRequest) -> Precision:
    """The precision that this test runs at; the test is repeated for each that was asked.

    Example::

        def test_tolerance(trt_precision):
            assert trt_precision.bits <= 32

    Asked for by ``--trt-precision=fp16,int8``, the marker's or trt.toml's ``precisions``, or the ini file.
    """
    from pytest_trt.precision import Precision

    return Precision.FP32 if request.param == "-" else Precision.parse(request.param)


@pytest.fixture
def trt_case(request: pytest.FixtureRequest, trt_precision: Precision) -> Case:  # noqa: ARG001 - parametrized in pairs
    """The model that this test is about: from its ``trt`` marker, else each case of the nearest trt.toml.

    Example::

        @pytest.mark.trt(onnx="digits.onnx", calibration="calibration.npz")
        def test_digits(trt_case):
            assert trt_case.name == "digits"
    """
    from pytest_trt.judging import note_error

    if isinstance(request.param, CaseError):
        note_error(request.node, request.node.name, None, request.param)
        pytest.fail(f"{type(request.param).__name__}: {request.param}", pytrace=False)
    case: Case = request.param
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


def _or_fail(step: Callable[[], Any]) -> Any:
    """The step's result; what went wrong fails the test with its message alone."""
    __tracebackhide__ = True
    from pytest_trt.collection import NotPassed

    try:
        return step()
    except (NotPassed, PytestTrtError) as error:
        text = str(error) if isinstance(error, NotPassed) else f"{type(error).__name__}: {error}"
    pytest.fail(text, pytrace=False)


def _refuse_in_ci() -> None:
    import os

    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        raise pytest.UsageError(
            "--trt-update-golden is refused where CI is set: a gate that writes what it checks passes always."
            " Make goldens on your machine and commit them."
        )


def _add_arguments(config: pytest.Config) -> None:
    """Collect --trt-model in place of default arguments, and the root's cases beside testpaths."""
    models = [str(path) for path in _onnx_files(config)]
    source, sources = config.args_source, pytest.Config.ArgsSource
    if models:
        config.args = [*(config.args if source is sources.ARGS else []), *models]
    elif source is sources.TESTPATHS:
        from pytest_trt.collection import has_cases

        found = [path for path in sorted(config.rootpath.glob("*.toml")) if has_cases(path)]
        config.args = [*config.args, *(str(path) for path in found)]


def _onnx_files(config: pytest.Config) -> Iterator[Path]:
    for path in options.models(config):
        if path.is_dir():
            files = sorted(path.rglob("*.onnx"))
            if not files:
                raise pytest.UsageError(f"--trt-model: no .onnx file in the folder {path}.")
            yield from files
        elif path.suffix != ".onnx":
            raise pytest.UsageError(f"--trt-model: {path} is neither a folder nor an .onnx file.")
        elif not path.exists():
            raise pytest.UsageError(f"--trt-model: there is no file {path}.")
        else:
            yield path


def _is_named(path: Path, config: pytest.Config) -> bool:
    return any(path == named or named in path.parents for named in options.models(config))


def _cases_of_test(metafunc: pytest.Metafunc) -> list[Case | CaseError]:
    """The marker's case, else those beside the test."""
    from pytest_trt import collection

    try:
        marker = metafunc.definition.get_closest_marker("trt")
        if marker is not None:
            return [_case_of_marker(marker, metafunc)]
        found = collection.cases_beside(Path(metafunc.definition.path), metafunc.config)
    except SpecError as error:
        metafunc.config.stash.setdefault(collection.spec_errors, []).append(str(error))
        return []
    nowhere = CaseError(
        f"{metafunc.definition.nodeid} asks for a trt fixture and no model is named: mark it with"
        ' @pytest.mark.trt(onnx="model.onnx"), or write a trt.toml beside it.'
    )
    return found or [nowhere]


def _case_of_marker(marker: pytest.Mark, metafunc: pytest.Metafunc) -> Case | CaseError:
    from pytest_trt.case import Case
    from pytest_trt.collection import shown

    path = Path(metafunc.definition.path)
    nodeid = "::".join([shown(path, metafunc.config), *metafunc.definition.nodeid.split("::")[1:]])
    try:
        if marker.args:
            raise CaseError(f"{nodeid}: the trt marker takes named arguments only, not {marker.args!r}.")
        return Case.from_table(marker.kwargs, path.parent, nodeid, f'"{nodeid}"')
    except CaseError as error:
        return error


def _a_case(case: Case | CaseError) -> Case | None:
    return None if isinstance(case, CaseError) else case
