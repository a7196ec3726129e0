"""Load: open the golden that a case is judged by, refuse one that proves nothing about its model, and verify one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from pytest_trt.case.case import quoted_keys
from pytest_trt.case.case_file import quoted
from pytest_trt.case.reference import Reference, find_golden, judged_outputs, mend, reference_of
from pytest_trt.comparison.comparison import compare
from pytest_trt.errors import (
    CaseError,
    DataError,
    GoldenMismatch,
    GoldenRefused,
    LoweringError,
    PytestTrtError,
    StaleGolden,
)
from pytest_trt.golden._question import require_asked
from pytest_trt.golden.create import fp32_limit, kept_of, movements, table_of
from pytest_trt.golden.envelope import Kept, envelope_of, provable, simulate
from pytest_trt.golden.golden import SCHEMA, Golden, Run, is_candidate, read, require_evidence, require_fit
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.model.feeds import is_float
from pytest_trt.model.samples import data_sets
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pytest_trt.case.case import Case
    from pytest_trt.case.reference import Subject
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model

__all__ = ["Verification", "ages", "open_golden", "verify"]

T = TypeVar("T")


def open_golden(subject: Subject, golden_dir: Path) -> Golden:
    """The case's golden, fit for its model, made from its reference, moving, with an envelope.

    Raises:
        GoldenError: it is missing, damaged, of other shapes, stale or without evidence; the message names
            the command that mends it.
        DataError, CaseError: what the case names as inputs or labels is missing or can't be read.
    """
    case, model = subject.case, subject.model
    place = find_golden(case, golden_dir)
    reference = Reference(model) if case.reference is None and case.torch is None else reference_of(case)
    golden = _data_sets_of(case, place, model) if place.is_dir() else read(place, mend(case))
    if is_candidate(golden):
        raise GoldenRefused(
            f"{place} is a candidate and no golden yet: look at what it changes"
            f" (pytest-trt golden diff {quoted(case.name)}), and adopt it with a reason"
            f" (pytest-trt golden adopt {quoted(case.name)} --reason TEXT)."
        )
    try:
        require_fit(golden, model, mend(case, place), exact=case.reference is None)
    except GoldenMismatch:
        if place.is_dir():
            _require_runs(golden, reference, case.batch)
        raise
    _require_fresh(case, golden, reference)
    require_asked(case, golden, reference)
    judged = [spec.name for spec in subject.judged]
    moved = movements(golden, reference, case.batch, judged)
    require_evidence(golden, moved, case.constant_outputs, mend(case, place))
    moving = {name: value for name, value in moved.items() if name not in case.constant_outputs}
    if not place.is_dir():
        return _as_kept(subject, golden, reference, moving)
    return _with_envelope(subject, golden, reference, moving)


def ages(golden: Golden) -> str:
    """What a golden lacks that was made before goldens kept their question, or their outputs' parts; empty if none."""
    lacks = {
        "does not know its question: nobody can say whether the inputs and labels of the case are those that it was"
        " made from": not golden.provenance.get("question"),
        "knows no parts of outputs: each is judged whole, and one slice may hide another": golden.schema < SCHEMA,
    }
    return "" if golden.origin == "test data" else "; it ".join(what for what, lacking in lacks.items() if lacking)


def _require_runs(golden: Golden, reference: Reference, batch: int | None) -> None:
    """Test data of a model that can't be run at all are not to blame.

    Raises:
        ModelError, BackendError: onnxruntime's reason.
    """
    with suppress(DataError, LoweringError):
        simulate(reference.model, Precision.MODEL, golden.inputs, batch)


def _as_kept(subject: Subject, golden: Golden, reference: Reference, moving: dict[str, float | None]) -> Golden:
    """The golden with the envelope of a model that keeps what the case keeps; measured now, if it was made for another.

    Nodes that the reference has not leave it as it is: then ``keep`` names those of another file.
    """
    case, asked = subject.case, subject.precision
    kept = Kept(tuple(case.keep), tuple(case.ops))
    lowered = subject.held == "fp32" and asked not in (Precision.FP32, Precision.MODEL)
    if not lowered or table_of(kept) == golden.kept or held_precision(reference.model.proto) != "fp32":
        return golden
    found = _measured(subject, golden, reference, asked, kept, moving)
    return golden if case.reference is not None and asked.label not in found.envelope else found


def _measured(
    subject: Subject,
    golden: Golden,
    reference: Reference,
    asked: Precision,
    kept: Kept,
    moving: dict[str, float | None],
) -> Golden:
    """The golden with the envelope of one precision measured now."""
    inputs, judged = [run.inputs for run in golden.runs], [spec.name for spec in subject.judged]
    batch = subject.case.batch
    envelope, refused, overflow = envelope_of(reference.model, inputs, [asked], batch, kept=kept, judged=judged)
    envelope, refused = provable(envelope, refused, moving)
    return replace(
        golden,
        envelope={**_without(golden.envelope, asked), **envelope},
        refused={**_without(golden.refused, asked), **refused},
        overflow={**_without(golden.overflow, asked), **overflow},
        kept=table_of(kept),
    )


