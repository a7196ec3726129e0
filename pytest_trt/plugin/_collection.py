"""Collection: files become items, and tests are repeated, one a case and precision."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trt.case.case import Case
from pytest_trt.case.case_file import cases_in, files_of, quoted, shown_from
from pytest_trt.errors import CaseError, NotPassed, PytestTrtError, SpecError
from pytest_trt.plugin import _benchmarks as benchmarks
from pytest_trt.plugin import settings
from pytest_trt.plugin._verdict_items import gather, judge_case, note_error
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest._code import ExceptionInfo

__all__ = ["CaseFile", "finish", "parametrize", "shown", "spec_errors"]


_TABLE = re.compile(r"\s*\[\[.*model\s*\]\]")

spec_errors = pytest.StashKey[list[str]]()
"""Words that were not known, found while collecting; they end the run as a usage error."""


class CaseFile(pytest.File):
    """A file of cases, or one ONNX file."""

    def collect(self) -> Iterator[pytest.Item]:
        """One item a case and precision; what can't be read is an item that fails."""
        try:
            cases = _cases(self.path, self.config)
        except SpecError as error:
            self.config.stash.setdefault(spec_errors, []).append(str(error))
            return
        except Exception as error:  # whatever a file holds, the others are checked
            ours = isinstance(error, CaseError)
            error = error if ours else CaseError(f"{self.path} can't be read: {type(error).__name__}: {error}")
            yield self._item("unreadable", case=error, precision=None, line=0)
            return
        for number, (case, line) in enumerate(zip(cases, _lines(self.path, len(cases)), strict=True), 1):
            if isinstance(case, Case):
                for label in settings.precisions_for(self.config, case):
                    name = f"{case.name}[{label}]"
                    yield self._item(name, case=case, precision=label, line=line)
            else:
                yield self._item(f"model-{number}", case=case, precision=None, line=line)

    def _item(self, name: str, **about: Any) -> CaseItem | TimedCaseItem:
        if settings.latency_mode(self.config):
            timed: TimedCaseItem = TimedCaseItem.from_parent(self, name=name, **about)
            return timed
        # the id is written out, because --lf knows an item by the same text that it was saved under
        item: CaseItem = CaseItem.from_parent(self, name=name, nodeid=f"{self.nodeid}::{name}", **about)
        return item


