"""Verification: whether a golden's file is whole, and whether its model still computes what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_trt.comparison import compare
from pytest_trt.create import HOP_LIMIT, movements
from pytest_trt.data_sets import read_data_sets
from pytest_trt.envelope import simulate
from pytest_trt.errors import GoldenRefused, PytestTrtError
from pytest_trt.golden import Golden, is_candidate, read, require_evidence, require_fit
from pytest_trt.model import is_float
from pytest_trt.precision import Precision
from pytest_trt.reference import Reference, find_golden, mend, reference_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_trt.case import Case
    from pytest_trt.feeds import Arrays

__all__ = ["Agreement", "Verification", "verify"]


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
    golden = read_data_sets(place, reference.model) if place.is_dir() else read(place, how)
    if is_candidate(golden):
        raise GoldenRefused(f"{place} is a candidate that was not adopted.")
    require_fit(golden, reference.model, how, exact=True)
    require_evidence(golden, movements(golden, reference, case.batch), case.constant_outputs, how)
    return golden


def _agreements(golden: Golden, reference: Reference, batch: int | None) -> Iterator[Agreement]:
    for run in golden.runs:
        computed = simulate(reference.model, Precision.FP32, run.inputs, batch)
        yield from _compared(computed, golden.onnx_outputs or run.outputs, "onnx")
        if reference.run is not None:
            yield from _compared(reference.run(run.inputs), run.outputs, "torch")


def _compared(computed: Arrays, golden: Arrays, by: str) -> Iterator[Agreement]:
    for name, array in golden.items():
        found = compare(computed[name], array)
        if is_float(array.dtype):
            yield Agreement(name, by, found.rel_rms, HOP_LIMIT)
        else:
            yield Agreement(name, by, found.different / max(found.count, 1), 0.0)
