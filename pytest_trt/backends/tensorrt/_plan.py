"""Plan: from a recipe to the serialized engine, built anew or taken from the store."""

from __future__ import annotations

import hashlib
import time
import warnings
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.achieved_precision import asked_of
from pytest_trt.backends.recipe import notes_of
from pytest_trt.backends.tensorrt._calibrator import Calibrating, batches_of, calibrated_by, calibrator_for, write_cache
from pytest_trt.backends.tensorrt._config import add_profiles, calibration_profile, configure, load_plugins, profiles_of
from pytest_trt.backends.tensorrt._inspector import mark
from pytest_trt.backends.tensorrt._log import heard, interruptible, logger_of, monitor, raise_caught
from pytest_trt.backends.tensorrt._network import flags_for, graph_for, parse, require_fp8_told, require_possible
from pytest_trt.backends.tensorrt._release import label, typing_of
from pytest_trt.backends.tensorrt.weak_typing import keep_layers, require_keepable, set_ranges
from pytest_trt.errors import BackendError
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.model.graph import float_activations
from pytest_trt.precision import Precision
from pytest_trt.storage import engine_store
from pytest_trt.storage.atomic_write import read_bytes, write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import ModuleType

    import tensorrt

    from pytest_trt.backends.cuda import Gpu
    from pytest_trt.backends.recipe import Profile, Recipe
    from pytest_trt.model.model import Model

__all__ = ["TensorrtPlan", "capability_of", "facts_of", "plan_for"]


@dataclass(frozen=True)
class TensorrtPlan:
    """A serialized engine.

    Attributes:
        data: as TensorRT wrote it.
        facts: of its making: release, typing, GPU, hash, seconds, and whether it came from the store.
        warnings: what the builder warned of.
    """

    data: bytes
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Order:
    """A recipe with what was decided about it: the graph to parse, typing, profiles, ranges set by hand."""

    trt: ModuleType
    recipe: Recipe
    gpu: Gpu | None
    typing: str
    graph: Model
    profiles: tuple[Profile, ...]
    amax: Mapping[str, float] = field(default_factory=dict)
    calibrates: bool = False


def plan_for(trt: ModuleType, recipe: Recipe, gpu: Gpu | None) -> TensorrtPlan:
    """The plan of a recipe.

    Args:
        trt: the release.
        recipe: what to build.
        gpu: the current GPU; None where the plan is for another machine.

    Raises:
        LoweringError: the model can't be expressed in the precision.
        ModelError: TensorRT's parser refuses the model.
        BackendError: the release or the GPU lacks what was asked, or the builder fails.
    """
    load_plugins(trt, recipe.options.plugins)
    plan = _plan(_order(trt, recipe, gpu))
    return replace(plan, warnings=tuple(dict.fromkeys([*notes_of(recipe), *plan.warnings])))


def _plan(order: _Order) -> TensorrtPlan:
    """Taken from the store, or built."""
    recipe = order.recipe
    if recipe.store is None:
        return _built(order, b"")[0]
    material = _material(order)
    with engine_store.locked(recipe.store, material):
        kept = engine_store.load(recipe.store, material)
        if kept is not None:
            facts = {**kept.facts["facts"], "from_store": str(kept.path)}
            return TensorrtPlan(kept.data, facts, tuple(kept.facts["warnings"]))
        return _built_and_kept(order, recipe.store, material)


def _order(trt: ModuleType, recipe: Recipe, gpu: Gpu | None) -> _Order:
    typing = typing_of(trt, recipe.options.typing, for_dla=recipe.options.dla_core is not None)
    _require_calibrator_heeded(trt, recipe, typing)
    require_keepable(recipe, typing)
    require_fp8_told(trt, recipe, typing)
    graph = graph_for(recipe, typing)
    by_hand = typing == "weak" and recipe.precision is Precision.INT8 and held_precision(recipe.model.proto) == "fp32"
    calibrates = by_hand and recipe.options.calibrator != "ranges"
    amax = _all_ranges(recipe) if by_hand and not calibrates else {}
    return _Order(trt, recipe, gpu, typing, graph, profiles_of(recipe), amax, calibrates)


