"""What the TensorRT backend builds, against a fake of each release, which has no name that the real one lacks."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from building import FEEDS, WEAK, backend, exact, header, holding_int8, recipe
from fakes.tensorrt import RELEASES, install
from onnx import TensorProto, helper

from pytest_trt.backends.backend import choose
from pytest_trt.backends.recipe import Span
from pytest_trt.comparison.comparison import compare
from pytest_trt.errors import BackendError, CaseError, ModelError
from pytest_trt.model.model import Model

if TYPE_CHECKING:
    from pathlib import Path

WITHIN = {"fp32": 1e-5, "tf32": 1e-5, "fp16": 1e-2, "bf16": 1e-1, "int8": 1e-1}


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
    told: dict[str, Any] = {
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
    held = holding_int8().proto
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


def test_a_batch_limit_cuts_the_samples_and_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "10.16")
    engine = backend("10.16").build(replace(recipe(), batch=3))

    outputs = engine.run(FEEDS)["logits"]

    assert outputs.shape == (8, 3)
    assert [shape[0] for shape in header(trt)["profiles"][0]["x"]] == [2, 3, 3]


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
    feeds: dict[str, np.ndarray] = {"x": np.zeros((4, 8), np.float32), "s": np.array([4, 4, 2, 8], np.int64)}
    several = replace(recipe(proto=networks.model(nodes, *shapes)), feeds=(feeds,))

    assert _values("s", several) == Span((2, 4), (4, 4), (4, 8))


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


def test_a_gpu_here_and_gpus_elsewhere_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "rtx-1.7")

    with pytest.raises(BackendError, match="leave one out"):
        backend("rtx-1.7").plan(recipe(compute_capabilities="8.9", device=1))
