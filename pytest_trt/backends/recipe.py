"""Recipe: all that a backend needs to build one engine, the shapes that it is built for among it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_trt.backends.build_options import BuildOptions
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.errors import CaseError
from pytest_trt.lowering.lowering import needs_ranges
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.model import tensor_names
from pytest_trt.ranges.amax import select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pytest_trt.calibration.calibration import Progress
    from pytest_trt.model.feeds import Arrays, TensorSpec
    from pytest_trt.model.model import Model
    from pytest_trt.model.samples import Samples
    from pytest_trt.model.torch_export import Network
    from pytest_trt.precision import Precision
    from pytest_trt.ranges.amax import Ranges

__all__ = [
    "Calibration",
    "Profile",
    "Recipe",
    "Span",
    "given",
    "notes_of",
    "profile_of_feeds",
    "ranges_of",
    "require_fit",
    "sampled",
]


@dataclass(frozen=True)
class Span:
    """What a profile covers of one input: its shapes, or for a shape input its values."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


Profile = Mapping[str, Span]
"""An optimization profile: by input name what it covers."""


def is_dynamic(spec: TensorSpec) -> bool:
    """Whether an axis of the input, or its rank, is left open."""
    return spec.shape is None or not all(isinstance(axis, int) for axis in spec.shape)


def profile_of_feeds(feeds: Iterable[Arrays], specs: Iterable[TensorSpec]) -> Profile:
    """The profile that covers these runs: the least and largest size of each axis, and the most frequent shape.

    Args:
        feeds: runs of arrays by input name, cut as they will be fed.
        specs: the model's inputs; those without a dynamic axis are left out.
    """
    runs = list(feeds)
    return {spec.name: _span([run[spec.name].shape for run in runs]) for spec in specs if is_dynamic(spec) and runs}


def require_fit(profile: Profile, specs: Iterable[TensorSpec], where: str) -> None:
    """Refuse a profile that is not of these inputs.

    Raises:
        CaseError: an input is not the model's, a dynamic one is missing, or a fixed axis has another size.
    """
    by_name = {spec.name: spec for spec in specs}
    for name, span in profile.items():
        if name not in by_name:
            raise CaseError(f"{where}: {name!r} is no input of the model, which has {', '.join(map(repr, by_name))}.")
        _require_axes(span, by_name[name], where)
    missing = [name for name, spec in by_name.items() if is_dynamic(spec) and name not in profile]
    if missing:
        raise CaseError(f"{where}: the dynamic input {missing[0]!r} has no shapes in it. Write its min, opt and max.")


def _span(shapes: list[tuple[int, ...]]) -> Span:
    axes = list(zip(*shapes, strict=True))
    usual = Counter(shapes).most_common(1)[0][0]
    return Span(tuple(min(sizes) for sizes in axes), usual, tuple(max(sizes) for sizes in axes))


def _require_axes(span: Span, spec: TensorSpec, where: str) -> None:
    if spec.shape is None or not spec.shape:
        return
    if len(spec.shape) == 1 and spec.dtype.kind in "iu":
        return  # a shape input, whose values are given
    fixed = [(number, axis) for number, axis in enumerate(spec.shape) if isinstance(axis, int)]
    if len(span.min) != len(spec.shape) or any(
        sizes[number] != axis for number, axis in fixed for sizes in (span.min, span.opt, span.max)
    ):
        raise CaseError(f"{where}: the shapes of {spec.name!r} do not fit the model's {spec}.")


