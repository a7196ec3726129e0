"""State: what can be said of an engine's latency against its baseline, and of what fails."""

from __future__ import annotations

from enum import Enum

__all__ = ["State"]


class State(Enum):
    """What a comparison with the baseline found.

    ``docs/latency.md`` says which of them fail a case.
    """

    SLOW = "slow"
    """Slower, by more than noise and by more than the threshold."""

    FAST = "fast"
    """Faster, by more than noise and by more than the threshold."""

    SAME = "same"
    """No difference found, and one of the size that matters would have been."""

    AMBIGUOUS = "ambiguous"
    """Could not be told: too noisy, the GPU throttled or shared."""

    NO_BASELINE = "no-baseline"
    """There is nothing to compare with."""

    NOT_COMPARABLE = "not-comparable"
    """The baseline is of another machine, or of another metric."""

    RENAMED = "renamed"
    """The baseline knows the same model at the same precision by another name."""

    VANISHED = "vanished"
    """The baseline knows the case, and it was not run."""

    RECORDED = "recorded"
    """Measured, and compared with nothing, because that was not asked."""
