"""The rooms of the package lie one above the other, and each shows to others only what its ``__init__`` names."""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from places import ROOT

from pytest_trt.backends import backend
from pytest_trt.report import record_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = ROOT / "pytest_trt"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
ROOMS = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """The modules of ours that a module imports, in functions and for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pytest_trt"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if is_module(inner) else str(node.module)


def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "pyproject.toml", folder)
    command = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", command], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    pytest.importorskip("importlinter", reason="needs import-linter: pip install -e '.[lint]'")
    shutil.copytree(PACKAGE, tmp_path / "pytest_trt", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_rooms_keep_their_contract(scratch: Path) -> None:
    done = lint(scratch)

    assert (done.returncode, "2 kept, 0 broken" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    "planted",
    [
        "from pytest_trt.findings.verdict import Verdict\n",
        "def late() -> None:\n    from pytest_trt.findings import verdict\n",
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from pytest_trt.report import record\n",
    ],
    ids=["at the top", "in a function", "for types"],
)
def test_an_import_upwards_breaks_the_contract(scratch: Path, planted: str) -> None:
    module = scratch / "pytest_trt" / "ranges" / "amax.py"
    module.write_text(module.read_text() + "\n\n" + planted)

    done = lint(scratch)

    assert done.returncode == 1
    assert "pytest_trt.ranges is not allowed to import" in done.stdout


def test_a_circle_in_a_room_breaks_the_contract(scratch: Path) -> None:
    module = scratch / "pytest_trt" / "ranges" / "amax.py"
    module.write_text(module.read_text() + "\n\nfrom pytest_trt.ranges.files import read_ranges\n")

    done = lint(scratch)

    assert done.returncode == 1
    assert "pytest_trt.ranges" in done.stdout


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_a_room_names_its_public_modules_and_no_others(room: Path) -> None:
    if room.name == "plugin":
        pytest.skip("the plugin's own names are pytest's: hooks and fixtures")
    modules = {path.stem for path in room.glob("*.py") if path.name != "__init__.py"}
    folders = {path.parent.name for path in room.glob("*/__init__.py")}

    assert sorted(importlib.import_module(name_of(room)).__all__) == sorted(
        name for name in modules | folders if not name.startswith("_")
    )


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_what_begins_with_an_underscore_is_imported_in_its_own_room_alone(module: Path) -> None:
    own = name_of(module).split(".")

    for name in imports_of(module):
        parts = name.split(".")
        for depth, part in enumerate(parts):
            if part.startswith("_"):
                assert own[:depth] == parts[:depth], f"{name_of(module)} imports {name}"


def test_a_public_module_is_used_outside_its_room() -> None:
    used = {name for path in MODULES for name in imports_of(path) if is_foreign(name, name_of(path))}
    opened_by_name = {
        *backend._MODULES.values(),
        *record_file._MODULES.values(),
        *("pytest_trt.cli.main", "pytest_trt.plugin.fixtures", "pytest_trt.plugin.hooks"),
    }
    named = {name_of(path) for path in MODULES if not any(part.startswith("_") for part in path.parts[-3:])}

    shown = {name for name in named - used - opened_by_name if name.count(".") > 1}

    assert shown == public_homes() - used - opened_by_name


def is_foreign(name: str, importer: str) -> bool:
    room = name.rpartition(".")[0]
    return not importer.startswith(f"{room}.")


def public_homes() -> set[str]:
    """The modules that ``pytest_trt`` itself hands names of."""
    return {name for name in imports_of(PACKAGE / "__init__.py") if name.count(".") > 1}


def test_there_are_at_most_206_modules_and_five_in_the_root() -> None:
    everywhere = list(PACKAGE.rglob("*.py"))

    assert len(everywhere) <= 206
    assert sorted(path.stem for path in PACKAGE.glob("*.py")) == ["__init__", "__main__", "errors", "gate", "precision"]
