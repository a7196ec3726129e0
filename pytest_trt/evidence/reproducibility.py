"""Reproducibility: whether an engine that is run, loaded or built again is the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_trt.comparison.comparison import compare
from pytest_trt.golden.index_outputs import aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from pytest_trt.backends.backend import Engine, Layer
    from pytest_trt.evidence.judgement import Judgement
    from pytest_trt.model.feeds import Arrays

__all__ = ["Again", "Repeated", "rebuilt", "rerun"]


@dataclass(frozen=True)
class Again:
    """One repetition against the first time.

    Attributes:
        output: the one that differs most.
        rel_rms: its relative RMS from the first time; 0 where all bits are the same.
        different: how many of its elements are not equal.
        reasons: why its outputs are outside tolerance; of rebuilds alone.
        tactics: (layer, kernel before, kernel now) where another one was chosen; of rebuilds alone.
    """

    output: str
    rel_rms: float
    different: int
    reasons: tuple[str, ...] = ()
    tactics: tuple[tuple[str, str, str], ...] = ()

    @property
    def differs(self) -> bool:
        """Whether any element is not equal."""
        return self.different > 0


@dataclass(frozen=True)
class Repeated:
    """What came of repeating; what was not tried is None, or empty."""

    rerun: Again | None = None
    reload: Again | None = None
    rebuilds: tuple[Again, ...] = ()


def rerun(engine: Engine, inputs: Arrays, first: Arrays) -> Again:
    """Run an engine again on the same inputs."""
    return again_of(engine.run(inputs), first)


def again_of(
    now: Arrays, first: Arrays, reasons: tuple[str, ...] = (), tactics: tuple[tuple[str, str, str], ...] = ()
) -> Again:
    """Outputs against those of the first time."""
    found = {name: compare(*_alike(now[name], array)) for name, array in first.items()}
    worst = max(found, key=lambda name: (found[name].rel_rms, found[name].different))
    return Again(worst, found[worst].rel_rms, found[worst].different, reasons, tactics)


def _alike(now: NDArray[Any], first: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Lists of indices that found another number of rows, row by row."""
    return aligned(now, first) if now.shape != first.shape else (now, first)


def rebuilt(
    count: int,
    build: Callable[[], Engine],
    feeds: Sequence[Arrays],
    first: Sequence[Arrays],
    layers: Iterable[Layer],
    judged: Callable[[list[Arrays]], tuple[Judgement, ...]],
) -> tuple[Again, ...]:
    """Build an engine again and judge each build as the first.

    Args:
        count: how many times.
        build: makes the engine, with nothing kept between builds.
        feeds: runs of inputs.
        first: outputs of the first engine, one set a run.
        layers: of the first engine.
        judged: outputs, one set a run, against the golden.
    """
    before = tuple(layers)
    return tuple(_one(build(), feeds, first, before, judged) for _ in range(count))


def _one(
    engine: Engine,
    feeds: Sequence[Arrays],
    first: Sequence[Arrays],
    before: tuple[Layer, ...],
    judged: Callable[[list[Arrays]], tuple[Judgement, ...]],
) -> Again:
    outputs = [engine.run(run) for run in feeds]
    reasons = tuple(reason for judgement in judged(outputs) for reason in judgement.reasons)
    changed = _changed(before, engine.layers())
    found = [again_of(now, then, reasons, changed) for now, then in zip(outputs, first, strict=True)]
    return max(found, key=lambda again: again.rel_rms)


def _changed(before: tuple[Layer, ...], now: tuple[Layer, ...]) -> tuple[tuple[str, str, str], ...]:
    """Layers whose kernel changed; a layer that is fused otherwise is not in both."""
    kernels = {layer.name: layer.tactic for layer in before}
    return tuple(
        (layer.name, kernels[layer.name], layer.tactic)
        for layer in now
        if kernels.get(layer.name, layer.tactic) != layer.tactic
    )
