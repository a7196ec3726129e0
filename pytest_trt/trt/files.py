"""Files of the user's own, caches and plugin libraries: read where they are, written whole, faults told plainly."""

from __future__ import annotations

from pathlib import Path

from pytest_trt.atomic import write_whole
from pytest_trt.errors import BackendError

__all__ = ["read_bytes", "write_bytes"]


def read_bytes(path: str | None, what: str) -> bytes | None:
    """The file's bytes; None where none is named or there is none.

    Raises:
        BackendError: it can't be read.
    """
    try:
        return Path(path).read_bytes() if path and Path(path).is_file() else None
    except (OSError, ValueError) as error:
        raise BackendError(f"the {what} {path} can't be read: {error}.") from error


def write_bytes(path: str, data: bytes, what: str) -> None:
    """Write the file whole.

    Raises:
        BackendError: it can't be written.
    """
    try:
        write_whole(Path(path), data)
    except (OSError, ValueError) as error:
        raise BackendError(f"the {what} {path} can't be written: {error}.") from error
