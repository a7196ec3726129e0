"""Plan: what a TensorRT plan tells without TensorRT, from the first 28 of its bytes.

Where these stand is published with TensorRT's open samples (``trtexec --getPlanVersionOnly``): a tag, the version of
the serialization, and for version 0 the release that built it in bytes 24 to 27.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pytest_trt.trt.deserialize import read_plan

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TAG", "plan_facts"]

TAG = b"ftrt"
_HEADER = 28


def plan_facts(path: Path) -> dict[str, Any]:
    """Size, SHA-256, and what the header tells; ``tensorrt`` is None where it tells no release.

    Raises:
        BackendError: it can't be read, or is empty.
    """
    data = read_plan(path)
    serialization = int.from_bytes(data[4:8], "little") if len(data) >= 8 else None
    return {
        "kind": "plan",
        "file": str(path),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "serialization": serialization,
        "tensorrt": _release(data) if serialization == 0 else None,
    }


def _release(data: bytes) -> str | None:
    numbers = data[24:_HEADER]
    # 8.6 is the first that writes it; a first number of 0 is no release
    return ".".join(map(str, numbers)) if len(numbers) == 4 and 8 <= numbers[0] < 100 else None
