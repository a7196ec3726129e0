"""Links: where a finding is documented, and which addresses of a record may be followed."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from pytest_trt.errors import SpecError

__all__ = ["DOCS", "address", "base_of", "page_of"]

DOCS = "docs/"
"""Where the documentation lies: relative to the report, as in this repository, or an address that begins with https://."""

_CODE = re.compile(r"TRT\d{3}")
_SCHEMES = ("http", "https")


def page_of(code: str, docs: str = DOCS) -> str | None:
    """The page and place that a finding's code is explained at; None for what is no code.

    >>> page_of("TRT105")
    'docs/findings/TRT1xx.md#trt105'
    """
    if not _CODE.fullmatch(code):
        return None
    return f"{docs}findings/{code[:4]}xx.md#{code.lower()}"


def base_of(docs: str) -> str:
    """The documentation's folder or address, with its slash.

    Raises:
        SpecError: it is an address that is not of the web.
    """
    if urlsplit(docs).scheme.lower() not in ("", *_SCHEMES) or docs.startswith("//"):
        raise SpecError(
            f"the documentation can't lie at {docs!r}: give a folder, or an address that begins with https://"
        )
    return docs if docs.endswith("/") or not docs else f"{docs}/"


def address(value: Any) -> str | None:
    """A text that is an address of the web, else None: anything else of a record is shown and not followed."""
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]+", value):
        return None
    try:
        split = urlsplit(value)
    except ValueError:
        return None
    return value if split.scheme.lower() in _SCHEMES and split.netloc else None
