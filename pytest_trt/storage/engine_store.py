"""Store: the folder that keeps built plans and timing caches.

A plan is code: TensorRT runs what is in it. So the folder and its files are the user's own, other users can't write
them, and whatever is not exactly what was kept for exactly this build is built again.

By the first 32 digits of a build's key: ``.plan`` as TensorRT serialized it, ``.json`` that describes it, ``.lock``
for who builds it; ``.timing`` is a timing cache behind one line that describes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import BackendError
from pytest_trt.storage.atomic_write import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "SCHEMA",
    "StoreWarning",
    "default_folder",
    "keep",
    "keep_timing_cache",
    "key_of",
    "load",
    "load_timing_cache",
    "locked",
]

SCHEMA = 1

Material = Mapping[str, object]
"""All that decides what is built, plain as JSON is: the model's hash, precision, options, TensorRT's version, GPU."""

_MEND = "Name a folder of your own with --trt-store=DIR, or keep nothing with --trt-store=none."
_WINDOWS = os.name == "nt"
_OPEN_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # no links, and no waiting for a pipe


class StoreWarning(UserWarning):
    """A kept file is damaged: it is not used, and what it held is built again."""


class _Damaged(Exception):
    """What is wrong with a kept file."""


@dataclass(frozen=True)
class Kept:
    """A plan in the store.

    Attributes:
        data: the plan as TensorRT serialized it.
        facts: what was said of it when it was built, plain as JSON is.
        path: the plan's file.
    """

    data: bytes
    facts: Mapping[str, Any]
    path: Path


def default_folder() -> Path:
    """The store where nothing else is named: a folder of ours in the user's cache folder."""
    from platformdirs import user_cache_path

    return user_cache_path("pytest-trt", appauthor=False)


def key_of(material: Material) -> str:
    """SHA-256 of the material, in hexadecimal; the order of its keys does not count.

    Raises:
        BackendError: it is not plain: NaN, or a value that JSON has not.
    """
    return _sha256(_canonical(_plain(material)))


def load(folder: Path, material: Material) -> Kept | None:
    """The plan that was kept for exactly this material; None where there is none.

    A damaged one is removed with a :class:`StoreWarning`, and there is none. A plan without its description is
    what a session leaves that was killed between the two: there is none, and nothing to warn of. Call it while
    :func:`locked` where others may keep the same plan, or the half that they have written looks damaged.

    Raises:
        BackendError: other users may write the folder, or it can't be looked at.
    """
    description, plan = _file(folder, material, "json"), _file(folder, material, "plan")
    if not _is_there(folder):
        return None
    try:
        if (head := _read(description)) is None:
            return None
        fields = _described(head, material, description)
        data = _read(plan)
        if data is None:
            raise _Damaged(f"{plan} is missing, and {description.name} describes it")
        _match(data, fields, plan)
    except _Damaged as damage:
        _discard(damage, description, plan)
        return None
    return Kept(data, fields["facts"], plan)


def keep(folder: Path, material: Material, data: bytes, facts: Mapping[str, Any]) -> Kept:
    """Keep a plan; the folder is made, and the description is written last, when the plan is whole.

    Args:
        folder: the store.
        material: what decided how the plan was built.
        data: the plan as TensorRT serialized it.
        facts: what to give back with it, plain as JSON is.

    Raises:
        BackendError: it can't be written there, other users may write the folder, or the facts are not plain.
    """
    plan, head = _file(folder, material, "plan"), _describe(material, data, facts)
    _write(folder, plan, data)
    _write(folder, _file(folder, material, "json"), head)
    return Kept(data, _plain(facts), plan)


@contextlib.contextmanager
def locked(folder: Path, material: Material) -> Iterator[None]:
    """Be the only process that builds this: the others wait, and then load what was kept.

    The lock goes with its process, however that ends. It does not nest.

    Raises:
        BackendError: it can't be locked (a read-only folder), or other users may write the folder.
    """
    from filelock import FileLock

    _prepare(folder)
    lock = FileLock(_file(folder, material, "lock"), mode=0o600)
    try:
        lock.acquire()
    # filelock raises NotImplementedError, and newer ones warn, where the file system has no locks
    except (OSError, NotImplementedError, UserWarning) as error:
        raise _refused(folder, f"can't be locked ({_reason(error)})") from error
    try:
        _remove_drafts(folder, material)
        yield
    finally:
        lock.release()


def load_timing_cache(folder: Path, material: Material) -> bytes:
    """The timing cache that was kept for exactly this material; empty where there is none.

    A damaged one is removed with a :class:`StoreWarning`, and there is none.

    Raises:
        BackendError: other users may write the folder, or it can't be looked at.
    """
    path = _file(folder, material, "timing")
    if not _is_there(folder):
        return b""
    try:
        if (whole := _read(path)) is None:
            return b""
        head, _, data = whole.partition(b"\n")
        _match(data, _described(head, material, path), path)
    except _Damaged as damage:
        _discard(damage, path)
        return b""
    return data


