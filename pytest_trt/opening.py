"""Open the golden that a case is judged by, and refuse one that proves nothing about this model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_trt.case_file import quoted
from pytest_trt.comparison import compare
from pytest_trt.create import HOP_LIMIT, movements
from pytest_trt.data_sets import read_data_sets
from pytest_trt.envelope import envelope_of, provable, simulate
from pytest_trt.errors import GoldenRefused, PytestTrtError, StaleGolden
from pytest_trt.golden import Golden, is_candidate, read, require_evidence, require_fit
from pytest_trt.lowering.held import held_precision
from pytest_trt.precision import Precision
from pytest_trt.reference import Reference, find_golden, mend, reference_of

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_trt.case import Case
    from pytest_trt.model import Model

__all__ = ["open_golden"]


def open_golden(case: Case, model: Model, precision: Precision, golden_dir: Path) -> Golden:
    """The case's golden, fit for its model, made from its reference, moving, with an envelope.

    Raises:
        GoldenError: it is missing, damaged, of other shapes, stale or without evidence; the message names
            the command that mends it.
    """
    place = find_golden(case, golden_dir)
    reference = Reference(model) if case.reference is None and case.torch is None else reference_of(case)
    golden = read_data_sets(place, model) if place.is_dir() else read(place, mend(case))
    if is_candidate(golden):
        raise GoldenRefused(
            f"{place} is a candidate and no golden yet: look at what it changes"
            f" (pytest-trt golden diff {quoted(case.name)}), and adopt it with a reason"
            f" (pytest-trt golden adopt {quoted(case.name)} --reason TEXT)."
        )
    require_fit(golden, model, mend(case, place), exact=case.reference is None)
    _require_fresh(case, golden, reference)
    moved = movements(golden, reference, case.batch)
    require_evidence(golden, moved, case.constant_outputs, mend(case, place))
    if not place.is_dir():
        return golden
    moving = {name: value for name, value in moved.items() if name not in case.constant_outputs}
    return _with_envelope(case, golden, reference, _in_question(model, precision), moving)


def _require_fresh(case: Case, golden: Golden, reference: Reference) -> None:
    if golden.model_sha256 in (None, reference.model.sha256):
        return
    # Another release of torch exports and seeds the same module with other bytes: let the outputs tell.
    if reference.run is not None and _same_outputs(golden, reference, case.batch):
        return
    hint = " (a torch factory must seed its random weights)" if reference.run is not None else ""
    raise StaleGolden(
        f"the golden {golden.source} is stale: it was made from another model ({(golden.model_sha256 or '')[:12]})"
        f" than {reference.model.source} is now ({reference.model.sha256[:12]}). If the model was changed on purpose,"
        f" make the golden anew and review what it prints{hint}: {mend(case)}"
    )


def _same_outputs(golden: Golden, reference: Reference, batch: int | None) -> bool:
    try:
        found = simulate(reference.model, Precision.FP32, golden.inputs, batch)
    except PytestTrtError:
        return False
    return all(
        name in found and found[name].shape == output.shape and compare(found[name], output).rel_rms <= HOP_LIMIT
        for name, output in golden.outputs.items()
    )


def _in_question(model: Model, precision: Precision) -> Precision | None:
    """The precision whose error is asked: of a file as it is, the one that it holds, if that can be simulated."""
    if precision is not Precision.MODEL:
        return precision
    return {known.label: known for known in Precision}.get(held_precision(model.proto))


def _with_envelope(
    case: Case, golden: Golden, reference: Reference, asked: Precision | None, moving: dict[str, float | None]
) -> Golden:
    """ONNX test data bring no envelope: measure that of the one precision in question."""
    if held_precision(reference.model.proto) != "fp32" or asked is None:
        return golden
    inputs = [run.inputs for run in golden.runs]
    envelope, refused = provable(*envelope_of(reference.model, inputs, [asked], case.batch), moving)
    return replace(golden, envelope=envelope, refused=refused)
