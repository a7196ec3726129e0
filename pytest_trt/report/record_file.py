"""Record file: a record that was written before, refused where it is damaged, or rendered by a suffix."""

from __future__ import annotations

import importlib
import json
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import PytestTrtError, ReportError, SpecError, unknown
from pytest_trt.report.record import SCHEMA, text_of
from pytest_trt.storage.entry_point import blame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from types import ModuleType

__all__ = ["known", "read_record", "read_whole", "render", "telling"]

_KEYS = {"schema": int, "partial": bool, "environment": dict, "results": list}
_OF_RESULT = {"case": str, "precision": str, "backend": str, "verdict": str, "outputs": dict, "findings": list}


def read_record(path: Path, *, newer: bool = False) -> dict[str, Any]:
    """The record in a file.

    Args:
        path: what ``--trt-report`` wrote.
        newer: whether one of a later schema than this release writes is taken too.

    Raises:
        ReportError: it can't be read, is damaged, is no record of ours, or is of a newer schema.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"the record {path} can't be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise ReportError(f"{path} is no record: it is not text, but of another kind.") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(
            f"the record {path} is damaged, or no JSON at all: {error}. A record is what --trt-report=FILE.json writes."
        ) from error
    _require_ours(found, path, newer)
    record: dict[str, Any] = found
    return record


@contextmanager
def telling(*paths: Path) -> Iterator[None]:
    """While records are told: what one of another shape than its schema's makes us stumble over becomes a message.

    Raises:
        ReportError: anything but an error of ours, or of the files, was raised.
    """
    try:
        yield
    except (PytestTrtError, OSError):
        raise
    except Exception as error:
        names = " and ".join(dict.fromkeys(map(str, paths)))
        raise ReportError(
            f"{names} can't be told: {blame(error)}. A record that was edited, or that another release wrote, may lack"
            " what it must hold; if --trt-report of this release wrote it so, please report it."
        ) from error


def _require_ours(found: Any, path: Path, newer: bool) -> None:
    wrong = _misfit(found, _KEYS)
    if wrong:
        raise ReportError(
            f"{path} is JSON and no record of pytest-trt: {wrong}. --trt-report=FILE.json writes records."
        )
    if found["schema"] > SCHEMA and not newer:
        raise ReportError(
            f"the record {path} is of schema {found['schema']}, and this pytest-trt reads up to {SCHEMA}: update it,"
            " or take the record as it is with --newer."
        )
    for number, result in enumerate(found["results"], 1):
        wrong = _misfit(result, _OF_RESULT)
        if wrong:
            raise ReportError(f"the record {path} is damaged: result number {number}: {wrong}.")


def _misfit(found: Any, keys: Mapping[str, type]) -> str:
    """What is wrong with the keys of an object; empty if nothing is."""
    if not isinstance(found, dict):
        return f"{type(found).__name__} stands in place of an object"
    for key, kind in keys.items():
        if key not in found:
            return f"it has no {key!r}"
        if type(found[key]) is not kind:
            return f"{key!r} is {type(found[key]).__name__}"
    return ""


def read_whole(path: Path, *, partial: bool = False, newer: bool = False) -> dict[str, Any]:
    """The record of a run that was not cut short.

    Args:
        path: what ``--trt-report`` wrote.
        partial: take one of a run that was cut short, too.
        newer: take one of a later schema than this release writes, too.

    Raises:
        ReportError: it can't be read, is no record, is partial, or is newer.
    """
    document = read_record(path, newer=newer)
    if document["partial"] and not partial:
        raise ReportError(
            f"{path} is partial: its run was cut short, and cases that are missing were not judged. Run it whole, or"
            " add --partial."
        )
    return document


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
