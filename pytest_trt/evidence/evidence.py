"""Evidence: all that rules may look at of a case that ran, and how each part is gathered; None where unknown."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.onnxruntime import OnnxruntimeEngine, open_backend
from pytest_trt.backends.recipe import ranges_of
from pytest_trt.backends.tensorrt.parser import ParserAnswer, Unparsed, unparsed
from pytest_trt.calibration.activations import PIECE
from pytest_trt.case.reference import reference_of, subject_of
from pytest_trt.comparison.comparison import compare
from pytest_trt.comparison.parts import apart
from pytest_trt.errors import DataError, LoweringError, PytestTrtError
from pytest_trt.evidence._qdq_file import bypassed
from pytest_trt.evidence.bisection import departure_of
from pytest_trt.evidence.coverage import coverage_at
from pytest_trt.evidence.hops import blamed, fp32_limits, hop, limits_of
from pytest_trt.evidence.localise import first_nonfinite, localise, ranked
from pytest_trt.evidence.quant_ranges import quantised_evidence
from pytest_trt.evidence.reproducibility import Repeated, rebuilt, rerun
from pytest_trt.evidence.rounding import half_weights
from pytest_trt.evidence.weak_bounds import before, cause_of, weak_bounds
from pytest_trt.evidence.weights import rounded_reference, weights_of
from pytest_trt.golden.envelope import simulate
from pytest_trt.golden.overflow import Overflow, settle
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.lowering.placement import kept_in_fp32
from pytest_trt.model.feeds import conform, is_float, split
from pytest_trt.model.model import Model
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_trt.backends.backend import Built, Layer
    from pytest_trt.case.case import Case
    from pytest_trt.case.reference import Subject
    from pytest_trt.evidence.bisection import Departure
    from pytest_trt.evidence.coverage import Coverage
    from pytest_trt.evidence.hops import Hop
    from pytest_trt.evidence.judgement import Judgement
    from pytest_trt.evidence.localise import Located
    from pytest_trt.evidence.output_errors import Observed
    from pytest_trt.evidence.quant_ranges import Quantised
    from pytest_trt.evidence.reproducibility import Again
    from pytest_trt.evidence.rounding import HalfWeights
    from pytest_trt.evidence.weak_bounds import WeakBound
    from pytest_trt.evidence.weights import Weights
    from pytest_trt.golden.golden import Golden
    from pytest_trt.model.feeds import Arrays

__all__ = [
    "Evidence",
    "Refusal",
    "Trial",
    "begun",
    "covered",
    "departed",
    "explained_by_rounding",
    "fp32_hop",
    "fp32_outputs",
    "half_of",
    "inner_of",
    "is_of_another",
    "later_hops",
    "located_of",
    "origin_of",
    "quantised_of",
    "repeated_of",
    "stored_weights",
    "unparsed_unrun",
    "weak_of",
    "weights_unrun",
]


_QUANTISED = ("int8", "fp8", "int4", "fp4", "int2", "int16")
_FEW = 2  # samples, or runs of a fixed batch, that tell where the error of a weak bound begins


@dataclass(frozen=True)
class Trial:
    """A case that ran.

    Attributes:
        subject: what was checked.
        golden: the reference.
        outputs: one set a run of the golden.
        judged: outputs against the golden, one judgement an output.
        built: what ran, where we built it; None for outputs of the user's own code.
    """

    subject: Subject
    golden: Golden
    outputs: Sequence[Arrays]
    judged: Callable[[list[Arrays]], tuple[Judgement, ...]]
    built: Built | None = None

    @property
    def feeds(self) -> list[Arrays]:
        """Inputs, one set a run."""
        return [run.inputs for run in self.golden.runs]

    @cached_property
    def reference(self) -> Model | None:
        """The fp32 model that the case names, where it names one."""
        return reference_of(self.subject.case).model if self.subject.case.reference else None


@dataclass(frozen=True)
class Refusal:
    """Why a case could not be judged.

    Attributes:
        kind: name of the exception.
        message: its text.
        facts: what it tells of itself as plain data.
    """

    kind: str
    message: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """The first tensor, in the graph's order, that holds a NaN or an infinity, and the node that computes it."""

    tensor: str
    node: str = ""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known about one case at one precision.

    Attributes:
        case: its name.
        precision: what was asked.
        held: the precision that the file under test holds: fp32 where it was lowered from it.
        backend: what ran it.
        simulated: whether no engine was built.
        observed: what each output shows.
        envelope: the golden's, by precision and output: the error of a correct simulation, and its bound.
        hops: error of each step that is known, the first one first.
        older: what the golden lacks that this release puts into goldens; empty where it lacks nothing.
        anew: the command that makes the golden anew.
        refused: why it could not be judged, or of an engine that was that it runs in another precision; None where
            neither is.
        layers: of the engine, as its inspector tells them.
        half: what fp16 does to the weights, where the precision is fp16.
        weights: what the file under test stores against the reference's; None where there is no reference, or nobody
            looked.
        warnings: what the builder warned of.
        overflow: what the golden says of this precision, where it overflows.
        origin: the first tensor that is not finite, where that was looked for.
        inner: the first inner tensor of the simulated run that overflows, whatever became of it further on; of an
            engine, that which the golden tells of its simulation.
        repeated: what came of running, loading and building again.
        quantised: what int8 or fp8 stands on.
        located: tensors of the simulated graph against those of fp32, the likeliest cause first; None where none were
            compared.
        departure: where an engine leaves its simulation; None where it does not, or nobody looked.
        coverage: what of the network runs at the precision; None where nobody knows.
        honoured: the least share of it that must.
        weak: outputs that are inside bounds which say little.
        weak_fails: whether these are errors.
        kept: what the case keeps in fp32 already.
        unparsed: nodes that TensorRT's parser refuses, by the table of its releases.
        parser: what an installed parser says; None where none is, or nobody asked.
    """

    case: str
    precision: Precision
    held: str
    backend: str
    simulated: bool
    observed: tuple[Observed, ...] = ()
    envelope: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    hops: tuple[Hop, ...] = ()
    older: str = ""
    anew: str = ""
    refused: Refusal | None = None
    layers: tuple[Layer, ...] = ()
    half: HalfWeights | None = None
    weights: Weights | None = None
    warnings: tuple[str, ...] = ()
    overflow: str = ""
    origin: Origin | None = None
    inner: Overflow | None = None
    repeated: Repeated | None = None
    quantised: Quantised | None = None
    located: tuple[Located, ...] | None = None
    departure: Departure | None = None
    coverage: Coverage | None = None
    honoured: float = 0.0
    weak: tuple[WeakBound, ...] = ()
    weak_fails: bool = False
    kept: tuple[str, ...] = ()
    unparsed: tuple[Unparsed, ...] = ()
    parser: ParserAnswer | None = None

    def keep(self, more: Iterable[str]) -> str:
        """The key of the case that keeps further nodes, with those that it keeps already: it replaces the key."""
        words = ", ".join(f'"{word}"' for word in dict.fromkeys((*self.kept, *more)))
        return f"keep = [{words}]"


def half_of(trial: Trial) -> HalfWeights | None:
    """What fp16 does to the weights, where the model is lowered to it."""
    lowered = trial.subject.precision is Precision.FP16 and trial.subject.held == "fp32"
    model, case = trial.subject.model, trial.subject.case
    return half_weights(model, kept_in_fp32(model.proto, Precision.FP16, case.keep, case.ops)) if lowered else None


def stored_weights(trial: Trial) -> Weights | None:
    """The stored weights against those of the case's reference; None where it names none."""
    return None if trial.reference is None else weights_of(trial.subject.model, trial.reference)