def _require_calibrator_heeded(trt: ModuleType, recipe: Recipe, typing: str) -> None:
    """TensorRT's calibrator is weak typing's: elsewhere it would be dropped, and other ranges taken in its place."""
    options, held = recipe.options, held_precision(recipe.model.proto)
    int8 = recipe.precision is Precision.INT8 or (recipe.precision is Precision.MODEL and held == "int8")
    told = options.calibrator != "ranges" or options.calibration_cache or options.fallback != "fp32"
    if not (int8 and told):
        return
    if held != "fp32":
        raise BackendError(
            f"{recipe.model.source} holds {held} and its scales already: calibrator, calibration_cache and fallback say"
            " nothing there. Leave them out."
        )
    if typing == "strong":
        raise BackendError(
            f"calibrator, calibration_cache and fallback belong to weak typing, and {label(trt)} is asked for strong:"
            " take --trt-typing=weak where the release has it (TensorRT 8.6 to 10), or leave them out."
        )


def _all_ranges(recipe: Recipe) -> Mapping[str, float]:
    """The range of every float tensor: without one for what a layer reads and writes, it does not run in int8."""
    if recipe.calibration is None:
        raise BackendError(f"{recipe.model.source}: int8 needs ranges, and there are none: give calibration data.")
    return recipe.calibration.ranges(float_activations(recipe.model.proto)).amax


def _built_and_kept(order: _Order, folder: Path, material: Mapping[str, Any]) -> TensorrtPlan:
    machine = {key: material[key] for key in ("tensorrt", "gpu", "compute_capability")}
    plan, timing = _built(order, engine_store.load_timing_cache(folder, machine))
    if order.calibrates and order.recipe.options.calibration_cache:
        # the cache may have been written just now, and decides the next build
        material = {**material, "calibration": _hash_of_samples(order.recipe)}
    kept = engine_store.keep(folder, material, plan.data, {"facts": dict(plan.facts), "warnings": list(plan.warnings)})
    if timing:
        engine_store.keep_timing_cache(folder, machine, timing)
    return TensorrtPlan(plan.data, {**plan.facts, "kept": str(kept.path)}, plan.warnings)


def _built(order: _Order, timing: bytes) -> tuple[TensorrtPlan, bytes]:
    """Build, and give the timing cache back as it is afterwards."""
    trt, recipe = order.trt, order.recipe
    with heard(trt) as said, warnings.catch_warnings():
        # weak typing is asked for by name, and every release that has it calls its int8 deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        builder = trt.Builder(logger_of(trt))
        require_possible(trt, builder, asked_of(recipe.precision, recipe.model), order.gpu)
        flags = flags_for(trt, order.graph, recipe.precision, order.typing, recipe.options.fallback)
        network = parse(trt, builder, order.graph, order.typing)
        said.errors.clear()  # those of the parser were told, or it has none
        if recipe.shown:
            mark(network)
        config = configure(trt, builder, recipe.precision, flags, recipe.options)
        if said.errors:
            raise BackendError(said.told(f"{label(trt)} refuses a build option"))
        if order.typing == "weak" and recipe.keep and recipe.precision is not Precision.FP32:
            keep_layers(trt, network, config, recipe)
        add_profiles(builder, config, network, recipe, order.profiles)
        if order.amax:
            set_ranges(network, order.amax)
        calibrating = _calibrating(order, builder, network, config)
        cache = _set_timing_cache(order, config, timing)
        by = calibrated_by(recipe) if order.calibrates else None  # before a cache is written
        started = time.perf_counter()
        with interruptible(), monitor(trt, config, recipe):
            found = builder.build_serialized_network(network, config)
        seconds = time.perf_counter() - started
        raise_caught()
        if found is None:
            raise BackendError(said.told(f"{recipe.model.source} at {recipe.precision}: {label(trt)} builds no engine"))
        write_cache(recipe, calibrating)
        data = bytes(found)
        made = {
            "typing": order.typing,
            "lowering": recipe.lowering,
            "calibrated_by": by,
            "built_s": round(seconds, 3),
        }
        facts = {**facts_of(trt, order.gpu, _capability(order), data), **made}
        timing_after = _timing_after(order, config, cache)
    return TensorrtPlan(data, facts, tuple(dict.fromkeys(said.warnings))), timing_after


