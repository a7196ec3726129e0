"""The zoo of defects: its peers' rules, and a few specimens of one network through the gate."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from places import ROOT

from benchmarks.zoo.defects import DEFECTS
from benchmarks.zoo.measure import measure
from benchmarks.zoo.network import CHOSEN, REPORTED, example
from benchmarks.zoo.peers import accepted_by
from benchmarks.zoo.twins import TWINS

if TYPE_CHECKING:
    from pathlib import Path

CAUGHT = ("trtexec's placeholders", "zeroed class", "lost bias", "overflow in fp16", "missing golden", "stale golden")


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CI", raising=False)
        example(folder)
    return folder


def test_the_zoo_is_large_enough_and_no_network_is_in_both_halves() -> None:
    assert len({defect.name for defect in DEFECTS}) >= 60
    assert len(TWINS) >= 60
    assert {specimen.network for specimen in (*DEFECTS, *TWINS)} == {*CHOSEN, *REPORTED}
    assert not set(CHOSEN) & set(REPORTED)


@pytest.mark.parametrize("name", CAUGHT)
def test_a_planted_defect_is_caught(name: str, networks: Path) -> None:
    [specimen, *_] = [defect for defect in DEFECTS if (defect.name, defect.network) == (name, "digits")]

    assert measure(specimen, networks)["verdict"] in ("failed", "error")


@pytest.mark.parametrize("name", ["fp16", "int8, entropy", "int8 file", "int8, a calibration cache"])
def test_a_healthy_twin_passes(name: str, networks: Path) -> None:
    [specimen] = [twin for twin in TWINS if (twin.name, twin.network) == (name, "digits")]

    assert measure(specimen, networks)["verdict"] == "passed"


def test_each_peer_judges_by_its_own_defaults() -> None:
    expected = {"y": np.array([1.0, -2.0, 0.0], np.float32)}

    def accepting(error: float) -> list[str]:
        actual = {"y": expected["y"] + np.float32(error)}
        return [peer for peer, accepted in accepted_by(actual, expected).items() if accepted]

    assert len(accepting(1e-6)) == 5
    assert accepting(5e-4) == ["np.allclose, 1e-3", "cosine > 0.99"]
    assert accepting(1e-2) == ["cosine > 0.99"]
    assert accepting(float("nan")) == accepting(5.0) == []


def test_the_tables_of_the_zoo_are_those_of_its_results() -> None:
    page = (ROOT / "docs" / "zoo.md").read_text()
    results = ROOT / "benchmarks" / "results" / "zoo-cpu.json"

    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.zoo", "--table", results],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )

    assert len(json.loads(results.read_text())["rows"]) == len(DEFECTS) + len(TWINS)
    assert told.stdout in page