def weights_unrun(case: Case, precision: Precision) -> Weights | None:
    """The stored weights of a case that could not be run, which need no run; None where these can't be had either."""
    if case.reference is None:
        return None
    try:
        subject = subject_of(case, precision)
        return weights_of(subject.model, reference_of(case).model) if subject.held != "fp32" else None
    except PytestTrtError:
        return None


def unparsed_unrun(case: Case, precision: Precision) -> tuple[Unparsed, ...]:
    """What the parser refuses of a case that could not be run; nothing where its model can't be had."""
    try:
        return unparsed(subject_of(case, precision).model.proto)
    except PytestTrtError:
        return ()


def explained_by_rounding(trial: Trial) -> dict[str, float] | None:
    """What the rounding of its weights alone, as a quantised file stores them, moves each output by.

    None where nobody knows: there is no reference, or a weight that has no counterpart in it.
    """
    if trial.reference is None or trial.subject.held not in _QUANTISED:
        return None
    rounded = rounded_reference(trial.subject.model, trial.reference)
    if rounded is None:
        return None
    found = simulate(rounded, Precision.FP32, trial.golden.inputs, trial.subject.case.batch)
    steps = hop("golden", "rounded", trial.golden.onnx_outputs or trial.golden.outputs, found, {}, _splitting(trial))
    return {step.output: step.rel_rms for step in steps}


