"""The TensorRT backend against a fake of each release, which has no name that the real one lacks."""

from __future__ import annotations

import gc
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest
from fakes.tensorrt import RELEASES, install
from onnx import TensorProto, helper

from pytest_trt.backends.backend import choose
from pytest_trt.backends.build_options import merged, read_build_options
from pytest_trt.backends.recipe import Calibration, Recipe, Span, given, sampled
from pytest_trt.comparison.comparison import compare
from pytest_trt.errors import BackendError, CaseError, DataError, LoweringError, ModelError
from pytest_trt.lowering.lowering import at_opset, lower
from pytest_trt.model.graph import float_activations
from pytest_trt.model.model import Model
from pytest_trt.model.onnx_session import open_session, run
from pytest_trt.precision import Precision
from pytest_trt.ranges.amax import Ranges

WEAK = ("8.6", "10.16")
FEEDS = {"x": networks.images(8)}
WITHIN = {"fp32": 1e-5, "tf32": 1e-5, "fp16": 1e-2, "bf16": 1e-1, "int8": 1e-1}


def backend(release: str) -> Any:
    return choose("tensorrt-rtx" if release.startswith("rtx") else "tensorrt")


def recipe(precision: str = "fp32", proto: onnx.ModelProto | None = None, **told: Any) -> Recipe:
    asked = Precision.parse(precision)
    model = at_opset(Model(proto or networks.convolutional(), "net.onnx"), asked)
    options = merged(read_build_options(told, "build"))
    return Recipe(model, asked, sampled(model, lambda _: [FEEDS], "samples"), feeds=(FEEDS,), options=options)


def exact(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return run(open_session(proto, "net"), Model(proto, "net"), feeds)


def header(trt: Any) -> dict[str, Any]:
    return dict(trt._world.plans[-1])


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("release", RELEASES)
def test_each_release_builds_and_runs_what_it_has(
    release: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, release)
    if (release, precision) == ("8.6", "bf16"):
        with pytest.raises(BackendError, match="has no bf16: TensorRT 10 or later has it; fp16 is the nearest"):
            backend(release).build(recipe(precision))
        return
    if precision == "bf16":
        assert backend(release).plan(recipe(precision)).data  # the fake computes no bf16
        return

    engine = backend(release).build(recipe(precision))
    outputs = engine.run(FEEDS)["logits"]

    assert compare(outputs, exact(networks.convolutional(), FEEDS)["logits"]).rel_rms < WITHIN[precision]
    assert [layer.precision for layer in engine.layers() if layer.computes] == [precision] * 3
    assert engine.facts["typing"] == ("weak" if release == "8.6" else "strong")
    assert engine.facts["gpu"] == "FAKE GPU"


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "int8"])
@pytest.mark.parametrize("typing", ["weak", "strong"])
@pytest.mark.parametrize("release", WEAK)
def test_both_typings_build_where_the_release_has_both(
    release: str, typing: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, release)

    engine = backend(release).build(recipe(precision, typing=typing))

    assert engine.facts["typing"] == typing
    assert compare(engine.run(FEEDS)["logits"], exact(networks.convolutional(), FEEDS)["logits"]).rel_rms < 0.1


@pytest.mark.parametrize("release", ["11.4", "rtx-1.7"])
def test_weak_typing_is_refused_where_its_flags_are_gone(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, release)

    with pytest.raises(BackendError, match="has only strongly typed networks"):
        backend(release).build(recipe("fp16", typing="weak"))


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "int8"])
def test_tf32_is_on_for_tf32_and_for_nothing_else(
    release: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch, release)

    backend(release).plan(recipe(precision))

    assert ("TF32" in header(trt)["flags"]) == (precision == "tf32")


@pytest.mark.parametrize("release", ["10.16", "11.4", "rtx-1.7"])
def test_a_strongly_typed_network_takes_no_precision_flag(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, release)

    backend(release).plan(recipe("fp16"))

    assert header(trt)["strongly_typed"]
    assert not {"FP16", "INT8", "BF16"} & set(header(trt)["flags"])


def test_weak_int8_sets_the_range_of_every_float_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "8.6")
    wanted = recipe("int8")

    backend("8.6").plan(wanted)

    ranges = header(trt)["ranges"]
    assert set(ranges) == set(float_activations(wanted.model.proto))
    low, high = ranges["x"]
    assert high == -low == pytest.approx(np.abs(FEEDS["x"]).max())


