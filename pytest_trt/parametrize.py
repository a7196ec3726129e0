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
        metafunc.config.stash.setdefault(collection.spec_errors, []).append(str(error))


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
            raise SpecError(f"{nodeid}: the trt marker takes named arguments only (onnx=...), not {marker.args!r}.")
        return Case.from_table(
            marker.kwargs, path.parent, nodeid, f'"{nodeid}"{settings.options_again(metafunc.config)}'
        )
    except CaseError as error:
        return error
