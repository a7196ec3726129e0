"""Recipe: all that a backend needs to build one engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_trt.build_options import BuildOptions
from pytest_trt.calibration import calibrate
from pytest_trt.lowering import needs_ranges
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model import tensor_names
from pytest_trt.ranges import select

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_trt.calibration import Progress, Samples
    from pytest_trt.feeds import Arrays
    from pytest_trt.model import Model
    from pytest_trt.precision import Precision
    from pytest_trt.profile import Profile
    from pytest_trt.ranges import Ranges
    from pytest_trt.torch_module import Network

__all__ = ["Calibration", "Recipe", "given", "notes_of", "ranges_of", "sampled"]


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
    return Calibration(
        lambda tensors: select(ranges, tensors, tensor_names(model.proto)), None, ranges.source, list(ranges.notes)
    )


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