def test_weak_int8_takes_ranges_that_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "8.6")
    plain = recipe("int8")
    amax = dict.fromkeys(float_activations(plain.model.proto), 3.5)

    backend("8.6").plan(replace(plain, calibration=given(plain.model, Ranges(amax, "ranges.txt"))))

    assert set(map(tuple, header(trt)["ranges"].values())) == {(-3.5, 3.5)}


@pytest.mark.parametrize("typing", ["weak", "strong"])
def test_notes_on_ranges_that_were_given_are_warnings_of_the_plan_also_from_the_store(
    typing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "8.6")
    plain = recipe("int8", typing=typing)
    ranges = Ranges(dict.fromkeys(float_activations(plain.model.proto), 3.5), "ranges.txt", notes=("it is odd.",))
    noted = replace(plain, calibration=given(plain.model, ranges), store=tmp_path)

    assert [backend("8.6").plan(noted).warnings.count("it is odd.") for _ in range(2)] == [1, 1]


def test_a_ranges_file_without_a_tensor_that_weak_int8_needs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")
    plain = recipe("int8")

    with pytest.raises(LoweringError, match="tensors have no range"):
        backend("8.6").plan(replace(plain, calibration=given(plain.model, Ranges({"x": 1.0}, "ranges.txt"))))


def test_a_tensor_that_is_always_zero_gets_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "8.6")
    silent = recipe("int8", networks.with_weight(networks.convolutional(), "w1", lambda w: 0 * w))

    backend("8.6").plan(silent)

    assert all(high > 0 for _, high in header(trt)["ranges"].values())


@pytest.mark.parametrize("release", WEAK)
@pytest.mark.parametrize("calibrator", ["entropy", "minmax"])
def test_tensorrts_calibrators_get_every_sample_in_batches_of_one_size(
    release: str, calibrator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch, release)
    plain = recipe("int8", typing="weak", calibrator=calibrator)
    samples = [{"x": networks.images(3, seed=n)} for n in range(4)]

    backend(release).plan(replace(plain, calibration=sampled(plain.model, lambda _: samples, "samples")))

    seen = header(trt)["calibration"]
    assert seen["batch_size"] == 12
    assert seen["sum"] == pytest.approx(sum(float(part["x"].sum()) for part in samples), rel=1e-4)


def test_the_last_batch_is_filled_up_with_its_own_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "8.6")
    plain = recipe("int8", calibrator="entropy")
    samples = {"x": networks.images(5)}

    backend("8.6").plan(replace(plain, batch=3, calibration=sampled(plain.model, lambda _: [samples], "s")))

    seen = header(trt)["calibration"]
    assert (seen["batch_size"], seen["batches"]) == (3, 2)
    assert seen["sum"] == pytest.approx(float(samples["x"].sum() + samples["x"][3].sum()), rel=1e-4)


def test_a_calibration_cache_is_written_once_and_read_from_then_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt, _ = install(monkeypatch, "8.6")
    told = recipe("int8", calibrator="entropy", calibration_cache=str(tmp_path / "net.cache"))

    backend("8.6").plan(told)
    written = (tmp_path / "net.cache").read_bytes()
    backend("8.6").plan(replace(told, calibration=None))

    assert header(trt)["calibration"]["cache"]
    assert (tmp_path / "net.cache").read_bytes() == written


def test_a_calibrator_without_samples_or_cache_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")

    with pytest.raises(CaseError, match="needs samples"):
        backend("8.6").plan(replace(recipe("int8", calibrator="entropy"), calibration=None))


def test_a_nan_among_the_calibrators_samples_fails_the_build_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")
    plain = recipe("int8", calibrator="entropy")
    spoiled = {"x": np.full((4, 2, 6, 6), np.nan, np.float32)}

    with pytest.raises(DataError, match="NaN"):
        backend("8.6").plan(replace(plain, calibration=sampled(plain.model, lambda _: [spoiled], "samples")))


def test_samples_that_break_off_while_calibrating_fail_the_build_with_their_own_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, "8.6")
    plain = recipe("int8", calibrator="entropy")
    calls: list[int] = []

    def samples(_: int | None) -> Any:
        calls.append(1)
        yield FEEDS
        if len(calls) > 1:
            raise DataError("the disk is gone")

    with pytest.raises(DataError, match="the disk is gone"):
        backend("8.6").plan(replace(plain, batch=4, calibration=sampled(plain.model, samples, "s")))


