"""Create a golden: run the fp32 reference, look hard at what came out, measure the envelope."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.case.reference import (
    Reference,
    class_output,
    find_golden,
    judged_outputs,
    mend,
    reference_of,
    require_float_output,
)
from pytest_trt.comparison.comparison import compare
from pytest_trt.comparison.parts import Part, sentinels_beyond
from pytest_trt.comparison.tolerance import SLACK
from pytest_trt.errors import CaseError, ExportMismatch, GoldenError, GoldenRefused
from pytest_trt.golden._probe import probed
from pytest_trt.golden._question import inputs_of, labels_of, question_of
from pytest_trt.golden.envelope import Kept, envelope_of, provable, simulate
from pytest_trt.golden.golden import (
    Golden,
    Run,
    has_declared_shape,
    movement,
    read,
    require_evidence,
    require_fit,
    write,
)
from pytest_trt.golden.index_outputs import IndexOutputs
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.model.feeds import is_float, split
from pytest_trt.model.onnx_session import require_onnxruntime
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from numpy.typing import NDArray

    from pytest_trt.calibration.calibration import Progress
    from pytest_trt.case.case import Case
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model

__all__ = [
    "changes",
    "create",
    "fp32_limit",
    "in_ci",
    "kept_of",
    "movements",
    "refuse_in_ci",
    "table_of",
    "update",
]

_HOP_LIMIT = 1e-5
"""Largest relative RMS between PyTorch and its ONNX export, where no bound of fp32 is wider: correct exports measured
6e-8 to 7e-7."""


def in_ci() -> bool:
    """Whether this runs in continuous integration, where no golden is written."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def update(case: Case, golden_dir: Path, reason: str = "") -> list[str]:
    """Make the case's golden anew and write it.

    Args:
        case: what to make it for.
        golden_dir: the folder of goldens.
        reason: why, kept in the golden.

    Returns:
        What changed, a line each.

    Raises:
        GoldenRefused: in continuous integration, or the golden is ONNX test data.
        PytestTrtError: the model or its data can't be used, or hold no evidence; nothing is overwritten.
    """
    refuse_in_ci(case.where)
    place = find_golden(case, golden_dir)
    if place.is_dir():
        return [f"{case.name}: {place} is ONNX test data and was left as it is"]
    golden = replace(create(case, reason), source=str(place))
    lines = changes(case, golden, place, f"{place} written anew" if place.exists() else f"new golden {place}")
    write(golden, place, case.name)
    return lines


def refuse_in_ci(where: str) -> None:
    """Refuse to write a golden in continuous integration.

    Raises:
        GoldenRefused: this runs there.
    """
    if in_ci():
        raise GoldenRefused(
            f"{where}: goldens are not written where CI is set: a gate that writes what it checks passes"
            " always. Make the golden on your machine, look at it and commit it."
        )


def create(case: Case, reason: str = "", progress: Progress | None = None) -> Golden:
    """The golden of a case, not written anywhere.

    Args:
        case: what to make it for.
        reason: why, kept in the golden.
        progress: told what is going on.

    Raises:
        GoldenRefused: the reference is not fp32, its outputs are NaN, or PyTorch and ONNX disagree.
        EmptyGolden: the outputs do not move with the inputs.
        PytestTrtError: the model or its data can't be used.
    """
    reference = reference_of(case)
    model = reference.model
    require_float_output(case, model)
    held = held_precision(model.proto)
    if held != "fp32":
        raise GoldenRefused(
            f"{case.where}: {model.source} holds {held}, and a golden is made from fp32: name the fp32 file or torch"
            " module that it was made from as `reference`."
        )
    inputs, labels = inputs_of(case, reference), labels_of(case)
    exact = simulate(model, Precision.FP32, inputs, case.batch)
    outputs = reference.run(inputs) if reference.run else exact
    _require_numbers(outputs, model.source, case)
    if labels is not None:
        _require_labels(case, model, labels, outputs)
    misdeclared = [spec.name for spec in model.outputs if not has_declared_shape(outputs[spec.name], spec)]
    kept = kept_of(case)
    judged = [spec.name for spec in judged_outputs(case, model)]
    envelope, refused, overflow = envelope_of(
        model, [inputs], _precisions(), case.batch, progress, kept, judged, computed=[exact]
    )
    golden = Golden(
        runs=(Run(inputs, outputs),),
        source=f"of {case.name}",
        model_sha256=model.sha256,
        origin="torch" if reference.run else "onnx",
        envelope=envelope,
        refused=refused,
        onnx_outputs=exact if reference.run else {},
        labels=labels,
        provenance={
            **_versions(reference),
            "seed": case.seed,
            "reason": reason,
            "inputs": case.inputs or "drawn",
            **({"nan_outputs": [*case.nan_outputs]} if case.nan_outputs else {}),
            # exporters and optimisers leave a shape that the graph does not give, which every runtime overlooks
            **({"misdeclared": misdeclared} if misdeclared else {}),
            "question": question_of(case, reference, inputs, labels),
        },
        overflow=overflow,
        kept=table_of(kept),
    )
    _require_same(golden, model, case.batch, judged)
    require_fit(golden, model, mend(case), exact=True)
    moved = movements(golden, reference, case.batch, judged)
    require_evidence(golden, moved, case.constant_outputs, mend(case))
    evidence = {name: value for name, value in moved.items() if value is not None}
    moving = {name: value for name, value in evidence.items() if name not in case.constant_outputs}
    envelope, refused = provable(envelope, refused, moving)
    return replace(golden, evidence=evidence, envelope=envelope, refused=refused)


