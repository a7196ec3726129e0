"""Warm-up, the choice of a sample, the stop rule, percentiles and turns, on a clock that only work moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import networks
import numpy as np
import pytest

from pytest_trt.backends.backend import Layer, choose
from pytest_trt.backends.recipe import Recipe
from pytest_trt.backends.stopwatch import HostStopwatch, Lap, Timed, Timing, stopwatch_of
from pytest_trt.errors import BackendError, DataError
from pytest_trt.latency._rounds import Design, interleave, trimmed_mean
from pytest_trt.latency._timing import measure, stable
from pytest_trt.latency.result import least_samples, percentile
from pytest_trt.model.model import Model
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping


class Clock:
    """Seconds that pass only where somebody says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Simulated:
    """A GPU whose inference takes ``seconds`` by ``noise``; ``step`` is its clock's, ``idle`` the host's by sample."""

    time: Clock
    seconds: float
    sigma: float = 0.0
    step: float = 0.0
    idle: float = 0.0
    drift: float = 0.0
    cold: float = 0.0
    h2d: float | None = None
    host: float | None = None
    clock: Literal["cuda_event", "perf_counter"] = "cuda_event"
    graph: bool = True
    spin: bool = True
    transfers: bool = False
    batch: int = 1
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    memory: int | None = 1 << 20
    notes: tuple[str, ...] = ()
    asked: list[tuple[int, int]] = field(default_factory=list)
    draw: Any = field(default_factory=lambda: np.random.default_rng(0))

    def lap(self, samples: int, inferences: int) -> Lap:
        self.asked.append((samples, inferences))
        factor = np.exp(self.sigma * self.draw.standard_normal(samples)) * (1 + self.drift * self.time.now)
        factor *= 1 + (self.time.now < self.cold)
        took = self.seconds * inferences * factor
        if self.step:
            took = np.round(took / self.step) * self.step
        self.time.now += float(took.sum()) + self.idle * samples
        parts = [None if part is None else np.full(samples, part) for part in (self.h2d, self.h2d, self.host)]
        return Lap(took / inferences, *parts)


def measured(stopwatch: Simulated, inferences: int | None = None, **told: Any) -> Any:
    return measure(stopwatch, Timing(**told), inferences, clock=stopwatch.time)


def test_a_quiet_engine_is_measured_exactly_and_for_the_least_time() -> None:
    samples = measured(Simulated(Clock(), 0.001))

    assert set(samples.lap.compute) == {0.001}
    assert samples.stopped == "stable"
    assert 0.2 <= samples.warmup_s < 0.3
    assert 1.0 <= samples.wall_s - samples.warmup_s < 1.1
    assert samples.memory == 1 << 20
    assert samples.notes == ()


def test_the_warm_up_is_left_out() -> None:
    samples = measured(Simulated(Clock(), 0.001, cold=0.9), warmup_s=1.0)

    assert samples.lap.compute.max() == 0.001


@pytest.mark.parametrize(
    ("seconds", "inferences"), [(300e-6, 1), (150e-6, 2), (100e-6, 2), (40e-6, 8), (3e-6, 128), (1e-9, 1024)]
)
def test_a_sample_holds_the_fewest_inferences_that_make_it_last(seconds: float, inferences: int) -> None:
    assert measured(Simulated(Clock(), seconds), warmup_s=1e-3, least_s=0.01).metric.inferences == inferences


def test_given_inferences_are_taken_as_they_are() -> None:
    stopwatch = Simulated(Clock(), 0.001)

    assert measured(stopwatch, 3).metric.inferences == 3
    assert {inferences for _, inferences in stopwatch.asked} == {1, 3}


def test_the_metric_is_what_the_stopwatch_is() -> None:
    stopwatch = Simulated(Clock(), 0.001, graph=False, spin=False, transfers=True, batch=4, shapes={"x": (4, 2)})

    metric = measured(stopwatch).metric

    assert (metric.clock, metric.graph, metric.spin, metric.transfers) == ("cuda_event", False, False, True)
    assert (metric.batch, metric.shapes, metric.inferences) == (4, {"x": (4, 2)}, 1)


def test_a_drifting_engine_is_timed_until_the_time_is_over_and_that_is_said() -> None:
    samples = measured(Simulated(Clock(), 0.001, drift=1.0), most_s=3.0)

    assert samples.stopped == "time"
    assert 3.0 <= samples.wall_s - samples.warmup_s < 3.4


def test_a_noisy_engine_is_stable_once_its_noise_is_known() -> None:
    samples = measured(Simulated(Clock(), 0.02, sigma=0.1), least_s=0.5, most_s=60)

    assert samples.stopped == "stable"
    assert np.median(samples.lap.compute) == pytest.approx(0.02, rel=0.02)


