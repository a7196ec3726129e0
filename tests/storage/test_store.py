from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import pytest

import pytest_trt.storage.engine_store
from pytest_trt.errors import BackendError
from pytest_trt.storage.atomic_write import write_whole
from pytest_trt.storage.engine_store import (
    SCHEMA,
    StoreWarning,
    keep,
    keep_timing_cache,
    key_of,
    load,
    load_timing_cache,
    locked,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MATERIAL: dict[str, Any] = {
    "model_sha256": "ab" * 32,
    "ranges_sha256": "cd" * 32,
    "precision": "int8",
    "typing": "weak",
    "options": {"workspace": 2**31, "tactic_sources": ["CUBLAS"]},
    "tensorrt": "8.6.0",
    "gpu": "NVIDIA H200",
    "compute_capability": "9.0",
}
OTHERS = {
    "model_sha256": "ef" * 32,
    "ranges_sha256": None,
    "precision": "fp16",
    "typing": "strong",
    "options": {"workspace": 2**30, "tactic_sources": ["CUBLAS"]},
    "tensorrt": "10.3.0",
    "gpu": "NVIDIA L4",
    "compute_capability": "8.9",
}
PLAN = b"ftrt" + bytes(range(256)) * 8
FACTS = {"warnings": ["a layer runs in fp32"], "seconds": 1.5}

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes and owners are POSIX's")
not_as_root = pytest.mark.skipif(
    sys.platform != "win32" and os.geteuid() == 0, reason="root writes read-only folders; see the faults injected"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def described(folder: Path) -> Path:
    (path,) = folder.glob("*.json")
    return path


def describe_anew(folder: Path, **changes: Any) -> None:
    """Change fields of the description and seal it again, as if it had been kept so."""
    fields = json.loads(described(folder).read_bytes()) | changes
    del fields["seal"]
    seal = pytest_trt.storage.engine_store._sha256(pytest_trt.storage.engine_store._canonical(fields))
    described(folder).write_text(json.dumps(fields | {"seal": seal}))


def test_a_second_session_gets_the_plan_and_its_facts_as_they_were(folder: Path) -> None:
    assert load(folder, MATERIAL) is None
    first = keep(folder, MATERIAL, PLAN, FACTS)
    assert load(folder, MATERIAL) == first
    assert (first.data, first.facts, first.path) == (PLAN, FACTS, folder / f"{key_of(MATERIAL)[:32]}.plan")
    assert first.path.read_bytes() == PLAN


def test_asking_for_a_plan_makes_no_folder(folder: Path) -> None:
    assert (load(folder, MATERIAL), load_timing_cache(folder, MATERIAL), folder.exists()) == (None, b"", False)


def test_the_last_plan_kept_is_the_one_loaded(folder: Path) -> None:
    keep(folder, MATERIAL, PLAN, FACTS)
    last = keep(folder, MATERIAL, PLAN + b"more", {})
    assert load(folder, MATERIAL) == last


def test_the_key_is_the_sha256_of_the_sorted_json() -> None:
    assert key_of({"b": 1, "a": "x"}) == hashlib.sha256(b'{"a":"x","b":1}').hexdigest()
    assert key_of({"b": [1], "a": {"d": 1, "c": 2}}) == key_of({"a": {"c": 2, "d": 1}, "b": (1,)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1, 2}])
def test_what_is_not_plain_is_refused_as_material_and_as_fact(folder: Path, value: object) -> None:
    with pytest.raises(BackendError, match="can't be written as JSON"):
        key_of({"scale": value})
    with pytest.raises(BackendError, match="can't be written as JSON"):
        keep(folder, MATERIAL, PLAN, {"scale": value})
    assert not folder.exists()


@pytest.mark.parametrize("name", MATERIAL)
def test_a_key_that_differs_in_anything_loads_nothing(folder: Path, name: str) -> None:
    keep(folder, MATERIAL, PLAN, FACTS)
    other = MATERIAL | {name: OTHERS[name]}
    assert key_of(other) != key_of(MATERIAL)
    assert load(folder, other) is None
    assert load(folder, {key: value for key, value in MATERIAL.items() if key != name}) is None
    assert load(folder, MATERIAL) is not None


@pytest.mark.parametrize("name", MATERIAL)
def test_a_plan_under_the_name_of_another_build_is_never_loaded(folder: Path, name: str) -> None:
    keep(folder, MATERIAL, PLAN, FACTS)
    other = MATERIAL | {name: OTHERS[name]}
    for path in list(folder.iterdir()):
        path.rename(path.with_name(key_of(other)[:32] + path.suffix))
    with pytest.warns(StoreWarning, match=f"kept for another build .{name} "):
        assert load(folder, other) is None
    assert files(folder) == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(path: Path) -> None:
    """The very bytes, outside the folder."""
    path.rename(path.parent.parent / "outside")
    path.symlink_to(path.parent.parent / "outside")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


PLAN_FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "flipped": (flip, "SHA-256"),
    "truncated": (lambda path: path.write_bytes(PLAN[:-1]), "holds 2051 bytes, and 2052 were kept"),
    "longer": (lambda path: path.write_bytes(PLAN + b"\0"), "holds 2053 bytes, and 2052 were kept"),
    "empty": (lambda path: path.write_bytes(b""), "holds 0 bytes"),
    "missing": (lambda path: path.unlink(), "is missing"),
    "link": (link, "is a link"),
    "pipe": (pipe, "no regular file"),
    "others write it": (lambda path: path.chmod(0o666), r"written by other users \(mode 0666\)"),
}


