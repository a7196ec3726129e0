"""Stopwatch: what one latency sample is, and what times an engine on inputs that lie ready."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from pytest_trt.errors import BackendError, PytestTrtError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from pytest_trt.backends.backend import Engine
    from pytest_trt.model.feeds import Arrays

__all__ = [
    "HostStopwatch",
    "Lap",
    "Metric",
    "Samples",
    "Stopwatch",
    "Timed",
    "Timing",
    "batch_of",
    "shapes_of",
    "stopwatch_of",
]


@dataclass(frozen=True)
class Timing:
    """How an engine is timed.

    Attributes:
        graph: whether a CUDA graph is replayed where the engine can be captured; never where False.
        spin: whether the host spins while it waits for the GPU (trtexec 11's default), and does not block.
        transfers: whether inputs are copied in and outputs out around each inference, and count (trtexec 10's default).
        warmup_s: seconds of inferences before the first sample that counts.
        least_s: seconds that are sampled at the least.
        most_s: seconds after which sampling stops, stable or not.
        least: samples at the least.
        most: samples kept at the most, so that a file of them stays small: every second, third ... of those taken.
        sample_s: seconds that one sample takes at the least; shorter inferences are timed several at once.
    """

    graph: bool = True
    spin: bool = True
    transfers: bool = False
    warmup_s: float = 0.2
    least_s: float = 1.0
    most_s: float = 5.0
    least: int = 30
    most: int = 2000
    sample_s: float = 200e-6


@dataclass(frozen=True)
class Metric:
    """What one sample is: figures of different metrics are never compared.

    Attributes:
        clock: "cuda_event" (of the GPU) or "perf_counter" (of the host).
        graph: whether a CUDA graph was replayed.
        spin: whether the host spun while it waited.
        transfers: whether copies of inputs and outputs count.
        inferences: back to back in one sample, which tells the time of one of them.
        batch: samples along axis 0 that one inference takes.
        shapes: of the inputs of one inference, by name.
    """

    clock: Literal["cuda_event", "perf_counter"]
    graph: bool
    spin: bool
    transfers: bool
    inferences: int
    batch: int
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def plain(self) -> dict[str, Any]:
        """The same as JSON gives it back: shapes are lists."""
        return {**asdict(self), "shapes": {name: list(shape) for name, shape in self.shapes.items()}}


@dataclass(frozen=True)
class Lap:
    """Some samples, one after the other, each in seconds an inference.

    Attributes:
        compute: of the engine alone, float64[n].
        h2d: of copying inputs to the GPU, float64[n]; None where none were copied.
        d2h: of copying outputs back, float64[n]; None where none were copied.
        enqueue: of the host to hand the work over, float64[n]; None where nothing is enqueued.
    """

    compute: NDArray[np.float64]
    h2d: NDArray[np.float64] | None = None
    d2h: NDArray[np.float64] | None = None
    enqueue: NDArray[np.float64] | None = None

    @property
    def latency(self) -> NDArray[np.float64]:
        """What counts: compute, and the copies where there are any, summed as trtexec does."""
        parts = [part for part in (self.h2d, self.d2h) if part is not None]
        return self.compute + sum(parts) if parts else self.compute


@dataclass(frozen=True)
class Samples:
    """What was measured of one engine.

    Attributes:
        metric: what one sample is.
        lap: the samples that are kept, those of the warm-up left out.
        warmup_s: seconds of the warm-up.
        wall_s: seconds that all of it took.
        stopped: why sampling ended: "stable", or "time" (not stable in the time given).
        memory: bytes of the GPU that the engine takes (weights and activations); None where nothing tells.
        notes: what there is to say, a sentence each: no graph was captured and why, the host could not keep up.
    """

    metric: Metric
    lap: Lap
    warmup_s: float
    wall_s: float
    stopped: Literal["stable", "time"]
    memory: int | None = None
    notes: tuple[str, ...] = ()


class Stopwatch(Protocol):
    """An engine with one inference's inputs in place.

    Attributes:
        clock: "cuda_event" or "perf_counter".
        graph: whether a CUDA graph is replayed.
        spin: whether the host spins while it waits.
        transfers: whether copies of inputs and outputs are timed and count.
        batch: samples along axis 0 that one inference takes.
        shapes: of the inputs of one inference, by name.
        memory: bytes of the GPU that the engine takes; None where nothing tells.
        notes: what there is to say, a sentence each.
    """

    @property
    def clock(self) -> Literal["cuda_event", "perf_counter"]: ...  # noqa: D102 - told by the class

    @property
    def graph(self) -> bool: ...  # noqa: D102

    @property
    def spin(self) -> bool: ...  # noqa: D102

    @property
    def transfers(self) -> bool: ...  # noqa: D102

    @property
    def batch(self) -> int: ...  # noqa: D102

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...  # noqa: D102

    @property
    def memory(self) -> int | None: ...  # noqa: D102

    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102

    def lap(self, samples: int, inferences: int) -> Lap:
        """Time so many samples, each of so many inferences back to back; all work is over when it returns.

        Raises:
            BackendError: running fails.
        """
        ...


@runtime_checkable
class Timed(Protocol):
    """An engine that knows how to be timed; any other is timed by the host's clock around its ``run``."""

    def stopwatch(self, inputs: Arrays, timing: Timing) -> Stopwatch:
        """Its stopwatch, with the first run of these inputs in place.

        Raises:
            DataError: the inputs do not fit.
            BackendError: the engine can't be prepared.
        """
        ...


@dataclass(frozen=True, eq=False)
class HostStopwatch:
    """See :class:`pytest_trt.backends.stopwatch.Stopwatch`.

    Attributes:
        infer: one inference, over when it returns.
        what: what messages call the engine.
        around: entered for each lap.
        now: the clock, seconds.
    """

    infer: Callable[[], Any]
    what: str
    batch: int
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    memory: int | None = None
    notes: tuple[str, ...] = ()
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    now: Callable[[], float] = perf_counter
    clock: Literal["perf_counter"] = "perf_counter"
    graph: bool = False
    spin: bool = False
    transfers: bool = False

    def lap(self, samples: int, inferences: int) -> Lap:
        """See :meth:`pytest_trt.backends.stopwatch.Stopwatch.lap`."""
        took = np.empty(samples)
        try:
            with self.around():
                for number in range(samples):
                    took[number] = self._once(inferences)
        except PytestTrtError:
            raise
        except Exception as error:  # whatever runs the engine raises what it likes
            raise BackendError(f"{self.what} fails while it is timed: {type(error).__name__}: {error}") from error
        return Lap(took / inferences)

    def _once(self, inferences: int) -> float:
        infer, now = self.infer, self.now
        if inferences == 1:
            started = now()
            infer()
            return now() - started
        started = now()
        for _ in range(inferences):
            infer()
        return now() - started


def stopwatch_around_run(engine: Engine, inputs: Arrays) -> HostStopwatch:
    """For an engine that can't be timed any nearer: its ``run`` over all of these inputs, with all that it does.

    Raises:
        DataError: the inputs do not fit.
        BackendError: running fails.
    """
    engine.run(inputs)
    return HostStopwatch(
        infer=lambda: engine.run(inputs),
        what=f"the engine of backend {engine.backend!r}",
        batch=batch_of(inputs),
        shapes=shapes_of(inputs),
        notes=(
            f"backend {engine.backend!r} has no stopwatch of its own: what is timed is run() as a whole, which checks,"
            " copies and converts inputs and outputs.",
        ),
    )


def batch_of(feeds: Mapping[str, Any]) -> int:
    """Samples along axis 0 of the first input that has one; 1 where none has."""
    return next((int(value.shape[0]) for value in feeds.values() if value.shape), 1)


def shapes_of(feeds: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes by name."""
    return {name: tuple(int(size) for size in value.shape) for name, value in feeds.items()}


def stopwatch_of(engine: Engine, inputs: Arrays, timing: Timing) -> Stopwatch:
    """The engine's own stopwatch; around its ``run`` where it has none.

    Args:
        engine: what is timed.
        inputs: arrays by input name, samples along axis 0; one run of them is timed.
        timing: with a CUDA graph or not, with copies or not.

    Raises:
        DataError: the inputs do not fit.
        BackendError: the engine can't be prepared, or does not run.
    """
    if isinstance(engine, Timed):
        return engine.stopwatch(inputs, timing)
    return stopwatch_around_run(engine, inputs)
