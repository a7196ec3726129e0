"""Nodes kept in fp32 and fp8, by the TensorRT backend against a fake of each release."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from fakes.tensorrt import RELEASES, install

from pytest_trt.backends.achieved_precision import require_honoured
from pytest_trt.backends.backend import choose
from pytest_trt.backends.build_options import merged, read_build_options
from pytest_trt.backends.recipe import Recipe, ranges_of, sampled
from pytest_trt.backends.tensorrt._inspector import layers_of
from pytest_trt.errors import BackendError, LoweringError
from pytest_trt.lowering.lowering import at_opset, lower
from pytest_trt.model.model import Model
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from pathlib import Path

STRONG = ("10.16", "11.4", "rtx-1.7")
WEAK = ("8.6", "10.16")
FEEDS = {"x": networks.images(8)}


def backend(release: str) -> Any:
    return choose("tensorrt-rtx" if release.startswith("rtx") else "tensorrt")


def recipe(precision: str, keep: tuple[str, ...] = (), ops: tuple[str, ...] = (), **told: Any) -> Recipe:
    asked = Precision.parse(precision)
    model = at_opset(Model(networks.convolutional(), "net.onnx"), asked)
    options = merged(read_build_options(told, "build"))
    calibration = sampled(model, lambda _: [FEEDS], "samples")
    return Recipe(model, asked, calibration, feeds=(FEEDS,), options=options, keep=keep, ops=ops)


def precisions(engine: Any) -> list[tuple[str, bool]]:
    return [(layer.precision, layer.kept) for layer in engine.layers() if layer.computes]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("release", RELEASES)
def test_a_kept_node_stays_in_fp32_and_does_not_count_against_the_engine(
    release: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, release)

    engine = backend(release).build(recipe(precision, keep=("conv1", "fc")))

    assert precisions(engine) == [("fp32", True), (precision, False), ("fp32", True)]
    require_honoured(engine, precision, 1.0, builds_engines=True)


@pytest.mark.parametrize("release", WEAK)
def test_weak_typing_is_told_to_obey(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, release)

    backend(release).plan(recipe("int8", keep=("conv2",), typing="weak"))

    header = trt._world.plans[-1]
    assert header["layer_precisions"] == {"conv2": "FLOAT"}
    assert "OBEY_PRECISION_CONSTRAINTS" in header["flags"]


def test_without_a_kept_node_nothing_has_to_be_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "8.6")

    backend("8.6").plan(recipe("int8"))

    assert trt._world.plans[-1]["layer_precisions"] == {}
    assert "OBEY_PRECISION_CONSTRAINTS" not in trt._world.plans[-1]["flags"]


@pytest.mark.parametrize("typing", ["weak", "strong"])
def test_the_store_keeps_apart_what_is_kept(typing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trt, _ = install(monkeypatch, "10.16")
    for keep in ((), ("conv1",), ("conv2",), ("conv1",)):
        backend("10.16").plan(replace(recipe("int8", keep=keep, typing=typing), store=tmp_path))

    assert len(trt._world.plans) == 3


@pytest.mark.parametrize("release", RELEASES)
def test_a_node_that_is_not_there_builds_nothing(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, release)

    with pytest.raises(LoweringError, match="the model has no node 'conv3'"):
        backend(release).build(recipe("int8", keep=("conv3",)))


def test_what_has_no_word_for_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16")

    with pytest.raises(BackendError, match="TF32 is on or off for a whole engine"):
        backend("10.16").plan(recipe("tf32", keep=("conv1",)))
    with pytest.raises(BackendError, match="ops is told by the graph, and weak typing builds the fp32 graph"):
        backend("10.16").plan(recipe("int8", ops=("Conv",), typing="weak"))


def test_kinds_that_are_not_named_do_not_count_either(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "11.4")

    assert precisions(backend("11.4").build(recipe("int8", ops=("Conv",)))) == [
        ("int8", False),
        ("int8", False),
        ("fp32", True),
    ]


def test_a_layer_that_holds_another_node_too_counts() -> None:
    text = """{"Layers": [
        {"Name": "conv1 + relu1", "LayerType": "CaskConvolution"},
        {"Name": "conv1 + conv2", "LayerType": "CaskConvolution"}]}"""

    found = layers_of(text, frozenset({"conv1", "conv2"}), frozenset({"conv1", "relu1"}))

    assert [layer.kept for layer in found] == [True, False]


@pytest.mark.parametrize("release", STRONG)
def test_fp8_reaches_a_strongly_typed_network_as_pairs(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, release)

    backend(release).plan(recipe("fp8"))

    assert trt._world.plans[-1]["strongly_typed"]
    assert "FP8" not in trt._world.plans[-1]["flags"]


@pytest.mark.parametrize("typing", ["auto", "weak", "strong"])
def test_fp8_is_refused_by_a_release_before_it(typing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")

    with pytest.raises(BackendError, match=r"has no fp8: TensorRT 10 or later has it; int8 is the nearest"):
        backend("8.6").plan(recipe("fp8", typing=typing))


def test_a_file_that_holds_fp8_is_refused_by_a_release_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")
    asked = recipe("fp8")
    held = lower(asked.model, "fp8", ranges_of(asked))

    with pytest.raises(BackendError, match="has no fp8"):
        backend("8.6").plan(replace(asked, model=held, precision=Precision.MODEL, calibration=None))


def test_fp8_by_flags_is_refused_with_what_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16")

    with pytest.raises(BackendError, match="fp8 is told by Q/DQ in a strongly typed network"):
        backend("10.16").plan(recipe("fp8", typing="weak"))


def test_fp8_plans_are_not_taken_for_int8s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trt, _ = install(monkeypatch, "11.4")
    for precision in ("int8", "fp8", "fp8"):
        backend("11.4").plan(replace(recipe(precision), store=tmp_path))

    assert len(trt._world.plans) == 2


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_onnxruntimes_providers_run_no_fp8(name: str) -> None:
    from pytest_trt.backends.onnxruntime_gpu import OnnxruntimeGpuBackend

    with pytest.raises(BackendError, match=f"backend '{name}' runs no fp8"):
        OnnxruntimeGpuBackend(name, "1").build(recipe("fp8"))


def test_torch_keeps_nothing() -> None:
    from pytest_trt.backends.torch import _runnable

    with pytest.raises(LoweringError, match="torch runs its module whole"):
        _runnable(recipe("fp16", keep=("conv1",)))
    assert _runnable(recipe("fp32", keep=("conv1",))) is Precision.FP32


def test_a_simulation_keeps_the_node_too() -> None:
    asked = recipe("int8", keep=("conv1",))

    found = choose("onnxruntime").build(asked).run(FEEDS)["logits"]

    assert not np.array_equal(found, choose("onnxruntime").build(recipe("int8")).run(FEEDS)["logits"])
