"""Having the plugin installed costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = "{'numpy', 'onnx', 'onnxruntime', 'torch', 'torchvision', 'safetensors', 'ml_dtypes', 'tensorrt'}"
SCRIPT = f"""
import sys, pytest
pytest.main([*sys.argv[1:], '-p', 'no:cacheprovider'])
print(sorted({HEAVY} & {{name.partition('.')[0] for name in sys.modules}}))
print(sorted(name for name in sys.modules if name.startswith('pytest_trt')))
"""


def loaded(folder: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-2:]


def test_an_empty_folder_loads_no_heavy_package_and_three_modules_of_ours(tmp_path: Path) -> None:
    assert loaded(tmp_path, "--co", "-q") == [
        "[]",
        "['pytest_trt', 'pytest_trt.plugin.options', 'pytest_trt.plugin.hooks']",
    ]


def test_help_loads_no_heavy_package(tmp_path: Path) -> None:
    assert loaded(tmp_path, "--help")[0] == "[]"


def test_tests_of_others_load_no_heavy_package(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_a(): pass\n")
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\ntestpaths = ['.']\n")

    assert loaded(tmp_path)[0] == "[]"


def test_the_public_names_are_there_and_check_stays_a_function() -> None:
    script = (
        "import pytest_trt.gate, pytest_trt\n"
        "assert all(hasattr(pytest_trt, name) for name in pytest_trt.__all__)\n"
        "from pytest_trt import check\n"
        "import types; assert isinstance(check, types.FunctionType)\n"
    )

    subprocess.run([sys.executable, "-c", script], check=True)
