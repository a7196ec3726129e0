"""Ranges: the largest absolute value of each tensor, the one currency of int8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Ranges"]


@dataclass(frozen=True)
class Ranges:
    """Dynamic ranges of activations: an int8 step of a tensor is its amax / 127.

    Attributes:
        amax: largest absolute value by tensor name, in the tensor's own unit.
        source: what they were taken from, for messages and the record.
    """

    amax: Mapping[str, float]
    source: str = "given"
