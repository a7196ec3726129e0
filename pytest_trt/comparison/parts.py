"""Parts: an output's slices of one scale, and its sentinels, each judged by itself so that none hides another.

One relative RMS over a detector's output lets boxes in pixels hide class scores that all became zero, and -1000 among
logits hides every error of the others. What stands for minus infinity is no number of the output's scale, and neither
are a NaN and an infinity: they are judged in their places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.comparison.comparison import compare
from pytest_trt.model.feeds import is_float

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pytest_trt.comparison.comparison import Comparison, Element
    from pytest_trt.model.feeds import Arrays

    Doubles = NDArray[np.float64]

__all__ = ["Part", "apart", "as_endless", "groups_of", "joined", "parts_of", "sentinels_beyond"]

_GAP = 10.0  # a decade between the largest values of two slices, or between a sentinel and all other values
_LEAST_SENTINEL = 100.0  # below it, a number that many elements share is no minus infinity
_LEVELS = 4  # masks that add up, and a row that has another
_SPREAD = 0.05  # a mask of -1e4 is added to what it masks, and moves by that
_ENDLESS = 3e4  # from here a sentinel stands for infinity: fp16 ends at 65504
_FAR = 1e4  # and any value from here will do in its place
_MOST_GROUPS = 8
_INSIGNIFICANT = 1e-6  # of the largest value: slices that small make no scale of their own


@dataclass(frozen=True)
class Part:
    """Which elements of an output are judged together, and how.

    Attributes:
        output: its name.
        axis, rows: the slices along an axis that belong to it; all elements where there is no axis.
        period: along axis 0, after how many slices those of the next sample follow; 0 along any other.
        beyond: elements whose golden value is not finite, or at least as large as this, are sentinels: they are left
            out, or are all that counts, as ``sentinels`` says; None where the output has none.
        sentinels: see ``beyond``.
        least: of probabilities, whose logarithms are compared: smaller ones count as this; 0 where values are compared.
    """

    output: str
    axis: int | None = None
    rows: tuple[int, ...] = ()
    beyond: float | None = None
    sentinels: bool = False
    least: float = 0.0
    period: int = 0

    @property
    def name(self) -> str:
        """As messages and goldens name it: ``scores``, ``y[:, 4:22]``, ``logits (sentinels)``, ``p (log)``."""
        where = "" if self.axis is None else f"[{':, ' * self.axis}{_spans(self.rows)}]"
        how = " (sentinels)" if self.sentinels else " (log)" if self.least else ""
        return f"{self.output}{where}{how}"

    @property
    def whole(self) -> bool:
        """Whether it is all of the output, value by value."""
        return self.axis is None and self.beyond is None and not self.least

    def mask(self, golden: NDArray[Any]) -> NDArray[np.bool_]:
        """Which elements of the golden's output it takes; of the golden's shape."""
        chosen = np.ones(golden.shape, bool)
        if self.axis is not None:
            line = self._line(golden.shape[self.axis])
            chosen &= line.reshape([-1 if axis == self.axis else 1 for axis in range(golden.ndim)])
        if self.beyond is not None:
            far = _beyond(golden, self.beyond)
            chosen &= far if self.sentinels else ~far
        return chosen

    def _line(self, length: int) -> NDArray[np.bool_]:
        """Which slices along its axis it takes."""
        place = np.arange(length) % (self.period or length or 1)
        return np.isin(place, self.rows)

    def slices(self, array: NDArray[Any]) -> NDArray[Any]:
        """Its slices of an array of the output's shape, sentinels among them; all where it has no axis."""
        return array if self.axis is None else array.compress(self._line(array.shape[self.axis]), axis=self.axis)

    def of(self, array: NDArray[Any], golden: NDArray[Any]) -> NDArray[Any]:
        """Its elements of an array, flat, in the order of the golden; logarithms where ``least`` says so.

        Args:
            array: the output, of the engine or the golden's own.
            golden: the golden's output, of the same shape.
        """
        return array if self.whole else self._taken(array, golden, self.mask(golden))

    def _taken(self, array: NDArray[Any], golden: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
        values = array[mask]
        if self.sentinels:
            return as_endless(values, golden[mask])
        return np.log(np.maximum(values.astype(np.float64), self.least)) if self.least else values

    def placed(self, golden: NDArray[Any]) -> NDArray[np.float64]:
        """The golden's output with NaN for all that is not of this part, logarithms where ``least`` says so."""
        values, mask = np.full(golden.shape, np.nan), self.mask(golden)
        values[mask] = self._taken(golden, golden, mask)
        return values

    def compare(self, actual: NDArray[Any], golden: NDArray[Any], **asked: Any) -> Comparison:
        """The figures of its elements alone, indices being those of the whole output.

        Args:
            actual: of the engine, of the golden's shape.
            golden: the golden's output.
            asked: what :func:`pytest_trt.comparison.comparison.compare` takes beside them, but for the ranking.
        """
        if self.whole:
            return compare(actual, golden, **asked)
        mask = self.mask(golden)
        a, g = (self._taken(array, golden, mask) for array in (actual, golden))
        if self.least:
            return replace(compare(actual, golden, **asked), rel_rms=compare(a, g).rel_rms)
        found = compare(a, g, **asked)
        place = np.flatnonzero(mask)

        def placed(element: Element) -> Element:
            index = np.unravel_index(int(place[element.index[0]]), golden.shape)
            return replace(element, index=tuple(int(i) for i in index))

        return replace(
            found,
            shape=golden.shape,
            worst=tuple(placed(element) for element in found.worst),
            max_abs=placed(found.max_abs) if found.max_abs else None,
            max_rel=placed(found.max_rel) if found.max_rel else None,
        )

    def as_table(self) -> dict[str, Any]:
        """As a golden keeps it: what is not said is left out."""
        told = {"output": self.output, "axis": self.axis, "rows": list(self.rows), "beyond": self.beyond}
        told |= {"sentinels": self.sentinels, "least": self.least, "period": self.period}
        return {key: value for key, value in told.items() if value not in (None, [], False, 0) or key == "axis"}

    @classmethod
    def of_table(cls, table: Mapping[str, Any]) -> Part:
        """What :meth:`as_table` gave.

        Raises:
            TypeError, KeyError: it is of another kind.
        """
        return cls(**{**table, "rows": tuple(table.get("rows", ()))})


def parts_of(output: str, goldens: Sequence[NDArray[Any]], least: float = 0.0, period: int = 1) -> tuple[Part, ...]:
    """The parts that an output falls into by the golden's own values, the largest scale first; the whole, if one.

    Args:
        output: its name.
        goldens: its values in each run.
        least: of an output of probabilities, the least that counts, whose logarithms have one scale; else 0.
        period: slices of a sample along axis 0 (:func:`pytest_trt.model.feeds.period_of`).
    """
    if not all(is_float(array.dtype) for array in goldens):
        return (Part(output),)
    beyond = sentinels_beyond(goldens)
    main = Part(output, beyond=beyond, least=least)
    aside = (Part(output, beyond=beyond, sentinels=True),) if beyond is not None else ()
    return (*((main,) if least else groups_of(main, goldens, period)), *aside)


def groups_of(part: Part, goldens: Sequence[NDArray[Any]], period: int = 1) -> tuple[Part, ...]:
    """The part's slices along the axis where scales differ, in groups: a gap of a decade parts two of them.

    The axis is the one with the widest gap; eight groups at most, the smallest being one.
    """
    scales = {axis: _scales(part, goldens, axis, period) for axis in _axes(goldens, period)}
    gaps = {axis: _widest_gap(scale) for axis, scale in scales.items()}
    axis = max(gaps, key=lambda one: gaps[one], default=None)
    if axis is None or gaps[axis] <= _GAP:
        return (part,)
    groups = _by_scale(scales[axis])
    groups = [*groups[: _MOST_GROUPS - 1], [row for group in groups[_MOST_GROUPS - 1 :] for row in group]]
    lying = replace(part, axis=axis, period=0 if axis else period)
    return tuple(replace(lying, rows=tuple(sorted(rows))) for rows in groups if rows)


def joined(first: Part, second: Part) -> Part:
    """Both groups of one axis as one."""
    return replace(first, rows=tuple(sorted({*first.rows, *second.rows})))


def apart(arrays: Arrays, goldens: Arrays, parts: Mapping[str, Sequence[Part]]) -> Arrays:
    """Outputs by the names of their parts, each flat; those that are judged whole, or have another shape, as they are.

    Args:
        arrays: outputs by name.
        goldens: the golden's outputs.
        parts: of the outputs that have some.
    """
    found: Arrays = {}
    for name, array in arrays.items():
        fits = name in goldens and goldens[name].shape == array.shape
        for part in parts.get(name, ()) if fits else ():
            found[part.name] = part.of(array, goldens[name])
        if not fits or not parts.get(name):
            found[name] = array
    return found


def sentinels_beyond(goldens: Sequence[NDArray[Any]]) -> float | None:
    """From which size on an element is a sentinel; None where there is none.

    A sentinel is a negative number that many elements share, to five per cent, more than a decade beyond all others and
    at most -100; there may be some such numbers. A positive one is as likely a quotient that grew. NaN and infinities
    always are.
    """
    odd = any(not np.isfinite(array).all() for array in goldens if array.size)
    values = np.concatenate([_finite(array) for array in goldens]) if goldens else np.empty(0)
    found = _threshold(values)
    return found if found is not None or not odd else float(np.finfo(np.float32).max)


def as_endless(actual: NDArray[Any], golden: NDArray[Any]) -> Doubles:
    """Actual values, with the golden's where that stands for infinity and the actual one is far out on the same side.

    Args:
        actual: of the engine; an infinity is far out too.
        golden: sentinels, of the same shape; its own infinities and NaN stand for nothing but themselves.
    """
    values, exact = actual.astype(np.float64), golden.astype(np.float64)
    endless = np.isfinite(exact) & (np.abs(exact) >= _ENDLESS)
    with np.errstate(invalid="ignore"):
        return np.where(endless & (values * np.sign(exact) >= _FAR), exact, values)


def _threshold(values: Doubles) -> float | None:
    """Between the sentinels, of some levels where masks add up, and all other values."""
    sizes, far = np.abs(values), np.zeros(values.shape, bool)
    for _ in range(_LEVELS):
        largest = sizes.max(where=~far, initial=0.0)
        if largest < _LEAST_SENTINEL:
            return None
        level = ~far & (sizes >= largest * (1 - _SPREAD))
        if level.sum() < 2 or values[level].max() > 0:
            return None
        far |= level
        least, ordinary = sizes.min(where=far, initial=np.inf), sizes.max(where=~far, initial=0.0)
        if ordinary and least > _GAP * ordinary:
            return float(math.sqrt(least) * math.sqrt(ordinary))
    return None


def _finite(array: NDArray[Any]) -> Doubles:
    values = array.astype(np.float64).reshape(-1)
    return values[np.isfinite(values)]


def _beyond(golden: NDArray[Any], limit: float) -> NDArray[np.bool_]:
    values = golden.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(~(np.abs(values) < limit))


def _axes(goldens: Sequence[NDArray[Any]], period: int) -> Iterator[int]:
    """Those along which all runs have the same slices; the first holds the samples, of ``period`` slices each."""
    shapes = [array.shape for array in goldens]
    if not shapes or len({len(shape) for shape in shapes}) > 1:
        return
    if period > 1:
        yield 0
    for axis in range(1, len(shapes[0])):
        sizes = {shape[axis] for shape in shapes}
        if len(sizes) == 1 and shapes[0][axis] >= 2:
            yield axis


def _scales(part: Part, goldens: Sequence[NDArray[Any]], axis: int, period: int) -> Doubles:
    """The largest |value| of each slice along an axis, sentinels left out."""
    found = []
    for golden in goldens:
        size = np.abs(golden.astype(np.float64))
        size = size if part.beyond is None else np.where(part.mask(golden), size, 0.0)
        lines = size.max(axis=tuple(one for one in range(golden.ndim) if one != axis), initial=0.0)
        found.append(lines if axis else lines.reshape(-1, period).max(axis=0, initial=0.0))
    return np.asarray(np.max(found, axis=0))


def _widest_gap(scales: Doubles) -> float:
    ordered = np.sort(scales[scales > _INSIGNIFICANT * scales.max(initial=0.0)])
    return float((ordered[1:] / ordered[:-1]).max()) if ordered.size > 1 else 1.0


def _by_scale(scales: Doubles) -> list[list[int]]:
    """Slices from the largest on, parted at gaps; those that are next to nothing are with the smallest."""
    order = np.argsort(-scales, kind="stable")
    least = _INSIGNIFICANT * scales.max()
    groups = [[int(order[0])]]
    for above, row in pairwise(order):
        if scales[row] > least and scales[above] > _GAP * scales[row]:
            groups.append([])
        groups[-1].append(int(row))
    return groups


def _spans(rows: tuple[int, ...]) -> str:
    """Rows as slices: ``4:22``, or ``0:4, 7`` in braces."""
    spans = []
    for _, run in groupby(enumerate(rows), key=lambda pair: pair[1] - pair[0]):
        found = [row for _, row in run]
        spans.append(str(found[0]) if len(found) == 1 else f"{found[0]}:{found[-1] + 1}")
    shown = [*spans[:3], "..."] if len(spans) > 4 else spans
    return shown[0] if len(shown) == 1 else f"{{{', '.join(shown)}}}"
