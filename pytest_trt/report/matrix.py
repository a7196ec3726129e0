"""Matrix: the results of a run by model and precision, in the order that people read them in."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Matrix", "matrix_of", "tally"]

_PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8", "model")
_VERDICTS = ("error", "failed", "passed", "timed", "built")


@dataclass(frozen=True)
class Matrix:
    """Models by precisions.

    Attributes:
        precisions: the columns.
        rows: a model's name, and for each column the places of its results; several where backends or files differ.
    """

    precisions: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[int, ...], ...]], ...]


def matrix_of(results: Sequence[Mapping[str, Any]]) -> Matrix:
    """Models in the order of the run, precisions from the widest to the narrowest."""
    rank = {name: place for place, name in enumerate(_PRECISIONS)}
    asked = sorted({str(result["precision"]) for result in results}, key=lambda name: (rank.get(name, 99), name))
    cells: dict[str, dict[str, list[int]]] = {}
    for place, result in enumerate(results):
        cells.setdefault(str(result["case"]), {}).setdefault(str(result["precision"]), []).append(place)
    rows = tuple((case, tuple(tuple(found.get(name, ())) for name in asked)) for case, found in cells.items())
    return Matrix(tuple(asked), rows)


def tally(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """How many results have which verdict, those first that want to be looked at."""
    found = Counter(str(result["verdict"]) for result in results)
    rank = {name: place for place, name in enumerate(_VERDICTS)}
    return sorted(found.items(), key=lambda each: (rank.get(each[0], 99), each[0]))
