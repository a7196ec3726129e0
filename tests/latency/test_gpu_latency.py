"""Latency of an engine of TensorRT: on its fake, and on a real GPU where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from gpu import built, machine, on_both
from onnx import TensorProto, helper

from pytest_trt.backends.stopwatch import Timing, stopwatch_of
from pytest_trt.latency._machine import machine_of
from pytest_trt.latency._rounds import Design, interleave
from pytest_trt.latency._telemetry import telemetry_of
from pytest_trt.latency._timing import measure

if TYPE_CHECKING:
    from pytest_trt.backends.tensorrt.backend import TensorrtEngine
    from pytest_trt.model.feeds import Arrays

QUICK: dict[str, Any] = {"warmup_s": 0.2, "least_s": 0.3, "most_s": 2.0}

__all__ = ["machine"]


# batch, channels, side and layers: some hundred microseconds on a GPU, and on the fake as little as can be
SIZES = {"gpu": (4, 128, 56, 12), "fake": (4, 2, 8, 2)}


def wide(size: tuple[int, int, int, int], batch: int | str = 4) -> onnx.ModelProto:
    """Convolutions in a row."""
    _, channels, side, layers = size
    draw, shape = np.random.default_rng(0), (channels, channels, 3, 3)
    weights = {f"w{number}": (draw.standard_normal(shape) / 34).astype(np.float32) for number in range(layers)}
    nodes = [
        helper.make_node("Conv", [f"x{number}" if number else "x", f"w{number}"], [f"x{number + 1}"], pads=[1] * 4)
        for number in range(layers)
    ]
    ends = [(TensorProto.FLOAT, [batch, channels, side, side])] * 2
    return networks.model(nodes, {"x": ends[0]}, {f"x{layers}": ends[1]}, weights)


@pytest.fixture(scope="module")
def feeds(machine: str) -> Arrays:
    batch, channels, side, _ = SIZES[machine]
    return {"x": np.random.default_rng(1).standard_normal((batch, channels, side, side)).astype(np.float32)}


@pytest.fixture(scope="module")
def engine(machine: str, feeds: Arrays) -> TensorrtEngine:
    return built(wide(SIZES[machine]), "fp16", [feeds])


def p50(engine: TensorrtEngine, feeds: Arrays, **told: Any) -> float:
    timing = Timing(**{**QUICK, **told})
    return float(np.median(measure(stopwatch_of(engine, feeds, timing), timing).lap.latency))


@on_both
def test_a_captured_graph_and_a_plain_enqueue_take_nearly_the_same_time(engine: TensorrtEngine, feeds: Arrays) -> None:
    samples = measure(stopwatch_of(engine, feeds, Timing()), Timing(**QUICK))

    assert samples.metric.graph
    assert float(np.median(samples.lap.latency)) == pytest.approx(p50(engine, feeds, graph=False), rel=0.25)


@on_both
def test_the_median_is_within_two_percent_of_a_bare_loop(engine: TensorrtEngine, feeds: Arrays) -> None:
    from benchmarks.bare import bare_loop

    stopwatch = stopwatch_of(engine, feeds, Timing())
    inferences = measure(stopwatch, Timing(**QUICK)).metric.inferences
    bare = bare_loop(bytes(engine.engine.serialize()), feeds, inferences)
    pairs = [(float(np.median(stopwatch.lap(200, inferences).latency)), float(np.median(bare(200)))) for _ in range(7)]

    assert np.median([ours / theirs for ours, theirs in pairs]) == pytest.approx(1.0, abs=0.02)


@on_both
def test_copies_take_time_of_their_own(engine: TensorrtEngine, feeds: Arrays) -> None:
    timing = Timing(transfers=True, **QUICK)
    lap = measure(stopwatch_of(engine, feeds, timing), timing).lap

    assert lap.h2d is not None
    assert lap.d2h is not None
    assert min(lap.h2d.min(), lap.d2h.min(), lap.compute.min()) > 0
    # no host feeds a GPU faster than at 500 GB/s
    assert np.median(lap.h2d) > feeds["x"].nbytes / 500e9
    assert np.median(lap.compute) == pytest.approx(p50(engine, feeds), rel=0.15)


@on_both
def test_a_blocking_host_measures_the_same(engine: TensorrtEngine, feeds: Arrays) -> None:
    assert p50(engine, feeds, spin=False) == pytest.approx(p50(engine, feeds), rel=0.1)


@on_both
def test_a_dynamic_batch_is_captured_and_the_engine_still_runs_as_before(machine: str, feeds: Arrays) -> None:
    engine = built(wide((*SIZES[machine][:3], 2), "N"), "fp32", [feeds])
    before = engine.run(feeds)["x2"]

    stopwatch = stopwatch_of(engine, feeds, Timing())
    lap = stopwatch.lap(20, 1)
    again = engine.run(feeds)["x2"]

    assert stopwatch.graph, stopwatch.notes
    assert (lap.compute > 0).all()
    assert (again == before).all()
    assert (stopwatch.lap(20, 1).compute > 0).all()


@on_both
def test_a_shape_that_depends_on_data_is_enqueued_and_that_is_said() -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["places"])]
    proto = networks.model(nodes, {"x": (TensorProto.FLOAT, [4])}, {"places": (TensorProto.INT64, [1, "n"])})
    feeds = {"x": np.array([1, 0, 2, 0], np.float32)}

    stopwatch = stopwatch_of(built(proto, "fp32", [feeds]), feeds, Timing())

    assert not stopwatch.graph
    assert "'places' is known only after each run" in stopwatch.notes[0]
    assert (stopwatch.lap(20, 1).compute > 0).all()


@on_both
def test_the_same_engine_in_turns_is_as_fast_as_itself(engine: TensorrtEngine, feeds: Arrays) -> None:
    first, second = (stopwatch_of(engine, feeds, Timing()) for _ in range(2))
    blocks = interleave(first, second, Design(pairs=6))

    assert np.median(blocks.candidate / blocks.baseline) == pytest.approx(1.0, abs=0.02)


@on_both
def test_a_small_engine_is_timed_several_inferences_at_once() -> None:
    feeds = {"x": networks.images(1)}
    samples = measure(stopwatch_of(built(networks.convolutional(1), "fp32", [feeds]), feeds, Timing()), Timing(**QUICK))

    assert samples.metric.inferences >= 4
    assert samples.memory is not None


@on_both
def test_the_machine_is_told_by_nvml_where_it_is_installed() -> None:
    machine = machine_of(0)

    assert machine.hard["multiprocessors"] > 0
    assert machine.notes or machine.hard["power_limit_w"] > 0
    assert machine.notes or telemetry_of(0).values["max_sm_mhz"] > 0
