"""Pytest runs that time a small network: their words, their records, their baseline."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from pytest_trt.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


QUICK = ("warmup_s=0", "least_s=0", "most_s=0.02")
RECORD = ("--trt-latency=record", "--trt-store=store", *(f"--trt-timing={word}" for word in QUICK))
GATE = ("--trt-latency=gate", *RECORD[1:], "--trt-timing=pairs=10")


def benchmarks(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["benchmarks"]
    return found


def results(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["results"]
    return found


def promote(pytester: pytest.Pytester, *words: str) -> None:
    """Record a run and make it the baseline."""
    pytester.runpytest(*RECORD).assert_outcomes(passed=1)
    pytester.path.joinpath("store").chmod(0o700)
    done = CliRunner().invoke(main, ["baseline", "promote", "0001", "--store", "store", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