def kept_of(case: Case) -> Kept:
    """What of the reference stays in fp32; nothing where the case names another file, whose nodes ``keep`` names."""
    return Kept() if case.reference is not None else Kept(tuple(case.keep), tuple(case.ops))


def table_of(kept: Kept) -> dict[str, list[str]]:
    """The same as a golden tells it: empty tables are left out."""
    return {key: list(words) for key, words in asdict(kept).items() if words}


def movements(
    golden: Golden, reference: Reference | None, batch: int | None, judged: Collection[str]
) -> dict[str, float | None]:
    """How much each judged float output moves: over the samples, or for a single one against other inputs.

    An output without elements, which nothing can be told of, counts only where there is no other.

    Raises:
        PytestTrtError: other inputs are needed, and the reference can't even be run on its own.
    """
    first = golden.runs[0]
    floats = {name: output for name, output in first.outputs.items() if name in judged and is_float(output.dtype)}
    full = [name for name, output in floats.items() if output.size]
    found = {name: _movement(name, golden, reference) for name in full or floats}
    unknown = [name for name, value in found.items() if value is None]
    if not unknown:
        return found
    if golden.evidence or reference is None:
        return {name: golden.evidence.get(name) if value is None else value for name, value in found.items()}
    return {**found, **probed(reference.model, first, unknown, batch)}


def _movement(name: str, golden: Golden, reference: Reference | None) -> float | None:
    """Over the samples of a run, or over runs of one shape."""
    outputs = _ordinary(name, [run.outputs[name] for run in golden.runs])
    if len(outputs) > 1 and len({output.shape for output in outputs}) == 1:
        return movement(np.stack(outputs), len(outputs))
    return movement(outputs[0], _parts(golden.runs[0].inputs, reference))


