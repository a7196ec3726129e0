"""check(case, precision): the whole story on one page.

A case's model is lowered to a precision and built into an engine, run on the golden's inputs, compared with the
golden's outputs, and judged against the bound that a correct implementation keeps.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.backends.achieved_precision import achieved, unhonoured
from pytest_trt.backends.backend import DEFAULT, Built, Planner, choose, known_backend
from pytest_trt.case.build_settings import how_of, recipe_of, require_heeded
from pytest_trt.case.reference import require_float_output, subject_of, unjudged_outputs
from pytest_trt.errors import BackendError, CaseError, GoldenError, PytestTrtError
from pytest_trt.evidence.evidence import Trial
from pytest_trt.evidence.finding import Scrutiny
from pytest_trt.evidence.judgement import accept_hint, judge
from pytest_trt.evidence.weight_envelope import with_weight_envelope
from pytest_trt.findings.diagnosis import diagnosed, refusal, with_found
from pytest_trt.findings.verdict import Verdict
from pytest_trt.golden.load import open_golden
from pytest_trt.latency.check import find_latency
from pytest_trt.lowering.lowering import needs_ranges
from pytest_trt.model.samples import read
from pytest_trt.precision import Precision
from pytest_trt.ranges.files import is_ranges_file
from pytest_trt.storage.entry_point import blame

if TYPE_CHECKING:
    from pytest_trt.backends.backend import Backend, Ran
    from pytest_trt.case.build_settings import How
    from pytest_trt.case.case import Case
    from pytest_trt.case.reference import Subject
    from pytest_trt.golden.golden import Golden
    from pytest_trt.latency.question import Keeper
    from pytest_trt.model.feeds import Arrays

__all__ = ["build", "check", "could_not", "refuse_other_than_engines", "verdict_of"]


def check(
    case: Case,
    precision: Precision | str,
    *,
    backend: str | None = None,
    golden_dir: Path | str = "golden",
    require_engine: bool = False,
    how: How | None = None,
    scrutiny: Scrutiny | None = None,
    keeper: Keeper | None = None,
) -> Verdict:
    """Judge one case at one precision.

    Args:
        case: what to check.
        precision: what to lower it to, or ``model`` for the file as it is.
        backend: what builds and runs the engine; the case's own, else onnxruntime, if not given.
        golden_dir: the folder of goldens.
        require_engine: whether a result without a TensorRT engine is a failure.
        how: how engines are built and kept; as the case says, if not given.
        scrutiny: which findings count, and how closely is looked; all findings, and closely on failure, if not given.
        keeper: times the engine, if it is right, and judges its latency; nothing is timed if not given.

    Returns:
        The verdict; bad input makes it "error" with a message, and never raises.

    Raises:
        SpecError: no such precision or backend.
    """
    precision = Precision.parse(precision) if isinstance(precision, str) else precision
    name = known_backend(backend or case.backend or DEFAULT)
    how = how or how_of(case)
    try:
        chosen = choose(name)
        if require_engine or how.plan is not None:
            refuse_other_than_engines(chosen)
        subject = subject_of(case, precision)
        require_heeded(how.words, name)
        if how.only_build:
            return built_only(subject, chosen, how, Path(golden_dir))
        require_float_output(case, subject.model)
        golden = with_weight_envelope(subject, open_golden(subject, Path(golden_dir)))
        built = build(subject, golden, chosen, how)
        outputs = [built.engine.run(run.inputs) for run in golden.runs]
        verdict = verdict_of(subject, golden, built.engine, outputs, scrutiny, built)
        return timed(verdict, case, built, golden, keeper, scrutiny)
    except Exception as error:
        return could_not(case, precision, name, error, scrutiny)


def timed(
    verdict: Verdict,
    case: Case,
    built: Built,
    golden: Golden,
    keeper: Keeper | None,
    scrutiny: Scrutiny | None = None,
) -> Verdict:
    """The verdict with the engine's latency; an engine that is wrong is not timed."""
    if keeper is None or not verdict.passed:
        return verdict
    found = find_latency(keeper, case, built, golden.runs[0].inputs)
    return with_found(verdict, found, (scrutiny or Scrutiny()).choice)


def build(subject: Subject, golden: Golden, backend: Backend, how: How | None = None) -> Built:
    """The engine of a case's model at a precision, calibrated with the case's own data, and whether it honours it.

    Raises:
        PrecisionNotHonoured: it does not tell what it runs in.
    """
    how = how or how_of(subject.case)
    feeds = tuple(run.inputs for run in golden.runs)
    recipe = recipe_of(subject, feeds, how)
    engine = backend.build(recipe)
    other = unhonoured(engine, subject.asked, how.options.honoured, builds_engines=backend.builds_engines)
    return Built(engine, recipe, backend, other)


