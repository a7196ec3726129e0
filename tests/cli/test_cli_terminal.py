"""The command line on terminals, where it is interrupted, and in shells."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from click.testing import CliRunner

from pytest_trt.cli._console import Line, Table, text_of
from pytest_trt.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

pty = pytest.importorskip("pty", reason="Windows has no pseudo terminals of this kind")
CLI = [sys.executable, "-m", "pytest_trt.cli"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    (tmp_path / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\nsamples = 4\n')
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def on_a_terminal(*words: str, stream: str = "stdout", **variables: str) -> str:
    """What a command writes to a terminal of 100 columns, which one of its streams is."""
    primary, secondary = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm", **variables}
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: secondary}
    with subprocess.Popen([*CLI, *words], env=environment, **streams):
        os.close(secondary)
        chunks = []
        while True:
            try:
                chunk = os.read(primary, 4096)
            except OSError:  # Linux says so when the other side is gone
                break
            if not chunk:
                break
            chunks.append(chunk)
    os.close(primary)
    return b"".join(chunks).decode()


def test_a_terminal_has_colours_and_a_file_has_none() -> None:
    assert "\x1b[" in on_a_terminal("inspect", "net.onnx")
    assert "\x1b[" not in CliRunner().invoke(main, ["inspect", "net.onnx"]).output


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_no_colours_has_none(variables: dict[str, str]) -> None:
    told = on_a_terminal("inspect", "net.onnx", **variables)

    assert "holds fp32" in told
    assert "\x1b" not in told


def test_without_rich_the_same_is_told_plainly(folder: Path) -> None:
    (folder / "rich.py").write_text("raise ImportError('planted')\n")

    told = on_a_terminal("inspect", "net.onnx", PYTHONPATH=f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    assert "holds fp32" in told
    assert "\x1b" not in told


def test_a_table_without_room_for_its_columns_is_told_row_by_row(folder: Path) -> None:
    pytest.importorskip("rich", reason="needs rich: pip install -e '.[test]'")

    plain = re.compile(r"\x1b\[[0-9;]*m")
    wide, narrow = (
        plain.sub("", on_a_terminal("inspect", "net.onnx", COLUMNS=str(columns))).splitlines() for columns in (100, 25)
    )

    assert wide[-1].startswith("fp8")
    assert [line.split()[0] for line in narrow[-3:]] == ["precision", "nodes", "beside"]
    assert narrow[-3] == "precision fp8"


def test_rich_takes_nothing_of_a_name_for_markup(folder: Path) -> None:
    (folder / "net.onnx").rename(folder / "[bold]net.onnx")

    assert "[bold]net.onnx" in on_a_terminal("inspect", "[bold]net.onnx")


@pytest.mark.parametrize(("words", "phase"), [
    (("golden", "create"), "simulating fp32"),
    (("calibrate", "net.onnx", "few.npz", "-o", "ranges.txt"), "calibrating on few.npz: largest values 0 %"),
    (("doctor",), "looking at python"),
])  # fmt: skip
def test_long_work_is_told_of_on_the_terminals_last_line(folder: Path, words: tuple[str, ...], phase: str) -> None:
    np.savez(folder / "few.npz", x=networks.images(16))

    told = on_a_terminal(*words, stream="stderr")

    assert phase in told
    assert told.rstrip().endswith("\x1b[2K")


@pytest.mark.parametrize("words", [
    ("doctor", "--timeout", "nan"),
    ("doctor", "--timeout", "inf"),
    ("sensitivity", "net.onnx", "--precision", "fp16", "--bound", "nan"),
])  # fmt: skip
def test_a_number_that_is_not_finite_is_refused(words: tuple[str, ...]) -> None:
    found = CliRunner().invoke(main, words)

    assert found.exit_code == 2
    assert "is no finite number" in found.output


def test_a_name_breaks_no_line_and_moves_no_cursor(folder: Path) -> None:
    (folder / "net.onnx").rename(folder / "a\x1b[2J.onnx")

    told = CliRunner().invoke(main, ["inspect", "a\x1b[2J.onnx"]).output
    refused = CliRunner().invoke(main, ["inspect", "b\x1b[2J.onnx"]).output

    assert "a\\x1b[2J.onnx: ONNX model" in told
    assert "b\\x1b[2J.onnx can't be read" in refused
    assert "\x1b" not in told + refused


def test_a_table_as_text_is_in_columns() -> None:
    table = Table(("a", "long head"), (("x" * 6, Line("y", "bad")), ("z", "")))

    assert text_of(["title", table]).splitlines() == ["title", "a       long head", "xxxxxx  y", "z"]


@pytest.mark.parametrize("words", [("golden", "create"), ("calibrate", "net.onnx", "big.npz", "-o", "ranges.txt")])
def test_ctrl_c_leaves_nothing_half_written_and_ends_with_130(folder: Path, words: tuple[str, ...]) -> None:
    np.savez(folder / "big.npz", x=networks.images(20_000))
    (folder / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\ninputs = "big.npz"\n')
    before = sorted(folder.iterdir())
    # told from inside, when the work has begun: how long imports take is the machine's business
    code = (
        "import sys\nimport pytest_trt.calibration.activations as stream\n"
        "import pytest_trt.golden.envelope as envelope\nimport pytest_trt.model.onnx_session as session\n"
        "real = session.run\n"
        "def run(*words, **more):\n"
        "    print('begun', file=sys.stderr, flush=True)\n"
        "    return real(*words, **more)\n"
        "import pytest_trt.backends.onnxruntime as backend\n"
        "for module in (session, stream, envelope, backend): module.run = run\n"
        "from pytest_trt.cli.main import main\n"
        f"main({list(words)!r}, prog_name='pytest-trt')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "begun\n"

    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)

    assert process.returncode == 130, told
    assert "interrupted, nothing was left half-written" in told
    assert "Traceback" not in told
    assert sorted(folder.iterdir()) == before


def test_a_console_of_another_code_page_shows_signs_that_it_lacks_as_escapes(folder: Path) -> None:
    (folder / "net.onnx").rename(folder / "模型.onnx")

    found = subprocess.run(
        [*CLI, "inspect", "模型.onnx"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
    )

    assert found.returncode == 0, found.stderr
    assert b"\\u6a21\\u578b.onnx: ONNX model" in found.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell: str) -> None:
    found = CliRunner().invoke(main, ["completion", shell])

    assert found.exit_code == 0, found.output
    assert "_PYTEST_TRT_COMPLETE" in found.output


def test_commands_are_completed() -> None:
    environment = {
        **os.environ,
        "_PYTEST_TRT_COMPLETE": "bash_complete",
        "COMP_WORDS": "pytest-trt gol",
        "COMP_CWORD": "1",
    }
    code = "from pytest_trt.cli.main import main; main(prog_name='pytest-trt')"

    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    assert found.stdout.split() == ["plain,golden"]