@pytest.mark.parametrize("release", WEAK)
def test_int8_with_fp16_for_the_rest_sets_both_flags(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, release)

    backend(release).plan(recipe("int8", typing="weak", fallback="fp16"))

    assert {"INT8", "FP16"} <= set(header(trt)["flags"])


def test_int8_that_nothing_calibrates_fails_in_the_builders_words(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")
    nothing = Calibration(lambda _: Ranges({}), None, "nothing")

    with pytest.raises(BackendError, match=r"builds no engine. TensorRT says:\n.*scal"):
        backend("8.6").plan(replace(recipe("int8"), calibration=nothing))


def test_int8_without_calibration_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")

    with pytest.raises(BackendError, match="give calibration data"):
        backend("8.6").plan(replace(recipe("int8"), calibration=None))


def test_a_file_that_holds_int8_is_built_as_it_is_in_both_typings(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "10.16")
    plain = recipe("int8")
    held = lower(plain.model, "int8", plain.calibration.ranges(float_activations(plain.model.proto)))

    for typing in ("weak", "strong"):
        engine = backend("10.16").build(replace(recipe("model", typing=typing), model=held, calibration=None))
        assert [layer.precision for layer in engine.layers() if layer.computes] == ["int8"] * 3
        assert ("INT8" in header(trt)["flags"]) == (typing == "weak")


def test_what_the_builder_warns_of_is_kept_on_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16", build_warning="21 weights are affected: Detected subnormal FP16 values.")

    assert "21 weights are affected: Detected subnormal FP16 values." in backend("10.16").build(recipe()).warnings


@pytest.mark.parametrize("release", RELEASES)
def test_every_error_of_the_parser_is_told_with_node_operator_and_file(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [
        {"code": "UNSUPPORTED_NODE", "desc": "false", "node": 0, "func": "importModel", "line": 7, "file": "a.cpp"},
        {"code": "INVALID_NODE", "desc": "zero point", "node": 2, "func": "importQ", "line": 8, "file": "b.cpp"},
    ]
    install(monkeypatch, release, parser_errors=errors)

    with pytest.raises(ModelError) as told:
        backend(release).plan(recipe())

    text = str(told.value)
    assert "net.onnx" in text
    assert "2 error(s)" in text
    assert "(Conv), number 0: it has no importer for this operator" in text
    assert "number 2: zero point" in text
    assert "in importQ, b.cpp:8" in text


@pytest.mark.parametrize("release", RELEASES)
def test_a_build_that_fails_says_what_the_logger_heard(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, release, build_error="conv1 has no runners that implement it")

    with pytest.raises(BackendError, match=r"builds no engine\. TensorRT says:\n.*conv1 has no runners"):
        backend(release).plan(recipe())


@pytest.mark.parametrize("release", RELEASES)
def test_a_network_that_parses_to_nothing_is_no_success(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, release)
    empty = Model(onnx.ModelProto(), "empty.onnx")

    with pytest.raises(ModelError, match=r"empty\.onnx: .* makes no network of it"):
        backend(release).plan(replace(recipe(), model=empty, feeds=()))


@pytest.mark.parametrize("release", RELEASES)
def test_every_option_that_a_release_has_reaches_its_builder(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, release)
    told = {
        "workspace": "64M",
        "optimization_level": 4,
        "tactic_sources": "jit_convolutions",
        "hardware_compatibility": "ampere_plus",
        "version_compatible": True,
        "refit": True,
        "sparsity": True,
    }

    backend(release).plan(recipe(**told))

    made = header(trt)
    assert made["pools"]["WORKSPACE"] == 2**26
    assert made["optimization_level"] == 4
    assert made["tactic_sources"] == 1 << int(trt.TacticSource.JIT_CONVOLUTIONS)
    assert made["hardware"] == "AMPERE_PLUS"
    assert {"VERSION_COMPATIBLE", "REFIT", "SPARSE_WEIGHTS"} <= set(made["flags"])
    assert made["verbosity"] == "DETAILED"


def test_tactic_sources_of_none_switch_all_of_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "8.6")

    backend("8.6").plan(recipe(tactic_sources="none"))

    assert header(trt)["tactic_sources"] == 0


@pytest.mark.parametrize(
    ("release", "told", "words"),
    [
        ("11.4", {"tactic_sources": "cublas"}, "has no tactic source CUBLAS: it has EDGE_MASK_CONVOLUTIONS"),
        ("8.6", {"hardware_compatibility": "same_compute_capability"}, "has no hardware compatibility"),
        ("8.6", {"compute_capabilities": "8.9"}, "is TensorRT-RTX's"),
        ("rtx-1.7", {"compute_capabilities": "9.0"}, "has no target 9.0: it has SM"),
        ("10.16", {"dla_core": 0}, "sees 0 on this machine"),
        ("11.4", {"dla_core": 0}, "sees 0 on this machine"),
    ],
)
def test_an_option_that_the_release_or_the_machine_lacks_is_refused_with_what_it_has(
    release: str, told: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, release)

    with pytest.raises(BackendError, match=words):
        backend(release).plan(recipe("fp16", **told))


def test_dla_is_used_with_fallback_to_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "8.6", dla_cores=2)

    backend("8.6").build(recipe("fp16", dla_core=1, gpu_fallback=True))

    assert (header(trt)["device"], header(trt)["dla_core"]) == ("DLA", 1)
    assert "GPU_FALLBACK" in header(trt)["flags"]
    with pytest.raises(BackendError, match="fp16 and int8 only"):
        backend("8.6").plan(recipe("fp32", dla_core=1))