class _OfCase(pytest.Item):
    """What items of a case have in common."""

    def __init__(self, *, case: Case | CaseError, precision: str | None, line: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.line = line
        self.case = case
        self.precision = precision
        self.add_marker(pytest.mark.trt)

    def runtest(self) -> None:
        """Check the case; anything but a pass raises."""
        if isinstance(self.case, CaseError):
            note_error(self, self.name, self.precision, self.case)
            raise NotPassed(f"{type(self.case).__name__}: {self.case}")
        judge_case(self, self.case, Precision.parse(str(self.precision)))

    def repr_failure(self, excinfo: ExceptionInfo[BaseException], style: Any = None) -> Any:  # noqa: ARG002 - pytest.Item's signature
        """The message alone for a verdict; a traceback for what we did not foresee."""
        if isinstance(excinfo.value, (NotPassed, PytestTrtError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo)  # pytest.Function's takes no style

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where the case was written."""
        # the space keeps pytest from taking the file's dot for one between Python names
        return self.path, self.line, f"{self.nodeid} "


class CaseItem(_OfCase):
    """One case at one precision: ``trt.toml::digits[int8]``."""


class TimedCaseItem(_OfCase, pytest.Function):
    """One case at one precision whose engine is timed; a function, so that it can have the ``benchmark`` fixture."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(callobj=self._judge_and_time, **kwargs)

    def _judge_and_time(self) -> None:
        """What pytest takes for the test's function; its name and arguments are all that is looked at."""


def finish(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Once all is collected: remember every case, and end the run if a word was not known.

    Raises:
        UsageError: it was not; under xdist the controller raises it.
    """
    gather(config, items)
    benchmarks.prepare(config, items)
    found: list[str] = config.stash.get(spec_errors, [])
    errors = list(dict.fromkeys(found))
    if errors and hasattr(config, "workeroutput"):
        config.workeroutput["trt_usage"] = errors
        items.clear()
    elif errors:
        raise pytest.UsageError("\n".join(errors))


def cases_beside(test_file: Path, config: pytest.Config) -> list[Case | CaseError]:
    """The cases that a test without a marker takes: those of the nearest folder upwards that has any.

    Raises:
        SpecError: a word in them is not known.
    """
    for folder in [test_file.parent, *test_file.parent.parents]:
        files = files_of(folder)
        found: list[Case | CaseError] = []
        for path in files:
            try:
                found += _cases(path, config)
            except CaseError as error:
                found.append(error)
        if found or folder == config.rootpath:
            return found
    return []


def case_of_model(path: Path, config: pytest.Config) -> Case:
    """The case of an ONNX file that the command line names."""
    label = shown(path, config)
    table = {"onnx": path.name}
    return Case.from_table(table, path.parent, label, f"--trt-model={quoted(label)}{settings.options_again(config)}")


def _cases(path: Path, config: pytest.Config) -> list[Case | CaseError]:
    label = shown(path, config)
    if path.suffix == ".onnx":
        return [case_of_model(path, config)]
    return cases_in(path, label, settings.options_again(config))


def _lines(path: Path, count: int) -> list[int]:
    """The line of each case's table in its file, from 0, as far as they are written one by one."""
    text = path.read_text(encoding="utf-8-sig") if path.suffix == ".toml" else ""
    found = [number for number, line in enumerate(text.splitlines()) if _TABLE.match(line)]
    return found if len(found) == count else [0] * count


def shown(path: Path, config: pytest.Config) -> str:
    """The path as the user would type it."""
    return shown_from(path, config.invocation_params.dir)


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Give the test its cases, from its marker or from the files beside it, each at its precisions.

    A case that can't be read becomes one run, which fails. Words that are not known are kept, to end the run.
    Arguments that the test's own parametrize names, and fixtures of our names that are not ours, are left alone.
    """
    marker = metafunc.definition.get_closest_marker("trt")
    ours = {"trt_case", "trt_precision"} & set(metafunc.fixturenames) - _own_arguments(metafunc)
    try:
        cases = [] if marker is None else [_case_of_marker(marker, metafunc)]
        if "trt_case" in ours:
            _parametrize_cases(metafunc, ours, cases or _cases_beside(metafunc), marked=marker is not None)
        elif ours:
            case = next((case for case in cases if isinstance(case, Case)), None)
            metafunc.parametrize("trt_precision", settings.precisions_for(metafunc.config, case), indirect=True)
    except SpecError as error:
        metafunc.config.stash.setdefault(spec_errors, []).append(str(error))


def _parametrize_cases(
    metafunc: pytest.Metafunc, ours: set[str], cases: list[Case | CaseError], *, marked: bool
) -> None:
    if "trt_precision" not in ours:
        metafunc.parametrize("trt_case", cases, indirect=True, ids=[_name(case) for case in cases])
        return
    pairs = _pairs(cases, metafunc.config)
    ids = [_id(case, precision, marked=marked) for case, precision in pairs]
    metafunc.parametrize("trt_case,trt_precision", pairs, indirect=True, ids=ids)


def _own_arguments(metafunc: pytest.Metafunc) -> set[str]:
    """Arguments that the test parametrizes itself."""
    found: set[str] = set()
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
        found |= {name.strip() for name in names.split(",")} if isinstance(names, str) else set(names)
    return found


def _id(case: Case | CaseError, precision: str, *, marked: bool) -> str:
    if isinstance(case, CaseError):
        return "unreadable"
    return precision if marked else f"{case.name}-{precision}"


def _pairs(cases: list[Case | CaseError], config: pytest.Config) -> list[tuple[Case | CaseError, str]]:
    return [
        (case, precision)
        for case in cases
        for precision in (settings.precisions_for(config, case) if isinstance(case, Case) else ("-",))
    ]


def _name(case: Case | CaseError) -> str:
    return case.name if isinstance(case, Case) else "unreadable"


def _cases_beside(metafunc: pytest.Metafunc) -> list[Case | CaseError]:
    found = cases_beside(Path(metafunc.definition.path), metafunc.config)
    nowhere = CaseError(
        f"{metafunc.definition.nodeid} asks for a trt fixture and no model is named: mark it with"
        ' @pytest.mark.trt(onnx="model.onnx"), or write a trt.toml beside it.'
    )
    return found or [nowhere]


def _case_of_marker(marker: pytest.Mark, metafunc: pytest.Metafunc) -> Case | CaseError:
    path = Path(metafunc.definition.path)
    label = shown(path, metafunc.config)
    nodeid = "::".join([label, *metafunc.definition.nodeid.split("::")[1:]])
    try:
        if marker.args:
            raise SpecError(f"{nodeid}: the trt marker takes named arguments only (onnx=...), not {marker.args!r}.")
        return Case.from_table(
            marker.kwargs, path.parent, nodeid, f'"{nodeid}"{settings.options_again(metafunc.config)}'
        )
    except CaseError as error:
        return error