def _without(table: Mapping[str, T], precision: Precision) -> dict[str, T]:
    return {label: told for label, told in table.items() if label != precision.label}


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
        name in found
        and found[name].shape == output.shape
        and compare(found[name], output).rel_rms <= fp32_limit(golden, name)
        for name, output in golden.outputs.items()
    )


def _in_question(subject: Subject) -> Precision | None:
    """The precision whose error is asked: of a file as it is, the one that it holds, if that can be simulated."""
    return {known.label: known for known in Precision}.get(subject.asked)


def _with_envelope(subject: Subject, golden: Golden, reference: Reference, moving: dict[str, float | None]) -> Golden:
    """ONNX test data bring no envelope: measure that of the one precision in question."""
    asked = _in_question(subject)
    if held_precision(reference.model.proto) != "fp32" or asked is None:
        return golden
    return _measured(subject, golden, reference, asked, kept_of(subject.case), moving)


def _data_sets_of(case: Case, folder: Path, model: Model) -> Golden:
    asked = (*(key for key in ("inputs", "labels") if getattr(case, key)), *case.drawing())
    if asked:
        keys = quoted_keys(asked)
        raise CaseError(
            f"{case.where}: {keys} {'is' if len(asked) == 1 else 'are'} never read, because the golden is the ONNX test"
            f" data in {folder}, which has inputs and no labels of its own: drop {keys}, or"
            " move the test data away and make a golden:"
            f" {mend(case)}"
        )
    return read_data_sets(folder, model)


def read_data_sets(folder: Path, model: Model) -> Golden:
    """All data sets of a folder (or the one that it is) as a golden.

    Tensors go by position, as in ONNX's own tests: ``input_0.pb`` is the model's first input.

    Raises:
        DamagedGolden: a file is missing or can't be read.
        GoldenMismatch: there are not as many tensors as the model has.
    """
    inputs = [spec.name for spec in model.inputs]
    outputs = [spec.name for spec in model.outputs]
    runs = (Run(given, expected, part.name) for part, given, expected in data_sets(folder, inputs, outputs))
    return Golden(tuple(runs), str(folder))


@dataclass(frozen=True)
class Agreement:
    """One output, computed again.

    Attributes:
        output: its name.
        by: who computed it: onnx or torch.
        error: relative RMS against the golden; of whole numbers the share that differs.
        limit: what correct fp32 implementations differ by at most.
    """

    output: str
    by: str
    error: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether it is inside; NaN is not."""
        return self.error <= self.limit


@dataclass(frozen=True)
class Verification:
    """What was found of one golden.

    Attributes:
        case: its case's name.
        golden: the file or folder.
        fault: why it can't be compared with at all; empty if it can.
        fresh: whether it was made from the very model that is there now.
        agreements: every output, computed again.
    """

    case: str
    golden: str
    fault: str = ""
    fresh: bool = True
    agreements: tuple[Agreement, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the file is whole and every output agrees."""
        return not self.fault and bool(self.agreements) and all(one.holds for one in self.agreements)


def verify(case: Case, golden_dir: Path) -> Verification:
    """Read a case's golden and compute its outputs again by the fp32 reference; nothing is written.

    A model whose bytes changed is told; what decides is whether the outputs are still those of the golden.
    """
    place = find_golden(case, golden_dir)
    try:
        reference = reference_of(case)
        golden = _read(case, place, reference)
        fresh = golden.model_sha256 in (None, reference.model.sha256)
        return Verification(case.name, str(place), "", fresh, tuple(_agreements(golden, reference, case.batch)))
    except PytestTrtError as error:
        return Verification(case.name, str(place), f"{type(error).__name__}: {error}")


def _read(case: Case, place: Path, reference: Reference) -> Golden:
    how = mend(case, place)
    golden = _data_sets_of(case, place, reference.model) if place.is_dir() else read(place, how)
    if is_candidate(golden):
        raise GoldenRefused(f"{place} is a candidate that was not adopted.")
    require_fit(golden, reference.model, how, exact=True)
    require_asked(case, golden, reference)
    judged = [spec.name for spec in judged_outputs(case, reference.model)]
    require_evidence(golden, movements(golden, reference, case.batch, judged), case.constant_outputs, how)
    return golden


def _agreements(golden: Golden, reference: Reference, batch: int | None) -> Iterator[Agreement]:
    for run in golden.runs:
        computed = simulate(reference.model, Precision.FP32, run.inputs, batch)
        limits = {name: fp32_limit(golden, name) for name in run.outputs}
        yield from _compared(computed, golden.onnx_outputs or run.outputs, "onnx", limits)
        if reference.run is not None:
            yield from _compared(reference.run(run.inputs), run.outputs, "torch", limits)


def _compared(computed: Arrays, golden: Arrays, by: str, limits: Mapping[str, float]) -> Iterator[Agreement]:
    for name, array in golden.items():
        whole = not is_float(array.dtype)
        yield Agreement(name, by, compare(computed[name], array).error(whole=whole), 0.0 if whole else limits[name])