@pytest.mark.parametrize(
    ("precision", "capability", "release", "words"),
    [
        ("tf32", (7, 5), "10.16", "has no tf32 arithmetic.* 8.0 or higher"),
        ("bf16", (7, 5), "11.4", "has no bf16 arithmetic.* 8.0 or higher"),
        ("int8", (6, 0), "8.6", "has no int8 arithmetic"),
    ],
)
def test_a_precision_that_the_gpu_lacks_is_refused_with_one_that_has_it(
    precision: str, capability: tuple[int, int], release: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, release, compute_capability=capability)

    with pytest.raises(BackendError, match=words):
        backend(release).plan(recipe(precision))


def fp8_model() -> Model:
    plain = recipe("int8")
    held = lower(plain.model, "int8", plain.calibration.ranges(float_activations(plain.model.proto))).proto
    for tensor in held.graph.initializer:
        if tensor.data_type == TensorProto.INT8:
            tensor.data_type = TensorProto.FLOAT8E4M3FN
    return Model(held, "fp8.onnx")


def test_fp8_is_refused_on_ampere_with_the_gpus_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16", compute_capability=(8, 6))

    with pytest.raises(BackendError, match=r"has no fp8 arithmetic.*8\.9 or higher \(Ada or Hopper\)"):
        backend("10.16").plan(replace(recipe("model"), model=fp8_model(), calibration=None))


def test_a_dynamic_input_without_anything_that_tells_its_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16")

    with pytest.raises(CaseError, match=r"input 'x' is dynamic, and nothing tells what to build for"):
        backend("10.16").plan(replace(recipe(), feeds=()))


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


def test_a_batch_limit_cuts_the_samples_and_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "10.16")
    engine = backend("10.16").build(replace(recipe(), batch=3))

    outputs = engine.run(FEEDS)["logits"]

    assert outputs.shape == (8, 3)
    assert [shape[0] for shape in header(trt)["profiles"][0]["x"]] == [2, 3, 3]


@pytest.mark.parametrize("release", RELEASES)
def test_whole_numbers_go_in_and_come_out_in_the_models_own_dtypes(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, release)
    proto = networks.embedding()
    specs = Model(proto, "m").inputs
    feeds = {spec.name: np.ones([4 if not isinstance(a, int) else a for a in spec.shape], spec.dtype) for spec in specs}

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


@pytest.mark.parametrize(
    ("cuda_faults", "words"),
    [
        ({"device_count": 0}, "no GPU can be used: no CUDA-capable device is detected"),
        ({"driver_error": 35}, "no GPU can be used: .*[Dd]river"),
        ({"out_of_memory_above": 64}, "bytes of GPU memory can't be had: .*memory"),
    ],
)
def test_a_gpu_that_is_missing_or_full_is_told_plainly(
    cuda_faults: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "10.16", cuda_faults)

    with pytest.raises(BackendError, match=words):
        backend("10.16").build(recipe()).run(FEEDS)