def inner_of(trial: Trial) -> Overflow | None:
    """The first inner tensor of the simulated run that overflows; None where none does, or nobody knows.

    Where the golden was made by the same simulation, what it tells of the same odd tensors is not looked for again.
    """
    subject, golden, built = trial.subject, trial.golden, trial.built
    told = golden.overflow.get(subject.asked, {})
    same = golden.model_sha256 in (None, subject.model.sha256)
    known = Overflow.of_table(told["found"]) if same and told.get("found") else None
    engine = built.engine if built else None
    if built is None or not isinstance(engine, OnnxruntimeEngine) or not engine.simulated:
        return known
    odd = sorted(engine.inner.suspects | engine.inner.masked)
    if not odd or (same and odd == told.get("suspects")):
        return known if same and odd == told.get("suspects") else None
    recipe = built.recipe

    def build(more: tuple[str, ...]) -> OnnxruntimeEngine:
        return open_backend().build(replace(recipe, keep=(*recipe.keep, *more)))

    return settle(_own_fp32_form(trial), build, trial.feeds, subject.case.batch, engine).overflow


def quantised_of(trial: Trial) -> Quantised | None:
    """What int8 or fp8 stands on; None where nobody knows, as of a plan, or of ranges that TensorRT took itself."""
    built, model = trial.built, trial.subject.model
    recipe = built.recipe if built else None
    model = recipe.model if recipe else model
    held = held_precision(model.proto)
    lowered = trial.subject.precision.takes_ranges and held == "fp32"
    unknown = recipe is None or recipe.calibration is None or recipe.options.calibrator != "ranges"
    if lowered and unknown:
        return None
    samples = recipe.calibration.samples if recipe and recipe.calibration and lowered else None
    return quantised_evidence(
        model,
        None if lowered else trial.reference,
        trial.subject.precision,
        held,
        ranges_of(recipe) if recipe and lowered else None,
        trial.feeds,
        trial.subject.case.batch,
        trial.subject.case.keep,
        ops=trial.subject.case.ops,
        samples=samples(trial.subject.case.batch or PIECE) if samples else None,
        release=built.backend.version.split()[-1] if built and built.backend.builds_engines else None,
    )


def covered(trial: Trial) -> Coverage | None:
    """What of the network runs at the precision; None of a plan, or where nothing was built here."""
    built, case = trial.built, trial.subject.case
    if built is None or built.recipe.plan is not None:
        return None
    return coverage_at(built.recipe.model, trial.subject.precision, trial.feeds[0], case.keep, case.ops, case.batch)


