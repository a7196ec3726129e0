"""Seen: what calibration samples showed of themselves, and what a person should know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pytest_trt.feeds import Arrays

__all__ = ["Seen", "faint", "silent", "sparse", "unbounded"]

_FEW = 8


@dataclass
class Seen:
    """What one pass over samples showed, without keeping more of them than the first.

    Attributes:
        count: how many samples, along axis 0.
        spans: least and largest value by input.
        values: how many values by input.
        alike: whether every sample so far is the first one again.
    """

    count: int = 0
    spans: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)
    alike: bool = True
    _first: dict[str, NDArray[Any]] = field(default_factory=dict)

    def add(self, arrays: Arrays, count: int) -> None:
        """Look at one piece of so many samples."""
        self.count += count
        for name, array in arrays.items():
            values = array.astype(np.float32) if array.dtype.kind == "V" else array
            if values.size:  # an inner axis may be empty, as that of a cache before its first token
                low, high = self.spans.get(name, (values.flat[0], values.flat[0]))
                self.spans[name] = min(low, values.min()), max(high, values.max())
            self.values[name] = self.values.get(name, 0) + array.size
            first = self._first.setdefault(name, array[:1].copy() if array.ndim else array)
            same_shape = array.shape[1:] == first.shape[1:]  # of sequences, each has its own length
            self.alike = self.alike and same_shape and bool((array == first).all())

    def require_moving(self, source: str) -> None:
        """Refuse samples that say nothing of what a model will see.

        Raises:
            DataError: there are none, or every input holds one value only; names one.
        """
        if not self.count:
            raise DataError(f"{source} holds no samples.")
        if not self.spans:
            raise DataError(
                f"{source}: its {self.count} samples hold no values: an inner axis of every input is empty."
            )
        still = self._still()
        if still and len(still) == len(self.spans):
            name = still[0]
            raise DataError(
                f"{source}: {name!r} is {self.spans[name][0]} in every one of its {self.values[name]} values: ranges of"
                " such samples fit nothing else. Give data as the model will see it."
            )

    def notes(self, source: str) -> tuple[str, ...]:
        """What is odd about the samples and may be right, a sentence each."""
        found = []
        if self.count == 1:
            found.append(
                f"{source} is one sample: its ranges are those of no other. Give some hundreds of typical ones."
            )
        elif self.alike:
            found.append(f"the {self.count} samples of {source} are all the same: they calibrate as one does.")
        elif self.count < _FEW:
            found.append(f"{source} is {self.count} samples: what others reach beyond them is clipped. Give more.")
        return (*found, *(f"{source}: {name!r} is {self.spans[name][0]} in all samples." for name in self._still()))

    def _still(self) -> list[str]:
        """Inputs of more than one value that hold only one; a mask or a setting may."""
        return [name for name, (low, high) in self.spans.items() if low == high and self.values[name] > 1]


def silent(amax: Mapping[str, float], source: str) -> tuple[str, ...]:
    """A sentence that names tensors that are zero over all samples, if there are any."""
    names = [name for name, value in amax.items() if value == 0]
    if not names:
        return ()
    return (f"{_counted(names)} zero over all samples of {source}, and would be clipped elsewhere: {_listed(names)}.",)


def sparse(names: list[str], source: str) -> tuple[str, ...]:
    """A sentence that names tensors of too few values for entropy, if there are any."""
    if not names:
        return ()
    count = f"{len(names)} tensors have" if len(names) > 1 else "1 tensor has"
    return (
        f"{count} too few values over the samples of {source} for entropy, so that the largest value counts:"
        f" {_listed(names)}. More samples would change that.",
    )


def unbounded(names: list[str], source: str) -> tuple[str, ...]:
    """A sentence that names tensors without a range, which none of the quantised operators reads, if there are any."""
    if not names:
        return ()
    return (
        f"{_counted(names)} NaN or infinite in fp32 for the samples of {source} and left out, since nothing that is"
        f" quantised needs a range there: {_listed(names)}.",
    )


def faint(names: list[str], source: str, fate: str) -> tuple[str, ...]:
    """A sentence that names tensors whose scale would be subnormal, and says what becomes of them, if there are any."""
    if not names:
        return ()
    return (
        f"{_counted(names)} so small over the samples of {source} that no float32 holds the scale,"
        f" and {fate}: {_listed(names)}.",
    )


def _counted(names: list[str]) -> str:
    return f"{len(names)} tensors are" if len(names) > 1 else "1 tensor is"


def _listed(names: list[str]) -> str:
    return f"{', '.join(map(repr, names[:5]))}{' ...' if len(names) > 5 else ''}"