def test_a_gpu_of_a_higher_index_than_there_are_is_told_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16")

    with pytest.raises(BackendError, match=r"GPU 3 was asked .* 1 can be seen"):
        backend("10.16").build(recipe(device=3))


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_a_release_that_is_not_installed_is_told_with_how_to_get_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(__import__("sys").modules, module, None)

    with pytest.raises(BackendError, match=rf'pip install "pytest-trt\[{name}\]"'):
        choose(name)


def prebuilt(release: str, path: Path, proto: onnx.ModelProto | None = None) -> Path:
    path.write_bytes(backend(release).plan(recipe(proto=proto)).data)
    return path


@pytest.mark.parametrize("release", RELEASES)
def test_a_plan_that_was_built_elsewhere_is_loaded_in_place_of_building(
    release: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt, _ = install(monkeypatch, release)
    path = prebuilt(release, tmp_path / "net.plan")
    count = len(trt._world.plans)

    engine = backend(release).build(replace(recipe(), plan=path))

    assert len(trt._world.plans) == count
    assert engine.facts["plan"] == str(path)
    assert np.allclose(engine.run(FEEDS)["logits"], exact(networks.convolutional(), FEEDS)["logits"], atol=1e-5)


def test_a_plan_of_another_model_is_refused_by_its_inputs_and_outputs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "10.16")
    path = prebuilt("10.16", tmp_path / "net.plan", networks.convolutional(classes=4))

    with pytest.raises(BackendError, match=r"is not one of net\.onnx: it has output 'logits' float32\[-1, 4\]"):
        backend("10.16").build(replace(recipe(), plan=path))


def test_a_plan_of_another_gpu_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, "10.16", gpu="OTHER")
    path = prebuilt("10.16", tmp_path / "net.plan")
    monkeypatch.undo()
    install(monkeypatch, "10.16")

    with pytest.raises(BackendError, match=r"can't be loaded by TensorRT 10.* on FAKE GPU"):
        backend("10.16").build(replace(recipe(), plan=path))


def test_a_plan_of_another_release_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, "8.6")
    path = prebuilt("8.6", tmp_path / "net.plan")
    monkeypatch.undo()
    install(monkeypatch, "10.16")

    with pytest.raises(BackendError, match="another release"):
        backend("10.16").build(replace(recipe(), plan=path))


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "garbage"])
def test_a_damaged_plan_is_refused(damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, "10.16")
    path = prebuilt("10.16", tmp_path / "net.plan")
    data = {"missing": b"", "empty": b"", "truncated": path.read_bytes()[:40], "garbage": os.urandom(999)}[damage]
    path.write_bytes(data)
    if damage == "missing":
        path.unlink()

    with pytest.raises(BackendError, match=r"can't be read|is empty|can't be loaded"):
        backend("10.16").build(replace(recipe(), plan=path))


def built_times(trt: Any) -> int:
    return len(trt._world.plans)


def test_the_store_gives_a_plan_back_and_builds_where_anything_differs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt, _ = install(monkeypatch, "10.16", build_warning="careful")
    plain = replace(recipe("fp16"), store=tmp_path / "plans")

    first = backend("10.16").build(plain)
    second = backend("10.16").build(plain)

    assert built_times(trt) == 1
    assert "from_store" not in first.facts
    assert Path(second.facts["from_store"]).parent == tmp_path / "plans"
    assert second.facts["plan_sha256"] == first.facts["plan_sha256"]
    assert second.warnings == first.warnings == ("careful",)
    others = [
        replace(plain, options=merged({"refit": True})),
        replace(plain, options=merged({"typing": "weak"})),
        replace(plain, precision=Precision.FP32),
        replace(plain, precision=Precision.TF32),
        replace(plain, feeds=({"x": networks.images(2)},)),
        replace(plain, model=Model(networks.convolutional(seed=5), "net.onnx")),
    ]
    for count, other in enumerate(others, 2):
        backend("10.16").build(other)
        assert built_times(trt) == count


def test_int8_plans_of_other_ranges_or_samples_are_not_taken_from_the_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt, _ = install(monkeypatch, "8.6")
    for count, (calibrator, seed) in enumerate([("ranges", 1), ("ranges", 2), ("entropy", 1), ("entropy", 2)], 1):
        plain = replace(recipe("int8", calibrator=calibrator), store=tmp_path / "plans")
        samples = {"x": networks.images(8, seed=seed)}
        changed = replace(plain, calibration=sampled(plain.model, lambda _, samples=samples: [samples], "s"))
        for _ in range(2):
            backend("8.6").plan(changed)
        assert built_times(trt) == count


