"""Achieved precision: what the layers of an engine run in, which must be what was asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_trt.errors import PrecisionNotHonoured
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_trt.backends.backend import Engine, Layer
    from pytest_trt.model.model import Model

__all__ = ["achieved", "asked_of", "require_honoured", "unhonoured"]


@dataclass(frozen=True)
class Achieved:
    """How many of the layers that compute run in which precision; those that were to stay in fp32 do not count.

    Attributes:
        asked: the precision that was asked.
        compute: how many layers compute.
        honoured: how many of them run in it.
        by_precision: how many run in each.
    """

    asked: str
    compute: int
    honoured: int
    by_precision: Mapping[str, int]

    def __str__(self) -> str:
        found = ", ".join(f"{count} in {label}" for label, count in sorted(self.by_precision.items()))
        return f"{self.honoured} of {self.compute} compute layers in {self.asked} ({found or 'none'})"


def achieved(layers: Iterable[Layer], asked: str) -> Achieved:
    """Count the layers that compute, but for those kept in fp32, by the precision they run in."""
    found = Counter(layer.precision for layer in layers if layer.computes and not layer.kept)
    return Achieved(asked, sum(found.values()), found[asked], dict(found))


_ACCEPT = "or accept it with build = { honoured = 0 } (--trt-build honoured=0)."


def asked_of(precision: Precision, model: Model) -> str:
    """The precision that the layers should run in: what was asked, or what the file holds where it is taken as is."""
    return held_precision(model.proto) if precision is Precision.MODEL else precision.label


def unhonoured(engine: Engine, asked: str, least: float, *, builds_engines: bool) -> PrecisionNotHonoured | None:
    """What :func:`require_honoured` refuses of an engine whose layers tell, so that it can be judged all the same.

    Raises:
        PrecisionNotHonoured: the engine does not tell.
    """
    try:
        require_honoured(engine, asked, least, builds_engines=builds_engines)
    except PrecisionNotHonoured as error:
        if error.facts["told"]:
            return error
        raise
    return None


def require_honoured(engine: Engine, asked: str, least: float, *, builds_engines: bool) -> None:
    """Refuse an engine that runs in another precision than was asked.

    Args:
        engine: that was built or loaded.
        asked: the precision's name.
        least: the share of the compute layers that must run in it, 0 to 1; 0 refuses nothing.
        builds_engines: whether the backend builds engines, whose layers have to tell.

    Raises:
        PrecisionNotHonoured: too few compute layers run in it, or the engine does not tell.
    """
    if not builds_engines or least == 0:
        return
    layers = engine.layers()
    found = achieved(layers, asked)
    unknown = found.by_precision.get("unknown", 0)
    # a network without matrix products is fp32 where nothing says otherwise, and nothing else
    told = found.compute > unknown or (layers and not unknown and asked in ("fp32", "tf32"))
    if not told:
        raise PrecisionNotHonoured(
            "the engine does not tell the precision of its compute layers (convolutions, matrix products, RNNs), so"
            f" nobody can say that it runs in {asked}. {_how_it_tells(engine)}, {_ACCEPT}",
            {**_facts(asked, layers), "told": False},
        )
    if not _enough(found, least):
        share = f"at least {100 * least:g} %{' in tf32 or fp32, and one in tf32,' if asked == 'tf32' else ''} are"
        raise PrecisionNotHonoured(
            f"{asked} was asked, and the engine has {found}; {share} required. Ask with --trt-typing=strong where the"
            f" release has it, or for the precision that it runs in, {_ACCEPT}",
            {**_facts(asked, layers), "told": True},
        )


def _facts(asked: str, layers: tuple[Layer, ...]) -> dict[str, object]:
    computing = [layer for layer in layers if layer.computes and not layer.kept]
    return {"asked": asked, "layers": [{"name": layer.name, "precision": layer.precision} for layer in computing]}


def _enough(found: Achieved, least: float) -> bool:
    if found.asked == "tf32":  # a permission to multiply coarser: a layer that stays in fp32 is none the worse
        fine = found.honoured + found.by_precision.get("fp32", 0) >= least * found.compute
        return (fine and found.honoured > 0) or not found.compute
    return found.honoured >= least * found.compute


def _how_it_tells(engine: Engine) -> str:
    if engine.backend.startswith("onnxruntime"):
        return "onnxruntime hands out nothing of what it builds: build with --trt-backend=tensorrt, which looks inside"
    return "Build it with detailed profiling verbosity (trtexec --profilingVerbosity=detailed)"
