"""Judgement: outputs against the golden, each against the bound that applies to it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_trt.case.reference import class_output, mend, reference_of, unjudged_outputs
from pytest_trt.comparison.error_metrics import accuracy, rank, rms
from pytest_trt.comparison.parts import Part, parts_of
from pytest_trt.comparison.tolerance import Tolerance, allowance, bounded, rank_violations, toml_key, violations
from pytest_trt.errors import CaseError, DataError, GoldenError, GoldenMismatch
from pytest_trt.golden.envelope import MOST_UNEQUAL
from pytest_trt.golden.index_outputs import IndexOutputs, is_counted
from pytest_trt.model.feeds import is_float
from pytest_trt.model.scores import sequences_of_scores
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal

    from numpy.typing import NDArray

    from pytest_trt.case.case import Case
    from pytest_trt.case.reference import Subject
    from pytest_trt.comparison.comparison import Comparison
    from pytest_trt.golden.golden import Golden, Run
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model

__all__ = ["JudgedPart", "Judgement", "accept_hint", "judge", "limited", "settled"]


@dataclass(frozen=True)
class Accuracy:
    """Share of samples whose best class is the true one: of the engine, and of the fp32 golden."""

    actual: float
    reference: float
    samples: int


@dataclass(frozen=True)
class JudgedPart:
    """One part of an output against its bound.

    Attributes:
        part: which elements.
        error: relative RMS, or for whole numbers the share that differs.
        bound: what it may be; None where the user's limits are of another kind.
        outside: whether any limit is missed.
    """

    part: Part
    error: float
    bound: float | None
    outside: bool

    @property
    def strain(self) -> tuple[bool, float]:
        """Larger for what is worse."""
        return self.outside, self.error / self.bound if self.bound else self.error


@dataclass(frozen=True)
class Judgement:
    """One output against its golden.

    Attributes:
        output: its name.
        comparison: the figures.
        tolerance: every limit that was applied.
        origin: "envelope" or "tolerance": where the limit on the error's size came from.
        reasons: why it is outside, a sentence each; none when inside.
        whole: whether the output is integer or boolean, and judged by its share of unequal elements.
        run: the data set, where there are several.
        accuracy: on the golden's labels, for the output that they belong to.
        parts: each part that the output falls into, with its error and bound; ``comparison`` is of the worst of them.
        near_ties: of an output of indices that is judged by the values that they pick, how many elements differ and are
            near ties, which count as equal; None of all others.
    """

    output: str
    comparison: Comparison
    tolerance: Tolerance
    origin: Literal["envelope", "tolerance"]
    reasons: tuple[str, ...]
    whole: bool = False
    run: str = ""
    accuracy: Accuracy | None = None
    near_ties: int | None = None
    parts: tuple[JudgedPart, ...] = ()

    @property
    def part(self) -> Part:
        """The part that is furthest beyond its bound, or nearest to it."""
        return max(self.parts, key=lambda one: one.strain).part

    @property
    def error(self) -> float:
        """The figure that the main bound is of: relative RMS, or for whole numbers the share that differs."""
        return self.comparison.error(whole=self.whole)

    @property
    def bound(self) -> float | None:
        """The main bound; None where the user's limits are of another kind."""
        return self.tolerance.mismatch if self.whole else self.tolerance.rel_rms


def judge(subject: Subject, golden: Golden, outputs: list[Arrays]) -> tuple[Judgement, ...]:
    """One judgement an output, the worst over the golden's runs.

    Args:
        subject: what is judged; its case tells the user's own tolerance.
        golden: the reference.
        outputs: of the engine, one set a run of the golden.

    Raises:
        GoldenError: there is neither an envelope nor a tolerance for the precision.
        CaseError: a limit is set on an output that is not there, or ranks classes of several outputs.
    """
    told = subject.case.tolerance.get(subject.precision.label, Tolerance())
    _require_outputs(told, subject)
    ranked = _ranked(subject.case, subject.model, told)
    sequences = sequences_of_scores(subject.model.proto)
    known, found, ties = settled(subject, golden, outputs)
    judgements = (
        _of_output(
            subject, known, spec.name, found, told, asked=spec.name == ranked, ranked=spec.name in (ranked, *sequences)
        )
        for spec in subject.judged
    )
    return tuple(replace(one, near_ties=ties.get(one.output)) for one in judgements)