def weak_of(trial: Trial, judgements: Sequence[Judgement]) -> tuple[WeakBound, ...]:
    """Outputs that are inside bounds which say little."""
    still = trial.subject.case.constant_outputs
    return weak_bounds(_fp32_form(trial).proto, trial.golden, trial.subject.asked, judgements, still)


def begun(trial: Trial, weak: Sequence[WeakBound]) -> tuple[tuple[WeakBound, ...], tuple[Located, ...] | None]:
    """Weak bounds with the tensor that the error of each begins at, and the tensors, where all samples were looked at.

    An error that rounding does not explain may be that of few samples: all are looked at, and a further run tells
    whether keeping the tensor and what it is computed from in fp32 mends it. Else a few samples tell.
    """
    whole = any(one.explained is not None for one in weak)
    located = _located(trial, () if whole else _few(trial)) or ()
    found = tuple(_mended(trial, replace(one, cause=cause_of(located, one.error))) for one in weak)
    return found, located if whole else None


def _mended(trial: Trial, weak: WeakBound) -> WeakBound:
    if weak.explained is None or weak.cause is None or trial.built is None or trial.subject.held != "fp32":
        return weak
    keep = before(_fp32_form(trial).proto, weak.cause.node) if weak.cause.node else ()
    if not keep:
        return weak
    recipe = trial.built.recipe
    try:
        engine = open_backend().build(replace(recipe, keep=(*recipe.keep, *keep)))
    except LoweringError:  # nothing would be left to lower
        return weak
    exact, found = trial.golden.onnx_outputs or trial.golden.outputs, engine.run(trial.golden.inputs)
    step = next(one for one in hop("fp32", "kept", exact, found, {}) if one.output == weak.output)
    return replace(weak, keep=keep, kept_error=step.rel_rms) if step.rel_rms <= weak.explained else weak


def _few(trial: Trial) -> list[Arrays]:
    """A few of the golden's samples; all, where they can't be cut."""
    specs = _fp32_form(trial).inputs
    has_dynamic = not any(spec.shape and isinstance(spec.shape[0], int) for spec in specs)
    try:
        cut = split(conform(trial.feeds[0], specs, "the golden"), specs, _FEW)
        return list(islice(cut, 1 if has_dynamic else _FEW))
    except DataError:
        return trial.feeds


def located_of(trial: Trial, quantised: Quantised | None = None) -> tuple[Located, ...] | None:
    """The tensors that the error comes from: of the graph as it is simulated, against fp32.

    What is known already is told by the same figure: an output's error as it is judged, and what a range leaves of a
    tensor as TRT105 to TRT107 tell it.
    """
    return _located(trial, quantised=quantised)


def _located(
    trial: Trial, feeds: Sequence[Arrays] = (), quantised: Quantised | None = None
) -> tuple[Located, ...] | None:
    """On the golden's inputs, or on some samples of them alone, which say less of the outputs."""
    if trial.built is None or trial.built.recipe.plan is not None:
        return None
    engine = trial.built.engine
    simulated = engine if isinstance(engine, OnnxruntimeEngine) else open_backend().build(trial.built.recipe)
    found = localise(_fp32_form(trial), simulated.model, feeds or trial.feeds, trial.subject.case.batch)
    ends, rounded = {} if feeds else _ends(trial, simulated), _rounded(quantised)
    return ranked(
        replace(
            one,
            local_db=rounded.get(one.tensor, one.local_db),
            cumulative_db=ends.get(one.tensor, one.cumulative_db),
        )
        for one in found
    )


def _ends(trial: Trial, simulated: OnnxruntimeEngine) -> dict[str, float]:
    """SQNR of each float output against fp32's, of the worst run, in dB; none where fp32 is not that of the golden."""
    if is_of_another(trial):
        return {}
    exact = [trial.golden.onnx_outputs or run.outputs for run in trial.golden.runs]
    ran = trial.built is not None and simulated is trial.built.engine
    outputs = trial.outputs if ran else [simulated.run(feeds) for feeds in trial.feeds]
    return {
        name: min(compare(low[name], high[name]).sqnr_db for low, high in zip(outputs, exact, strict=True))
        for name, array in exact[0].items()
        if is_float(array.dtype) and outputs[0][name].shape == array.shape
    }