@posix
@pytest.mark.parametrize("fault", PLAN_FAULTS)
def test_a_damaged_plan_is_removed_with_a_warning_and_built_again(folder: Path, fault: str) -> None:
    damage, words = PLAN_FAULTS[fault]
    damage(keep(folder, MATERIAL, PLAN, FACTS).path)
    with pytest.warns(StoreWarning, match=f"plan .*{words}.*built again"):
        assert load(folder, MATERIAL) is None
    assert files(folder) == []
    assert load(folder, MATERIAL) is None
    again = keep(folder, MATERIAL, PLAN, FACTS)
    assert load(folder, MATERIAL) == again


def text(words: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(words)


DESCRIPTION_FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "flipped": (flip, "no JSON of ours|was changed"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "no JSON of ours"),
    "empty": (text(""), "no JSON of ours"),
    "no JSON": (text("plan"), "no JSON of ours"),
    "no UTF-8": (lambda path: path.write_bytes(b"\xff{}"), "no JSON of ours"),
    "a list": (text("[]"), "has schema None"),
    "a number": (text("1"), "no JSON of ours"),
    "too deep": (text("[" * 100_000), "no JSON of ours"),
    "NaN": (text('{"schema": NaN}'), "no JSON of ours"),
    "infinite": (text('{"schema": 1e999}'), "no JSON of ours"),
    "an empty object": (text("{}"), "has schema None"),
    "without seal": (text(f'{{"schema": {SCHEMA}}}'), "was changed"),
    "schema": (lambda path: describe_anew(path.parent, schema=99), "has schema 99, and .* writes 1"),
    "another build": (
        lambda path: describe_anew(path.parent, material=MATERIAL | {"gpu": "NVIDIA L4"}),
        "another build .gpu 'NVIDIA L4', and 'NVIDIA H200' is asked",
    ),
    "size": (lambda path: describe_anew(path.parent, size=5), "and 5 were kept"),
    "SHA-256": (lambda path: describe_anew(path.parent, sha256="00" * 32), "SHA-256"),
    "a fact": (lambda path: path.write_text(path.read_text().replace("fp32", "int8")), "was changed"),
    "link": (link, "is a link"),
    "pipe": (pipe, "no regular file"),
    "others write it": (lambda path: path.chmod(0o620), r"written by other users \(mode 0620\)"),
}


@posix
@pytest.mark.parametrize("fault", DESCRIPTION_FAULTS)
def test_a_damaged_description_is_removed_with_its_plan_and_a_warning(folder: Path, fault: str) -> None:
    damage, words = DESCRIPTION_FAULTS[fault]
    keep(folder, MATERIAL, PLAN, FACTS)
    damage(described(folder))
    with pytest.warns(StoreWarning, match=f"{words}.*built again"):
        assert load(folder, MATERIAL) is None
    assert files(folder) == []