def settled(
    subject: Subject, golden: Golden, outputs: Sequence[Arrays]
) -> tuple[Golden, list[Arrays], Mapping[str, int]]:
    """Golden and outputs that may be compared element by element: near ties as in the golden, lists row by row.

    A limit of the user's own on unequal elements counts them as they are.

    Args:
        subject: what is judged.
        golden: the reference, whose envelope tells what a near tie is.
        outputs: of the engine, one set a run of the golden.

    Returns:
        Both, and by output of indices how many elements are near ties, over all runs.
    """
    told = subject.case.tolerance.get(subject.precision.label, Tolerance())
    entries = golden.envelope.get(subject.asked, {})
    widths = {
        spec.name: entries[spec.name]["near"]
        for spec in subject.judged
        if "near" in entries.get(spec.name, {}) and not told.of(spec.name, whole=True).overrides_envelope
    }
    own = subject.case.reference is None or golden.model_sha256 in (None, subject.model.sha256)
    indices = IndexOutputs(subject.model if own else reference_of(subject.case).model, subject.case.batch)
    if not widths and not indices.lists:
        return golden, list(outputs), {}
    found = [
        indices.settled(actual, run.outputs, run.inputs, widths, number)
        for number, (actual, run) in enumerate(zip(outputs, golden.runs, strict=True))
    ]
    runs = tuple(replace(run, outputs=one.reference) for run, one in zip(golden.runs, found, strict=True))
    ties = {name: sum(one.ties[name] for one in found) for name in (found[0].ties if found else ())}
    return replace(golden, runs=runs), [one.actual for one in found], ties


def accept_hint(subject: Subject, judgements: tuple[Judgement, ...]) -> str:
    """How to accept what failed, for somebody who knows that it is right; empty where nothing failed."""
    case, precision = subject.case, subject.precision
    failed = [judgement for judgement in judgements if judgement.reasons]
    errors = [j.error for j in failed if not j.whole and math.isfinite(j.error)]
    if not failed:
        return ""
    if all(judgement.whole for judgement in failed):
        return _accept_unequal(case, precision, max(failed, key=lambda judgement: judgement.error))
    if all(j.comparison.actual_nan + j.comparison.actual_inf == 0 for j in failed if not j.whole) and not errors:
        return "A number is inside no tolerance where the golden holds NaN or infinity. Look for what puts it there."
    if not errors:
        narrow = precision not in (Precision.FP32, Precision.TF32)
        cause = "what overflows, and keep its layers in fp32 or bf16" if narrow else "NaN among its weights"
        return f"NaN and infinity are inside no tolerance. Look for {cause}."
    if max(errors) >= 1:
        return (
            "An error as large as the output is no rounding: look at the calibration data, the inputs' scale and order."
            f" If the model was meant to change, make the golden anew: {mend(case)}"
        )
    limit = float(f"{1.2 * max(errors):.1e}")
    return (
        f"If this error is right for you, write tolerance.{precision} = {{ rel_rms = {limit:g} }} for this case"
        f" ({case.where}); if the model was meant to change, make the golden anew: {mend(case)}"
    )


def _accept_unequal(case: Case, precision: Precision, judgement: Judgement) -> str:
    # a limit of the user's own counts near ties as they are
    unequal = judgement.comparison.different + (judgement.near_ties or 0)
    limit = min(1.0, float(f"{1.2 * unequal / max(judgement.comparison.count, 1):.1e}"))
    return (
        f"If this is right for you, write tolerance.{precision} = {{ outputs.{toml_key(judgement.output)} = {{"
        f" mismatch = {limit:g} }} }} for this case ({case.where}), or leave the output out (ignore_outputs ="
        f' ["{judgement.output}"]); if the model was meant to change, make the golden anew: {mend(case)}'
    )


def _of_output(
    subject: Subject,
    golden: Golden,
    name: str,
    outputs: list[Arrays],
    told: Tolerance,
    *,
    asked: bool,
    ranked: bool,
) -> Judgement:
    """The judgement on one output: of the golden's runs, the worst."""
    case, label = subject.case, subject.asked
    whole = not is_float(golden.outputs[name].dtype)
    tolerance = told.of(name, whole=whole)
    if not asked:
        tolerance = replace(tolerance, top1=None, top5=None, top1_all=None, accuracy_drop=None)
    limits = {part: _limits(tolerance, golden, label, part, whole=whole) for part in _parts(subject, golden, name)}
    if whole and not tolerance.overrides_envelope:
        _require_use(subject, name, limits[Part(name)].mismatch, golden)
    own = tolerance.overrides_envelope or not any(limit.overrides_envelope for limit in limits.values())
    origin: Literal["envelope", "tolerance"] = "tolerance" if own else "envelope"
    counted = is_counted(subject.model.proto, name)
    found = [
        _of_run(_named(arrays, name), run, limits, origin, mend(case), ranked=ranked, counted=counted)
        for run, arrays in zip(golden.runs, outputs, strict=True)
    ]
    worst = max(found, key=lambda judgement: (bool(judgement.reasons), judgement.error))
    overridden = all(limit.overrides_envelope for limit in limits.values())
    if not overridden and not worst.comparison.mismatched:
        raise _boundless(subject, name, golden)
    if not overridden and (why := golden.refused.get(label)):
        worst = replace(worst, reasons=(*worst.reasons, f"when the golden was made: {why}"))
    return _with_accuracy(worst, golden, outputs, tolerance) if asked else worst


