"""Stopwatches that tell what a test has them tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from pytest_trt.backends.stopwatch import Lap

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class Host:
    """A clock of the host that moves on by what its stopwatches tell, and by nothing else."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Clockwork:
    """Samples around so many seconds, with 1 % noise drawn from a seed."""

    seconds: float = 1e-3
    noise: float = 0.01
    seed: int = 0
    clock: Literal["cuda_event", "perf_counter"] = "cuda_event"
    graph: bool = True
    spin: bool = True
    transfers: bool = False
    batch: int = 1
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {"x": (1, 2, 6, 6)})
    memory: int | None = 2**20
    notes: tuple[str, ...] = ()
    host: Host = field(default_factory=Host)

    def __post_init__(self) -> None:
        self._draw = np.random.default_rng(self.seed)

    def lap(self, samples: int, inferences: int) -> Lap:
        assert inferences >= 1
        self.host.seconds += samples * inferences * (self.seconds if 0 < self.seconds < np.inf else 1e-3)
        return Lap(self.seconds * np.exp(self.noise * self._draw.standard_normal(samples)))