def test_an_engine_slower_than_all_of_the_time_is_timed_once() -> None:
    stopwatch = Simulated(Clock(), 10.0)

    samples = measured(stopwatch)

    assert list(samples.lap.compute) == [10.0]
    assert samples.stopped == "time"
    assert stopwatch.asked == [(1, 1)] * 3


def test_samples_are_taken_until_there_are_enough_for_a_percentile() -> None:
    samples = measured(Simulated(Clock(), 0.01), least=662, most_s=60)

    assert len(samples.lap.compute) >= 662
    assert samples.wall_s > 6.62


def test_of_too_many_samples_every_third_is_kept() -> None:
    samples = measured(Simulated(Clock(), 0.001, h2d=0.0001), most=400)

    assert 333 <= len(samples.lap.compute) <= 400
    assert len(samples.lap.h2d) == len(samples.lap.compute)
    assert samples.wall_s > 1.0


def test_blocks_of_a_twentieth_of_the_time_are_timed_in_one_go() -> None:
    stopwatch = Simulated(Clock(), 0.001)

    measured(stopwatch)

    assert stopwatch.asked[-1] == (50, 1)


def test_blocks_know_the_time_between_samples() -> None:
    stopwatch = Simulated(Clock(), 3e-6, idle=30e-6)

    measured(stopwatch)

    assert stopwatch.asked[-1] == (round(0.05 / (128 * 3e-6 + 30e-6)), 128)


def test_with_copies_the_latency_is_their_sum_with_the_computing() -> None:
    samples = measured(Simulated(Clock(), 0.001, h2d=0.0002))

    assert samples.lap.latency == pytest.approx(np.full(len(samples.lap.compute), 0.0014))


def test_copies_that_take_as_long_as_the_computing_are_said() -> None:
    notes = measured(Simulated(Clock(), 0.001, h2d=0.001)).notes

    assert notes == (
        "copying to the GPU takes 1000 us, no less than computing does.",
        "copying back takes 1000 us, no less than computing does.",
    )


def test_a_host_that_may_be_the_limit_is_said() -> None:
    found = measured(Simulated(Clock(), 0.001, host=0.0009, graph=False)).notes

    assert found == (
        "the host takes 900 us to hand an inference over, of 1000 us: it may be the limit, and not the GPU; a CUDA"
        " graph would take it out.",
    )
    assert measured(Simulated(Clock(), 0.001, host=0.0008)).notes == ()


def test_an_unsteady_gpu_is_told_to_lock_its_clocks() -> None:
    assert "varies by 4.9%" in measured(Simulated(Clock(), 0.001, sigma=0.05)).notes[0]
    assert measured(Simulated(Clock(), 0.001, sigma=0.05, clock="perf_counter")).notes == ()
    assert measured(Simulated(Clock(), 0.001, sigma=0.02)).notes == ()


def test_few_blocks_are_never_stable() -> None:
    assert not stable([1.0] * 9)
    assert stable([1.0] * 10)


def test_blocks_that_climb_are_not_stable() -> None:
    assert not stable(list(np.linspace(1.0, 2.0, 40)))


@pytest.mark.parametrize(("percent", "least"), [(75, 24), (90, 64), (95, 130), (99, 662), (99.9, 6636)])
def test_a_percentile_needs_so_many_samples(percent: float, least: int) -> None:
    assert least_samples(percent) == least
    assert percentile(np.ones(least), percent) == 1.0
    assert percentile(np.ones(least - 1), percent) is None


@pytest.mark.parametrize("percent", [0, 50, 100])
def test_no_percentile_needs_samples_outside_of_its_range(percent: float) -> None:
    with pytest.raises(ValueError, match="lies between 50 and 100"):
        least_samples(percent)


def test_a_percentile_is_a_sample_and_the_median_may_lie_between_two() -> None:
    samples = np.random.default_rng(0).permutation(np.arange(100.0))

    assert percentile(samples, 50) == 49.5
    assert percentile(samples, 90) == 89.0
    assert percentile(np.arange(1000.0), 99) == 989.0
    assert percentile(np.arange(130.0), 95) == 123.0
    assert percentile(np.empty(0), 50) is None


def test_two_engines_take_turns_so_that_drift_is_under_both() -> None:
    time = Clock()
    baseline, candidate = Simulated(time, 0.001, drift=0.1), Simulated(time, 0.00105, drift=0.1)

    blocks = interleave(baseline, candidate, Design(pairs=10), clock=time)

    assert len(blocks.baseline) == len(blocks.candidate) == 10
    assert np.median(blocks.candidate / blocks.baseline) == pytest.approx(1.05, rel=1e-3)
    assert blocks.baseline[-1] > 1.05 * blocks.baseline[0]
    assert blocks.per_block == 46


