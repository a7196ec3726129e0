"""torch and onnxruntime on the host's clock, and on a GPU whose calls are recorded in place of made."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnxruntime
import pytest

from pytest_trt.backends.onnxruntime import OnnxruntimeEngine
from pytest_trt.backends.stopwatch import Timing, stopwatch_of
from pytest_trt.errors import BackendError, DataError
from pytest_trt.latency._timing import measure
from pytest_trt.model.model import Model
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator

torch = pytest.importorskip("torch")

FEEDS = {"x": networks.images(8)}


Module: Any = torch.nn.Module


class Doubled(Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((6,), 2.0))
        self.seen: list[tuple[Any, ...]] = []
        self.fails_in_capture = False

    def forward(self, x: Any) -> Any:
        self.seen.append((x.dtype, x.device.type, torch.is_inference_mode_enabled()))
        if FakeGpu.capturing and self.fails_in_capture:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
        FakeGpu.time += 0.002
        return x * self.scale


def torch_engine(precision: Precision = Precision.FP32, *, on_gpu: bool = False, batch: int | None = None) -> Any:
    from pytest_trt.backends.torch import _DTYPES, TorchEngine
    from pytest_trt.model.torch_export import Network

    model = Model(networks.convolutional(), "net.onnx")
    module = Doubled().to(getattr(torch, _DTYPES.get(precision, "float32")))
    network = Network(module, model.inputs, model.outputs, "nets:doubled")
    return TorchEngine(network, precision, "cpu", batch, "torch", not on_gpu)


def test_torch_on_the_cpu_is_timed_by_the_hosts_clock_without_gradients() -> None:
    engine = torch_engine(batch=4)
    stopwatch = stopwatch_of(engine, FEEDS, Timing())

    lap = stopwatch.lap(3, 2)

    assert (lap.compute > 0).all()
    assert (stopwatch.clock, stopwatch.batch, stopwatch.notes) == ("perf_counter", 4, ())
    assert set(engine.network.module.seen) == {(torch.float32, "cpu", True)}


def test_torch_is_timed_in_its_precision() -> None:
    engine = torch_engine(Precision.FP16)

    stopwatch_of(engine, FEEDS, Timing()).lap(1, 1)

    assert {dtype for dtype, *_ in engine.network.module.seen} == {torch.float16}


def test_a_module_that_fails_is_blamed() -> None:
    engine = torch_engine()
    engine.network.module.forward = lambda _: 1 / 0

    with pytest.raises(BackendError, match="nets:doubled at fp32 on cpu fails: ZeroDivisionError"):
        stopwatch_of(engine, FEEDS, Timing())


def test_inputs_that_do_not_fit_the_module_are_refused() -> None:
    with pytest.raises(DataError, match="lacks 'x'"):
        stopwatch_of(torch_engine(), {"y": FEEDS["x"]}, Timing())


class FakeGpu:
    """What torch.cuda is asked for; work takes its time at once."""

    time = 0.0
    capturing = False
    replays = 0
    events: tuple[Any, ...] = ()


class FakeEvent:
    def __init__(self, enable_timing: bool, blocking: bool) -> None:
        assert enable_timing
        self.blocking = blocking
        self.at = math.nan
        FakeGpu.events += (self,)

    def record(self) -> None:
        self.at = FakeGpu.time

    def synchronize(self) -> None:
        assert not math.isnan(self.at)

    def elapsed_time(self, other: FakeEvent) -> float:
        return (other.at - self.at) * 1000


class FakeGraph:
    def replay(self) -> None:
        FakeGpu.time += 0.001
        FakeGpu.replays += 1


@dataclass
class FakeStream:
    device: str


@contextmanager
def _capture(graph: Any, stream: Any) -> Iterator[None]:
    FakeGpu.capturing = True
    try:
        yield
    finally:
        FakeGpu.capturing = False


@contextmanager
def _nothing(_: Any) -> Iterator[None]:
    yield


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in {"time": 0.0, "replays": 0, "events": ()}.items():
        monkeypatch.setattr(FakeGpu, name, value)
    fakes = {
        "Event": FakeEvent,
        "CUDAGraph": FakeGraph,
        "Stream": FakeStream,
        "graph": _capture,
        "device": _nothing,
        "stream": _nothing,
        "synchronize": lambda _: None,
        "memory_allocated": lambda _: 1000,
        "max_memory_allocated": lambda _: 1500,
        "reset_peak_memory_stats": lambda _: None,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    real = torch.empty

    def empty(*shape: Any, pin_memory: bool, **told: Any) -> Any:
        assert pin_memory
        return real(*shape, **told)

    monkeypatch.setattr(torch, "empty", empty)
    return FakeGpu


def test_torch_on_a_gpu_replays_a_graph_between_events(cuda: Any) -> None:
    stopwatch = stopwatch_of(torch_engine(on_gpu=True), FEEDS, Timing())

    lap = stopwatch.lap(5, 2)

    assert lap.compute == pytest.approx(np.full(5, 0.001))
    assert (stopwatch.clock, stopwatch.graph, stopwatch.spin, stopwatch.notes) == ("cuda_event", True, True, ())
    assert cuda.replays == 1 + 2 + 5 * 2
    assert stopwatch.memory == 6 * 4 + 500


def test_torch_eager_is_timed_where_no_graph_is_wanted(cuda: Any) -> None:
    stopwatch = stopwatch_of(torch_engine(on_gpu=True), FEEDS, Timing(graph=False, spin=False))

    assert stopwatch.lap(5, 2).compute == pytest.approx(np.full(5, 0.002))
    assert (stopwatch.graph, stopwatch.spin, cuda.replays) == (False, False, 0)
    assert all(event.blocking for event in cuda.events)


def test_torch_that_can_not_be_captured_is_timed_eager_and_that_is_said(cuda: Any) -> None:
    engine = torch_engine(on_gpu=True)
    engine.network.module.fails_in_capture = True

    stopwatch = stopwatch_of(engine, FEEDS, Timing())

    assert stopwatch.notes == (
        "no CUDA graph is replayed: torch can't capture it (CUDA error: operation not permitted when stream is"
        " capturing).",
    )
    assert stopwatch.lap(2, 1).compute == pytest.approx(np.full(2, 0.002))


def test_torchs_copies_go_by_pinned_memory_and_are_counted(cuda: Any) -> None:
    stopwatch = stopwatch_of(torch_engine(on_gpu=True), FEEDS, Timing(transfers=True))

    lap = stopwatch.lap(2, 1)

    assert stopwatch.transfers
    assert lap.h2d is not None
    assert lap.latency == pytest.approx(np.full(2, 0.001))


@dataclass
class Session:
    """onnxruntime's session on a GPU."""

    real: Any
    ran: list[str] = field(default_factory=list)
    bound: dict[str, Any] = field(default_factory=dict)

    def get_outputs(self) -> Any:
        return self.real.get_outputs()

    def run(self, names: Any, feeds: Any) -> Any:
        self.ran.append("run")
        return self.real.run(names, feeds)

    def io_binding(self) -> Any:
        return self

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self.bound[name] = value

    def bind_output(self, name: str, kind: str, device: int) -> None:
        self.bound[name] = (kind, device)

    def run_with_iobinding(self, binding: Any) -> None:
        assert binding is self
        self.ran.append("bound")