@pytest.mark.parametrize(("name", "capability"), [("OTHER", (9, 0)), ("FAKE GPU", (8, 9))])
def test_the_store_keeps_gpus_apart(
    name: str, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = replace(recipe(), store=tmp_path / "plans")
    install(monkeypatch, "10.16", compute_capability=(9, 0))
    backend("10.16").build(plain)
    monkeypatch.undo()
    trt, _ = install(monkeypatch, "10.16", gpu=name, compute_capability=capability)

    backend("10.16").build(plain)

    assert built_times(trt) == 1


def test_the_store_keeps_releases_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = replace(recipe(), store=tmp_path / "plans")
    install(monkeypatch, "10.16")
    backend("10.16").build(plain)
    monkeypatch.undo()
    trt, _ = install(monkeypatch, "11.4")

    backend("11.4").build(plain)

    assert built_times(trt) == 1


def test_a_damaged_plan_of_the_store_is_built_anew_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt, _ = install(monkeypatch, "10.16")
    plain = replace(recipe(), store=tmp_path / "plans")
    backend("10.16").build(plain)
    (plan,) = (tmp_path / "plans").glob("*.plan")
    plan.write_bytes(plan.read_bytes()[:-1])

    with pytest.warns(UserWarning, match="plan"):
        backend("10.16").build(plain)

    assert built_times(trt) == 2


def test_the_timing_cache_of_the_store_serves_the_next_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trt, _ = install(monkeypatch, "10.16")
    backend("10.16").plan(replace(recipe(), store=tmp_path / "plans"))

    backend("10.16").plan(replace(recipe(workspace="64M"), store=tmp_path / "plans"))

    assert header(trt)["timing_hits"] > 0


def test_a_timing_cache_of_ones_own_is_written_and_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trt, _ = install(monkeypatch, "10.16")
    told = recipe(timing_cache=str(tmp_path / "own.cache"))

    backend("10.16").plan(told)
    assert header(trt)["timing_hits"] == 0
    backend("10.16").plan(told)

    assert header(trt)["timing_hits"] > 0


def test_a_damaged_timing_cache_is_begun_anew_with_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, "10.16")
    (tmp_path / "own.cache").write_bytes(b"damaged")

    with pytest.warns(UserWarning, match=r"own\.cache is damaged"):
        plan = backend("10.16").plan(recipe(timing_cache=str(tmp_path / "own.cache")))

    assert plan.warnings == ()
    assert (tmp_path / "own.cache").read_bytes() != b"damaged"


@pytest.mark.parametrize("release", RELEASES)
def test_a_build_that_is_watched_tells_how_far_it_is(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, release)
    told: list[tuple[str, float | None]] = []

    backend(release).plan(replace(recipe(), progress=lambda phase, share: told.append((phase, share))))

    assert told[0] == ("building net.onnx at fp32", None)
    assert told[-1] == ("", None)
    assert any(share == 1.0 for _, share in told) == (release != "8.6")


def test_a_build_that_is_watched_can_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16")

    def tell(phase: str, share: float | None) -> None:
        if share is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend("10.16").plan(replace(recipe(), progress=tell))


def test_tf32_is_refused_where_the_environment_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")

    with pytest.raises(BackendError, match="NVIDIA_TF32_OVERRIDE=0 forbids it"):
        backend("10.16").build(recipe("tf32"))


def test_a_calibration_cache_is_written_though_the_store_has_a_plan_and_the_next_session_builds_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt, _ = install(monkeypatch, "8.6")
    plain = replace(recipe("int8", calibrator="entropy"), store=tmp_path / "plans")
    caching = replace(plain, options=replace(plain.options, calibration_cache=str(tmp_path / "net.cache")))
    backend("8.6").plan(plain)

    backend("8.6").plan(caching)
    assert (tmp_path / "net.cache").exists()
    backend("8.6").plan(caching)

    assert built_times(trt) == 2


@pytest.mark.parametrize("option", ["timing_cache", "calibration_cache"])
def test_a_cache_that_can_not_be_written_is_told_plainly(
    option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "8.6")
    (tmp_path / "folder").mkdir()

    with pytest.raises(BackendError, match=r"cache .*folder can't be written"):
        backend("8.6").plan(recipe("int8", calibrator="entropy", **{option: str(tmp_path / "folder")}))


