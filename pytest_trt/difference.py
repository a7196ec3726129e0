"""Differences of two arrays without wrap-around, block by block.

Taken in float64, which holds every float and every integer up to 53 bits exactly, and in int64 beyond;
never in the arrays' own dtype, where int8's 127 minus -128 is -1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

__all__ = ["Block", "blocks", "dot", "ratio", "rms"]

_SIZE = 1 << 16  # the float64 copies of a block stay in the processor's cache


@dataclass(frozen=True)
class Block:
    """A stretch of both arrays, flat, in float64.

    Attributes:
        start: flat index of its first element.
        actual: values under test.
        reference: golden values.
        signed: actual - reference.
        size: |signed|; 0 where both hold the same NaN or infinity, infinite where only one does.
        finite: whether every value of both is finite.
    """

    start: int
    actual: Doubles
    reference: Doubles
    signed: Doubles
    size: Doubles
    finite: bool


def blocks(actual: NDArray[Any], reference: NDArray[Any]) -> Iterator[Block]:
    """Both arrays, of one shape, stretch by stretch."""
    a, r = actual.reshape(-1), reference.reshape(-1)
    for start in range(0, a.size, _SIZE):
        yield _block(start, a[start : start + _SIZE], r[start : start + _SIZE])


def ratio(size: Doubles, scale: Doubles) -> Doubles:
    """Size over scale; infinite where only the scale is zero (or not finite), 0 where the size is."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found: Doubles = size / scale
    if not np.isfinite(found).all():
        found[~np.isfinite(scale) & (size > 0)] = math.inf
        found[size == 0] = 0.0
    return found


def dot(x: Doubles, y: Doubles) -> float:
    """Sum of products, without BLAS: its threads cost more than they gain on a block, and most of all under xdist."""
    return float(np.einsum("i,i->", x, y))


def rms(array: NDArray[Any]) -> float:
    """Root of the mean square of the finite values, in float64; 0.0 if there are none."""
    flat, total, count = array.reshape(-1), 0.0, 0
    for start in range(0, flat.size, _SIZE):
        values = flat[start : start + _SIZE].astype(np.float64)
        values = values[np.isfinite(values)]
        total, count = total + dot(values, values), count + values.size
    return math.sqrt(total / count) if count else 0.0


def _block(start: int, a: NDArray[Any], r: NDArray[Any]) -> Block:
    x, y = a.astype(np.float64), r.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf is looked at below
        signed = x - y
        if not math.isfinite(float(signed.sum())):
            return _odd_block(start, x, y, signed)
    if (_wide(a) or _wide(r)) and a.dtype.kind in "biu" and r.dtype.kind in "biu":
        signed = _exact(a, r, signed)
    return Block(start, x, y, signed, np.abs(signed), finite=True)


def _odd_block(start: int, x: Doubles, y: Doubles, signed: Doubles) -> Block:
    size = np.abs(signed)
    odd = ~(np.isfinite(x) & np.isfinite(y))
    same = odd & ((x == y) | (np.isnan(x) & np.isnan(y)))
    size[odd] = math.inf
    size[same] = 0.0
    return Block(start, x, y, signed, size, finite=not odd.any())


def _wide(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "iu" and array.dtype.itemsize == 8


def _exact(a: NDArray[Any], r: NDArray[Any], rough: Doubles) -> Doubles:
    """Differences of 64-bit integers, taken in int64 where they fit it (uint64 wraps there and back)."""
    whole = a.astype(np.int64) - r.astype(np.int64)
    return np.where(np.abs(rough) < 2.0**62, whole.astype(np.float64), rough)
