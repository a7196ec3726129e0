"""README and docs are true: their files and tests run as they are written."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import networks
import onnx
import pytest
from places import ROOT

from pytest_trt.backends.build_options import BuildOptions
from pytest_trt.case.case import known_keys
from pytest_trt.evidence.finding import CODES
from pytest_trt.plugin._options import OPTIONS

if TYPE_CHECKING:
    from pathlib import Path


def blocks(path: str, language: str) -> list[str]:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", (ROOT / path).read_text(), re.DOTALL | re.MULTILINE)
    return [re.sub(r"^   ", "", block, flags=re.MULTILINE) if block.startswith("   ") else block for block in found]


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
    assert "in Python, pytest_trt.update_golden(case, golden_dir)" in told
    onnx.checker.check_model("int8.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "int8.onnx").read_bytes()


def test_the_reference_names_every_option_and_every_key() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text()

    for option in OPTIONS:
        assert f"`--trt-{option.name}" in reference
    for key in known_keys():
        assert f"`{key}" in reference or f"`{key}.<precision>`" in reference


def test_the_page_on_engines_names_every_build_option() -> None:
    page = (ROOT / "docs" / "tensorrt.md").read_text()

    for name in BuildOptions.__dataclass_fields__:
        assert f"`{name}`" in page


@pytest.mark.parametrize(("page", "script", "results"), [
    ("measured.md", "accuracy.py", "accuracy-tensorrt-8.6-h200.json"),
    ("from-10-to-11.md", "roads.py", "roads-tensorrt-8.6-h200.json"),
    ("calibration.md", "calibration.py", "calibration-cpu.json"),
    ("localise.md", "localise.py", "localise-cpu.json"),
    ("size.md", "size.py", "size-cpu.json"),
    ("latency-gate.md", "gate.py", "gate-simulated.json"),
    ("latency-measured.md", "timing.py", "timing-tensorrt-8.6-h100.json"),
    ("latency-measured.md", "speedup.py", "speedup-torch-h100.json speedup-tensorrt-8.6-h100.json"),
    ("latency-measured.md", "gate_gpu.py", "gate-tensorrt-8.6-h100.json"),
])  # fmt: skip
def test_a_table_of_what_was_measured_is_that_of_the_results(page: str, script: str, results: str) -> None:
    files = [ROOT / "benchmarks" / "results" / name for name in results.split()]
    told = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, "--table", *files],
        capture_output=True,
        text=True,
        check=True,
    )

    tables = told.stdout.strip().split("\n\n")
    assert told.stdout.count("\n") >= 3
    assert all(table in (ROOT / "docs" / page).read_text() for table in tables)


def test_every_finding_has_its_place_on_the_page_of_its_family() -> None:
    for code in CODES:
        page = ROOT / "docs" / "findings" / f"{code[:4]}xx.md"
        assert f"## {code}" in page.read_text()
