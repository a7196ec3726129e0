"""Scale: from values to places in a drawing, straight or by decades, with the ticks that people read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Scale", "decades", "span"]

_FAR, _NEAR = 1e300, 1e-300  # what lies beyond is drawn there: sums and quotients stay inside float64
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low: value at ``start``.
        high: value at ``end``; not equal to low.
        start: place of the low end, in units of the drawing.
        end: place of the high end.
        log: whether equal distances are equal quotients; both ends are positive then.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value, to a tenth; beyond an end it is that end."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(value) if value > 0 else -math.inf, math.log10(low), math.log10(high)
        # halved, since both ends may be near the largest float
        share = min(max((value / 2 - low / 2) / (high / 2 - low / 2), 0.0), 1.0)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values inside the ends, at most about so many."""
        return self._decades(most) if self.log else self._steps(most)

    def _steps(self, most: int) -> list[float]:
        rough = (self.high / most) - (self.low / most)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in _STEPS if power * factor >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _decades(self, most: int) -> list[float]:
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        every = max(1, math.ceil((last - first + 1) / most))
        return [10.0**power for power in range(first, last + 1, every)]


def span(values: Iterable[float]) -> tuple[float, float]:
    """The ends of a straight axis for these values, never the same: of one value, what is around it."""
    found = [min(max(value, -_FAR), _FAR) for value in values] or [0.0, 1.0]
    low, high = min(found), max(found)
    if high - low > 1e-12 * max(abs(low), abs(high), _NEAR):
        return low, high
    middle = max(abs(low), abs(high), _NEAR)
    return (0.0 if low == 0 else low - middle / 2), high + middle / 2


def decades(values: Iterable[float], least: float = 1e-12) -> tuple[float, float]:
    """The ends of a logarithmic axis: whole decades around these values, of which those below ``least`` count as it."""
    found = [max(value, least) for value in values] or [1.0]
    low, high = math.floor(math.log10(min(found))), math.ceil(math.log10(max(found)))
    return 10.0 ** max(low, -300), 10.0 ** min(max(high, low + 1), 300)
