"""Stopwatch: what times an engine on inputs that lie ready, and who can give one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_trt.feeds import Arrays
    from pytest_trt.latency.samples import Lap, Timing

__all__ = ["Stopwatch", "Timed"]


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
