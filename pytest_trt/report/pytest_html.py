"""pytest-html: what its report shows beside a test of ours, where that plugin is present."""

from __future__ import annotations

from html import escape
from typing import Any

from pytest_trt.report.terminal import cells

__all__ = ["extras"]


def extras(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A line of the summary table, and the whole record as JSON.

    The shape of an extra is pytest-html's: name, format_type, content, mime_type, extension.
    """
    lines = zip(cells([record]), ("th", "td"), strict=True)
    rows = [f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in line)}</tr>" for line, tag in lines]
    return [
        _extra("html", f'<table class="pytest-trt">{"".join(rows)}</table>'),
        _extra("json", record, name="pytest-trt", mime_type="application/json", extension="json"),
    ]


def _extra(kind: str, content: Any, **words: str) -> dict[str, Any]:
    return {"name": None, "format_type": kind, "content": content, "mime_type": None, "extension": None, **words}
