"""Take specimens through the public door, and say what came out."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.zoo.network import Network
from benchmarks.zoo.peers import accepted_by
from pytest_trt.backends.backend import choose
from pytest_trt.case.build_settings import how_of, recipe_of
from pytest_trt.case.reference import Subject, model_of
from pytest_trt.errors import PytestTrtError
from pytest_trt.gate import check
from pytest_trt.golden.golden import read
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.zoo.specimen import Specimen
    from pytest_trt.case.case import Case

__all__ = ["measure"]


def measure(specimen: Specimen, networks: Path) -> dict[str, Any]:
    """What the gate and its peers say of one specimen.

    Returns:
        name, network, precision, expected codes, verdict, codes in their order, message or reasons, seconds of the
        gate, and by peer whether it accepts; none of these where there are no outputs to look at.
    """
    network = Network(specimen.network, networks)
    with tempfile.TemporaryDirectory() as folder, _on_cores(specimen.threads):
        case = specimen.plant(network, Path(folder))
        start = time.perf_counter()
        verdict = check(case, specimen.precision)
        seconds = time.perf_counter() - start
        findings = getattr(verdict, "findings", ())
        reasons = [reason for judgement in verdict.judgements for reason in judgement.reasons]
        return {
            "name": specimen.name,
            "network": specimen.network,
            "precision": specimen.precision,
            "expected": sorted(specimen.expected),
            "verdict": verdict.verdict,
            "codes": [f.code for f in findings],
            "severities": [f.severity.value for f in findings],
            "said": [_plain(reason, folder, networks) for reason in reasons or [verdict.message]],
            "first": _plain(findings[0].message, folder, networks) if findings else "",
            "seconds": round(seconds, 2),
            "peers": _peers(case, specimen.precision),
        }


def _plain(text: str, *folders: object) -> str:
    """A message without the folders that this run happened to use."""
    for folder in folders:
        text = text.replace(f"{folder}/", "")
    return text


def _peers(case: Case, precision: str) -> dict[str, bool]:
    try:
        model, golden = model_of(case), read(Path(str(case.golden)), "")
        recipe = recipe_of(Subject(case, Precision.parse(precision), model), (golden.inputs,), how_of(case))
        engine = choose("onnxruntime").build(recipe)
        return accepted_by(engine.run(golden.inputs), golden.outputs)
    except PytestTrtError:
        return {}


@contextmanager
def _on_cores(count: int | None) -> Iterator[None]:
    """onnxruntime opens as many threads as there are cores that it may run on."""
    if count is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