@dataclass(frozen=True)
class Calibration:
    """What int8 and fp8 are calibrated with.

    Attributes:
        ranges: from names of activations to their ranges; runs the fp32 model over the samples, or looks the
            names up in ranges that were given.
        samples: opens the samples anew, for one pass: given the most samples wanted at once along axis 0 (None: as
            they come), yields arrays by input name; None where ranges were given.
        source: what messages call it.
        notes: what there is to say of the ranges; filled when they are taken.
    """

    ranges: Callable[[list[str]], Ranges]
    samples: Samples | None
    source: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Recipe:
    """What to build.

    Attributes:
        model: fp32, in operators new enough for the precision, or a file that holds a precision already.
        precision: what to build for; nothing else may be built under its name.
        calibration: for int8 and fp8, where the model does not hold its scales.
        keep: nodes that stay in fp32, each by its name or by a tensor that it computes.
        ops: kinds of operators that are lowered; all that the precision lowers if none is named.
        batch: the most samples at once where the first axis is dynamic.
        feeds: the runs of inputs that the engine will see, which tell the shapes of dynamic axes.
        profiles: optimization profiles of the user's own; if none, one is taken from ``feeds``.
        options: how to build.
        plan: file of an engine that was built elsewhere, to be loaded in place of building.
        store: folder of plans and timing caches; None keeps nothing.
        module: copies the torch module that the model or its reference was exported from, where the case names one.
        lowering: what lowered the model, where it holds the precision already: "own" or ModelOpt's name and version.
        notes: what that warned of; each becomes a warning of the engine.
        shown: whether the engine is to show inner tensors, where its backend can (``Shower``).
        progress: told what is going on (a phase, and the share done or None), where somebody watches.
    """

    model: Model
    precision: Precision
    calibration: Calibration | None = None
    keep: tuple[str, ...] = field(default=(), kw_only=True)
    ops: tuple[str, ...] = field(default=(), kw_only=True)
    batch: int | None = None
    feeds: tuple[Arrays, ...] = ()
    profiles: tuple[Profile, ...] = ()
    options: BuildOptions = field(default_factory=BuildOptions)
    plan: Path | None = None
    store: Path | None = None
    module: Callable[[], Network] | None = None
    lowering: str = "own"
    notes: tuple[str, ...] = ()
    shown: bool = False
    progress: Callable[[str, float | None], None] | None = None


def sampled(
    model: Model,
    samples: Samples,
    source: str,
    batch: int | None = None,
    method: str = "minmax",
    *,
    precision: str = "int8",
    progress: Progress | None = None,
) -> Calibration:
    """Calibration by samples: ranges are those of the fp32 model's tensors over them; the arguments are calibrate's."""
    notes: list[str] = []
    taken: dict[tuple[str, ...], Ranges] = {}

    def ranges(tensors: list[str]) -> Ranges:
        key = tuple(tensors)
        if key not in taken:  # the same are asked for again when the engine is diagnosed
            taken[key] = calibrate(
                model, tensors, samples, source, batch, method, precision=precision, progress=progress
            )
            notes[:] = taken[key].notes
        return taken[key]

    return Calibration(ranges, samples, source, notes)


def given(model: Model, ranges: Ranges) -> Calibration:
    """Calibration by ranges that somebody else has taken."""
    notes = list(ranges.notes)

    def chosen(tensors: list[str]) -> Ranges:
        found = select(ranges, tensors, tensor_names(model.proto))
        notes[:] = found.notes
        return found

    return Calibration(chosen, None, ranges.source, notes)


def notes_of(recipe: Recipe) -> tuple[str, ...]:
    """What there is to say of the lowering and of the ranges that it took, as warnings of the engine that was built."""
    if recipe.calibration is None or not needs_ranges(recipe.model, recipe.precision):
        return recipe.notes
    return (*recipe.notes, *recipe.calibration.notes)


def ranges_of(recipe: Recipe) -> Ranges | None:
    """The ranges that lowering the recipe's model takes; None where it takes none.

    Raises:
        DataError: the calibration data can't be used.
        LoweringError: quantising would change nothing, or a tensor has no range.
    """
    if recipe.calibration is None or not needs_ranges(recipe.model, recipe.precision):
        return None
    return recipe.calibration.ranges(quantised_activations(recipe.model.proto, recipe.keep, recipe.ops))
