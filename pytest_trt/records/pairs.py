"""Pairs: the results of two records that are about the same case at the same precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Pair", "pairs_of"]

Result = dict[str, Any]

# what two results have in common, the closest first; the backend may be another, and that is what is asked then
_ALIKE: tuple[Callable[[Result], tuple[Any, ...]], ...] = (
    lambda result: (result.get("nodeid"), result["case"], result["precision"], result["backend"]),
    lambda result: (result["case"], result["precision"], result["backend"]),
    lambda result: (result["case"], result["precision"]),
)


@dataclass(frozen=True)
class Pair:
    """One case at one precision, before and after; None where that record has it not."""

    before: Result | None
    after: Result | None


def pairs_of(before: Iterable[Result], after: Iterable[Result]) -> list[Pair]:
    """Each result of both records in exactly one pair, in the order of ``after``, what is gone at the end."""
    left, right = list(before), list(after)
    found: dict[int, Result] = {}
    for alike in _ALIKE:
        for place, result in enumerate(right):
            if place not in found and (match := _first(left, alike, alike(result))) is not None:
                found[place] = left.pop(match)
    pairs = [Pair(found.get(place), result) for place, result in enumerate(right)]
    return [*pairs, *(Pair(result, None) for result in left)]


def _first(results: list[Result], alike: Callable[[Result], tuple[Any, ...]], wanted: tuple[Any, ...]) -> int | None:
    return next((place for place, result in enumerate(results) if alike(result) == wanted), None)