def _rounded(quantised: Quantised | None) -> dict[str, float]:
    """SQNR that its range leaves of each tensor, in dB."""
    return {one.name: one.statistics.sqnr_db for one in (quantised.tensors if quantised else ()) if one.statistics}


def departed(trial: Trial, located: Sequence[Located] | None, hops: Sequence[Hop], *, asked: bool) -> Departure | None:
    """Where an engine leaves its simulation; None where none was built here, or no tensors are known.

    It costs a build or a few, and is looked for where that was asked, or where no step before the engine is to blame.
    """
    built, to_blame = trial.built, blamed(hops)
    if built is None or not built.backend.builds_engines or built.recipe.plan is not None or not located:
        return None
    if not asked and to_blame is not None and to_blame.end != "engine":
        return None
    model, known = _fp32_form(trial), _beyond_simulation(trial, hops)
    return departure_of(built.backend, built.recipe, model, located, trial.feeds, trial.outputs, known=known)


def _beyond_simulation(trial: Trial, hops: Sequence[Hop]) -> float:
    """How many times the simulation's error a right engine may have by the golden's envelope, which knows fp16 sums."""
    label = trial.subject.asked
    envelope = trial.golden.envelope.get(label, {})
    shares = (
        float(envelope[step.output]["error"]) / step.rel_rms
        for step in hops
        if step.end == "simulated" and step.output in envelope and step.rel_rms
    )
    return max([1.0, *shares])


def origin_of(located: Sequence[Located], departure: Departure | None = None) -> Origin | None:
    """The first tensor that is not finite: of the engine, where it was seen, else of the simulation."""
    if departure is not None and departure.nonfinite:
        return Origin(departure.tensor, departure.node)
    found = first_nonfinite(located)
    return Origin(found.tensor, found.node) if found else None


def repeated_of(trial: Trial, rebuilds: int) -> Repeated | None:
    """The engine run again; and where builds are asked, loaded and built again. None where there is no engine."""
    built = trial.built
    if built is None or not built.backend.builds_engines:
        return None
    again = rerun(built.engine, trial.feeds[0], trial.outputs[0])
    return Repeated(again, _reloaded(trial, built), _rebuilt(trial, built, rebuilds)) if rebuilds else Repeated(again)


def is_of_another(trial: Trial) -> bool:
    """Whether the golden was made from another model than the one under test, which may differ in fp32 already."""
    made_from = trial.golden.model_sha256
    return (
        trial.subject.precision is not Precision.FP32
        and made_from is not None
        and made_from != trial.subject.model.sha256
    )


def fp32_outputs(trial: Trial) -> Arrays | None:
    """Outputs of the model under test in fp32, on the golden's first run; of one with Q/DQ, led around them.

    None where no fp32 form of it exists: a file of fp16 or bf16.
    """
    model, inputs = trial.subject.model, trial.golden.inputs
    if trial.subject.held == "fp32":
        return simulate(model, Precision.FP32, inputs, trial.subject.case.batch)
    if trial.subject.held in _QUANTISED:
        return simulate(Model(bypassed(model.proto), model.source), Precision.MODEL, inputs, trial.subject.case.batch)
    return None


def fp32_hop(
    trial: Trial, judgements: Sequence[Judgement], exact: Arrays | None, rounding: Mapping[str, float] | None = None
) -> tuple[Hop, ...]:
    """Golden -> the model under test in fp32.

    Args:
        trial: the case.
        judgements: whose bounds hold where the weights are stored rounded, and nobody knows what that explains.
        exact: what :func:`fp32_outputs` gave.
        rounding: what :func:`explained_by_rounding` gave.
    """
    if exact is None:
        return ()
    reference = trial.golden.onnx_outputs or trial.golden.outputs
    return hop("golden", "fp32", reference, exact, _fp32_limits(trial, judgements, rounding), _splitting(trial))


