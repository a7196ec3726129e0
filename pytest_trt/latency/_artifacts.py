"""Artifacts: the plan and the ONNX model that a latency was measured of, kept to be measured again."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.recipe import given, ranges_of
from pytest_trt.errors import BackendError, ModelError
from pytest_trt.model.external_data import is_reference
from pytest_trt.model.model import Model
from pytest_trt.ranges.amax import Ranges
from pytest_trt.storage import engine_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_trt.backends.recipe import Recipe

__all__ = ["MOST", "Materials", "keep_materials", "kept_plan", "kept_recipe", "promote_materials", "prune"]

MOST = 20
"""Materials of runs that were not promoted: so many stay, the newest, and all that are younger than a day."""

_DAY = 86400.0  # a run of many cases, and the person who promotes it, need all of its materials


@dataclass(frozen=True)
class Materials:
    """What was kept of an engine.

    Attributes:
        plan: SHA-256 of its plan; None where there is none, or nothing is kept.
        onnx: SHA-256 of the model that it was built from, with the ranges of its calibration.
        why: why something is missing.
    """

    plan: str | None = None
    onnx: str | None = None
    why: str = ""


def keep_materials(folder: Path | None, recipe: Recipe, facts: Mapping[str, Any]) -> Materials:
    """Keep an engine's plan and its model.

    Args:
        folder: the store; None keeps nothing.
        recipe: what the engine was built from.
        facts: of the engine.

    Raises:
        BackendError: the store can't be written.
    """
    if folder is None:
        return Materials(why="nothing is kept (--trt-store=none)")
    place, why = folder / "latency", []
    plan = _plan_bytes(recipe, facts)
    plan_sha = None
    if plan is not None:
        plan_sha = hashlib.sha256(plan).hexdigest()
        _keep_once(place, _material("plan", plan_sha), plan, {})
    try:
        onnx_sha = _keep_model(place, recipe)
    except BackendError:
        raise
    except Exception as error:  # TensorRT's own calibrators have no ranges that could be kept
        onnx_sha, why = None, [f"its model can't be built again from what is kept: {error}"]
    prune(folder, MOST)
    return Materials(plan_sha, onnx_sha, "; ".join(why))


def kept_plan(folder: Path | None, sha256: str | None) -> Path | None:
    """The file of a kept plan, found whole; None where there is none."""
    if folder is None or sha256 is None:
        return None
    kept = engine_store.load(folder / "latency", _material("plan", sha256))
    return kept.path if kept else None


def kept_recipe(folder: Path | None, sha256: str | None, recipe: Recipe) -> Recipe | None:
    """The recipe with a kept model in place of its own, built as this one is; None where there is none."""
    if folder is None or sha256 is None:
        return None
    kept = engine_store.load(folder / "latency", _material("onnx", sha256))
    if kept is None:
        return None
    from onnx import ModelProto

    model = Model(ModelProto.FromString(kept.data), f"the baseline of {recipe.model.source}")
    told = kept.facts.get("ranges")
    calibration = given(model, Ranges(told, "the baseline's ranges")) if told is not None else None
    return replace(recipe, model=model, calibration=calibration, plan=None)


def promote_materials(folder: Path | None, plan: str | None, onnx: str | None) -> bool:
    """Keep them for good: they are a baseline's.

    Returns:
        Whether anything of it is there.
    """
    found = False
    for kind, sha256 in (("plan", plan), ("onnx", onnx)):
        path = folder and sha256 and _path(folder / "latency", kind, sha256)
        if path and path.is_file():
            path.with_suffix(".promoted").touch(mode=0o600)
            found = True
    return found


def prune(folder: Path, most: int, younger_s: float = _DAY) -> int:
    """Drop the oldest materials that no baseline needs, but for so many, and for those that were used since.

    Args:
        folder: the store.
        most: so many stay, the newest.
        younger_s: those that were used in the last so many seconds stay too.

    Returns:
        How many were dropped.
    """
    place = folder / "latency"
    loose = [path for path in place.glob("*.plan") if not path.with_suffix(".promoted").exists()]
    oldest = sorted(loose, key=_used)[: max(len(loose) - most, 0)]
    dropped = [path for path in oldest if _used(path) < time() - younger_s]
    for path in dropped:
        for suffix in (".json", ".plan", ".lock"):
            with contextlib.suppress(OSError):
                path.with_suffix(suffix).unlink(missing_ok=True)
    return len(dropped)


def _keep_model(place: Path, recipe: Recipe) -> str:
    if any(map(is_reference, recipe.model.proto.graph.initializer)):
        raise ModelError("its weights are large and stay in their files, which are not copied into the store.")
    data = recipe.model.proto.SerializeToString(deterministic=True)
    ranges = ranges_of(recipe)
    told = None if ranges is None else {name: float(value) for name, value in ranges.amax.items()}
    digest = hashlib.sha256(data)
    digest.update(repr(sorted(told.items()) if told else told).encode())
    _keep_once(place, _material("onnx", digest.hexdigest()), data, {"ranges": told})
    return digest.hexdigest()


def _keep_once(place: Path, material: Mapping[str, object], data: bytes, facts: Mapping[str, Any]) -> None:
    with engine_store.locked(place, material):
        kept = engine_store.load(place, material)
        if kept is None:
            engine_store.keep(place, material, data, facts)
        else:
            kept.path.touch()  # used again: the last to be pruned


def _material(kind: str, sha256: str) -> dict[str, object]:
    return {"kind": kind, "sha256": sha256}


def _path(place: Path, kind: str, sha256: str) -> Path:
    return place / f"{engine_store.key_of(_material(kind, sha256))[:32]}.plan"


def _plan_bytes(recipe: Recipe, facts: Mapping[str, Any]) -> bytes | None:
    """The plan's bytes, from wherever it lies; None where the engine has none, or they are not those of its hash."""
    where = recipe.plan or facts.get("kept") or facts.get("from_store")
    if where is None or "plan_sha256" not in facts:
        return None
    try:
        data = Path(where).read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == facts["plan_sha256"] else None


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