def test_ctrl_c_in_any_callback_is_raised_after_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_trt.backends.tensorrt import _log as log

    install(monkeypatch, "10.16", build_warning="careful")

    class Interrupted(list[str]):
        def append(self, _: str) -> None:
            raise KeyboardInterrupt

    plain = log.Heard
    monkeypatch.setattr(log, "Heard", lambda errors, _: plain(errors, Interrupted()))

    with pytest.raises(KeyboardInterrupt):
        backend("10.16").plan(recipe())


def test_ctrl_c_while_building_is_raised_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "10.16")
    build = trt.Builder.build_serialized_network

    def interrupted(builder: Any, network: Any, config: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return build(builder, network, config)

    monkeypatch.setattr(trt.Builder, "build_serialized_network", interrupted)

    with pytest.raises(KeyboardInterrupt):
        backend("10.16").plan(recipe())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_was_raised_in_one_build_does_not_come_out_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_trt.backends.tensorrt._log import caught, guarded

    install(monkeypatch, "10.16")
    with guarded():
        raise ValueError("of somebody else")

    assert backend("10.16").plan(recipe()).data
    assert caught == []


def test_a_progress_line_that_can_not_be_written_stops_no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16")

    def tell(_: str, share: float | None) -> None:
        if share is not None:
            raise OSError

    assert backend("10.16").plan(replace(recipe(), progress=tell)).data


def test_releases_that_call_things_deprecated_break_no_strict_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "rtx-1.7")

    assert backend("rtx-1.7").plan(replace(recipe(), store=tmp_path / "plans")).data


def test_batches_of_another_size_are_another_calibration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trt, _ = install(monkeypatch, "8.6")
    span = Span((1, 2, 6, 6), (4, 2, 6, 6), (16, 2, 6, 6))
    plain = replace(recipe("int8", calibrator="entropy"), store=tmp_path / "plans", profiles=({"x": span},))

    for batch in (2, 4, None):
        backend("8.6").plan(replace(plain, batch=batch))

    assert built_times(trt) == 3


@pytest.mark.parametrize("release", ["10.16", "11.4"])
@pytest.mark.parametrize("told", [{"calibrator": "entropy"}, {"fallback": "fp16"}, {"calibration_cache": "c"}])
def test_what_belongs_to_weak_int8_is_refused_in_strong_typing_and_not_dropped(
    release: str, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, release)

    with pytest.raises(BackendError, match="belong to weak typing"):
        backend(release).plan(recipe("int8", **told))
    assert backend(release).plan(recipe("fp16", **told)).data


def test_a_calibrator_for_a_file_that_holds_its_scales_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")
    plain = recipe("int8")
    held = lower(plain.model, "int8", plain.calibration.ranges(float_activations(plain.model.proto)))

    with pytest.raises(BackendError, match="holds int8 and its scales already"):
        backend("8.6").plan(replace(recipe("model", calibrator="entropy"), model=held, calibration=None))


def test_a_tactic_source_that_is_named_twice_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "10.16")

    backend("10.16").plan(recipe(tactic_sources="jit_convolutions,jit_convolutions"))

    assert header(trt)["tactic_sources"] == 1 << int(trt.TacticSource.JIT_CONVOLUTIONS)


def test_fallback_to_the_gpu_without_a_dla_core_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16")

    with pytest.raises(BackendError, match="name a dla_core"):
        backend("10.16").plan(recipe("fp16", gpu_fallback=True))


def test_dla_goes_by_builder_flags_where_the_release_has_both(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "10.16", dla_cores=1)

    backend("10.16").plan(recipe("fp16", dla_core=0))

    assert not header(trt)["strongly_typed"]
    assert "FP16" in header(trt)["flags"]


def test_values_that_tell_shapes_are_those_of_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_trt.backends.tensorrt._config import _values

    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    shapes = {"x": (TensorProto.FLOAT, [2, 8]), "s": (TensorProto.INT64, [2])}, {"y": (TensorProto.FLOAT, ["a", "b"])}
    feeds = {"x": np.zeros((4, 8), np.float32), "s": np.array([4, 4, 2, 8], np.int64)}
    several = replace(recipe(proto=networks.model(nodes, *shapes)), feeds=(feeds,))

    assert _values("s", several) == Span((2, 4), (4, 4), (4, 8))


