"""README and docs are true: their files and tests run as they are written."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import networks
import onnx
import pytest
from test_examples import DIGITS, ROOT

from pytest_trt.arguments import parse
from pytest_trt.build_options import BuildOptions
from pytest_trt.case import Case, known_keys
from pytest_trt.findings import CODES
from pytest_trt.options import OPTIONS

if TYPE_CHECKING:
    from pathlib import Path


def blocks(path: str, language: str) -> list[str]:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", (ROOT / path).read_text(), re.DOTALL | re.MULTILINE)
    return [re.sub(r"^   ", "", block, flags=re.MULTILINE) if block.startswith("   ") else block for block in found]


def test_the_readmes_case_and_tests_run_side_by_side(pytester: pytest.Pytester) -> None:
    for name in ("digits.onnx", "test.npz", "calibration.npz"):
        shutil.copy(DIGITS / name, pytester.path)
    [toml] = blocks("README.md", "toml")
    [python] = blocks("README.md", "python")
    (pytester.path / "trt.toml").write_text(toml)
    (pytester.path / "test_readme.py").write_text(python)

    pytester.runpytest("trt.toml", "--trt-update-golden").assert_outcomes(passed=2)
    pytester.runpytest("--trt-precision=int8").assert_outcomes(passed=3)
    pytester.runpytest("--trt-update-golden").assert_outcomes(passed=5)


def test_the_references_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    networks.save(networks.convolutional(), tmp_path / "models" / "net.onnx")
    monkeypatch.chdir(tmp_path)
    first, second, third = blocks("docs/reference.md", "python")
    scope = {"samples": {"x": networks.images()}}

    for code in (first, second, third):
        exec(code, scope)

    told = capsys.readouterr().out
    assert "there is no golden" in told
    assert "in Python, pytest_trt.create.update(case, golden_dir)" in told
    onnx.checker.check_model("int8.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "int8.onnx").read_bytes()


def test_the_reference_names_every_option_and_every_key() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text()

    for option in OPTIONS:
        assert f"`--trt-{option.name}" in reference
    for key in known_keys():
        assert f"`{key}" in reference or f"`{key}.<precision>`" in reference


def test_links_between_documents_lead_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert target.startswith("http") or (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_page_on_engines_names_every_build_option() -> None:
    page = (ROOT / "docs" / "tensorrt.md").read_text()

    for name in BuildOptions.__dataclass_fields__:
        assert f"`{name}`" in page


def test_the_page_on_engines_has_cases_that_can_be_read(tmp_path: Path) -> None:
    for block in blocks("docs/tensorrt.md", "toml"):
        (tmp_path / "trt.toml").write_text(block)
        [table] = parse(tmp_path / "trt.toml")["model"]
        assert Case.from_table(table, tmp_path, "trt.toml").onnx == "net.onnx"


@pytest.mark.parametrize(("page", "script", "results"), [
    ("measured.md", "accuracy.py", "accuracy-tensorrt-8.6-h200.json"),
    ("from-10-to-11.md", "roads.py", "roads-tensorrt-8.6-h200.json"),
    ("calibration.md", "calibration.py", "calibration-cpu.json"),
    ("localise.md", "localise.py", "localise-cpu.json"),
    ("latency-gate.md", "gate.py", "gate-simulated.json"),
])  # fmt: skip
def test_a_table_of_what_was_measured_is_that_of_the_results(page: str, script: str, results: str) -> None:
    told = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, "--table", ROOT / "benchmarks" / "results" / results],
        capture_output=True,
        text=True,
        check=True,
    )

    tables = told.stdout.strip().split("\n\n")
    assert told.stdout.count("\n") >= 4
    assert all(table in (ROOT / "docs" / page).read_text() for table in tables)


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    """What the page on TensorRT 11 begins with: net.onnx, its golden inputs, calib.cache, ranges.txt and batches.py."""
    shutil.copy(DIGITS / "digits.onnx", tmp_path / "net.onnx")
    shutil.copy(DIGITS / "test.npz", tmp_path / "test.npz")
    for name in ("calib.cache", "ranges.txt"):
        _command(tmp_path, f"pytest-trt calibrate net.onnx {DIGITS / 'calibration.npz'} -o {name}")
    (tmp_path / "batches.py").write_text(
        "import numpy as np\n\ndef batches():\n"
        f"    images = np.load({str(DIGITS / 'calibration.npz')!r})['image']\n"
        "    for start in range(0, len(images), 64):\n        yield {'image': images[start : start + 64]}\n"
    )
    [table] = blocks("docs/from-10-to-11.md", "toml")
    (tmp_path / "trt.toml").write_text(table)
    return tmp_path


def _command(folder: Path, line: str) -> str:
    words = line.split()
    module = {"pytest-trt": "pytest_trt.cli", "pytest": "pytest"}[words[0]]
    found = subprocess.run(
        [sys.executable, "-m", module, *words[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, f"{line}\n{found.stdout}{found.stderr}"
    return found.stdout


def test_every_command_of_the_page_on_tensorrt_11_does_what_it_says(deployment: Path) -> None:
    lines = [
        line.removeprefix("$ ").split("#")[0].strip()
        for block in blocks("docs/from-10-to-11.md", "console")
        for line in block.splitlines()
    ]
    _command(deployment, "pytest trt.toml::net --trt-update-golden")
    on_the_cpu = [re.sub(r" --trt-(backend|typing)=\w+", "", line) for line in lines if line]

    told = [_command(deployment, line) for line in on_the_cpu]

    assert len(told) > 8
    assert sum("1 passed" in output for output in told) == 5
    assert any("6 of 6 tensors of net.int8.onnx have the scale" in output for output in told)


def test_every_finding_has_its_place_on_the_page_of_its_family() -> None:
    for code in CODES:
        page = ROOT / "docs" / "findings" / f"{code[:4]}xx.md"
        assert f"## {code}" in page.read_text()
