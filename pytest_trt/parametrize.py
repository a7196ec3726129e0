"""Parametrize: a test that takes our fixtures runs once a case and precision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt import collection, settings
from pytest_trt.case import Case
from pytest_trt.errors import CaseError, SpecError

if TYPE_CHECKING:
    import pytest

__all__ = ["parametrize"]

_OF_A_CASE = {"trt_case", "trt_engine", "trt_golden", "trt_check"}


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Give the test its cases, from its marker or from the files beside it, each at its precisions.

    A case that can't be read becomes one run, which fails. Words that are not known are kept, to end the run.
    """
    marker = metafunc.definition.get_closest_marker("trt")
    try:
        cases = [] if marker is None else [_case_of_marker(marker, metafunc)]
        if not _OF_A_CASE & set(metafunc.fixturenames):
            _parametrize_precision(metafunc, cases)
            return
        pairs = _pairs(cases or _cases_beside(metafunc), metafunc.config)
    except SpecError as error:
        metafunc.config.stash.setdefault(collection.spec_errors, []).append(str(error))
        return
    ids = [precision if marker else f"{_name(case)}-{precision}" for case, precision in pairs]
    metafunc.parametrize("trt_case,trt_precision", pairs, indirect=True, ids=ids)


def _parametrize_precision(metafunc: pytest.Metafunc, cases: list[Case | CaseError]) -> None:
    if "trt_precision" in metafunc.fixturenames:
        case = next((case for case in cases if isinstance(case, Case)), None)
        metafunc.parametrize("trt_precision", settings.precisions_for(metafunc.config, case), indirect=True)


def _pairs(cases: list[Case | CaseError], config: pytest.Config) -> list[tuple[Case | CaseError, str]]:
    return [
        (case, precision)
        for case in cases
        for precision in (settings.precisions_for(config, case) if isinstance(case, Case) else ("-",))
    ]


def _name(case: Case | CaseError) -> str:
    return case.name if isinstance(case, Case) else "unreadable"


def _cases_beside(metafunc: pytest.Metafunc) -> list[Case | CaseError]:
    found = collection.cases_beside(Path(metafunc.definition.path), metafunc.config)
    nowhere = CaseError(
        f"{metafunc.definition.nodeid} asks for a trt fixture and no model is named: mark it with"
        ' @pytest.mark.trt(onnx="model.onnx"), or write a trt.toml beside it.'
    )
    return found or [nowhere]


def _case_of_marker(marker: pytest.Mark, metafunc: pytest.Metafunc) -> Case | CaseError:
    path = Path(metafunc.definition.path)
    label = collection.shown(path, metafunc.config)
    nodeid = "::".join([label, *metafunc.definition.nodeid.split("::")[1:]])
    try:
        if marker.args:
            raise CaseError(f"{nodeid}: the trt marker takes named arguments only, not {marker.args!r}.")
        return Case.from_table(marker.kwargs, path.parent, nodeid, f'"{nodeid}"')
    except CaseError as error:
        return error
