"""Engines of TensorRT at work, on its fakes: shapes, dtypes, arrays on the GPU, and what stays behind."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import networks
import numpy as np
import onnx
import pytest
from building import FEEDS, backend, exact, recipe
from fakes.tensorrt import RELEASES, install
from onnx import TensorProto, helper

from pytest_trt.backends.recipe import Span
from pytest_trt.errors import BackendError, DataError


@pytest.mark.parametrize("release", RELEASES)
def test_of_several_profiles_the_one_that_covers_the_shapes_is_taken(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, release)
    spans = [Span((n, 2, 6, 6), (n, 2, 6, 6), (m, 2, 6, 6)) for n, m in ((1, 4), (16, 32))]
    engine = backend(release).build(replace(recipe(), profiles=tuple({"x": span} for span in spans)))

    for size in (32, 2, 16):
        feeds = {"x": networks.images(size)}
        assert np.allclose(engine.run(feeds)["logits"], exact(networks.convolutional(), feeds)["logits"], atol=1e-5)
    with pytest.raises(BackendError, match=r"no optimization profile.*\(10, 2, 6, 6\).*Widen the case's profiles"):
        engine.run({"x": networks.images(10)})


@pytest.mark.parametrize("release", RELEASES)
def test_whole_numbers_go_in_and_come_out_in_the_models_own_dtypes(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, release)
    proto = networks.embedding()
    feeds: dict[str, np.ndarray] = {"ids": np.ones((4, 5), np.int64), "mask": np.ones((4, 5), np.float32)}

    outputs = backend(release).build(replace(recipe(proto=proto), feeds=(feeds,))).run(feeds)

    for name, array in exact(proto, feeds).items():
        assert outputs[name].dtype == array.dtype
        assert np.allclose(outputs[name], array, atol=1e-5)


def whole_number_network() -> onnx.ModelProto:
    nodes = [helper.make_node("Cast", ["n"], ["f"], to=1), helper.make_node("Mul", ["f", "two"], ["y"])]
    shapes = {"n": (TensorProto.INT64, [2])}, {"y": (TensorProto.FLOAT, [2])}
    return networks.model(nodes, *shapes, {"two": np.float32(2)})


def test_a_number_that_does_not_fit_the_engines_int32_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")
    feeds = {"n": np.array([1, 2**40], np.int64)}
    engine = backend("8.6").build(replace(recipe(proto=whole_number_network()), feeds=(feeds,)))

    with pytest.raises(DataError, match="do not fit the engine's int32"):
        engine.run(feeds)


@pytest.mark.parametrize("release", RELEASES)
def test_an_output_whose_shape_depends_on_the_data_has_the_shape_that_it_came_to(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, release, data_dependent={"where"})
    nodes = [helper.make_node("NonZero", ["x"], ["where"]), helper.make_node("Mul", ["x", "x"], ["y"])]
    proto = networks.model(
        nodes,
        {"x": (TensorProto.FLOAT, [3, 4])},
        {"where": (TensorProto.INT64, [2, "found"]), "y": (TensorProto.FLOAT, [3, 4])},
    )
    engine = backend(release).build(replace(recipe(proto=proto), feeds=()))

    for count in (5, 12, 0):
        x = np.zeros(12, np.float32)
        x[:count] = 1
        found = engine.run({"x": x.reshape(3, 4)})["where"]
        assert np.array_equal(found, np.array(np.nonzero(x.reshape(3, 4))))


def test_a_run_leaves_nothing_on_the_gpu_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cuda = install(monkeypatch, "10.16")
    engine = backend("10.16").build(recipe())
    engine.run(FEEDS)
    before = cuda._device.allocated

    for _ in range(3):
        engine.run(FEEDS)

    assert cuda._device.allocated == before
    del engine
    gc.collect()
    assert cuda._device.allocated == 0


class OnGpu:
    """An array of another library on the fake's GPU."""

    def __init__(self, cuda: Any, array: np.ndarray, strides: tuple[int, ...] | None = None) -> None:
        _, self.address = cuda.cudaMalloc(array.nbytes)
        cuda.cudaMemcpy(self.address, array, array.nbytes, cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (self.address, False),
            "version": 3,
            "strides": strides,
        }


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuda-core's view, which can't be had beside a fake CUDA, read off the interface itself."""
    from types import SimpleNamespace

    from pytest_trt.backends import cuda

    def view(value: Any, what: str) -> Any:
        told = value.__cuda_array_interface__
        return SimpleNamespace(
            ptr=told["data"][0], shape=told["shape"], strides=told["strides"], dtype=np.dtype(told["typestr"])
        )

    monkeypatch.setattr(cuda, "_strided", view)


@pytest.mark.usefixtures("views")
def test_an_array_on_the_gpu_is_read_where_it_lies_and_outputs_can_stay_there(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cuda = install(monkeypatch, "10.16")
    engine = backend("10.16").build(recipe())
    x = OnGpu(cuda, FEEDS["x"])
    copied = cuda._device.bytes_to_device

    kept = engine.run({"x": x}, on_device=True)["logits"]
    outputs = engine.run({"x": x})["logits"]

    assert cuda._device.bytes_to_device == copied
    assert (kept.shape, kept.__cuda_array_interface__["typestr"]) == ((8, 3), "<f4")
    assert np.array_equal(outputs, engine.run(FEEDS)["logits"])


@pytest.mark.usefixtures("views")
@pytest.mark.parametrize(
    ("dtype", "strides", "words"),
    [("float32", (3, 1, 1, 1), "not C-contiguous"), ("float16", None, "the engine reads it as float32")],
)
def test_an_array_on_the_gpu_that_the_engine_can_not_read_is_refused(
    dtype: str, strides: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cuda = install(monkeypatch, "10.16")
    engine = backend("10.16").build(recipe())

    with pytest.raises((DataError, BackendError), match=words):
        engine.run({"x": OnGpu(cuda, FEEDS["x"].astype(dtype), strides)})


@pytest.mark.usefixtures("views")
def test_arrays_on_the_gpu_of_other_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cuda = install(monkeypatch, "10.16")

    with pytest.raises(DataError, match=r"inputs \['z'\] were given, and \['x'\] are taken"):
        backend("10.16").build(recipe()).run({"z": OnGpu(cuda, FEEDS["x"])})


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"no_context": True}, "no execution context can be made"),
        ({"execute_fails": True}, "the engine does not run"),
    ],
)
def test_an_engine_that_can_not_run_is_told_plainly(
    faults: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16", **faults)

    with pytest.raises(BackendError, match=words):
        backend("10.16").build(recipe()).run(FEEDS)


def test_inputs_without_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16")

    with pytest.raises(DataError, match="is no mapping"):
        backend("10.16").build(recipe()).run([FEEDS["x"]])  # type: ignore[arg-type]  # that is what is refused


@pytest.mark.parametrize("value", [None, [[1.0], [1.0, 2.0]], "text"])
def test_an_input_that_is_no_array_is_refused(value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16")

    with pytest.raises(DataError):
        backend("10.16").build(recipe()).run({"x": value})


def test_several_runs_do_not_stay_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16")

    with pytest.raises(DataError, match="are 3 runs, and on_device takes one"):
        backend("10.16").build(replace(recipe(), batch=3)).run(FEEDS, on_device=True)


@pytest.mark.usefixtures("views")
def test_an_array_on_the_gpu_of_several_runs_is_refused_with_what_one_run_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, cuda = install(monkeypatch, "10.16")
    engine = backend("10.16").build(recipe(proto=networks.convolutional(batch=2)))

    with pytest.raises(DataError, match=r"has shape \(8, 2, 6, 6\), and one run takes .*pass one run at a time"):
        engine.run({"x": OnGpu(cuda, FEEDS["x"])})


def test_streams_go_with_their_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cuda = install(monkeypatch, "10.16")

    for _ in range(3):
        backend("10.16").build(recipe()).run(FEEDS)
    gc.collect()

    assert not cuda._device.open_streams


def test_the_gpu_that_was_current_is_so_again_and_each_engine_runs_on_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, cuda = install(monkeypatch, "10.16", {"device_count": 2})
    calls: list[int] = []
    set_device = cuda.cudaSetDevice

    def noted(index: int) -> Any:
        calls.append(index)
        return set_device(index)

    monkeypatch.setattr(cuda, "cudaSetDevice", noted)
    engine = backend("10.16").build(recipe(device=1))
    assert cuda.cudaGetDevice()[1] == 0
    calls.clear()

    engine.run(FEEDS)

    assert calls == [1, 0]
