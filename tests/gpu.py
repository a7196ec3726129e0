"""The same tests on a fake of TensorRT 8.6, wherever they run, and on a real GPU and TensorRT, where there is one.

Engines are built with ``tactic_sources = none`` and a low optimization level: neither changes what is tested, and
building is most of the time.

What can't be had from the fake runs on the GPU alone, by ``on_gpu``:

- arrays of torch, cupy and pycuda on a GPU: those libraries want a GPU of their own; all of test_gpu_arrays.py but one;
- what kernels make of numbers: TF32 in an fp32 engine (the fake computes in fp32 what is asked for in TF32);
- what the builder finds by itself: weights that fp16 loses, a workspace too small for any tactic;
- a plan whose bytes are changed so that another GPU is named: the fake tells such a plan by its checksum as damaged;
- a machine whose GPUs are hidden, which takes a process of its own, where there is no fake.

The GPU tests of torch and of onnxruntime's providers (test_backend_torch.py, test_backend_onnxruntime_gpu.py) run
those libraries' own kernels, and are no tests of ``tensorrt``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import networks
import numpy as np
import pytest
from fakes.tensorrt import install

from pytest_trt.backends.build_options import merged, read_build_options
from pytest_trt.backends.recipe import Recipe, sampled
from pytest_trt.backends.tensorrt.backend import TensorrtBackend, TensorrtEngine, open_backend
from pytest_trt.lowering.lowering import at_opset
from pytest_trt.model.model import Model
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import onnx

    from pytest_trt.model.feeds import Arrays

Test = TypeVar("Test", bound="Callable[..., None]")

FAST = {"tactic_sources": (), "optimization_level": 1}


WORDS = ["--trt-backend=tensorrt", "--trt-build=tactic_sources=none", "--trt-build=optimization_level=1"]

# The fake's GPU has 8 GiB; it takes 40 us for an inference, and copies 10 GB in a second.
FAKE = {"out_of_memory_above": 8 << 30, "inference_s": 4e-5, "byte_s": 1e-10}


def why_not() -> str:
    try:
        import tensorrt  # noqa: F401
        from cuda.bindings import runtime
    except ImportError as missing:
        return str(missing)
    error, count = runtime.cudaGetDeviceCount()
    return "" if not int(error) and count else f"no GPU can be seen ({getattr(error, 'name', error)})"


WHY_NOT = why_not()

_GPU = pytest.param(
    "gpu", marks=[pytest.mark.gpu, pytest.mark.skipif(bool(WHY_NOT), reason=f"needs TensorRT and a GPU: {WHY_NOT}")]
)


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest) -> Iterator[str]:
    """What ``tensorrt`` is: the fake of 8.6, or the real one on the GPU that is here."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "fake":
            install(patch, "8.6", FAKE)
        yield request.param


def on_both(test: Test) -> Test:
    """On the fake, and on the GPU where there is one."""
    return pytest.mark.usefixtures("machine")(pytest.mark.parametrize("machine", ["fake", _GPU], indirect=True)(test))


def on_gpu(test: Test) -> Test:
    """On the GPU alone; the docstring of this module tells why."""
    return pytest.mark.usefixtures("machine")(pytest.mark.parametrize("machine", [_GPU], indirect=True)(test))


def backend() -> TensorrtBackend:
    return open_backend()


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


def built(proto: onnx.ModelProto, precision: str = "fp32", feeds: Iterable[Arrays] = (), **told: Any) -> TensorrtEngine:
    """An engine of a network, its profile from the feeds."""
    asked = Precision.parse(precision)
    model = at_opset(Model(proto, "network"), asked)
    runs = tuple(feeds)
    options = merged(FAST, read_build_options(told, "build"))
    calibration = sampled(model, lambda _: list(runs), "feeds")
    return backend().build(Recipe(model, asked, calibration, feeds=runs, options=options))
