from __future__ import annotations

from typing import TYPE_CHECKING

import networks
import numpy as np
import pytest
import scipy.special
import scipy.stats  # noqa: F401 - as are those below

# pytester forgets what its runs import: what is imported here stays the same module for all of them
import pytest_trt.by_hand
import pytest_trt.create
import pytest_trt.data_sets
import pytest_trt.latency.keeper
import pytest_trt.parametrize
import pytest_trt.report.record
import pytest_trt.report.terminal
import pytest_trt.run  # noqa: F401
from pytest_trt.case import Case
from pytest_trt.create import update

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _outside_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goldens are written by the tests' own runs, in their own folders."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)


@pytest.fixture
def project(pytester: pytest.Pytester) -> Path:
    """A folder with net.onnx, calibration.npz and a trt.toml with the case net."""
    networks.save(networks.convolutional(), pytester.path / "net.onnx")
    np.savez(pytester.path / "calibration.npz", x=networks.images(32, seed=2))
    (pytester.path / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\ncalibration = "calibration.npz"\n')
    return pytester.path


@pytest.fixture
def golden(project: Path, pytester: pytest.Pytester) -> Path:
    """The same project with its golden made; the golden's path."""
    assert pytester.runpytest("--trt-update-golden").ret == 0
    return project / "golden" / "net.safetensors"


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A case of net.onnx in its own folder, its golden made."""
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    np.savez(tmp_path / "calibration.npz", x=networks.images(64, seed=2))
    made = Case(onnx="net.onnx", calibration="calibration.npz", base=tmp_path, where="trt.toml")
    update(made, tmp_path / "golden")
    return made
