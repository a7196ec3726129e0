"""Candidate: a golden that was made and is not yet one; it lies beside its place until it is adopted with a reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from pytest_trt.case_file import quoted
from pytest_trt.create import changes, create, refuse_in_ci
from pytest_trt.errors import GoldenRefused, MissingGolden, StaleGolden
from pytest_trt.golden import SUFFIX, Golden, is_candidate, read, require_fit, write
from pytest_trt.reference import find_golden, reference_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_trt.case import Case

__all__ = ["adopt", "adoptable", "candidate_of", "propose"]


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
        StaleGolden: the model was changed after the candidate was made.
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
    model = reference_of(case).model
    require_fit(golden, model, again, exact=True)
    if golden.model_sha256 != model.sha256:
        raise StaleGolden(
            f"{case.where}: the candidate {candidate} was made from another model"
            f" ({(golden.model_sha256 or '')[:12]}) than {model.source} is now ({model.sha256[:12]}). Make it anew, and"
            f" look at what it prints: {again}"
        )
    return golden