def built_only(subject: Subject, backend: Backend, how: How, golden_dir: Path) -> Verdict:
    """The verdict that a case's engine builds; nothing is run or compared.

    Raises:
        BackendError: the backend builds no engines.
    """
    case = subject.case
    refuse_other_than_engines(backend)
    if how.plan is not None:
        raise CaseError(
            f"{case.where}: --trt-build-only builds, and {how.plan} is built already: leave one of them out."
        )
    if not isinstance(backend, Planner):
        raise BackendError(f"backend {backend.name!r} can't build without running: drop --trt-build-only.")
    plan = backend.plan(recipe_of(subject, _feeds_of(subject, golden_dir), how))
    return Verdict(
        case=case.name,
        precision=subject.precision.label,
        backend=backend.name,
        simulated=False,
        verdict="built",
        where=case.where,
        warnings=plan.warnings,
        provenance={
            "model": subject.model.source,
            "model_sha256": subject.model.sha256,
            **_kept(subject),
            "engine": dict(plan.facts),
        },
    )


def verdict_of(
    subject: Subject,
    golden: Golden,
    ran: Ran,
    outputs: list[Arrays],
    scrutiny: Scrutiny | None = None,
    built: Built | None = None,
) -> Verdict:
    """Judge and diagnose outputs, one set a run of the golden, that ``ran`` (``built``, if we did) computed."""
    case, model = subject.case, subject.model
    calibrated = needs_ranges(model, subject.precision)
    judged = partial(judge, subject, golden)
    names = {spec.name for spec in subject.judged}
    outputs = [{name: array for name, array in run.items() if name in names} for run in outputs]
    judgements = judged(outputs)
    outside = [judgement for judgement in judgements if judgement.reasons]
    other = built is not None and built.unhonoured is not None
    verdict = Verdict(
        case=case.name,
        precision=subject.precision.label,
        backend=ran.backend,
        simulated=ran.simulated,
        verdict="failed" if outside or other else "passed",
        judgements=judgements,
        held=subject.held if subject.precision is Precision.MODEL or subject.held != "fp32" else None,
        where=case.where,
        unjudged=unjudged_outputs(case, model),
        accept=accept_hint(subject, judgements),
        layers=_layers(ran, subject.asked),
        warnings=ran.warnings,
        provenance={
            "model": model.source,
            "model_sha256": model.sha256,
            "golden": golden.source,
            "golden_model_sha256": golden.model_sha256,
            "golden_made_by": dict(golden.provenance),
            "calibration": case.calibration if calibrated else None,
            "calibration_method": _method_of(case) if calibrated else None,
            "lowering": ran.facts.get("lowering"),
            **_kept(subject),
            "engine": dict(ran.facts),
        },
    )
    trial = Trial(subject, golden, outputs, judged, built)
    return diagnosed(verdict, trial, scrutiny or Scrutiny())


def _feeds_of(subject: Subject, golden_dir: Path) -> tuple[Arrays, ...]:
    """The inputs of the golden, else the case's own, which tell the shapes to build for; none where nothing does."""
    case, model = subject.case, subject.model
    try:
        return tuple(run.inputs for run in open_golden(subject, golden_dir).runs)
    except GoldenError:
        told = read(case.inputs, case.base, model.inputs, f"{case.where}: inputs") if case.inputs else ()
        return tuple(told)


def could_not(
    case: Case, precision: Precision, backend: str, error: Exception, scrutiny: Scrutiny | None = None
) -> Verdict:
    """The verdict that a case could not be judged; what we did not foresee is named as our fault."""
    ours = isinstance(error, (PytestTrtError, UserWarning))
    return Verdict(
        case=case.name,
        precision=precision.label,
        backend=backend,
        simulated=False,
        verdict="error",
        message=str(error) if ours else f"a fault of pytest-trt, please report it: {blame(error)}",
        kind=type(error).__name__,
        where=case.where,
        **refusal(case, precision, backend, error, (scrutiny or Scrutiny()).choice),
    )


def refuse_other_than_engines(backend: Backend) -> None:
    """Fail where the run requires an engine and the backend builds none.

    Raises:
        BackendError: it simulates, or runs the model without TensorRT.
    """
    if not backend.builds_engines:
        instead = "only simulates the precision on the CPU" if backend.simulated else "builds no TensorRT engine"
        raise BackendError(
            "an engine is required (--trt-require-engine, --trt-engine, --trt-build-only, or a case's `engine`), and"
            f" backend {backend.name!r} {instead}. Choose a backend that builds engines with --trt-backend, or drop the"
            " requirement.",
            {"engine": True},
        )


def _kept(subject: Subject) -> dict[str, list[str]]:
    """Which nodes stayed in fp32, where the case says so and the precision lowers anything."""
    case = subject.case
    lowers = subject.precision not in (Precision.FP32, Precision.MODEL)
    told = {"keep": case.keep, "ops": case.ops} if lowers else {}
    return {key: list(words) for key, words in told.items() if words}


def _method_of(case: Case) -> str | None:
    """How our calibration takes ranges from the case's samples; None where they were given, or TensorRT takes them."""
    ours = case.build.get("calibrator", "ranges") == "ranges" and not is_ranges_file(case.calibration or ".txt")
    return case.calibration_method or "minmax" if ours else None


def _layers(ran: Ran, asked: str) -> dict[str, object]:
    layers = ran.layers()
    return {**asdict(achieved(layers, asked)), "layers": [asdict(layer) for layer in layers]} if layers else {}
