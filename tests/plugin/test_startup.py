"""Having the plugin installed costs nothing until it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from places import ROOT

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


def test_an_empty_folder_loads_no_heavy_package_and_five_modules_of_ours(tmp_path: Path) -> None:
    assert loaded(tmp_path, "--co", "-q") == [
        "[]",
        "['pytest_trt', 'pytest_trt.plugin', 'pytest_trt.plugin._options', 'pytest_trt.plugin.fixtures',"
        " 'pytest_trt.plugin.hooks']",
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


LATE = {
    # what every run of pytest imports, and what it asks whether there is anything of ours to do
    *("plugin/hooks.py", "plugin/fixtures.py", "plugin/_options.py", "plugin/_arguments.py", "plugin/settings.py"),
    "case/case_file.py",
    # a command's --help
    *(f"cli/_{name}.py" for name in ("baseline", "calibrate", "compare", "golden", "history", "inspect", "lower")),
    *("cli/_ranges.py", "cli/_sensitivity.py"),
}
"""The modules that import other modules of ours inside functions, since these bring numpy and onnx."""


def test_modules_of_ours_are_imported_in_functions_only_where_that_keeps_something_heavy_unloaded() -> None:
    package = ROOT / "pytest_trt"

    late = {str(path.relative_to(package)) for path in package.rglob("*.py") if imports_late(path)}

    assert {Path(name).as_posix() for name in late} == LATE


def imports_late(path: Path) -> bool:
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    inner = [node for function in functions for node in ast.walk(function) if isinstance(node, ast.ImportFrom)]
    return any((node.module or "").startswith("pytest_trt") for node in inner)
