"""The page on the shape of the code: short, its drawing has every room, and its recipe for a rule makes a finding."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from fences import ROOT, blocks_of
from prepared import project

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "docs/architecture.md"


def test_the_page_is_of_one_page() -> None:
    assert len((ROOT / PAGE).read_text(encoding="utf-8").split()) <= 500


def test_the_drawing_and_the_order_name_every_room() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    [drawing] = [block.text for block in blocks_of(PAGE) if block.language == "mermaid"]
    order = text.partition("From the ground up: ")[2].partition(".")[0]
    rooms = {folder.parent.name for folder in (ROOT / "pytest_trt").glob("*/__init__.py")}

    assert rooms == set(re.split(r",\s+", order)) - {"errors", "precision", "gate"}
    assert [room for room in sorted(rooms) if not re.search(rf"\b{room}\b", drawing)] == []


def test_the_recipe_for_a_rule_makes_a_finding(tmp_path: Path) -> None:
    scratch, digits = tmp_path / "scratch", tmp_path / "digits"
    shutil.copytree(ROOT / "pytest_trt", scratch / "pytest_trt", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "docs" / "findings", scratch / "docs" / "findings")
    digits.mkdir()
    project(digits)
    [before] = judged(digits, scratch)
    near = f"tolerance.fp16 = {{ rel_rms = {before['outputs']['logits']['error'] / 0.95} }}\n"

    for block in recipe("Add a rule"):
        apply(block, scratch)
    [without], [after] = judged(digits, ROOT, near), judged(digits, scratch, near)

    assert codes(after) == [*codes(without), "TRT308"]
    assert after["verdict"] == "passed"
    assert "## TRT308" in (scratch / "docs" / "findings" / "TRT3xx.md").read_text(encoding="utf-8")


def recipe(title: str) -> list[str]:
    """The changes that a recipe of the page makes, in its order."""
    section = (ROOT / PAGE).read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = [block.text for block in blocks_of(PAGE, section) if block.language == "diff"]
    assert found
    return found


def apply(change: str, root: Path) -> None:
    """Make a change as the page writes it: the file, then lines that stay, go (``-``) and come (``+``)."""
    name, *lines = change.splitlines()
    assert name.startswith("--- ")
    assert {line[:1] for line in lines} <= {" ", "-", "+"}
    file = root / name.removeprefix("--- ")
    text = file.read_text(encoding="utf-8")
    old, new = ("".join(f"{line[1:]}\n" for line in lines if line[0] in kinds) for kinds in (" -", " +"))
    assert text.count(old) == 1, f"{name} does not hold once:\n{old}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def judged(folder: Path, package: Path, added: str = "") -> list[dict[str, Any]]:
    """The results of a run in a process of its own, with the package that lies in a folder."""
    told = (folder / "trt.toml").read_text(encoding="utf-8")
    (folder / "trt.toml").write_text(told + added, encoding="utf-8")
    words = ["-m", "pytest", "-q", "--trt-precision=fp16", "--trt-report=run.json"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        check=False,
    )
    (folder / "trt.toml").write_text(told, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    results: list[dict[str, Any]] = json.loads((folder / "run.json").read_text(encoding="utf-8"))["results"]
    return results


def codes(result: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in result["findings"]]


@pytest.mark.parametrize("change", ["--- a.txt\n one\n+two\n", "--- a.txt\n three\n+two\n"])
def test_a_change_that_does_not_fit_its_file_is_refused(change: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\none\n")

    with pytest.raises(AssertionError, match="does not hold once"):
        apply(change, tmp_path)