def later_hops(
    trial: Trial,
    judgements: Sequence[Judgement],
    exact: Arrays | None,
    rounding: Mapping[str, float] | None = None,
    *,
    simulated: bool,
) -> tuple[Hop, ...]:
    """Golden -> today's fp32 -> simulated -> engine, as far as they can be run, on the golden's first run.

    Args:
        trial: the case.
        judgements: whose bounds limit the hops.
        exact: what :func:`fp32_outputs` gave.
        rounding: what :func:`explained_by_rounding` gave.
        simulated: whether no engine ran.
    """
    limits = limits_of(judgements)
    ends = [("golden", trial.golden.onnx_outputs or trial.golden.outputs)] if exact is None else [("fp32", exact)]
    ends += _simulated_end(trial, simulated)
    if not simulated:
        ends.append(("engine", trial.outputs[0]))
    steps = (
        step
        for (before, first), (after, second) in pairwise(ends)
        for step in hop(before, after, first, second, limits, _splitting(trial))
    )
    return (*fp32_hop(trial, judgements, exact, rounding), *steps)


def _splitting(trial: Trial) -> Callable[[Arrays], Arrays]:
    """Tells outputs apart into the parts that they are judged in."""
    parts, golden = trial.golden.parts(trial.subject.asked), trial.golden.outputs
    return lambda arrays: apart(arrays, golden, parts)


def _fp32_limits(
    trial: Trial, judgements: Sequence[Judgement], rounding: Mapping[str, float] | None
) -> dict[str, float | None]:
    """What the model under test may differ by in fp32; one whose weights are stored rounded, by what that explains."""
    if trial.subject.held != "fp32" and rounding is None:
        return limits_of(judgements)
    told, exact = trial.subject.case.tolerance.get("fp32"), trial.golden.envelope.get("fp32", {})
    if trial.subject.held != "fp32":
        judgements = [judgement for judgement in judgements if judgement.near_ties is None]
    return fp32_limits(judgements, told, exact, rounding or {})


def _simulated_end(trial: Trial, simulated: bool) -> list[tuple[str, Arrays]]:
    built = trial.built
    if simulated:
        exact = trial.subject.precision is Precision.FP32 and trial.subject.held == "fp32"
        return [] if exact else [("simulated", trial.outputs[0])]
    if built is None or built.recipe.plan is not None or trial.subject.precision is Precision.FP32:
        return []  # nobody knows the ranges that a plan was built with
    return [("simulated", open_backend().build(built.recipe).run(trial.golden.inputs))]


def _fp32_form(trial: Trial) -> Model:
    """The fp32 model to compare with: the case's own reference, else the model that was lowered."""
    model = trial.built.recipe.model if trial.built else trial.subject.model
    if trial.reference is not None:
        return trial.reference
    return model if held_precision(model.proto) == "fp32" else Model(bypassed(model.proto), model.source)


def _own_fp32_form(trial: Trial) -> Model:
    """The model under test in fp32, whatever the reference holds: NaN among its weights is no overflow."""
    model = trial.built.recipe.model if trial.built else trial.subject.model
    return model if held_precision(model.proto) == "fp32" else _fp32_form(trial)


def _reloaded(trial: Trial, built: Built) -> Again | None:
    again = built.backend.build(built.recipe)
    loaded = built.recipe.plan is not None or "from_store" in again.facts
    return rerun(again, trial.feeds[0], trial.outputs[0]) if loaded else None


def _rebuilt(trial: Trial, built: Built, count: int) -> tuple[Again, ...]:
    if built.recipe.plan is not None:
        return ()
    anew = replace(built.recipe, store=None)
    layers = built.engine.layers()
    return rebuilt(count, lambda: built.backend.build(anew), trial.feeds, trial.outputs, layers, trial.judged)
