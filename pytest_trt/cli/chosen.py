"""Chosen: the cases that a command is about, by name from their files, and the folder of their goldens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pytest_trt.errors import CaseError, SpecError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_trt.case import Case

__all__ = ["cases_of", "golden_folder", "options"]

_Command = TypeVar("_Command", bound="Callable[..., Any]")
_FILE = click.Path(path_type=Path)


def options(command: _Command) -> _Command:
    """``--file`` and ``--golden-dir``, which every command on cases takes."""
    file = click.option(
        "--file", "files", type=_FILE, multiple=True, help="A file of cases; default: those of this folder."
    )
    folder = click.option("--golden-dir", type=_FILE, help="Folder of the goldens; default: where pytest finds them.")
    return file(folder(command))


def cases_of(names: Iterable[str], files: Iterable[Path]) -> list[Case]:
    """The named cases, or all where none is named.

    Raises:
        CaseError: there is no file of cases, or one of the cases can't be read.
        SpecError: no case has this name; names the nearest.
    """
    found = _read(files)
    names = list(names)
    if not names:
        return [_case(case) for case in found]
    by_name = {case.name: case for case in found if not isinstance(case, CaseError)}
    broken = next((case for case in found if isinstance(case, CaseError)), None)
    for name in names:
        if name not in by_name:
            raise broken or unknown("case", name, by_name)
    return [by_name[name] for name in dict.fromkeys(names)]


def golden_folder(given: Path | None) -> Path:
    """The folder of goldens: the one given, else the one that pytest, called in this folder, would take.

    Raises:
        SpecError: pytest can't read its configuration.
    """
    if given is not None:
        return given
    import pytest

    from pytest_trt.settings import golden_dir

    try:
        config = pytest.Config.fromdictargs({}, ["--capture=no"])  # else it opens files that nobody closes
    except (Exception, SystemExit) as error:  # whatever pytest or a conftest.py raises
        raise SpecError(
            f"pytest can't be set up here, so its golden folder is not known ({error}): name it with --golden-dir."
        ) from error
    return _shortened(golden_dir(config))


def _read(files: Iterable[Path]) -> list[Case | CaseError]:
    from pytest_trt.case_file import cases_in, files_of, has_cases, shown_from

    here = Path.cwd()
    chosen = list(files) or files_of(here)
    if not chosen:
        raise CaseError(f"{here} has no trt.toml, *.trt.toml or pyproject.toml with [[tool.pytest-trt.model]]: --file.")
    for path in chosen:
        if path.is_file() and not has_cases(path):
            raise CaseError(
                f"{path} is no file of cases: name a trt.toml, *.trt.toml or a pyproject.toml with our table."
            )
    return [case for path in chosen for case in cases_in(path.absolute(), shown_from(path.absolute(), here))]


def _case(case: Case | CaseError) -> Case:
    if isinstance(case, CaseError):
        raise case
    return case


def _shortened(folder: Path) -> Path:
    """Relative to the current folder where it is inside, for messages."""
    try:
        return folder.relative_to(Path.cwd())
    except ValueError:
        return folder
