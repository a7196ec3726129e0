"""README and docs are true: their files and tests run as they are written."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import networks
import onnx
from test_examples import DIGITS, ROOT

from pytest_trt.arguments import parse
from pytest_trt.build_options import BuildOptions
from pytest_trt.case import Case, known_keys
from pytest_trt.options import OPTIONS

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


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
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
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


def test_the_table_of_what_was_measured_is_that_of_the_results() -> None:
    page = (ROOT / "docs" / "measured.md").read_text()
    results = ROOT / "benchmarks" / "results" / "accuracy-tensorrt-8.6-h200.json"

    told = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "accuracy.py", "--table", results],
        capture_output=True,
        text=True,
        check=True,
    )

    assert told.stdout.count("\n") > 25
    assert told.stdout in page


def test_the_table_of_calibration_is_that_of_its_results() -> None:
    page = (ROOT / "docs" / "calibration.md").read_text()
    results = ROOT / "benchmarks" / "results" / "calibration-cpu.json"

    told = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "calibration.py", "--table", results],
        capture_output=True,
        text=True,
        check=True,
    )

    assert told.stdout.count("\n") > 15
    assert told.stdout in page


def test_the_table_of_what_localisation_costs_is_that_of_its_results() -> None:
    results = ROOT / "benchmarks" / "results" / "localise-cpu.json"
    words = [sys.executable, ROOT / "benchmarks" / "localise.py", "--table", results]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout

    assert "resnet18" in told
    assert told in (ROOT / "docs" / "localise.md").read_text()
