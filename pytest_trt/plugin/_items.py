"""Items: pytest's items that are about a case, and the records that travel with their reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_trt.case.case import Case

__all__ = ["RECORDS", "about", "attach", "records_of"]

RECORDS = pytest.StashKey[list[str]]()
"""Records of an item as JSON text, until a report takes them along."""


def about(item: pytest.Item) -> tuple[Case | Exception | None, str | None]:
    """The case that an item is about, if it is, or why it could not be read; and at which precision."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    found: Case | Exception | None = getattr(item, "case", None) or params.get("trt_case")
    precision: str | None = getattr(item, "precision", None) or params.get("trt_precision")
    return found, precision


def records_of(item: pytest.Item) -> list[str]:
    """The item's records so far, as JSON text."""
    return item.stash.get(RECORDS, [])


def attach(report: pytest.TestReport, records: list[str]) -> None:
    """Put records on a report, as an attribute: that crosses xdist, and JUnit's XML does not show it."""
    vars(report)["trt_records"] = records
