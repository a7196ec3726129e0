"""A real GPU and TensorRT, where there is one.

Tests pass ``tactic_sources = none`` and a low optimization level: neither changes what is tested, and building is most
of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest

from pytest_trt.backends.backend import choose
from pytest_trt.backends.build_options import merged, read_build_options
from pytest_trt.backends.recipe import Recipe, sampled
from pytest_trt.lowering.lowering import at_opset
from pytest_trt.model.model import Model
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

FAST = {"tactic_sources": (), "optimization_level": 1}


WORDS = ["--trt-backend=tensorrt", "--trt-build=tactic_sources=none", "--trt-build=optimization_level=1"]


def why_not() -> str:
    try:
        import tensorrt  # noqa: F401
        from cuda.bindings import runtime
    except ImportError as error:
        return str(error)
    error, count = runtime.cudaGetDeviceCount()
    return "" if not int(error) and count else f"no GPU can be seen ({getattr(error, 'name', error)})"


WHY_NOT = why_not()


def backend() -> Any:
    return choose("tensorrt")


@pytest.fixture
def small(pytester: pytest.Pytester) -> Path:
    """A project with net.onnx, its calibration and its golden."""
    networks.save(networks.convolutional(), pytester.path / "net.onnx")
    np.savez(pytester.path / "calibration.npz", x=networks.images(32, seed=2))
    (pytester.path / "trt.toml").write_text(
        '[[model]]\nonnx = "net.onnx"\ncalibration = "calibration.npz"\nbuild = { honoured = 0 }\n'
    )
    assert pytester.runpytest("--trt-update-golden").ret == 0
    return pytester.path


def built(proto: onnx.ModelProto, precision: str = "fp32", feeds: Any = None, **told: Any) -> Any:
    """An engine of a network, its profile from the feeds."""
    asked = Precision.parse(precision)
    model = at_opset(Model(proto, "network"), asked)
    runs = tuple(feeds or ())
    options = merged(FAST, read_build_options(told, "build"))
    calibration = sampled(model, lambda _: list(runs), "feeds")
    return backend().build(Recipe(model, asked, calibration, feeds=runs, options=options))