def _ordinary(name: str, outputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """An output of each run with NaN for what stands for infinity, which moves nothing and hides what moves."""
    beyond = sentinels_beyond(outputs)
    return outputs if beyond is None else [Part(name, beyond=beyond).placed(output) for output in outputs]


def _parts(inputs: Arrays, reference: Reference | None) -> int:
    """Independent parts of the samples: runs where the model's first axis is fixed, else samples."""
    specs = reference.model.inputs if reference else ()
    if any(spec.shape and isinstance(spec.shape[0], int) for spec in specs):
        return len(list(split(inputs, specs)))
    return max((array.shape[0] for array in inputs.values() if array.ndim), default=1)


def _require_labels(case: Case, model: Model, labels: NDArray[Any], outputs: Arrays) -> None:
    scores = outputs[class_output(case, model)]
    positions = scores.shape[:2] if scores.ndim == 3 and scores.shape[1] > 1 else scores.shape[:1]
    if labels.dtype.kind not in "iu" or labels.shape != positions:
        raise CaseError(
            f"{case.where}: labels {case.labels!r} are {labels.dtype}{list(labels.shape)}: one whole number for each"
            f" of the {' x '.join(map(str, positions))} {'positions' if len(positions) > 1 else 'samples'} is needed."
        )


def _require_numbers(outputs: Arrays, source: str, case: Case) -> None:
    for name, array in outputs.items():
        nan = np.isnan(array.astype(np.float32)) if is_float(array.dtype) else np.zeros(0, bool)
        if nan.all() and nan.size:
            raise GoldenRefused(
                f"{source} computes NaN in fp32: output {name!r} holds nothing else. Look for NaN among its weights,"
                " and for inputs that it does not take (ids out of range, for example)."
            )
        if nan.any() and name not in case.nan_outputs:
            raise GoldenRefused(
                f"{source} computes NaN in fp32: output {name!r} holds {int(nan.sum())} of {nan.size}, and nothing can"
                " be compared with it. Look for NaN among its weights, and for inputs that it does not take (ids out of"
                " range, for example). Where NaN is right (0/0 of padding), list the output, and each NaN is judged in"
                f' its place: nan_outputs = ["{name}"] ({case.where}).'
            )


def _require_same(golden: Golden, model: Model, batch: int | None, judged: Collection[str]) -> None:
    """PyTorch and ONNX may choose otherwise among values that are equal in fp32."""
    exact = golden.envelope.get("fp32", {})
    widths = {name: entry["near"] for name, entry in exact.items() if "near" in entry}
    indices, source = IndexOutputs(model, batch), model.source
    settled = indices.settled(golden.onnx_outputs, golden.outputs, golden.inputs, widths).actual
    for name, onnx_output in settled.items():
        if name not in judged:
            continue
        found = compare(onnx_output, golden.outputs[name])
        hop = found.error(whole=not is_float(onnx_output.dtype))
        limit = fp32_limit(golden, name)
        if not hop <= limit:
            raise ExportMismatch(
                f"PyTorch and ONNX disagree before any precision is lowered: output {name!r} of {source} differs by"
                f" a relative RMS of {hop:.2e} (at most {limit:.3g}). Look for a module left in training mode, random"
                " numbers, or an operator that exports otherwise.",
                {"output": name, "rel_rms": hop, "limit": limit},
            )


def fp32_limit(golden: Golden, output: str) -> float:
    """Largest relative RMS between two correct fp32 implementations of a float output: of whole numbers it is more than
    they may differ by.

    It is no more than what another order of sums may explain: a network with random numbers differs from itself.
    """
    exact = golden.envelope.get("fp32", {})
    bounds = [float(exact[part.name]["bound"]) for part in golden.parts("fp32").get(output, ())]
    return min(max([_HOP_LIMIT, *bounds]), SLACK * Precision.TF32.unit_roundoff + _HOP_LIMIT)


def _precisions() -> list[Precision]:
    return [precision for precision in Precision if precision is not Precision.MODEL]


def _versions(reference: Reference) -> dict[str, str]:
    packages = ["pytest-trt", "onnx", "numpy", *(["torch"] if reference.run else [])]
    found = {package: version(package) for package in packages}
    return {**found, "onnxruntime": _onnxruntime_version(), "python": platform.python_version()}


def _onnxruntime_version() -> str:
    return str(require_onnxruntime().__version__)


def changes(case: Case, golden: Golden, path: Path, title: str) -> list[str]:
    """What a golden changes against the one that lies at a place, a line each.

    Args:
        case: whose golden.
        golden: the one that was made.
        path: of the present one; it need not be there.
        title: what the first line says.
    """
    if not path.exists():
        return [f"{case.name}: {title}", *_bounds(golden, None)]
    try:
        old = read(path, mend(case))
    except GoldenError as error:
        return [f"{case.name}: {path} replaces a golden that could not be read: {error}"]
    return [f"{case.name}: {title}", *_arrays(old, golden), *_bounds(golden, old)]


def _arrays(old: Golden, golden: Golden) -> list[str]:
    lines = []
    for part, before, after in (
        ("input", old.inputs, golden.inputs),
        ("output", old.outputs, golden.outputs),
    ):
        lines += [f"  {part} {name!r}: {_moved(before.get(name), array)}" for name, array in after.items()]
        lines += [f"  {part} {name!r}: gone" for name in before if name not in after]
    return lines


def _moved(before: NDArray[Any] | None, after: NDArray[Any]) -> str:
    if before is None:
        return "new"
    if before.shape != after.shape or before.dtype != after.dtype:
        return f"{before.dtype}{list(before.shape)} -> {after.dtype}{list(after.shape)}"
    comparison = compare(after, before)
    return f"changed by a relative RMS of {comparison.rel_rms:.2e}" if comparison.different else "unchanged"


def _bounds(golden: Golden, old: Golden | None) -> list[str]:
    lines = []
    order = Precision.labels()
    for precision, entries in sorted(golden.envelope.items(), key=lambda entry: order.index(entry[0])):
        for name, entry in entries.items():
            before = (old.envelope if old else {}).get(precision, {}).get(name)
            old_bound = f"{before['bound']:.2e}" if before else ""
            was = f" (was {old_bound})" if old_bound not in ("", f"{entry['bound']:.2e}") else ""
            lines.append(
                f"  {precision} {name!r}: simulated error {entry['error']:.2e}, bound {entry['bound']:.2e}{was}"
            )
    return [*lines, *(f"  {precision}: no envelope: {why}" for precision, why in golden.refused.items())]