def _parts(subject: Subject, golden: Golden, name: str) -> tuple[Part, ...]:
    """As the envelope has them; without one the sentinels are told from the rest, but in a golden that knows none."""
    found = golden.parts(subject.asked).get(name)
    if found or golden.schema < 2:
        return found or (Part(name),)
    split = parts_of(name, [run.outputs[name] for run in golden.runs])
    beyond = split[0].beyond
    return (Part(name, beyond=beyond), *(part for part in split if part.sentinels))


def _limits(tolerance: Tolerance, golden: Golden, label: str, part: Part, *, whole: bool) -> Tolerance:
    bound = golden.envelope.get(label, {}).get(part.name, {}).get("bound")
    return bounded(tolerance, bound, whole=whole)


def _of_run(
    actual: NDArray[Any],
    run: Run,
    limits: Mapping[Part, Tolerance],
    origin: Literal["envelope", "tolerance"],
    remake: str,
    *,
    ranked: bool,
    counted: bool,
) -> Judgement:
    """The worst part's judgement, with the reasons of all."""
    found = {part: limited(part, actual, run, limit, origin, remake, counted=counted) for part, limit in limits.items()}
    parts = tuple(part for one in found.values() for part in one.parts)
    worst = found[max(parts, key=lambda one: one.strain).part]
    reasons = tuple(dict.fromkeys(reason for one in found.values() for reason in one.reasons))
    told = replace(worst, reasons=reasons, parts=parts)
    return _ranked_too(told, actual, run) if ranked else told


def _ranked_too(judgement: Judgement, actual: NDArray[Any], run: Run) -> Judgement:
    """With the agreement of classes, which is of the output, and not of a part."""
    reference = run.outputs[judgement.output]
    ranking = rank(actual, reference, _sample_axis(reference, run))
    if judgement.tolerance.top1_all is not None and ranking.top1_all is None:
        raise CaseError(
            f"top1_all is a limit on sequences of classes, of shape [N, T, C], and output {judgement.output!r} has"
            f" shape {list(reference.shape)}: take top1, which is the share of samples that keep their best class."
        )
    comparison = replace(judgement.comparison, ranking=ranking)
    reasons = (*judgement.reasons, *rank_violations(comparison, judgement.tolerance))
    return replace(judgement, comparison=comparison, reasons=reasons)


def _require_outputs(told: Tolerance, subject: Subject) -> None:
    case, model = subject.case, subject.model
    names = [spec.name for spec in model.outputs]
    left = unjudged_outputs(case, model)
    for name in told.outputs:
        if name in left:
            raise CaseError(
                f"{case.where}: tolerance.{subject.precision}.outputs.{name} is a limit on an output that `outputs` or"
                f" `ignore_outputs` leaves out: judge it, or drop the limit."
            )
        if name not in names:
            raise CaseError(
                f"{case.where}: tolerance.{subject.precision}.outputs.{name} is no output of {model.source}, which has"
                f" {', '.join(map(repr, names))}."
            )


def _ranked(case: Case, model: Model, told: Tolerance) -> str | None:
    """The output whose classes are ranked, if anything asks for it."""
    parts = [told, *told.outputs.values()]
    asked = any(limit is not None for t in parts for limit in (t.top1, t.top5, t.top1_all, t.accuracy_drop))
    if asked or case.labels is not None or case.class_output is not None:
        return class_output(case, model)
    return None


