"""What breaks on Windows, by what can be made to look like it here; docs/windows.md says what that proves."""

from __future__ import annotations

import ast
import ntpath
import sys
from pathlib import Path, PureWindowsPath
from typing import Any

import networks
import numpy as np
import pytest
from fakes.platform import FakePlatform

from pytest_trt.backends.build_options import read_word
from pytest_trt.case.case import Case, cases_of_file
from pytest_trt.case.case_file import shown_from
from pytest_trt.doctor import _packages as python
from pytest_trt.doctor.platform import Ran
from pytest_trt.errors import CaseError
from pytest_trt.golden.golden import Golden, Run, read, write
from pytest_trt.model.onnx_session import _plain
from pytest_trt.model.sample_stream import opened
from pytest_trt.plugin._verdict_items import golden_path
from pytest_trt.storage import engine_store as store
from pytest_trt.storage.atomic_write import write_whole
from pytest_trt.storage.entry_point import is_reference

PACKAGE = Path(__file__).parents[2] / "pytest_trt"
SOURCES = sorted(PACKAGE.rglob("*.py"))


# files that somebody has open


class Busy:
    """A file that can't be replaced the first few times, since somebody reads it."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.real = Path.replace

    def replace(self, draft: Path, target: Path) -> Path:
        if self.left:
            self.left -= 1
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        return self.real(draft, target)


def busy(monkeypatch: pytest.MonkeyPatch, times: int, *, windows: bool) -> list[float]:
    slept: list[float] = []
    there = Busy(times)
    monkeypatch.setattr("pytest_trt.storage.atomic_write._WINDOWS", windows)
    monkeypatch.setattr("pytest_trt.storage.atomic_write.time.sleep", slept.append)
    monkeypatch.setattr(Path, "replace", lambda draft, target: there.replace(draft, target))
    return slept


def test_a_file_that_is_read_is_replaced_when_its_reader_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.json").write_bytes(b"old")
    slept = busy(monkeypatch, 3, windows=True)

    write_whole(tmp_path / "run.json", b"new")

    assert (tmp_path / "run.json").read_bytes() == b"new"
    assert slept == sorted(slept)
    assert len(slept) == 3


def test_a_file_that_is_never_let_go_stays_as_it_was_and_no_draft_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.json").write_bytes(b"old")
    slept = busy(monkeypatch, 1000, windows=True)

    with pytest.raises(PermissionError, match="another process"):
        write_whole(tmp_path / "run.json", b"new")

    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert (tmp_path / "run.json").read_bytes() == b"old"
    assert 1 < sum(slept) < 5


def test_elsewhere_a_file_that_may_not_be_replaced_is_an_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = busy(monkeypatch, 1, windows=False)

    with pytest.raises(PermissionError):
        write_whole(tmp_path / "run.json", b"new")

    assert slept == []


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which files are mapped")
def test_a_golden_that_was_read_is_not_held_open(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    run = Run({"x": networks.images(4)}, {"y": np.ones((4, 3), np.float32)})
    write(Golden((run,), "here"), path, "net")

    golden = read(path, "")
    with opened(path) as arrays:
        first = arrays["input.x"].rows(0, 1)

    assert golden.inputs["x"].shape == (4, 2, 6, 6)
    assert first.shape[0] == 1
    assert str(path) not in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert str(path) not in _open_files()


def _open_files() -> list[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except OSError:  # the listing's own
            continue
    return found


# names


@pytest.mark.parametrize("name", ["aux", "CON", "nul", "prn", "com1", "LPT9", "aux.v2", "conin$", "com²"])
def test_a_case_called_as_a_device_is_refused_everywhere(name: str) -> None:
    with pytest.raises(CaseError, match="a device on Windows"):
        Case(name=name, onnx="net.onnx")


@pytest.mark.parametrize("name", ["auxiliary", "console", "com10", "lpt", "v2.aux", "null"])
def test_a_case_whose_name_only_begins_like_a_device_is_fine(name: str) -> None:
    assert Case(name=name, onnx="net.onnx").name == name


@pytest.mark.parametrize("name", ["a:b", "a<b", "a>b", 'a"b', "a|b", "a?b", "a*b", "a\\b", "a/b", "a.", " a", "a\x1f"])
def test_a_case_whose_name_windows_can_not_write_is_refused_everywhere(name: str) -> None:
    with pytest.raises(CaseError, match="golden's file name"):
        Case(name=name, onnx="net.onnx")


def test_names_that_differ_in_the_case_of_letters_are_one_golden_and_refused() -> None:
    tables = [{"name": "Net", "onnx": "a.onnx"}, {"name": "net", "onnx": "b.onnx"}]

    found = cases_of_file(tables, Path(), "trt.toml")

    assert all(isinstance(case, CaseError) and "no case of letters" in str(case) for case in found)


def test_goldens_are_told_apart_as_the_file_system_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_trt.plugin.settings.golden_dir", lambda _: tmp_path)
    cases = [Case(name=name, onnx="net.onnx") for name in ("Net", "net")]
    config: Any = None

    assert len({golden_path(case, config) for case in cases}) == 2
    monkeypatch.setattr("os.path.normcase", lambda path: ntpath.normcase(str(path)))
    assert len({golden_path(case, config) for case in cases}) == 1


# paths


def test_a_path_on_another_drive_is_shown_whole_and_others_with_slashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.relpath", ntpath.relpath)
    monkeypatch.setattr("os.sep", "\\")
    here: Any = PureWindowsPath(r"C:\work")
    same: Any = PureWindowsPath(r"C:\work\models\trt.toml")
    other: Any = PureWindowsPath(r"D:\models\trt.toml")

    assert shown_from(same, here) == "models/trt.toml"
    assert shown_from(other, here) == r"D:\models\trt.toml"


@pytest.mark.parametrize(
    "text", [r"C:\data\calibration.npz", r"C:calibration.npz", r"\\server\share\x.npz", "C:/x.npz"]
)
def test_a_path_with_a_drive_is_no_module_and_function(text: str) -> None:
    assert not is_reference(text)


def test_a_build_option_takes_a_path_with_a_drive() -> None:
    assert read_word(r"timing_cache=C:\caches\net.cache") == ("timing_cache", r"C:\caches\net.cache")


# the store of plans


def test_the_store_keeps_and_loads_without_user_ids_and_flags_that_windows_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_trt.storage.engine_store._WINDOWS", True)
    monkeypatch.setattr("pytest_trt.storage.engine_store._OPEN_FLAGS", 0)
    monkeypatch.delattr("os.geteuid")
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o777)  # tells nothing there

    with store.locked(tmp_path / "store", {"model": "a"}):
        store.keep(tmp_path / "store", {"model": "a"}, b"plan", {"gpu": "none"})
        found = store.load(tmp_path / "store", {"model": "a"})

    assert found is not None
    assert found.data == b"plan"


# words


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_onnxruntimes_first_line_is_told_whatever_ends_it(ending: str) -> None:
    assert _plain(RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : no{ending}at line 3")) == "1 : FAIL : no"


def test_no_command_that_is_told_has_single_quotes_which_cmd_takes_for_letters() -> None:
    for source in SOURCES:
        assert "pip install '" not in source.read_text(encoding="utf-8"), source


def test_no_text_file_is_opened_in_the_code_page_of_the_machine() -> None:
    for source in SOURCES:
        for call in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and _opens_text(call):
                assert any(keyword.arg == "encoding" for keyword in call.keywords), f"{source}:{call.lineno}"


def _opens_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    of_path = isinstance(call.func, ast.Attribute)
    if name in ("read_text", "write_text"):
        return of_path and not (call.args and isinstance(call.args[0], ast.Name) and call.args[0].id == "data")
    if name == "run" and any(keyword.arg == "text" for keyword in call.keywords):
        return True
    modes = [word.value for word in (*call.args, *(k.value for k in call.keywords)) if isinstance(word, ast.Constant)]
    binary = any(isinstance(mode, str) and "b" in mode and set(mode) <= set("rwxab+") for mode in modes)
    return name == "open" and isinstance(call.func, ast.Name) and not binary


def test_files_for_a_person_are_utf_8_and_have_the_same_ends_of_lines_everywhere() -> None:
    for source in SOURCES:
        text = source.read_text(encoding="utf-8")
        assert "os.linesep" not in text, source


# the doctor


@pytest.mark.parametrize(("ran", "state"), [
    (Ran(0, "\n    LongPathsEnabled    REG_DWORD    0x1\n"), "good"),
    (Ran(0, "\n    LongPathsEnabled    REG_DWORD    0x0\n"), "doubt"),
    (Ran(1, "", "ERROR: The system was unable to find the specified registry key"), "doubt"),
    (Ran(0, ""), "doubt"),
])  # fmt: skip
def test_the_doctor_tells_whether_long_paths_are_on(ran: Ran, state: str) -> None:
    [found] = python.long_paths(FakePlatform(system="Windows", programs={"reg": ran}))

    assert found.state == state
    assert list(python.long_paths(FakePlatform())) == []
