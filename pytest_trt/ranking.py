"""Ranking: whether the best classes are still the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Flip", "Ranking", "accuracy", "rank", "scores_of"]

_FLIPS = 5


@dataclass(frozen=True)
class Flip:
    """A sample whose best class changed: the class of the reference, then the actual one."""

    sample: int
    reference: int
    actual: int


@dataclass(frozen=True)
class Ranking:
    """Agreement of the class scores over the samples.

    Attributes:
        samples: how many were ranked; every place of a map of scores (N, C, H, W) is one.
        top1: share of samples whose best class is the reference's best class.
        top5: share of samples whose five best classes hold the reference's best class.
        flips: the first samples whose best class changed, five at most.
    """

    samples: int
    top1: float
    top5: float
    flips: tuple[Flip, ...]


def rank(actual: NDArray[Any], reference: NDArray[Any]) -> Ranking:
    """Compare best classes; the class axis is the last of one to three axes, axis 1 of more.

    A sample whose actual scores hold a NaN agrees with nothing.

    Raises:
        DataError: there is no class axis, or it is empty.
    """
    a, r = scores_of(actual), scores_of(reference)
    best = r.argmax(axis=1)
    blind = np.isnan(a).any(axis=1)
    first = np.where(blind, -1, a.argmax(axis=1))
    scores_of_best = np.take_along_axis(a, best[:, None], axis=1)
    above = (a >= scores_of_best).sum(axis=1) - 1  # a tie is not known to be won
    flipped = np.flatnonzero(first != best)
    return Ranking(
        samples=len(best),
        top1=float((first == best).mean()),
        top5=float(((above < 5) & ~blind).mean()),
        flips=tuple(Flip(int(i), int(best[i]), int(first[i])) for i in flipped[:_FLIPS]),
    )


def accuracy(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Share of samples whose best class is the label; NaN scores are wrong.

    Raises:
        DataError: there is not one label a sample.
    """
    s = scores_of(scores)
    wanted = labels.reshape(-1)
    if len(wanted) != len(s):
        raise DataError(f"{len(wanted)} labels for {len(s)} samples of scores {list(scores.shape)}.")
    right = (s.argmax(axis=1) == wanted) & ~np.isnan(s).any(axis=1)
    return float(right.mean())


def scores_of(array: NDArray[Any]) -> NDArray[np.float64]:
    """Samples by classes, in float64.

    Raises:
        DataError: there is no class axis, or it is empty.
    """
    if not array.ndim or not array.size:
        raise DataError(f"shape {list(array.shape)} has no classes to rank.")
    classes = array.ndim - 1 if array.ndim <= 3 else 1
    moved = np.moveaxis(array, classes, -1).astype(np.float64)
    return moved.reshape(-1, array.shape[classes])
