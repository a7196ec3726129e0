"""The GPU's clock on a fake GPU whose time only work moves: what is measured is exact."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import networks
import numpy as np
import pytest
from fakes import cuda as fake_cuda
from fakes.tensorrt import RELEASES, install
from onnx import TensorProto, helper

from pytest_trt.backends._cuda_events import EVENTS, DeviceStopwatch, Events, Graph
from pytest_trt.backends.backend import choose
from pytest_trt.backends.cuda import Stream
from pytest_trt.backends.recipe import Recipe
from pytest_trt.backends.stopwatch import Timing, stopwatch_of
from pytest_trt.errors import BackendError, DataError
from pytest_trt.latency._timing import measure
from pytest_trt.lowering.lowering import at_opset
from pytest_trt.model.model import Model
from pytest_trt.precision import Precision

FEEDS = {"x": networks.images(8)}
TAKES = {"inference_s": 0.001}


def engine(release: str = "8.6", proto: Any = None, feeds: Any = None, **told: Any) -> Any:
    model = at_opset(Model(proto or networks.convolutional(), "net.onnx"), Precision.FP32)
    name = "tensorrt-rtx" if release.startswith("rtx") else "tensorrt"
    return choose(name).build(Recipe(model, Precision.FP32, feeds=(feeds or FEEDS,), **told))


@pytest.mark.parametrize("release", RELEASES)
def test_an_engine_is_timed_by_events_around_a_graph(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, cuda = install(monkeypatch, release, TAKES)
    stopwatch = stopwatch_of(engine(release), FEEDS, Timing())

    lap = stopwatch.lap(10, 2)

    assert lap.compute == pytest.approx(np.full(10, 0.001))
    assert lap.h2d is lap.d2h is None
    assert lap.enqueue is not None
    assert (lap.enqueue > 0).all()
    assert (stopwatch.clock, stopwatch.graph, stopwatch.spin, stopwatch.transfers) == ("cuda_event", True, True, False)
    assert (stopwatch.batch, stopwatch.shapes, stopwatch.notes) == (8, {"x": (8, 2, 6, 6)}, ())
    assert cuda._device.launches == 1 + 2 + 10 * 2
    assert not cuda._device.pending


def test_one_untimed_sample_goes_first_so_that_the_gpu_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cuda = install(monkeypatch, "8.6", TAKES)
    stopwatch = stopwatch_of(engine(), FEEDS, Timing(graph=False))
    began = cuda._device.time

    stopwatch.lap(3, 4)

    assert cuda._device.time - began == pytest.approx((1 + 3) * 4 * 0.001)


def test_few_samples_are_queued_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cuda = install(monkeypatch, "8.6", TAKES)
    built = engine()

    stopwatch_of(built, FEEDS, Timing()).lap(500, 1)

    assert cuda._device.streams[built.stream.handle].longest <= 4 * 3 + 1


def test_events_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cuda = install(monkeypatch, "8.6", TAKES)
    stopwatch = stopwatch_of(engine(), FEEDS, Timing())

    stopwatch.lap(50, 1)
    stopwatch.lap(50, 1)

    assert len(cuda._device.events) == EVENTS


@pytest.mark.parametrize("spin", [True, False])
def test_the_host_spins_or_blocks_as_it_is_told(spin: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    _, cuda = install(monkeypatch, "8.6", TAKES)

    stopwatch = stopwatch_of(engine(), FEEDS, Timing(spin=spin))

    assert stopwatch.spin is spin
    assert {event.blocking for event in cuda._device.events.values()} == {not spin}


def test_no_graph_is_captured_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cuda = install(monkeypatch, "8.6", TAKES)
    stopwatch = stopwatch_of(engine(), FEEDS, Timing(graph=False))

    assert stopwatch.lap(5, 1).compute == pytest.approx(np.full(5, 0.001))
    assert (stopwatch.graph, stopwatch.notes, cuda._device.launches) == (False, (), 0)


def test_copies_are_timed_by_events_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cuda = install(monkeypatch, "8.6", {**TAKES, "byte_s": 1e-7})
    stopwatch = stopwatch_of(engine(), FEEDS, Timing(transfers=True))

    lap = stopwatch.lap(6, 2)

    assert lap.h2d == pytest.approx(np.full(6, FEEDS["x"].nbytes * 1e-7))
    assert lap.compute == pytest.approx(np.full(6, 0.001))
    assert lap.d2h == pytest.approx(np.full(6, 8 * 3 * 4 * 1e-7))
    assert lap.latency == pytest.approx(lap.h2d + lap.compute + lap.d2h)
    assert stopwatch.transfers
    assert len(cuda._device.pinned) == 2


def test_measuring_an_engine_tells_its_time_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6", {"inference_s": 60e-6})
    built = engine()

    samples = measure(stopwatch_of(built, FEEDS, Timing()), Timing(warmup_s=0.01, least_s=0.05, most_s=0.1))

    assert float(np.median(samples.lap.latency)) == pytest.approx(60e-6)
    assert samples.metric.inferences == 4
    assert samples.memory == built.facts["plan_bytes"] + (1 << 20)


def test_a_bare_loop_of_replays_measures_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.bare import bare_loop

    install(monkeypatch, "10.16", TAKES)
    built = engine("10.16")

    bare = bare_loop(bytes(built.engine.serialize()), FEEDS, 2)(20)

    assert bare == pytest.approx(stopwatch_of(built, FEEDS, Timing()).lap(20, 2).latency)


def test_what_can_not_be_captured_is_enqueued_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cuda = install(monkeypatch, "8.6", TAKES, no_capture=True)

    stopwatch = stopwatch_of(engine(), FEEDS, Timing())

    assert not stopwatch.graph
    (note,) = stopwatch.notes
    assert note.startswith("no CUDA graph is replayed: net.onnx: the engine does not run")
    assert "operation not permitted when stream is capturing" in note
    assert stopwatch.lap(5, 1).compute == pytest.approx(np.full(5, 0.001))
    assert not cuda._device.graphs


def test_a_graph_that_can_not_be_made_ready_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cuda = install(monkeypatch, "8.6", {**TAKES, "no_instance": True})

    stopwatch = stopwatch_of(engine(), FEEDS, Timing())

    assert "the captured CUDA graph can't be made ready: out of memory" in stopwatch.notes[0]
    assert not cuda._device.graphs


def test_shapes_that_depend_on_data_are_enqueued_with_their_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6", {**TAKES, "byte_s": 1e-7}, data_dependent=frozenset({"places"}))
    nodes = [helper.make_node("NonZero", ["x"], ["places"])]
    proto = networks.model(nodes, {"x": (TensorProto.FLOAT, [4])}, {"places": (TensorProto.INT64, [1, "n"])})
    feeds = {"x": np.array([1, 0, 2, 0], np.float32)}

    stopwatch = stopwatch_of(engine(proto=proto, feeds=feeds), feeds, Timing(transfers=True))

    assert stopwatch.notes == ("no CUDA graph is replayed: the shape of 'places' is known only after each run.",)
    copied = stopwatch.lap(3, 1).d2h
    assert copied is not None
    assert copied[0] > 0


def test_outputs_whose_shape_follows_from_the_inputs_are_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16", TAKES)
    built = engine("10.16", networks.convolutional("N"))

    assert built.grown
    assert stopwatch_of(built, FEEDS, Timing()).graph


def test_running_the_engine_in_between_does_not_disturb_its_stopwatch(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6", TAKES)
    built = engine()
    plain = stopwatch_of(built, FEEDS, Timing(graph=False))
    graph = stopwatch_of(built, FEEDS, Timing())

    built.run({"x": networks.images(8, seed=2)})
    gc.collect()

    assert plain.lap(3, 1).compute == pytest.approx(np.full(3, 0.001))
    assert graph.lap(3, 1).compute == pytest.approx(np.full(3, 0.001))


def test_what_a_stopwatch_held_is_freed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cuda = install(monkeypatch, "8.6", TAKES)
    built = engine()
    before = cuda._device.allocated
    stopwatch = stopwatch_of(built, FEEDS, Timing(transfers=True))
    stopwatch.lap(3, 1)

    del stopwatch
    gc.collect()

    device = cuda._device
    assert device.allocated == before
    assert (device.events, device.instances, device.graphs, device.pinned) == ({}, {}, {}, {})


def test_the_engine_is_loaded_again_where_no_two_contexts_may_have_one_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    for release, contexts in (("8.6", 1), ("10.16", 2)):
        install(monkeypatch, release, TAKES)
        built = engine(release, networks.convolutional("N"))

        stopwatch = stopwatch_of(built, FEEDS, Timing())

        assert stopwatch.lap(1, 1).compute == pytest.approx([0.001])
        assert len(built.engine._contexts) == contexts


def test_one_run_of_many_samples_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6", TAKES)

    assert stopwatch_of(engine(batch=2), FEEDS, Timing()).batch == 2


def test_inputs_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")

    with pytest.raises(DataError, match="lacks 'x'"):
        stopwatch_of(engine(), {"y": FEEDS["x"]}, Timing())


def test_an_engine_that_fails_while_it_is_timed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "8.6")
    stopwatch = stopwatch_of(engine(), FEEDS, Timing(graph=False))
    trt._world.faults = replace(trt._world.faults, execute_fails=True)

    with pytest.raises(BackendError, match=r"net\.onnx: the engine does not run\."):
        stopwatch.lap(1, 1)


def test_a_second_context_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "8.6")
    built = engine()
    trt._world.faults = replace(trt._world.faults, no_context=True)

    with pytest.raises(BackendError, match=r"(?s)no second execution context can be made.*OutOfMemory"):
        stopwatch_of(built, FEEDS, Timing())


def test_whatever_fails_is_told_of_the_engine() -> None:
    def broken() -> None:
        raise OSError("gone")

    with pytest.raises(BackendError, match="net fails while it is timed: OSError: gone"):
        DeviceStopwatch(broken, events=None, what="net", batch=1).lap(1, 1)  # type: ignore[arg-type]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    return install(monkeypatch, "8.6")[1]


def test_events_tell_seconds_of_the_work_between_them(cuda: Any) -> None:
    stream = Stream()
    events = Events(2, stream, spin=True)
    events.record(0)
    cuda._device.stream(stream.handle).put(lambda: None, 0.125)
    events.record(1)

    events.wait(1)

    assert events.seconds(0, 1) == 0.125


def test_events_that_have_not_happened_tell_nothing(cuda: Any) -> None:
    events = Events(2, Stream(), spin=True)
    events.record(0)
    events.record(1)

    with pytest.raises(BackendError, match=r"two events tell no time: .*cudaErrorNotReady"):
        events.seconds(0, 1)


def test_work_that_waits_can_not_be_captured(cuda: Any) -> None:
    stream = Stream()

    with pytest.raises(BackendError, match=r"can't be captured into a CUDA graph: .*CaptureInvalidated"):
        Graph(stream, lambda: cuda.cudaStreamSynchronize(stream.handle))

    assert cuda._device.stream(stream.handle).captured is None


def test_what_is_captured_runs_when_it_is_launched(cuda: Any) -> None:
    stream, done = Stream(), []

    graph = Graph(stream, lambda: cuda._device.stream(stream.handle).put(lambda: done.append(1)))
    assert done == []
    graph.launch()
    graph.launch()
    cuda.cudaStreamSynchronize(stream.handle)

    assert done == [1, 1]


def test_the_fake_gpu_refuses_to_free_while_it_captures() -> None:
    cuda = fake_cuda.runtime()
    _, pointer = cuda.cudaMalloc(16)
    _, stream = cuda.cudaStreamCreate()
    cuda.cudaStreamBeginCapture(stream, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)

    assert cuda.cudaFree(pointer) == (cuda.cudaError_t.cudaErrorStreamCaptureUnsupported,)
    assert cuda.cudaStreamEndCapture(stream)[0] == cuda.cudaError_t.cudaErrorStreamCaptureInvalidated
