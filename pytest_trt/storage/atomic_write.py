"""Write a file whole or not at all, and read the files that a user names, with faults told plainly."""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial
from pathlib import Path

from pytest_trt.errors import BackendError

__all__ = ["read_bytes", "write_bytes", "write_whole"]

_WINDOWS = os.name == "nt"
_PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def write_whole(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write beside the file and put it in its place; the folder is made, an old file stays if anything fails.

    Args:
        path: the file.
        data: all of it.
        private: other users may not read it, from its first byte on, nor look into a folder that is made.

    Raises:
        OSError: it can't be written there.
    """
    # by chance, not by pid alone: two threads may write one file, and every container has a process 1
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        path.parent.mkdir(0o700 if private else 0o777, parents=True, exist_ok=True)
        with open(draft, "xb", opener=partial(os.open, mode=0o600 if private else 0o666)) as file:
            file.write(data)
        _put(draft, path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _put(draft: Path, path: Path) -> None:
    """Put the draft in its place; on Windows that waits for whoever has the old file open, a virus scanner too."""
    for pause in _PAUSES_S if _WINDOWS else ():
        try:
            draft.replace(path)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    draft.replace(path)


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
