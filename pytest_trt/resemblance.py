"""Resemblance: whether a wrong output is a plain change of the right one, which calls the fault by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from pytest_trt.feeds import Arrays

    Doubles = NDArray[np.float64]

__all__ = ["resemblance_of"]

_LEFT = 0.1
_CLASSES = 4096
_ELEMENTS = 1 << 22


def resemblance_of(name: str, actual: Mapping[str, Any], reference: Arrays) -> str:
    """What the actual output is, if it is a plain change of the reference; empty where no change explains it.

    A change explains an output where less than a tenth of the error (as a norm) is left after it.

    Args:
        name: of the output.
        actual: all outputs, by name.
        reference: the golden's, by name; finite on both sides.
    """
    a, r = np.asarray(actual[name]).astype(np.float64), reference[name].astype(np.float64)
    error = _norm(a - r)
    if not error or a.size > _ELEMENTS or not np.isfinite(error):
        return ""
    for look in (_swapped(name, reference), _stepped, _permuted, _zeroed, _flipped, _scaled):
        told = look(a, r, _LEFT * error)
        if told:
            return told
    return ""


def _norm(values: Doubles) -> float:
    return float(np.linalg.norm(values.reshape(-1)))


def _swapped(name: str, reference: Arrays) -> Callable[[Doubles, Doubles, float], str]:
    def look(a: Doubles, _: Doubles, left: float) -> str:
        for other, array in reference.items():
            if other != name and array.shape == a.shape and _norm(a - array.astype(np.float64)) <= left:
                return f"it is the golden's output {other!r}: outputs changed places"
        return ""

    return look


def _stepped(a: Doubles, r: Doubles, left: float) -> str:
    """Whole numbers that are all off by the same step."""
    step = float(np.median(a - r))
    whole = step and step.is_integer() and np.array_equal(a, np.round(a)) and np.array_equal(r, np.round(r))
    return f"every value is off by {step:+g}" if whole and _norm(a - r - step) <= left else ""


def _permuted(a: Doubles, r: Doubles, left: float) -> str:
    if a.ndim < 2:
        return ""
    axis, kind = (a.ndim - 1, "classes") if a.ndim <= 3 else (1, "channels")
    size = a.shape[axis]
    if not 2 <= size <= _CLASSES:
        return ""
    for shift in (1, -1):
        if _norm(a - np.roll(r, shift, axis)) <= left:
            return f"its {kind} are shifted by {shift:+d}"
    if _norm(a - np.flip(r, axis)) <= left:
        return f"its {kind} are in reversed order"
    order = _matched(np.moveaxis(a, axis, 0).reshape(size, -1), np.moveaxis(r, axis, 0).reshape(size, -1))
    moved = [i for i in range(size) if order[i] != i]
    if moved and len(set(order)) == size and _norm(a - np.take(r, order, axis)) <= left:
        listing = ", ".join(f"{i} holds {order[i]}" for i in moved[:3])
        return f"its {kind} changed places ({listing}{', ...' if len(moved) > 3 else ''})"
    return ""


def _matched(a: Doubles, r: Doubles) -> list[int]:
    """For each row of ``a`` the nearest of ``r``."""
    distance = (a**2).sum(1)[:, None] + (r**2).sum(1)[None] - 2 * np.einsum("ik,jk->ij", a, r)
    return [int(i) for i in distance.argmin(axis=1)]


def _zeroed(a: Doubles, r: Doubles, left: float) -> str:
    if a.ndim < 2:
        return ""
    axis, kind = (a.ndim - 1, "class") if a.ndim <= 3 else (1, "channel")
    others = tuple(i for i in range(a.ndim) if i != axis)
    dead = np.flatnonzero(~np.abs(a).any(axis=others) & np.abs(r).any(axis=others))
    if not len(dead) or len(dead) == a.shape[axis]:
        return ""
    kept = np.delete(a - r, dead, axis)
    return f"{kind} {int(dead[0])} is zero throughout" if len(dead) == 1 and _norm(kept) <= left else ""


def _flipped(a: Doubles, r: Doubles, left: float) -> str:
    if a.ndim != 4:
        return ""
    for axis, told in ((3, "left and right"), (2, "up and down")):
        if _norm(a - np.flip(r, axis)) <= left:
            return f"it is mirrored, {told}"
    if a.shape[2] == a.shape[3] and _norm(a - r.swapaxes(2, 3)) <= left:
        return "it is transposed: rows became columns"
    return ""


def _scaled(a: Doubles, r: Doubles, left: float) -> str:
    square = float((r**2).sum())
    factor = float((a * r).sum()) / square if square else 0.0
    if not factor or _norm(a - factor * r) > left:
        return ""
    return "its sign is changed" if abs(factor + 1) < 1e-3 else f"it is the golden's times {factor:.4g}"
