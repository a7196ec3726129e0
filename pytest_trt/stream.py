"""Stream: calibration samples on their way through a session, piece after piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import DataError
from pytest_trt.feeds import Arrays, finite, fit, samples_in, split
from pytest_trt.independent import has_fixed_batch, independent
from pytest_trt.offered import pieces_of
from pytest_trt.samples import named
from pytest_trt.session import run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.model import Model

__all__ = ["BATCH", "PIECE", "Samples", "Stream"]

Samples = Callable[[int | None], Iterable[Arrays]]
"""Opens calibration samples anew for each pass: given the most samples wanted at once along axis 0 (None: as they
come), yields arrays by input name."""

BATCH = 4
"""Samples whose activations are in memory together, where the first axis is dynamic."""

PIECE = 2 * BATCH
"""Samples that are read together."""

_LOOKED_AT = 8  # pieces that are looked at for samples that tell whether they are independent


@dataclass
class Stream:
    """Samples on their way through the session.

    Attributes:
        model: whose inputs they are.
        session: of the model, with the wanted tensors as further outputs.
        samples: opens what was given, for one pass.
        source: what messages call them.
        at_once: the most samples in one run, where the first axis is dynamic; None for all of a piece.
        most: the most samples in one piece; None as they come.
        known: whether it was found out what may be cut.
    """

    model: Model
    session: Any
    samples: Callable[[int | None], Any]
    source: str
    at_once: int | None
    most: int | None
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

    def activations(self, arrays: Arrays) -> Iterator[Arrays]:
        """All tensors of a piece, a few samples at a time."""
        for feeds in split(arrays, self.model.inputs, self.at_once):
            yield {**run(self.session, self.model, feeds), **feeds}

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
            cut = independent(self.session, self.model, arrays)
            if cut is not None:
                break
        if cut:
            self.at_once = BATCH
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