class Values:
    @staticmethod
    def ortvalue_from_numpy(value: np.ndarray, kind: str, device: int) -> Any:
        return (value.shape, kind, device)


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> OnnxruntimeEngine:
    monkeypatch.setattr(onnxruntime, "OrtValue", Values)
    proto = networks.convolutional()
    session = Session(onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]))
    facts = {"provider_options": {"device_id": 1}}
    return OnnxruntimeEngine(
        Model(proto, "net.onnx"), Precision.FP32, session, ("logits",), None, "onnxruntime-cuda", False, facts
    )


def test_onnxruntime_on_a_gpu_has_its_inputs_and_outputs_there(on_gpu: OnnxruntimeEngine) -> None:
    stopwatch = stopwatch_of(on_gpu, FEEDS, Timing())

    stopwatch.lap(2, 1)

    assert on_gpu.session.bound == {"x": ((8, 2, 6, 6), "cuda", 1), "logits": ("cuda", 1)}
    assert on_gpu.session.ran == ["bound"] * 3
    assert not stopwatch.transfers
    assert "inputs and outputs on the GPU" in stopwatch.notes[0]


def test_onnxruntime_on_a_gpu_copies_where_copies_count(on_gpu: OnnxruntimeEngine) -> None:
    stopwatch = stopwatch_of(on_gpu, FEEDS, Timing(transfers=True))

    stopwatch.lap(2, 1)

    assert on_gpu.session.ran == ["run"] * 3
    assert stopwatch.transfers
    assert "copies to the GPU and back are part of it" in stopwatch.notes[0]


def test_onnxruntime_that_fails_is_told(on_gpu: OnnxruntimeEngine) -> None:
    on_gpu.session.io_binding = None

    with pytest.raises(BackendError, match=r"net\.onnx: onnxruntime fails while it is prepared: TypeError"):
        stopwatch_of(on_gpu, FEEDS, Timing())


def test_the_metric_tells_whether_copies_count(on_gpu: OnnxruntimeEngine) -> None:
    timing = Timing(transfers=True, warmup_s=0.0, least_s=0.0, most_s=0.0)

    counted = measure(stopwatch_of(on_gpu, FEEDS, timing), timing, 1)

    assert counted.metric.transfers
    assert (counted.lap.latency == counted.lap.compute).all()
