"""Offered: what a Python caller gives as calibration samples, as pieces of arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from pytest_trt.errors import DataError

__all__ = ["Items", "opener", "pieces_of"]


class Items(Protocol):
    """A data set of so many pieces."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


def opener(offered: Any, source: str, method: str, *, twice: bool) -> Callable[[int | None], Any]:
    """A function that opens what was offered, for one pass; a function is that itself.

    Args:
        offered: arrays by input name, one array, an iterable of either, a data set with a length and items, or a
            function that returns any of these, given the most samples wanted at once.
        source: what messages call it.
        method: of calibration, for messages.
        twice: whether it has to be read twice.

    Raises:
        DataError: it is nothing of that kind, or can be read only once.
    """
    if _is_function(offered):
        return offered  # type: ignore[no-any-return]
    if isinstance(offered, Iterator) and twice:
        raise DataError(
            f"{source} can be read only once, and calibration by {method} reads samples twice: give a list, or a"
            " function that opens them anew (lambda most: ...), or take minmax."
        )
    found = pieces_of(offered, source)
    return lambda _: found


def pieces_of(offered: Any, source: str) -> Iterable[Any]:
    """The pieces of what was offered: arrays by input name, or single arrays.

    Raises:
        DataError: it is nothing that holds samples.
    """
    if isinstance(offered, Mapping):
        return [dict(offered)]
    if hasattr(offered, "__array__"):
        return [offered]
    if isinstance(offered, Iterable) and not isinstance(offered, (str, bytes, Path)):
        return offered
    if hasattr(offered, "__getitem__") and hasattr(offered, "__len__") and not isinstance(offered, (str, bytes)):
        return _InOrder(offered)
    shown = f" ({offered!r})" if isinstance(offered, (str, Path)) else ""
    raise DataError(
        f"{source}: the samples are {type(offered).__name__}{shown}: give arrays by input name, a list of them, or a"
        " function that opens them (lambda most: ...); files are opened by pytest_trt.pieces.pieces."
    )


def _is_function(offered: Any) -> bool:
    holds = isinstance(offered, Iterable) or hasattr(offered, "__array__") or hasattr(offered, "__getitem__")
    return callable(offered) and not holds


class _InOrder:
    """The items of a data set, which can be read again."""

    def __init__(self, items: Items) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return (self._items[number] for number in range(len(self._items)))
