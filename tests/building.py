"""What the tests of the TensorRT backend build, and what its fake remembers of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks

from pytest_trt.backends.build_options import merged, read_build_options
from pytest_trt.backends.recipe import Recipe, sampled
from pytest_trt.backends.tensorrt.backend import TensorrtBackend, open_backend
from pytest_trt.lowering.lowering import at_opset, lower
from pytest_trt.model.graph import float_activations
from pytest_trt.model.model import Model
from pytest_trt.model.onnx_session import open_session, run
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    import numpy as np
    import onnx

WEAK = ("8.6", "10.16")
FEEDS = {"x": networks.images(8)}


def backend(release: str) -> TensorrtBackend:
    return open_backend("tensorrt-rtx" if release.startswith("rtx") else "tensorrt")


def recipe(precision: str = "fp32", proto: onnx.ModelProto | None = None, **told: Any) -> Recipe:
    asked = Precision.parse(precision)
    model = at_opset(Model(proto or networks.convolutional(), "net.onnx"), asked)
    options = merged(read_build_options(told, "build"))
    return Recipe(model, asked, sampled(model, lambda _: [FEEDS], "samples"), feeds=(FEEDS,), options=options)


def holding_int8() -> Model:
    """The network as a file that holds int8 and its scales."""
    plain = recipe("int8")
    assert plain.calibration is not None
    return lower(plain.model, "int8", plain.calibration.ranges(float_activations(plain.model.proto)))


def exact(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return run(open_session(proto, "net"), Model(proto, "net"), feeds)


def header(trt: Any) -> dict[str, Any]:
    return dict(trt._world.plans[-1])


def built_times(trt: Any) -> int:
    return len(trt._world.plans)