def test_the_damage_is_removed_even_where_warnings_are_errors(folder: Path) -> None:
    flip(keep(folder, MATERIAL, PLAN, FACTS).path)
    with pytest.raises(StoreWarning, match="SHA-256"):
        load(folder, MATERIAL)
    assert load(folder, MATERIAL) is None


def test_damage_that_cannot_be_removed_is_not_loaded_either(folder: Path) -> None:
    path = keep(folder, MATERIAL, PLAN, FACTS).path
    path.unlink()
    path.mkdir()
    with pytest.warns(StoreWarning, match=r"plan can't be read \(\w+"):
        assert load(folder, MATERIAL) is None
    assert path.is_dir()
    with pytest.raises(BackendError, match="can't be written"):
        keep(folder, MATERIAL, PLAN, FACTS)


def test_a_plan_without_its_description_is_an_unfinished_one_and_is_not_there(folder: Path) -> None:
    plan = keep(folder, MATERIAL, PLAN, FACTS).path
    described(folder).unlink()
    assert load(folder, MATERIAL) is None
    assert plan.exists()


def test_the_plan_is_whole_before_its_description_tells_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def seen(path: Path, data: bytes, *, private: bool) -> None:
        write_whole(path, data, private=private)
        order.append(path.suffix)

    monkeypatch.setattr(pytest_trt.storage.engine_store, "write_whole", seen)
    keep(folder, MATERIAL, PLAN, FACTS)
    assert order == [".plan", ".json"]


def test_a_session_that_is_killed_between_the_files_leaves_no_plan(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def killed(draft: Path, target: Path) -> Path:
        if target.suffix == ".json":
            raise KeyboardInterrupt
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        keep(folder, MATERIAL, PLAN, FACTS)
    assert (files(folder), load(folder, MATERIAL)) == ([".plan"], None)


@posix
def test_folder_and_files_are_the_users_alone(folder: Path, open_umask: None) -> None:
    with locked(folder, MATERIAL):
        keep(folder, MATERIAL, PLAN, FACTS)
    keep_timing_cache(folder, MATERIAL, b"cache")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        ".plan": 0o600,
        ".json": 0o600,
        ".lock": 0o600,
        ".timing": 0o600,
    }


