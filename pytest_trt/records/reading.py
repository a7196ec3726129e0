"""Reading: a record that conclusions are drawn from, refused where it can't be relied on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.errors import ReportError
from pytest_trt.report.reading import read_record

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_whole"]


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
