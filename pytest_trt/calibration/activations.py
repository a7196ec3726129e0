"""Activations: calibration samples run through a session piece after piece, and what they show of themselves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pytest_trt.calibration._inner_tensors import BATCH, InnerTensors
from pytest_trt.errors import DataError
from pytest_trt.model.feeds import Arrays, finite, fit, samples_in, split
from pytest_trt.model.onnx_session import has_fixed_batch
from pytest_trt.model.samples import named

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.model.model import Model

__all__ = ["PIECE", "Items", "Seen", "Stream", "faint", "opener", "silent", "sparse", "unbounded"]


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
        " function that opens them (lambda most: ...); files are opened by pytest_trt.model.sample_stream.pieces."
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


PIECE = 2 * BATCH
"""Samples that are read together."""

_LOOKED_AT = 8  # pieces that are looked at for samples that tell whether they are independent


@dataclass
class Stream:
    """Samples on their way through the session.

    Attributes:
        model: whose inputs they are.
        tensors: of the model, that are wanted.
        samples: opens what was given, for one pass.
        source: what messages call them.
        at_once: the most samples in one run, where the first axis is dynamic; None for all of a piece.
        most: the most samples in one piece; None as they come.
        deciding: the tensors that tell whether samples may be cut; all that are wanted if None.
        known: whether it was found out what may be cut.
    """

    model: Model
    tensors: InnerTensors
    samples: Callable[[int | None], Any]
    source: str
    at_once: int | None
    most: int | None
    deciding: Collection[str] | None = None
    known: bool = False

    def pieces(self) -> Iterator[Arrays]:
        """One pass over the samples, each piece checked.

        Raises:
            DataError: a piece does not fit the model, or holds NaN or infinity.
        """
        begun = 0
        for arrays in self._opened() if self.known or self.at_once else self._first_opened():
            finite(arrays, self.source, begun)
            begun += samples_in(arrays, self.model.inputs)
            yield arrays

    def activations(self, arrays: Arrays) -> Iterator[Mapping[str, Any]]:
        """All tensors of a piece, a few samples at a time; to be read in the graph's order."""
        for feeds in split(arrays, self.model.inputs, self.at_once):
            yield self.tensors.of(feeds)

    def _opened(self) -> Iterator[Arrays]:
        for found in pieces_of(self.samples(self.most), self.source):
            arrays = named(found, self.model.inputs, self.source)
            fit(arrays, self.model.inputs, self.source)
            yield arrays

    def _first_opened(self) -> Iterable[Arrays]:
        """Small pieces, if the first that tell show that they may be cut; else all samples as they come.

        Pieces of one sample tell nothing, nor do silent ones: where none of the first tells, nothing is cut.
        """
        self.known, self.most = True, PIECE
        found, first, cut = self._opened(), [], None
        for arrays in islice(found, _LOOKED_AT):
            first.append(arrays)
            cut = self.tensors.independent(arrays, self.deciding)
            if cut is not None:
                break
        if cut:
            self.at_once = self.tensors.at_once(first[-1])
        elif any(samples_in(part, self.model.inputs) == PIECE for part in first) and not has_fixed_batch(self.model):
            self.most = None  # the pieces may have been cut where nothing may be
            return self._reopened(first, found)
        return chain(first, found)

    def _reopened(self, first: list[Arrays], rest: Iterator[Arrays]) -> Iterable[Arrays]:
        """All samples as they come. What an iterator made once has given already is not lost: it goes before."""
        found = self._opened()
        again: list[Arrays] = []
        try:
            while self._count(again) < self._count(first) and (part := next(found, None)) is not None:
                again.append(part)
        except DataError:  # it was read to its end, or the rest of the first reading has the same fault
            return chain(first, again, rest)
        return chain([] if self._begin_alike(first, again) else first, again, found)

    def _count(self, pieces: list[Arrays]) -> int:
        return sum(samples_in(part, self.model.inputs) for part in pieces)

    def _begin_alike(self, first: list[Arrays], again: list[Arrays]) -> bool:
        """Whether the samples of the first reading stand at the beginning of the second."""
        names = [spec.name for spec in self.model.inputs] if self._count(again) >= self._count(first) else []
        rows = (
            (row, other) for name in names for row, other in zip(_rows(first, name), _rows(again, name), strict=False)
        )
        return bool(names) and all(np.array_equal(row, other) for row, other in rows)


def _rows(pieces: list[Arrays], name: str) -> Iterator[NDArray[Any]]:
    return (row for part in pieces for row in np.atleast_1d(part[name]))
