"""Golden difference: two goldens, output by output and bound by bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.comparison import compare
from pytest_trt.model import is_float

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from pytest_trt.feeds import Arrays
    from pytest_trt.golden import Golden

__all__ = ["ArrayChange", "BoundChange", "GoldenDifference", "golden_difference"]


@dataclass(frozen=True)
class ArrayChange:
    """One array of two goldens.

    Attributes:
        part: input, output, onnx (the ONNX model's outputs beside PyTorch's) or labels.
        name: of the array.
        before, after: dtype and shape as a text; None where it is not there.
        same: whether both are equal, bit by bit but for NaN.
        rel_rms: relative RMS of the change; None where it is not to be had (other shape, new, gone).
        max_abs: largest absolute change.
        different: how many elements changed.
    """

    part: str
    name: str
    before: str | None
    after: str | None
    same: bool
    rel_rms: float | None = None
    max_abs: float | None = None
    different: int | None = None


@dataclass(frozen=True)
class BoundChange:
    """What an output may err by at a precision, in two goldens; None where one has no bound."""

    precision: str
    output: str
    before: float | None
    after: float | None


@dataclass(frozen=True)
class GoldenDifference:
    """What two goldens differ in.

    Attributes:
        arrays: every array of both, in order.
        bounds: bounds that changed, appeared or went.
        model: whether both were made from the same model.
        provenance: what changed of producer, versions, seed, reason; told, and no difference by itself.
    """

    arrays: tuple[ArrayChange, ...]
    bounds: tuple[BoundChange, ...]
    model: bool
    provenance: Mapping[str, tuple[Any, Any]]

    @property
    def same(self) -> bool:
        """Whether both judge alike: the same arrays and bounds, of the same model."""
        return self.model and not self.bounds and all(change.same for change in self.arrays)


def golden_difference(before: Golden, after: Golden) -> GoldenDifference:
    """Compare two goldens of one case, the first run of each."""
    arrays = [
        *_arrays("input", before.inputs, after.inputs),
        *_arrays("output", before.outputs, after.outputs),
        *_arrays("onnx", before.onnx_outputs, after.onnx_outputs),
        *_arrays("labels", _labels(before), _labels(after)),
    ]
    told = {*before.provenance, *after.provenance} - {"candidate"}
    return GoldenDifference(
        arrays=tuple(arrays),
        bounds=tuple(_bounds(before, after)),
        model=before.model_sha256 == after.model_sha256,
        provenance={
            key: (before.provenance.get(key), after.provenance.get(key))
            for key in sorted(told)
            if before.provenance.get(key) != after.provenance.get(key)
        },
    )


def _labels(golden: Golden) -> Arrays:
    return {} if golden.labels is None else {"": golden.labels}


def _arrays(part: str, before: Arrays, after: Arrays) -> Iterator[ArrayChange]:
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if old is None or new is None or old.shape != new.shape or old.dtype != new.dtype:
            yield ArrayChange(part, name, _kind(old), _kind(new), same=False)
        else:
            yield _moved(part, name, old, new)


def _moved(part: str, name: str, old: NDArray[Any], new: NDArray[Any]) -> ArrayChange:
    kind = _kind(old)
    same = np.array_equal(old, new, equal_nan=is_float(old.dtype) and old.dtype.kind == "f")
    if same:
        return ArrayChange(part, name, kind, kind, same=True, rel_rms=0.0, max_abs=0.0, different=0)
    found = compare(new, old)
    largest = found.max_abs.difference if found.max_abs else None
    return ArrayChange(part, name, kind, kind, False, found.rel_rms, largest, found.different + found.mismatched)


def _kind(array: NDArray[Any] | None) -> str | None:
    return None if array is None else f"{array.dtype}{list(array.shape)}"


def _bounds(before: Golden, after: Golden) -> Iterator[BoundChange]:
    for precision in dict.fromkeys([*before.envelope, *after.envelope]):
        old, new = before.envelope.get(precision, {}), after.envelope.get(precision, {})
        for output in dict.fromkeys([*old, *new]):
            bounds = [entries[output]["bound"] if output in entries else None for entries in (old, new)]
            if bounds[0] != bounds[1]:
                yield BoundChange(precision, output, *bounds)
