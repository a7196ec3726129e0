"""Replay: measured seconds into pytest-benchmark, by a clock that tells them again.

pytest-benchmark has no door for what was measured elsewhere. Its pedantic mode reads the clock just before and just
after each round; a clock that says 0 and then a sample makes that sample the round's time, to the bit. All of it is
public: the marker's ``timer``, ``benchmark.pedantic`` and ``benchmark.extra_info``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["ReplayClock", "replay"]


class ReplayClock:
    """A clock that tells 0 and a sample by turns.

    Attributes:
        __name__: what pytest-benchmark writes as the timer's name: the clock that took the samples.
    """

    def __init__(self) -> None:
        self.__name__ = "not_used"
        self._readings: Iterator[float] = iter(())

    def wind(self, seconds: Sequence[float], name: str) -> None:
        """Have these samples told next; ``name`` is the clock's that took them."""
        self.__name__ = name
        self._readings = (reading for sample in seconds for reading in (0.0, sample))

    def __call__(self) -> float:
        """The next reading in seconds.

        Raises:
            RuntimeError: it was read more often than there are samples.
        """
        for reading in self._readings:
            return reading
        raise RuntimeError("the replayed clock was read more often than pytest-benchmark's pedantic mode reads it")


def replay(benchmark: Any, clock: ReplayClock, seconds: Sequence[float], name: str, info: Mapping[str, Any]) -> bool:
    """Hand samples to a ``benchmark`` fixture whose timer is this clock.

    Args:
        benchmark: the fixture, unused as yet.
        clock: its timer.
        seconds: the samples, plain floats.
        name: of the clock that took them.
        info: for its ``extra_info``, plain as JSON is.

    Returns:
        Whether they were taken: not where benchmarks are disabled, and not by another plugin's ``benchmark``.
    """
    benchmark.extra_info.update(info)
    if getattr(benchmark, "disabled", True) or not seconds:
        benchmark.pedantic(_nothing)
        return False
    clock.wind(seconds, name)
    benchmark.pedantic(_nothing, rounds=len(seconds), iterations=1)
    return True


def _nothing() -> None:
    """What is "run" while the clock tells what was measured."""
