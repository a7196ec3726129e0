"""Samples: what one latency sample is, and those that were taken of one engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Lap", "Metric", "Samples", "Timing"]


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
