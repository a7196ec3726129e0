# ruff: noqa: ARG002 - a callback takes what TensorRT gives it
"""The builder of the fake tensorrt: flags, ranges, calibrators, progress, timing caches."""

from __future__ import annotations

import struct
from typing import Any

import networks
import numpy as np
import pytest

from fakes.bench import Bench, half


def test_a_dynamic_input_needs_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "11.4")
    network = bench.network(networks.convolutional())
    assert bench.plan(network) is None
    assert "no optimization profile has been defined" in bench.errors()
    bench.profile(y=(2, 6, 6))
    assert bench.plan(network) is None
    assert "Dynamic input tensor x is missing dimensions in profile 0" in bench.errors()


def test_build_faults_are_lines_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16", build_error="no tactic", build_warning="subnormal weights")
    assert bench.plan() is None
    assert "no tactic" in bench.errors()
    assert bench.warnings() == "subnormal weights"


def test_weak_int8_without_scales_does_not_build(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "8.6")
    bench.config.set_flag(bench.trt.BuilderFlag.INT8)
    assert bench.plan() is None
    assert "Calibrator is not being used" in bench.warnings()
    assert "no scaling factors" in bench.errors()


def test_dynamic_ranges_make_weak_int8_build_with_a_warning_for_each_that_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch, "8.6")
    bench.config.set_flag(bench.trt.BuilderFlag.INT8)
    network = bench.network(networks.convolutional(4))
    assert network.get_input(0).set_dynamic_range(-2.5, 2.5)
    assert bench.plan(network) is not None
    assert bench.trt._world.plans[0]["ranges"] == {"x": (-2.5, 2.5)}
    assert "Missing scale and zero-point for tensor logits" in bench.warnings()


def test_ranges_and_calibrators_are_deprecated_in_10_16(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16")
    tensor = bench.network(networks.convolutional(4)).get_input(0)
    with pytest.warns(DeprecationWarning, match=r"Deprecated in TensorRT 10\.1"):
        tensor.set_dynamic_range(-1, 1)
    with pytest.warns(DeprecationWarning, match=r"Deprecated in TensorRT 10\.1"):
        bench.config.int8_calibrator = None


def test_half_tensors_need_their_flag_in_a_weakly_typed_network(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16")
    assert bench.plan(bench.network(half())) is None
    assert "HALF" not in bench.errors()
    assert "FP16 is not configured in the builder" in bench.errors()
    assert bench.plan(bench.network(half(), "STRONGLY_TYPED")) is not None


def test_a_strongly_typed_network_takes_no_precision_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16")
    bench.config.set_flag(bench.trt.BuilderFlag.FP16)
    assert bench.plan(bench.network(networks.convolutional(4), "STRONGLY_TYPED")) is None
    assert "not allowed in a strongly typed network: FP16" in bench.errors()


def calibrator(bench: Bench, batches: list[np.ndarray], cache: bytes | None = None) -> Any:
    trt = bench.trt

    base: Any = trt.IInt8EntropyCalibrator2

    class Calibrator(base):
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self.written = b""

        def get_batch_size(self) -> int:
            return 4

        def get_batch(self, names: list[str]) -> list[int] | None:
            return [bench.upload(batches.pop(0))] if batches else None

        def read_calibration_cache(self) -> bytes | None:
            return cache

        def write_calibration_cache(self, cache: memoryview) -> None:
            self.written = bytes(cache)

    made = bench.config.int8_calibrator = Calibrator()
    bench.config.set_flag(trt.BuilderFlag.INT8)
    return made


def test_a_calibrator_is_fed_and_its_cache_saves_the_next_feeding(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "8.6")
    data = [networks.images(4, seed=seed) for seed in (1, 2)]
    first = calibrator(bench, list(data))
    assert bench.plan() is not None
    record = bench.trt._world.plans[0]["calibration"]
    assert (record["batches"], record["cache"]) == (2, False)
    assert record["sum"] == pytest.approx(float(np.sum(data, dtype=np.float64)))
    scale = struct.pack(">f", float(np.abs(data).max()) / 127).hex()
    assert first.written.decode().splitlines()[:2] == ["TRT-8600-EntropyCalibration2", f"x: {scale}"]
    calibrator(bench, [], first.written)
    assert bench.plan() is not None
    assert bench.trt._world.plans[1]["calibration"]["cache"]


def test_an_exception_in_a_calibrator_is_printed_and_lost(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(monkeypatch, "8.6")
    made = calibrator(bench, [])
    made.get_batch = lambda names: names.boom
    assert bench.plan() is None
    assert "Exception caught in" in capfd.readouterr().err
    assert "no scaling factors" in bench.errors()


def monitor(bench: Bench, goes_on: bool) -> list[tuple[Any, ...]]:
    trt = bench.trt
    calls: list[tuple[Any, ...]] = []

    base: Any = trt.IProgressMonitor

    class Monitor(base):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            calls.append(("start", phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            return goes_on

        def phase_finish(self, phase_name: str) -> None:
            calls.append(("finish", phase_name))

    bench.config.progress_monitor = Monitor()
    return calls


def test_a_progress_monitor_sees_the_phases_and_can_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16")
    calls = monitor(bench, goes_on=True)
    assert bench.plan() is not None
    assert calls[0] == ("start", "Building engine", None, 2)
    assert calls[-1] == ("finish", "Building engine")
    monitor(bench, goes_on=False)
    assert bench.plan() is None
    assert "Build canceled by user" in bench.errors()


def test_a_timing_cache_grows_is_used_again_and_is_refused_when_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16")
    cache = bench.config.create_timing_cache(b"")
    empty = cache.serialize().nbytes
    assert bench.config.set_timing_cache(cache, ignore_mismatch=False)
    bench.plan()
    data = bytes(bench.config.get_timing_cache().serialize())
    assert len(data) > empty
    assert bench.config.set_timing_cache(bench.config.create_timing_cache(data), False)
    bench.plan()
    assert [plan["timing_hits"] for plan in bench.trt._world.plans] == [0, 8]
    assert bench.config.create_timing_cache(b"damaged") is None
    assert "createTimingCache" in bench.errors()


def test_timing_caches_do_nothing_and_warn_in_tensorrt_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "rtx-1.7")
    cache = bench.config.create_timing_cache(b"")
    with pytest.warns(DeprecationWarning, match="no-ops in TensorRT-RTX"):
        bench.config.set_timing_cache(cache, False)


def test_a_dla_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "8.6")
    assert bench.builder.num_DLA_cores == 0
    bench.config.default_device_type = bench.trt.DeviceType.DLA
    assert bench.plan() is None
    assert "no DLA cores" in bench.errors()
    assert Bench(monkeypatch, "8.6", dla_cores=2).builder.num_DLA_cores == 2


def test_without_a_device_tensorrt_has_no_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="factory function returned nullptr"):
        Bench(monkeypatch, "10.16", cuda_faults={"driver_error": 35})
