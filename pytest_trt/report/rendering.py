"""Rendering: from a record to the text of a report, by the suffix of its file."""

from __future__ import annotations

import importlib
from pathlib import PurePath
from typing import TYPE_CHECKING

from pytest_trt.errors import ReportError, SpecError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

__all__ = ["SUFFIXES", "known", "render"]

SUFFIXES = (".json", ".md", ".html")

_MODULES = {".md": "pytest_trt.report.markdown", ".html": "pytest_trt.report.html"}


def known(name: str) -> str:
    """The suffix of a report's file.

    Raises:
        SpecError: no report is written under it, or what renders it is not installed.
    """
    if name.endswith(".xml"):
        raise SpecError(
            f"{name!r} would be JUnit's XML, which pytest writes itself, our figures in it: --junit-xml={name}"
        )
    suffix = PurePath(name).suffix  # of a file that is named ".json" alone there is none
    if suffix not in SUFFIXES:
        raise unknown("report suffix of", name, SUFFIXES)
    try:
        _renderer(suffix)
    except (ReportError, SpecError) as error:
        raise SpecError(f"report {name!r}: {error}") from error
    return suffix


def render(document: dict[str, Any], suffix: str) -> str:
    """The text of a report.

    Args:
        document: the record.
        suffix: ".json" (the record itself), ".md" or ".html".

    Raises:
        ReportError, SpecError: what renders it is not installed.
    """
    try:
        return _renderer(suffix)(document)
    except ImportError as error:
        raise _absent(suffix, error) from error


def _renderer(suffix: str) -> Callable[[dict[str, Any]], str]:
    if suffix == ".json":
        from pytest_trt.report.record import text_of

        return text_of
    try:
        module: ModuleType = importlib.import_module(_MODULES[suffix])
    except ImportError as error:
        raise _absent(suffix, error) from error
    getattr(module, "require", lambda: None)()
    renderer: Callable[[dict[str, Any]], str] = module.render
    return renderer


def _absent(suffix: str, error: ImportError) -> ReportError:
    name = error.name or str(error)
    if name == _MODULES[suffix]:
        return ReportError(f"{suffix} reports are not in this release of pytest-trt: write .json or .md.")
    return ReportError(
        f'{suffix} reports need {name}, which can\'t be imported: pip install "pytest-trt[{suffix[1:]}]"'
    )
