"""Links: where a finding is documented, and which addresses of a record may be followed."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from pytest_trt.errors import SpecError

__all__ = ["DOCS", "address", "checked", "page_of"]

DOCS = "docs/findings/{family}.md#{code}"
"""Where findings are documented: relative to the report, as in this repository, until an address is known.

``{family}`` is TRT1xx, ``{code}`` trt105: a site of mkdocs has ``https://.../findings/{family}/#{code}``.
"""

_CODE = re.compile(r"TRT\d{3}")
_SCHEMES = ("http", "https")


def page_of(code: str, docs: str = DOCS) -> str | None:
    """The place that a finding's code is explained at; None for what is no code.

    >>> page_of("TRT105")
    'docs/findings/TRT1xx.md#trt105'
    """
    if not _CODE.fullmatch(code):
        return None
    return docs.replace("{family}", f"{code[:4]}xx").replace("{code}", code.lower())


def checked(docs: str) -> str:
    """The pattern of the documentation's places, looked at.

    Raises:
        SpecError: it leads to no file and no address of the web.
    """
    scheme = docs.partition(":")[0] if ":" in docs else ""
    if scheme.lower() not in ("", *_SCHEMES) or docs.startswith(("//", "\\")) or not docs:
        raise SpecError(
            f"findings can't be documented at {docs!r}: give a path or an https:// address with "
            f"{{family}} and {{code}}, as {DOCS!r}"
        )
    return docs


def address(value: Any) -> str | None:
    """A text that is an address of the web, else None: anything else of a record is shown and not followed."""
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]+", value):
        return None
    try:
        split = urlsplit(value)
    except ValueError:
        return None
    return value if split.scheme.lower() in _SCHEMES and split.netloc else None
