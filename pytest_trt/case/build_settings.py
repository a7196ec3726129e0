"""Build settings: from a case to the recipe of its engine: options, calibration, profiles, where plans are kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.backends.build_options import BuildOptions, anchored, merged
from pytest_trt.backends.recipe import Calibration, Recipe, given, sampled
from pytest_trt.case.reference import network_of
from pytest_trt.errors import BackendError, CaseError
from pytest_trt.lowering.lowering import at_opset, held_precision, needs_ranges
from pytest_trt.lowering.modelopt import PRECISIONS as MODELOPT_PRECISIONS
from pytest_trt.lowering.modelopt import lower_by_modelopt
from pytest_trt.model.sample_stream import pieces
from pytest_trt.precision import Precision
from pytest_trt.ranges.amax import Ranges
from pytest_trt.ranges.files import is_ranges_file, read_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_trt.calibration.calibration import Progress
    from pytest_trt.case.case import Case
    from pytest_trt.case.reference import Subject
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model

__all__ = ["How", "how_of", "recipe_of", "require_heeded"]


@dataclass(frozen=True)
class How:
    """How engines are built and kept.

    Attributes:
        options: of the builder.
        plan: file of an engine that was built elsewhere, in place of building.
        store: folder of plans and timing caches; None keeps nothing.
        only_build: whether to build and not to run.
        words: names of the options that were told on the command line, which no backend may drop.
        progress: told what is going on, where somebody watches.
    """

    options: BuildOptions = field(default_factory=BuildOptions)
    plan: Path | None = None
    store: Path | None = None
    only_build: bool = False
    words: tuple[str, ...] = ()
    progress: Callable[[str, float | None], None] | None = None


def how_of(case: Case) -> How:
    """As the case itself says, its plans kept nowhere."""
    plan = case.base / case.engine if case.engine else None
    return How(merged(anchored(case.build, case.base)), plan)


def require_heeded(words: Iterable[str], backend: str) -> None:
    """Refuse options of the command line that the backend has no use for; a case's own table serves several backends.

    Raises:
        BackendError: names them.
    """
    heeded = {"onnxruntime": ("honoured",), "torch": ("honoured", "device"), "torch-compile": ("honoured", "device")}
    unheeded = [word for word in words if word not in heeded.get(backend, (word,))]
    if unheeded:
        raise BackendError(
            f"backend {backend!r} has no use for {', '.join(unheeded)} (--trt-build, --trt-typing): choose a backend"
            " that builds engines with --trt-backend, or leave it out."
        )


def recipe_of(subject: Subject, feeds: tuple[Arrays, ...], how: How) -> Recipe:
    """The recipe of a case's engine.

    Args:
        subject: what is built; its case names calibration and profiles.
        feeds: runs of inputs that the engine will see; none where it is only built.
        how: options, and where plans are kept.

    Raises:
        CaseError: the precision needs calibration, and the case names none.
        DataError: the calibration data can't be read.
        LoweringError: ModelOpt was asked to lower it, and can't.
    """
    case, precision = subject.case, subject.precision
    converted = at_opset(subject.model, precision)
    recipe = Recipe(
        model=converted,
        precision=precision,
        calibration=(
            calibration_of(case, converted, precision, feeds, how.options, how.progress) if how.plan is None else None
        ),
        batch=case.batch,
        feeds=feeds,
        profiles=case.profiles,
        options=how.options,
        plan=how.plan,
        store=how.store,
        module=network_of(case),
        keep=case.keep,
        ops=case.ops,
        progress=how.progress,
    )
    return _lowered_by_modelopt(case, recipe) if case.lowering == "modelopt" else recipe


def _lowered_by_modelopt(case: Case, recipe: Recipe) -> Recipe:
    """The recipe of a model that holds the precision already; as it is, where ModelOpt has nothing to do."""
    asked = recipe.precision.label
    if recipe.plan is not None or asked not in MODELOPT_PRECISIONS or held_precision(recipe.model.proto) != "fp32":
        return recipe
    if recipe.options.typing == "weak":
        raise BackendError(
            f"{case.where}: lowering = modelopt writes {asked} into the model, and typing = weak has TensorRT choose it"
            " for an fp32 one: leave one of them out."
        )
    calibration = recipe.calibration
    found = lower_by_modelopt(
        recipe.model,
        asked,
        calibration.samples if calibration else None,
        source=calibration.source if calibration else "",
        batch=case.batch,
        method=case.calibration_method or "minmax",
        keep=case.keep,
        ops=case.ops,
    )
    return replace(recipe, model=found.model, calibration=None, lowering=found.by, notes=found.notes)


def calibration_of(
    case: Case,
    model: Model,
    precision: Precision,
    feeds: tuple[Arrays, ...],
    options: BuildOptions,
    progress: Progress | None = None,
) -> Calibration | None:
    """What int8 and fp8 are calibrated with: the case's samples or ranges; None where the precision needs none.

    Raises:
        CaseError: it needs some, and the case names none; or a calibration method is named that nothing heeds.
        DataError: ranges can't be read.
    """
    if not needs_ranges(model, precision):
        return None
    _require_method_heeded(case, options)
    cache = options.calibration_cache
    by_tensorrt = precision is Precision.INT8 and options.calibrator != "ranges"
    if case.calibration is None and by_tensorrt and cache and Path(cache).is_file():
        return given(model, Ranges({}, f"{case.where}: calibration cache {cache}"))  # TensorRT reads it itself
    if case.calibration is None:
        raise CaseError(
            f"{case.where}: {case.name!r} at {precision} needs calibration data and names none, and an engine in it"
            " without calibration is wrong by as much as its outputs are large. Write calibration ="
            ' "calibration.npz" (arrays by input name), "ranges.txt" (a line `tensor: range` each; TensorRT\'s'
            ' calibration cache and other files of ranges do as well) or "module:function" in the case, or pass'
            ' --trt-calibration; "golden" calibrates on the golden\'s inputs.',
            {"uncalibrated": True},
        )
    source = f"{case.where}: calibration {case.calibration!r}"
    method = case.calibration_method or "minmax"
    if case.calibration == "golden" and not feeds:
        raise CaseError(f"{source}: there is no golden of {case.name!r}, whose inputs would calibrate. Make it first.")
    if case.calibration == "golden":
        return sampled(model, lambda _: feeds, source, case.batch, method, precision=precision.label, progress=progress)
    if is_ranges_file(case.calibration):
        return given(model, read_ranges(case.base / case.calibration, source))
    opened = partial(pieces, case.calibration, case.base, model.inputs, f"{case.where}: calibration")
    return sampled(model, opened, source, case.batch, method, precision=precision.label, progress=progress)


def _require_method_heeded(case: Case, options: BuildOptions) -> None:
    """A word that says how samples become ranges is refused where there are ranges, or TensorRT takes them itself."""
    if case.calibration_method is None:
        return
    ranges = case.calibration if is_ranges_file(case.calibration or "") else None
    own = f"calibrator = {options.calibrator!r}" if options.calibrator != "ranges" else None
    if ranges or own:
        raise CaseError(
            f"{case.where}: calibration_method = {case.calibration_method!r} says how our calibration takes ranges from"
            f" samples, and {f'{ranges!r} holds ranges already' if ranges else f'{own} is that of TensorRT'}: leave one"
            " of them out."
        )
