"""Reading: a record from its file, refused where it can't be relied on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import DataError
from pytest_trt.report.record import SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_record"]

_KEYS = ("case", "precision", "backend", "verdict")


def read_record(path: Path, *, partial: bool = False, newer: bool = False) -> dict[str, Any]:
    """The document of a run.

    Args:
        path: what ``--trt-report`` wrote.
        partial: take one of a run that was cut short, too.
        newer: take one of a later schema than this release writes, too.

    Raises:
        DataError: it can't be read, is no record, is partial, or is newer.
    """
    document = _document(path)
    schema = document["schema"]
    if schema > SCHEMA and not newer:
        raise DataError(
            f"{path} has schema {schema}, and this release of pytest-trt knows up to {SCHEMA}: what it tells may be"
            " misread. Take the release that wrote it, or add --newer."
        )
    if document.get("partial") and not partial:
        raise DataError(
            f"{path} is partial: its run was cut short, and cases that are missing were not judged. Run it whole, or"
            " add --partial."
        )
    return document


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is no record, as it is no JSON ({error}); --trt-report={path.name} writes one."
        ) from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if type(schema) is not int or not isinstance(document.get("results"), list):
        raise DataError(f"{path} is JSON and no record of --trt-report: it has no `schema` and `results`.")
    for number, result in enumerate(document["results"]):
        missing = _KEYS if not isinstance(result, dict) else [key for key in _KEYS if key not in result]
        if missing:
            raise DataError(f"{path}: result {number} has no {missing[0]!r}: the record is damaged.")
    found: dict[str, Any] = document
    return found