def _require_use(subject: Subject, output: str, bound: float | None, golden: Golden) -> None:
    """Refuse a bound that takes nearly any whole numbers."""
    case = subject.case
    if bound is None or bound < MOST_UNEQUAL:
        return
    raise GoldenError(
        f"{case.where}: the golden {golden.source} lets {bound:.2g} of the elements of {output!r} be unequal at"
        f' {subject.asked}, which judges nothing. Leave it out (ignore_outputs = ["{output}"]), set a limit of your own'
        f" (tolerance.{subject.precision}.outputs.{toml_key(output)} = {{ mismatch = ... }}), or make the golden anew,"
        f" so that indices are judged by the values that they pick: {mend(case)}"
    )


def _boundless(subject: Subject, output: str, golden: Golden) -> GoldenError:
    case, label = subject.case, subject.asked
    why = golden.refused.get(label)
    missing = f" has no envelope for it, because {why}" if why else " has no envelope for it"
    named = "" if why else ", name the fp32 model as `reference`"
    return GoldenError(
        f"{case.where}: nothing says how large the error of {output!r} at {label} may be: the golden {golden.source}"
        f"{missing}. Write tolerance.{subject.precision} = {{ rel_rms = ... }}{named}, or make the golden anew:"
        f" {mend(case)}"
    )


def _named(outputs: Arrays, name: str) -> NDArray[Any]:
    if name not in outputs:
        raise DataError(f"the engine gave no output {name!r}: it has {', '.join(map(repr, outputs)) or 'none'}.")
    return outputs[name]


def limited(
    part: Part,
    actual: NDArray[Any],
    run: Run,
    limits: Tolerance,
    origin: Literal["envelope", "tolerance"],
    remake: str,
    *,
    counted: bool = False,
) -> Judgement:
    """One part of one output of one run against limits.

    Args:
        part: of the output.
        actual: the output, of the engine.
        run: of the golden.
        limits: every limit that applies.
        origin: where the limit on the error's size came from.
        remake: the command that makes the golden anew.
        counted: whether the number of its rows depends on values.

    Raises:
        GoldenMismatch: the shapes differ.
    """
    name = part.output
    reference = run.outputs[name]
    if actual.ndim == reference.ndim and actual.shape != reference.shape and counted:
        raise GoldenMismatch(
            f"output {name!r} has shape {list(actual.shape)}, and the golden's is {list(reference.shape)}: how many"
            f" rows it has depends on values, and rows that changed places can't be compared. Leave it out"
            f' (ignore_outputs = ["{name}"]) and judge the outputs that it is taken from.'
        )
    if actual.shape != reference.shape:
        raise GoldenMismatch(
            f"output {name!r} has shape {list(actual.shape)}, and the golden's is {list(reference.shape)}: the engine"
            f" does not compute what the golden was made from, or the golden is not whole; to make it anew:"
            f" {remake}"
        )
    beside = any(output.size for output in run.outputs.values())
    atol, rtol = allowance(limits, rms(reference if part.least else part.of(reference, reference)))
    comparison = part.compare(actual, reference, atol=atol, rtol=rtol)
    where = "" if part.whole else f"{part.name}: "
    found = Judgement(
        output=name,
        comparison=comparison,
        tolerance=limits,
        origin=origin,
        # an output without elements beside others that have some is as it should be
        reasons=()
        if beside and not reference.size
        else tuple(f"{where}{reason}" for reason in violations(comparison, limits)),
        whole=not is_float(reference.dtype),
        run=run.name,
    )
    return replace(found, parts=(JudgedPart(part, found.error, found.bound, bool(found.reasons)),))


def _sample_axis(reference: NDArray[Any], run: Run) -> int:
    """1 of sequences whose positions come first (T, N, C), as the inputs' samples tell."""
    samples = {array.shape[0] for array in run.inputs.values() if array.ndim}
    first = reference.ndim == 3 and len(samples) == 1 and reference.shape[0] not in samples
    return int(first and reference.shape[1] in samples)


def _with_accuracy(judgement: Judgement, golden: Golden, outputs: list[Arrays], told: Tolerance) -> Judgement:
    if golden.labels is None:
        if told.accuracy_drop is None:
            return judgement
        raise CaseError("accuracy_drop is set, and the golden holds no labels: name `labels` and make it anew.")
    name = judgement.output
    actual = accuracy(outputs[0][name], golden.labels)
    reference = accuracy(golden.outputs[name], golden.labels)
    drop, limit = reference - actual, told.accuracy_drop
    reasons = list(judgement.reasons)
    if limit is not None and not drop <= limit:
        reasons.append(f"accuracy fell by {drop:.4g} ({reference:.4g} to {actual:.4g}), over the bound {limit:g}")
    found = Accuracy(actual, reference, len(golden.labels))
    return replace(judgement, accuracy=found, reasons=tuple(reasons))