@posix
def test_no_file_is_ever_open_to_others_while_it_is_written(
    folder: Path, open_umask: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    opened = os.open

    def seen(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        number = opened(path, flags, mode, **more)
        made.append(stat.S_IMODE(os.fstat(number).st_mode))
        return number

    monkeypatch.setattr(os, "open", seen)
    with locked(folder, MATERIAL):
        keep(folder, MATERIAL, PLAN, FACTS)
    keep_timing_cache(folder, MATERIAL, b"cache")
    assert len(made) >= 4
    assert set(made) == {0o600}


@posix
def test_a_whole_file_is_private_only_where_it_is_asked(tmp_path: Path, open_umask: None) -> None:
    write_whole(tmp_path / "private" / "file", b"", private=True)
    write_whole(tmp_path / "plain" / "file", b"")
    modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"private": 0o700, "private/file": 0o600, "plain": 0o777, "plain/file": 0o666}


USES: dict[str, Callable[[Path], Any]] = {
    "load": lambda folder: load(folder, MATERIAL),
    "keep": lambda folder: keep(folder, MATERIAL, PLAN, FACTS),
    "lock": lambda folder: locked(folder, MATERIAL).__enter__(),
    "load timing": lambda folder: load_timing_cache(folder, MATERIAL),
    "keep timing": lambda folder: keep_timing_cache(folder, MATERIAL, b"cache"),
}


@posix
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_folder_that_others_may_write_is_refused(folder: Path, use: str, mode: int) -> None:
    keep(folder, MATERIAL, PLAN, FACTS)
    folder.chmod(mode)
    before = sorted(folder.iterdir())
    with pytest.raises(BackendError, match=f"written by other users .mode {mode:04o}.*--trt-store=DIR.*=none"):
        USES[use](folder)
    assert sorted(folder.iterdir()) == before


@posix
def test_a_folder_that_others_may_only_read_is_used(folder: Path) -> None:
    folder.mkdir(0o755)
    keep(folder, MATERIAL, PLAN, FACTS)
    assert load(folder, MATERIAL) is not None


@posix
@pytest.mark.parametrize("use", USES)
def test_a_folder_of_another_user_is_refused(folder: Path, use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(folder, MATERIAL, PLAN, FACTS)
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(BackendError, match=rf"another user \(uid {owner}, and this is uid {owner + 1}\).*--trt-store"):
        USES[use](folder)


@posix
@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root gives files away")
def test_a_plan_of_another_user_in_an_own_folder_is_not_loaded(folder: Path) -> None:
    os.chown(keep(folder, MATERIAL, PLAN, FACTS).path, 65534, -1)
    with pytest.warns(StoreWarning, match="belongs to another user"):
        assert load(folder, MATERIAL) is None


@pytest.mark.parametrize("use", USES)
def test_a_file_in_place_of_the_folder_is_refused(folder: Path, use: str) -> None:
    folder.write_bytes(b"")
    with pytest.raises(BackendError, match=r"store of TensorRT plans .*(is no folder|can't be made).*--trt-store=DIR"):
        USES[use](folder)
    with pytest.raises(BackendError, match=r"can't be (looked at|made) \(.*--trt-store=DIR"):
        USES[use](folder / "below")


@posix
@not_as_root
@pytest.mark.parametrize("use", ["keep", "lock", "keep timing"])
def test_a_read_only_folder_is_refused_with_what_to_do(folder: Path, use: str) -> None:
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(BackendError, match=r"can't be (written|locked) \(Permission denied.*--trt-store=DIR.*=none"):
        USES[use](folder)


@posix
@not_as_root
def test_a_plan_is_loaded_from_a_read_only_folder(folder: Path) -> None:
    keep(folder, MATERIAL, PLAN, FACTS)
    folder.chmod(0o500)
    assert load(folder, MATERIAL) is not None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("use", ["keep", "keep timing"])
def test_a_disk_that_takes_no_more_is_told_and_leaves_nothing(
    folder: Path, use: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(draft: Path, target: Path) -> Path:
        raise OSError(code, os.strerror(code), str(draft))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(BackendError, match=rf"can't be written \({os.strerror(code)}: \w+\.\w+, .*--trt-store=DIR"):
        USES[use](folder)
    assert files(folder) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EROFS, "Read-only file system"),
        PermissionError(errno.EACCES, "Permission denied"),
        NotImplementedError("no flock"),
        UserWarning("flock not supported"),
    ],
)
def test_a_lock_that_cannot_be_had_is_told_with_what_to_do(
    folder: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: filelock.FileLock) -> None:
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    words = f"can't be locked .{error.args[-1]}.*--trt-store=DIR.*--trt-store=none"
    with pytest.raises(BackendError, match=words), locked(folder, MATERIAL):
        pytest.fail("it is not locked")