def test_inputs_without_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16")

    with pytest.raises(DataError, match="is no mapping"):
        backend("10.16").build(recipe()).run([FEEDS["x"]])


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
    monkeypatch.setattr(cuda, "cudaSetDevice", lambda index: (calls.append(index), set_device(index))[1])
    engine = backend("10.16").build(recipe(device=1))
    assert cuda.cudaGetDevice()[1] == 0
    calls.clear()

    engine.run(FEEDS)

    assert calls == [1, 0]


@pytest.mark.parametrize("samples", [[], [{"x": np.zeros((0, 2, 6, 6), np.float32)}], [{"z": networks.images(4)}]])
@pytest.mark.parametrize("told", [{"calibrator": "entropy"}, {"typing": "strong"}, {}])
def test_samples_that_are_none_or_do_not_fit_are_refused_by_every_road_to_int8(
    samples: list[Any], told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, "8.6")
    plain = recipe("int8", **told)

    with pytest.raises((DataError, CaseError)):
        backend("8.6").plan(replace(plain, calibration=sampled(plain.model, lambda _: samples, "samples")))


def test_rtx_builds_for_the_gpus_that_are_named_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "rtx-1.7", {"device_count": 0})

    plan = backend("rtx-1.7").plan(recipe("fp16", compute_capabilities="8.6,8.9"))

    assert header(trt)["targets"] == ["SM86", "SM89"]
    assert plan.facts["gpu"] is None
    assert plan.facts["compute_capability"] == "8.6,8.9"


def test_a_plugin_library_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trt, _ = install(monkeypatch, "10.16")

    class Registry:
        def load_library(self, _path: str) -> None:
            return None

    monkeypatch.setattr(trt, "get_plugin_registry", Registry)
    (tmp_path / "mine.so").write_bytes(b"")

    with pytest.raises(BackendError, match=r"plugin library .*mine\.so can't be loaded"):
        backend("10.16").plan(recipe(plugins=str(tmp_path / "mine.so")))


def test_an_option_that_the_builder_refuses_in_its_log_alone_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "rtx-1.7")
    listed = trt.IBuilderConfig.hardware_compatibility_level

    def refuse(config: Any, level: Any) -> None:
        config._world.log(config._logger, "ERROR", "setHardwareCompatibilityLevel() is unsupported in TensorRT-RTX.")

    monkeypatch.setattr(trt.IBuilderConfig, "hardware_compatibility_level", property(listed.__get__, refuse))

    with pytest.raises(BackendError, match=r"refuses a build option\. TensorRT says:\n.*is unsupported"):
        backend("rtx-1.7").plan(recipe(hardware_compatibility="ampere_plus"))


def test_rtx_uses_no_timing_cache_and_says_so_where_one_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "rtx-1.7")

    backend("rtx-1.7").plan(replace(recipe(), store=tmp_path / "plans"))

    assert not list((tmp_path / "plans").glob("*.timing"))
    with pytest.raises(BackendError, match="uses no timing cache"):
        backend("rtx-1.7").plan(recipe(timing_cache=str(tmp_path / "own.cache")))


def test_a_gpu_here_and_gpus_elsewhere_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "rtx-1.7")

    with pytest.raises(BackendError, match="leave one out"):
        backend("rtx-1.7").plan(recipe(compute_capabilities="8.9", device=1))


@pytest.mark.parametrize("damage", ["missing", "empty", "folder"])
def test_a_plan_is_looked_at_before_a_gpu_is_looked_for(
    damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "10.16", {"device_count": 0})
    path = tmp_path / "net.plan"
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "folder":
        path.mkdir()

    with pytest.raises(BackendError, match=r"the plan .*net\.plan (can't be read|is empty)"):
        backend("10.16").build(replace(recipe(), plan=path))


def test_calibration_samples_are_read_for_their_shapes_and_for_the_calibrator_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, "8.6")
    plain = recipe("int8", calibrator="entropy")
    reads: list[int] = []

    def samples(_: int | None) -> list[dict[str, np.ndarray]]:
        reads.append(1)
        return [FEEDS]

    backend("8.6").plan(replace(plain, calibration=sampled(plain.model, samples, "samples")))

    assert len(reads) == 2
