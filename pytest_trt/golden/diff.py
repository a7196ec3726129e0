"""Diff: a candidate, made and not yet a golden, and how two goldens differ, output by output and bound by bound."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.case.case_file import quoted
from pytest_trt.case.reference import find_golden, reference_of
from pytest_trt.comparison.comparison import compare
from pytest_trt.errors import GoldenRefused, MissingGolden, StaleGolden
from pytest_trt.golden._question import require_asked
from pytest_trt.golden.create import changes, create, refuse_in_ci
from pytest_trt.golden.golden import SUFFIX, Golden, is_candidate, read, require_fit, write
from pytest_trt.model.feeds import is_float

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from pytest_trt.case.case import Case
    from pytest_trt.model.feeds import Arrays

__all__ = [
    "ArrayChange",
    "BoundChange",
    "GoldenDifference",
    "adopt",
    "adoptable",
    "candidate_of",
    "golden_difference",
    "propose",
]


def candidate_of(place: Path) -> Path:
    """Where the candidate for a golden's place lies."""
    return place.with_name(f"{place.name.removesuffix(SUFFIX)}.candidate{SUFFIX}")


def propose(case: Case, golden_dir: Path, progress: Callable[[str, float | None], None] | None = None) -> list[str]:
    """Make a candidate for the case's golden and write it beside its place; the golden itself stays as it is.

    Returns:
        What would change, a line each.

    Raises:
        GoldenRefused: in continuous integration, or the golden is ONNX test data.
        PytestTrtError: the model or its data can't be used, or hold no evidence; nothing is written.
    """
    place = _place(case, golden_dir)
    candidate = candidate_of(place)
    made = create(case, progress=progress)
    made = replace(made, source=str(candidate), provenance={**made.provenance, "candidate": True})
    lines = changes(case, made, place, "there is no golden yet" if not place.exists() else f"against {place}")
    write(made, candidate, case.name)
    return [*lines, f"  candidate {candidate}"]


def adopt(case: Case, golden_dir: Path, reason: str, now: datetime | None = None) -> list[str]:
    """Put the case's candidate in its golden's place, with the reason and the time kept in it.

    Args:
        case: whose candidate.
        golden_dir: the folder of goldens.
        reason: why, kept in the golden.
        now: the time of it; UTC, the present if not given.

    Returns:
        What changed, a line each.

    Raises:
        MissingGolden: there is no candidate.
        StaleGolden: the model or its inputs and labels were changed after the candidate was made.
        GoldenRefused: in continuous integration, without a reason, or the golden is ONNX test data.
        GoldenError: the candidate is damaged or does not fit the model.
    """
    place = _place(case, golden_dir)
    golden = adoptable(case, golden_dir, reason)
    told = {key: value for key, value in golden.provenance.items() if key != "candidate"}
    time = (now or datetime.now(timezone.utc)).strftime("%Y-%m-%dT%H:%M:%SZ")
    adopted = replace(golden, source=str(place), provenance={**told, "reason": reason.strip(), "adopted": time})
    lines = changes(case, adopted, place, f"new golden {place}" if not place.exists() else f"{place} replaced")
    write(adopted, place, case.name)
    candidate_of(place).unlink(missing_ok=True)  # somebody adopted it at the same time
    return [*lines, f"  reason: {reason.strip()}"]


def adoptable(case: Case, golden_dir: Path, reason: str) -> Golden:
    """The case's candidate, if it may be adopted; nothing is written.

    Raises:
        PytestTrtError: as of :func:`adopt`.
    """
    if not reason.strip():
        raise GoldenRefused(f"{case.where}: a golden is adopted for a reason: say it, and it is kept in the golden.")
    return _fresh(case, candidate_of(_place(case, golden_dir)))


def _place(case: Case, golden_dir: Path) -> Path:
    refuse_in_ci(case.where)
    place = find_golden(case, golden_dir)
    if place.is_dir():
        raise GoldenRefused(f"{case.where}: {place} is ONNX test data, which pytest-trt never writes.")
    return place


def _fresh(case: Case, candidate: Path) -> Golden:
    """The candidate, if it is one, whole, and of the model as it is now."""
    again = f"pytest-trt golden create {quoted(case.name)}"
    if not candidate.is_file():
        raise MissingGolden(f"{case.where}: there is no candidate {candidate}. Make it and look at it: {again}")
    golden = read(candidate, again)
    if not is_candidate(golden):
        raise GoldenRefused(f"{case.where}: {candidate} is no candidate of pytest-trt. Make one: {again}")
    reference = reference_of(case)
    model = reference.model
    require_fit(golden, model, again, exact=True)
    if golden.model_sha256 != model.sha256:
        raise StaleGolden(
            f"{case.where}: the candidate {candidate} was made from another model"
            f" ({(golden.model_sha256 or '')[:12]}) than {model.source} is now ({model.sha256[:12]}). Make it anew, and"
            f" look at what it prints: {again}"
        )
    require_asked(case, golden, reference)
    return golden


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
    old, new = _flat(before.provenance), _flat(after.provenance)
    told = {*old, *new} - {"candidate"}
    return GoldenDifference(
        arrays=tuple(arrays),
        bounds=tuple(_bounds(before, after)),
        model=before.model_sha256 == after.model_sha256,
        provenance={key: (old.get(key), new.get(key)) for key in sorted(told) if old.get(key) != new.get(key)},
    )


def _flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Tables in tables as one, keys joined by dots."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found


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
