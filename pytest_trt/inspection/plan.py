"""Plan: what a TensorRT plan tells without TensorRT, from the first 28 of its bytes.

Where these stand is published with TensorRT's open samples (``trtexec --getPlanVersionOnly``): a tag, the version of
the serialization, and for version 0 the release that built it in bytes 24 to 27. Plans of TensorRT-RTX 1.7.1 were found
to have the same header behind a tag of their own.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pytest_trt.trt.deserialize import read_plan

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TAGS", "plan_facts"]

TAGS = {b"ftrt": ("TensorRT", 8), b"vtrt": ("TensorRT-RTX", 1)}
"""What plans begin with: the product, and its first release that there is; before 8.6 none is written."""

_HEADER = 28


def plan_facts(path: Path) -> dict[str, Any]:
    """Size, SHA-256, and what the header tells; ``release`` is None where it tells none.

    Raises:
        BackendError: it can't be read, or is empty.
    """
    data = read_plan(path)
    product, first = TAGS.get(data[:4], ("TensorRT", 8))
    serialization = int.from_bytes(data[4:8], "little") if len(data) >= 8 else None
    return {
        "kind": "plan",
        "file": str(path),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "serialization": serialization,
        "product": product,
        "release": _release(data, first) if serialization == 0 else None,
    }


def _release(data: bytes, first: int) -> str | None:
    numbers = data[24:_HEADER]
    return ".".join(map(str, numbers)) if len(numbers) == 4 and first <= numbers[0] < 100 else None
