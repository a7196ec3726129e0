"""Provider options: a recipe in the words of onnxruntime's execution providers for CUDA and TensorRT."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pytest_trt.build_options import require_words
from pytest_trt.errors import BackendError
from pytest_trt.feeds import split
from pytest_trt.precision import Precision
from pytest_trt.profile import profile_of_feeds, require_fit

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_trt.build_options import BuildOptions
    from pytest_trt.model import Model
    from pytest_trt.profile import Profile
    from pytest_trt.recipe import Recipe

__all__ = ["cuda_options", "tensorrt_options"]

# honoured is the gate's own word, and no builder's
_CUDA_WORDS = ("device", "honoured")

_TENSORRT_WORDS = (
    *_CUDA_WORDS, "typing", "workspace", "optimization_level", "tactic_sources", "hardware_compatibility", "sparsity",
    "dla_core", "gpu_fallback", "plugins",
)  # fmt: skip

_SWITCHES = {"fp16": "trt_fp16_enable", "bf16": "trt_bf16_enable", "int8": "trt_int8_enable"}

_TACTIC_SOURCES = ("CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")


def cuda_options(recipe: Recipe, backend: str) -> dict[str, Any]:
    """Options of CUDAExecutionProvider: TF32 is on for tf32 alone.

    Raises:
        BackendError: a build option has no word there.
    """
    require_words(recipe.options, _CUDA_WORDS, backend)
    return {"device_id": recipe.options.device, "use_tf32": int(recipe.precision is Precision.TF32)}


def tensorrt_options(recipe: Recipe, lowered: Model, asked: str, version: str, backend: str) -> dict[str, Any]:
    """Options of TensorrtExecutionProvider.

    Args:
        recipe: what to build.
        lowered: the graph that is handed over, which the engine cache is keyed by.
        asked: the precision that it holds, or that the builder may use.
        version: of onnxruntime.
        backend: name, for messages.

    Raises:
        BackendError: a build option or the precision has no word there.
        CaseError: a profile does not fit the model.
    """
    require_words(recipe.options, _TENSORRT_WORDS, backend)
    options = {
        "device_id": recipe.options.device,
        **_precision(asked, backend),
        **_builder(recipe.options),
        **_target(recipe.options, asked, backend),
        **_shapes(recipe, lowered),
    }
    return {**options, **(_caches(recipe.store, lowered, options, version) if recipe.store else {})}


def _precision(asked: str, backend: str) -> dict[str, Any]:
    if asked in ("fp32", "tf32"):
        return {}
    if asked not in _SWITCHES:
        raise BackendError(
            f"backend {backend!r} has no word for {asked}: onnxruntime's TensorRT provider knows"
            f" {', '.join(_SWITCHES)}. Choose --trt-backend=tensorrt."
        )
    return {_SWITCHES[asked]: True}


def _builder(options: BuildOptions) -> dict[str, Any]:
    words: dict[str, Any] = {
        "trt_max_workspace_size": options.workspace,
        "trt_builder_optimization_level": options.optimization_level,
        "trt_tactic_sources": _tactics(options.tactic_sources),
        "trt_sparsity_enable": options.sparsity or None,
        "trt_extra_plugin_lib_paths": ";".join(options.plugins) or None,
    }
    return {word: value for word, value in words.items() if value is not None}


def _tactics(sources: tuple[str, ...] | None) -> str | None:
    """All sources named, on or off, since onnxruntime only adds to TensorRT's default or takes from it."""
    if sources is None:
        return None
    strange = [source for source in sources if source not in _TACTIC_SOURCES]
    if strange:
        raise BackendError(
            f"onnxruntime knows no tactic source {strange[0]!r} (known: {', '.join(_TACTIC_SOURCES)}): correct the"
            " build option tactic_sources."
        )
    return ",".join(f"{'+' if source in sources else '-'}{source}" for source in _TACTIC_SOURCES)


def _target(options: BuildOptions, asked: str, backend: str) -> dict[str, Any]:
    """What the engine is for: hardware compatibility and DLA."""
    if options.typing == "strong" or (options.typing == "weak" and asked == "int8"):
        raise BackendError(
            f"backend {backend!r} can't build {asked} with typing = {options.typing!r}: onnxruntime builds weakly typed"
            " networks, int8 from the Q/DQ in the graph. Leave typing at auto, or choose --trt-backend=tensorrt."
        )
    if options.hardware_compatibility == "same_compute_capability":
        raise BackendError(
            f"backend {backend!r} has no word for hardware_compatibility = 'same_compute_capability': onnxruntime"
            " knows none and ampere_plus."
        )
    if options.dla_core is None and options.gpu_fallback:
        raise BackendError("the build option gpu_fallback says nothing without dla_core: leave it out.")
    compatible = {"trt_engine_hw_compatible": True} if options.hardware_compatibility == "ampere_plus" else {}
    return compatible if options.dla_core is None else {**compatible, **_dla(options, asked)}


def _dla(options: BuildOptions, asked: str) -> dict[str, Any]:
    if asked not in ("fp16", "int8"):
        raise BackendError(f"DLA runs fp16 and int8, and {asked} was asked: leave out the build option dla_core.")
    if not options.gpu_fallback:
        raise BackendError(
            "onnxruntime always lets layers that DLA can't run go to the GPU: beside the build option dla_core say so"
            " with gpu_fallback = true, or choose --trt-backend=tensorrt."
        )
    return {"trt_dla_enable": True, "trt_dla_core": options.dla_core}


def _shapes(recipe: Recipe, lowered: Model) -> dict[str, Any]:
    feeds = [part for run in recipe.feeds for part in split(run, lowered.inputs, recipe.batch)]
    found = profile_of_feeds(feeds, lowered.inputs)
    profiles = recipe.profiles or ((found,) if found else ())
    for number, profile in enumerate(profiles, 1):
        require_fit(profile, lowered.inputs, f"profile {number}")
    if not profiles:
        return {}
    return {f"trt_profile_{end}_shapes": _told(profiles, end) for end in ("min", "opt", "max")}


def _told(profiles: tuple[Profile, ...], end: str) -> str:
    """``name:1x3x32x32,...``, a name again for each further profile."""
    strange = [name for profile in profiles for name in profile if set(name) & set(",:")]
    if strange:
        raise BackendError(
            f"onnxruntime can't be told the shapes of the input {strange[0]!r}, whose name has a comma or a colon:"
            " rename it, or choose --trt-backend=tensorrt."
        )
    return ",".join(
        f"{name}:{'x'.join(str(size) for size in getattr(span, end))}"
        for profile in profiles
        for name, span in profile.items()
    )


def _caches(store: Path, lowered: Model, options: dict[str, Any], version: str) -> dict[str, Any]:
    """Engines lie in a folder of their own, because onnxruntime does not look at weights when it takes one from it."""
    root = store / "onnxruntime"
    key = hashlib.sha256(repr((lowered.sha256, sorted(options.items()), version)).encode()).hexdigest()
    folder = root / key[:32]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BackendError(f"the folder of engines {folder} can't be made: {error.strerror or error}.") from error
    return {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(root),
    }