def facts_of(trt: ModuleType, gpu: Gpu | None, capability: str, data: bytes) -> dict[str, Any]:
    """What is known of any plan, for the record: release, GPU, drivers, hash and size."""
    return {
        "tensorrt": label(trt),
        "gpu": gpu.name if gpu else None,
        "compute_capability": capability,
        "cuda_driver": gpu.driver if gpu else None,
        "cuda_runtime": gpu.runtime if gpu else None,
        "plan_sha256": hashlib.sha256(data).hexdigest(),
        "plan_bytes": len(data),
    }


def _material(order: _Order) -> dict[str, Any]:
    """All that decides what is built, for the key of the store."""
    recipe = order.recipe
    told = asdict(recipe.options)
    aside = ("timing_cache", "calibration_cache", "honoured", "device", "typing")
    return {
        "pytest_trt": version("pytest-trt"),
        "graph_sha256": order.graph.sha256,
        "precision": recipe.precision.label,
        "lowering": recipe.lowering,
        "typing": order.typing,
        **({"shown": True} if recipe.shown else {}),
        **({"keep": sorted(recipe.keep)} if order.typing == "weak" and recipe.keep else {}),
        "ranges": _hash(sorted(order.amax.items())) if order.amax else None,
        "calibration": _hash_of_samples(recipe) if order.calibrates else None,
        "options": {key: value for key, value in told.items() if key not in aside},
        "plugins": [
            hashlib.sha256(read_bytes(path, "plugin library") or b"").hexdigest() for path in recipe.options.plugins
        ],
        "profiles": [{name: asdict(span) for name, span in profile.items()} for profile in order.profiles],
        "shape_inputs": _hash([sorted((n, a.tolist()) for n, a in run.items() if a.ndim <= 1) for run in recipe.feeds]),
        "tensorrt": label(order.trt),
        "gpu": order.gpu.name if order.gpu else None,
        "compute_capability": _capability(order),
    }


def _capability(order: _Order) -> str:
    if order.recipe.options.compute_capabilities:
        return ",".join(order.recipe.options.compute_capabilities)
    return capability_of(order.gpu)


def capability_of(gpu: Gpu | None) -> str:
    """As "9.0"; empty where there is no GPU."""
    return ".".join(map(str, gpu.compute_capability)) if gpu else ""


def _hash(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _hash_of_samples(recipe: Recipe) -> str:
    path = recipe.options.calibration_cache
    cache = read_bytes(path, "calibration cache")
    if cache:
        return hashlib.sha256(cache).hexdigest()
    if path:
        return f"to be written to {path}"
    digest = hashlib.sha256()
    for arrays in batches_of(recipe):
        for name, array in sorted(arrays.items()):
            digest.update(repr((name, array.dtype, array.shape)).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _calibrating(
    order: _Order, builder: tensorrt.Builder, network: tensorrt.INetworkDefinition, config: Any
) -> Calibrating:
    """Hook up a calibrator, of a release with weak typing."""
    if not order.calibrates:
        return Calibrating()
    state = calibrator_for(order.trt, order.recipe)
    config.int8_calibrator = state.calibrator
    if state.first:
        config.set_calibration_profile(calibration_profile(builder, network, state.first))
    return state


def _set_timing_cache(order: _Order, config: tensorrt.IBuilderConfig, kept: bytes) -> Any:
    """The timing cache of the user's own file, else the store's; a damaged one is begun anew, with a warning."""
    path = order.recipe.options.timing_cache
    if hasattr(order.trt, "ComputeCapability"):  # TensorRT-RTX's own: its timing caches are there and do nothing
        if path:
            raise BackendError(f"{label(order.trt)} uses no timing cache: leave timing_cache out.")
        return None
    if path:
        kept = read_bytes(path, "timing cache") or b""
    elif order.recipe.store is None:
        return None
    with heard(order.trt, alone=True):
        cache = config.create_timing_cache(kept)
        fits = cache is not None and config.set_timing_cache(cache, False)
    if not fits:
        which = path or "of the store"
        warnings.warn(f"the timing cache {which} is damaged, or of another machine: begun anew.", stacklevel=2)
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _timing_after(order: _Order, config: tensorrt.IBuilderConfig, cache: Any) -> bytes:
    if cache is None:
        return b""
    data = bytes(config.get_timing_cache().serialize())
    path = order.recipe.options.timing_cache
    if not path:
        return data
    write_bytes(path, data, "timing cache")
    return b""
