"""A test's own runs of pytest behave the same where the test itself is run by one of xdist's workers."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True)
def _in_a_worker() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_XDIST_WORKER", "gw0")
        patch.setenv("PYTEST_ADDOPTS", "-n 2")
        yield


@pytest.mark.parametrize("apart", [False, True])
def test_a_benchmark_is_timed_and_nothing_is_told_of_xdist(pytester: pytest.Pytester, apart: bool) -> None:
    pytester.makepyfile("def test_it(benchmark):\n    benchmark.pedantic(int, rounds=3)\n")
    run = pytester.runpytest_subprocess if apart else pytester.runpytest_inprocess

    result = run("--benchmark-json=run.json")

    result.assert_outcomes(passed=1)
    assert len(json.loads((pytester.path / "run.json").read_text())["benchmarks"][0]["stats"]["data"]) == 3
    assert "xdist plugin is active" not in result.stdout.str() + result.stderr.str()


def test_the_environment_says_nothing_of_a_worker() -> None:
    assert not [name for name in os.environ if name.startswith("PYTEST_XDIST")]
    assert "PYTEST_ADDOPTS" not in os.environ