def test_turns_are_abba() -> None:
    time, turns = Clock(), []

    class Named(Simulated):
        def lap(self, samples: int, inferences: int) -> Lap:
            turns.append(self.notes[0])
            return super().lap(samples, inferences)

    interleave(Named(time, 0.01, notes=("A",)), Named(time, 0.01, notes=("B",)), Design(pairs=4), clock=time)

    assert "".join(turns[-8:]) == "ABBAABBA"


def test_both_engines_are_warm_and_have_the_same_sample() -> None:
    time = Clock()
    slow, fast = Simulated(time, 0.001), Simulated(time, 50e-6)

    blocks = interleave(slow, fast, Design(pairs=2), clock=time)

    assert blocks.inferences == 4
    assert slow.asked[-1] == fast.asked[-1] == (40, 4)
    assert blocks.wall_s > 0.4


def test_a_slow_engine_gets_fewer_samples_and_five_at_the_least() -> None:
    time = Clock()
    slow, slower = Simulated(time, 0.1), Simulated(time, 1.0)

    assert interleave(slow, slow, Design(), clock=time).per_block == 10
    assert interleave(slower, slower, Design(), clock=time).per_block == 5


def test_a_coarse_clock_is_averaged_out() -> None:
    time = Clock()
    baseline = Simulated(time, 20e-6, sigma=0.02, step=1.024e-6)
    candidate = Simulated(time, 20.4e-6, sigma=0.02, step=1.024e-6)

    blocks = interleave(baseline, candidate, Design(pairs=10, least=200), inferences=1, clock=time)

    assert blocks.centre == "trimmed mean"
    assert np.median(blocks.candidate / blocks.baseline) == pytest.approx(1.02, abs=0.004)


def test_a_fine_clock_has_its_medians() -> None:
    time = Clock()
    engine = Simulated(time, 0.001, sigma=0.02)

    assert interleave(engine, engine, Design(), clock=time).centre == "median"


def test_the_trimmed_mean_leaves_a_tenth_out_at_either_end() -> None:
    assert trimmed_mean(np.array([100.0, *[2.0] * 4, *[4.0] * 4, -100.0])) == 3.0


def engine(proto: Any = None) -> Any:
    return choose("onnxruntime").build(Recipe(Model(proto or networks.convolutional(), "net.onnx"), Precision.FP32))


def test_onnxruntime_is_timed_around_its_session_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    built = engine()
    stopwatch = stopwatch_of(built, {"x": networks.images(8)}, Timing())
    monkeypatch.setattr("pytest_trt.backends.onnxruntime.conform", lambda *_: pytest.fail("checked while timed"))

    lap = stopwatch.lap(3, 2)

    assert isinstance(built, Timed)
    assert len(lap.compute) == 3
    assert (lap.compute > 0).all()
    assert (stopwatch.clock, stopwatch.graph, stopwatch.batch) == ("perf_counter", False, 8)
    assert stopwatch.shapes == {"x": (8, 2, 6, 6)}
    assert stopwatch.notes == ()


def test_one_run_of_many_samples_is_timed_where_the_batch_is_fixed() -> None:
    stopwatch = stopwatch_of(engine(networks.convolutional(batch=2)), {"x": networks.images(8)}, Timing())

    assert stopwatch.batch == 2


def test_inputs_that_do_not_fit_are_refused_before_anything_is_timed() -> None:
    with pytest.raises(DataError, match="lacks 'x'"):
        stopwatch_of(engine(), {"z": networks.images(8)}, Timing())


class Plain:
    """An engine that knows nothing of time."""

    backend = "plain"
    precision = Precision.FP32
    simulated = False
    facts: Mapping[str, Any] = MappingProxyType({})
    warnings = ()

    def __init__(self, time: Clock) -> None:
        self.time = time

    def layers(self) -> tuple[Layer, ...]:
        return ()

    def run(self, inputs: Any, *, on_device: bool = False) -> Any:  # noqa: ARG002 - as in Engine
        self.time.now += 0.25
        return inputs


def test_any_other_engine_is_timed_around_its_run_and_that_is_said() -> None:
    time = Clock()
    stopwatch = stopwatch_of(Plain(time), {"x": np.zeros((4, 2))}, Timing())

    assert stopwatch.batch == 4
    assert "backend 'plain' has no stopwatch of its own: what is timed is run() as a whole" in stopwatch.notes[0]


def test_the_hosts_clock_tells_seconds_an_inference() -> None:
    time = Clock()
    plain = Plain(time)

    lap = HostStopwatch(lambda: plain.run({}), "plain", 1, now=time).lap(5, 2)

    assert list(lap.latency) == [0.25] * 5
    assert lap.enqueue is None


def test_what_fails_while_it_is_timed_is_told() -> None:
    def broken() -> None:
        raise RuntimeError("out of order")

    with pytest.raises(
        BackendError, match=r"net\.onnx: onnxruntime fails while it is timed: RuntimeError: out of order"
    ):
        HostStopwatch(broken, "net.onnx: onnxruntime", 1).lap(1, 1)