def keep_timing_cache(folder: Path, material: Material, data: bytes) -> None:
    """Keep a timing cache in place of the one before; of two that are kept at once, one stays, whole.

    Raises:
        BackendError: it can't be written there, or other users may write the folder.
    """
    _write(folder, _file(folder, material, "timing"), _describe(material, data, {}) + data)


def _file(folder: Path, material: Material, kind: str) -> Path:
    return folder / f"{key_of(material)[:32]}.{kind}"


def _plain(value: Mapping[str, Any]) -> Any:
    """The value as JSON gives it back, so that what is kept and what is loaded are the same."""
    try:
        return json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise BackendError(f"what describes a plan in the store can't be written as JSON: {error}.") from error


def _canonical(plain: object) -> bytes:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _describe(material: Material, data: bytes, facts: Mapping[str, Any]) -> bytes:
    """One line of JSON, sealed: a flipped bit in the facts is as wrong as one in the plan."""
    fields = {
        "schema": SCHEMA,
        "material": _plain(material),
        "sha256": _sha256(data),
        "size": len(data),
        "facts": _plain(facts),
    }
    return _canonical({**fields, "seal": _sha256(_canonical(fields))}) + b"\n"


def _described(head: bytes, material: Material, path: Path) -> dict[str, Any]:
    """The fields of a description that is whole, and of this material."""
    try:
        fields = dict(json.loads(head))
        seal = _sha256(_canonical({name: value for name, value in fields.items() if name != "seal"}))
    except (TypeError, ValueError, RecursionError):
        raise _Damaged(f"{path} does not describe what was kept: it is no JSON of ours") from None
    if fields.get("schema") != SCHEMA:
        raise _Damaged(f"{path} has schema {fields.get('schema')!r}, and this version of pytest-trt writes {SCHEMA}")
    if fields.get("seal") != seal:
        raise _Damaged(f"{path} was changed after it was written")
    if _canonical(fields["material"]) != _canonical(_plain(material)):
        raise _Damaged(f"{path} was kept for another build ({_differences(fields['material'], _plain(material))})")
    return fields


def _differences(kept: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    names = sorted(name for name in {*kept, *asked} if kept.get(name) != asked.get(name))
    return ", ".join(f"{name} {kept.get(name)!r}, and {asked.get(name)!r} is asked" for name in names)


def _match(data: bytes, fields: Mapping[str, Any], path: Path) -> None:
    if len(data) != fields["size"]:
        raise _Damaged(f"{path} holds {len(data)} bytes, and {fields['size']} were kept")
    if _sha256(data) != fields["sha256"]:
        raise _Damaged(f"{path} holds other bytes than were kept (SHA-256)")


def _discard(damage: _Damaged, *paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    warnings.warn(f"{damage}. It is not used, and is built again.", StoreWarning, stacklevel=3)


def _read(path: Path) -> bytes | None:
    """A file of the user's own, in the folder itself; None where there is none."""
    try:
        if path.is_symlink():
            raise _Damaged(f"{path} is a link, which the store never makes")
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _OPEN_FLAGS)) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise _Damaged(f"{path} is no regular file")
            if foreign := _foreign(found):
                raise _Damaged(f"{path} {foreign}")
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _Damaged(f"{path} can't be read ({_reason(error)})") from error


def _write(folder: Path, path: Path, data: bytes) -> None:
    _prepare(folder)
    try:
        write_whole(path, data, private=True)
    except OSError as error:
        raise _refused(folder, f"can't be written ({_reason(error)}: {path.name}, {len(data)} bytes)") from error


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(folder, f"can't be made ({_reason(error)})") from error
    _is_there(folder)


def _is_there(folder: Path) -> bool:
    """Whether there is such a folder; one that others may write is refused."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _refused(folder, f"can't be looked at ({_reason(error)})") from error
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(folder, "is no folder")
    if foreign := _foreign(found):
        raise _refused(folder, f"{foreign}, and a plan is code that TensorRT runs")
    return True


def _foreign(found: os.stat_result) -> str:
    """How others could have written it; empty where they could not, and on Windows, which tells by no mode."""
    if _WINDOWS:
        return ""
    if found.st_uid != os.geteuid():
        return f"belongs to another user (uid {found.st_uid}, and this is uid {os.geteuid()})"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"may be written by other users (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def _remove_drafts(folder: Path, material: Material) -> None:
    """Drop what killed sessions had written in part; while the lock is held, nobody else writes these."""
    for kind in ("plan", "json"):
        for draft in folder.glob(f".{_file(folder, material, kind).name}.*.tmp"):
            with contextlib.suppress(OSError):
                draft.unlink()


def _refused(folder: Path, why: str) -> BackendError:
    return BackendError(f"the store of TensorRT plans {folder} {why}. {_MEND}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