def test_what_fails_under_the_lock_is_its_own_error_and_frees_the_lock(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[filelock.FileLock] = []
    acquire = filelock.FileLock.acquire

    def seen(lock: filelock.FileLock) -> Any:
        held.append(lock)  # a lock that is forgotten frees itself
        return acquire(lock)

    monkeypatch.setattr(filelock.FileLock, "acquire", seen)
    with pytest.raises(PermissionError, match=r"of the builder, locked: \[True\]"), locked(folder, MATERIAL):
        raise PermissionError(f"of the builder, locked: {[lock.is_locked for lock in held]}")
    assert [lock.is_locked for lock in held] == [False]


def test_a_folder_that_vanishes_is_made_again(folder: Path) -> None:
    with locked(folder, MATERIAL):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        kept = keep(folder, MATERIAL, PLAN, FACTS)
    assert load(folder, MATERIAL) == kept
    assert not folder.stat().st_mode & 0o077


def test_drafts_of_killed_sessions_go_with_the_next_lock(folder: Path) -> None:
    name = key_of(MATERIAL)[:32]
    folder.mkdir(0o700)
    for kind in ("plan", "json"):
        (folder / f".{name}.{kind}.1.0a1b2c3d.tmp").write_bytes(PLAN)
    (folder / f".{'0' * 32}.plan.1.0a1b2c3d.tmp").write_bytes(b"of another build, that may be going on")
    with locked(folder, MATERIAL):
        left = [path.name for path in folder.iterdir() if path.suffix == ".tmp"]
    assert left == [f".{'0' * 32}.plan.1.0a1b2c3d.tmp"]


def test_threads_may_keep_the_same_plan_at_once(folder: Path) -> None:
    start = threading.Barrier(8)

    def session(number: int) -> None:
        start.wait()
        for _ in range(10):
            keep(folder, MATERIAL, PLAN, FACTS)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(session, range(8)))
    assert load(folder, MATERIAL) is not None
    assert files(folder) == [".json", ".plan"]


SESSION = """
import sys, time
from pathlib import Path
from pytest_trt.storage.engine_store import keep, load, locked
material, folder = {"gpu": "NVIDIA H200"}, Path(sys.argv[1])
Path(sys.argv[2]).touch()
while len(list(Path(sys.argv[2]).parent.glob("ready.*"))) < 2:
    time.sleep(0.01)
with locked(folder, material):
    kept = load(folder, material)
    print("loaded" if kept else "built")
    if kept is None:
        time.sleep(0.5)
        kept = keep(folder, material, b"plan", {})
assert kept.data == b"plan"
"""


def test_of_two_processes_one_builds_and_the_other_waits_and_loads(folder: Path, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        sessions = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", SESSION, str(folder), str(tmp_path / f"ready.{number}")],
                    cwd=Path(pytest_trt.storage.engine_store.__file__).parents[1],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(2)
        ]
        said = [session.communicate(timeout=60) for session in sessions]
    assert sorted(said) == [("built\n", ""), ("loaded\n", "")]


def test_builds_of_different_keys_do_not_wait_for_each_other(folder: Path) -> None:
    with locked(folder, MATERIAL), locked(folder, MATERIAL | {"gpu": "NVIDIA L4"}):
        assert len(list(folder.glob("*.lock"))) == 2


def test_a_timing_cache_comes_back_as_it_was(folder: Path) -> None:
    for data in (b"cache\n\0 of lines\n", b"", b"a later one"):
        keep_timing_cache(folder, MATERIAL, data)
        assert load_timing_cache(folder, MATERIAL) == data
    assert load_timing_cache(folder, MATERIAL | {"gpu": "NVIDIA L4"}) == b""


TIMING_FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "flipped at the end": (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\0"), "SHA-256"),
    "flipped in the line": (flip, "no JSON of ours|was changed"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "holds 4 bytes, and 5 were kept"),
    "empty": (lambda path: path.write_bytes(b""), "no JSON of ours"),
    "another's": (lambda path: path.write_bytes(b"ptiming"), "no JSON of ours"),
    "another build": (
        lambda path: path.write_bytes(
            pytest_trt.storage.engine_store._describe({"gpu": "NVIDIA L4"}, b"cache", {}) + b"cache"
        ),
        "another build",
    ),
    "link": (link, "is a link"),
}


@posix
@pytest.mark.parametrize("fault", TIMING_FAULTS)
def test_a_damaged_timing_cache_is_removed_with_a_warning(folder: Path, fault: str) -> None:
    damage, words = TIMING_FAULTS[fault]
    keep_timing_cache(folder, MATERIAL, b"cache")
    (path,) = folder.iterdir()
    damage(path)
    with pytest.warns(StoreWarning, match=f"timing .*({words}).*built again"):
        assert load_timing_cache(folder, MATERIAL) == b""
    assert files(folder) == []


def test_the_store_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, pytest_trt.storage.engine_store; print(*sys.modules)"],
        cwd=Path(pytest_trt.storage.engine_store.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"filelock", "numpy", "onnx", "tensorrt"} & set(done.stdout.split())
