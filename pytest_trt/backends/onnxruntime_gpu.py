"""onnxruntime-gpu: its execution providers for CUDA and TensorRT, with nothing left to the CPU."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnx import TensorProto, helper

from pytest_trt.backends.achieved_precision import asked_of
from pytest_trt.backends.build_options import require_words
from pytest_trt.backends.cuda import OVERRIDE, require_no_override, require_tf32_off
from pytest_trt.backends.onnxruntime import OnnxruntimeEngine
from pytest_trt.backends.recipe import notes_of, profile_of_feeds, ranges_of, require_fit
from pytest_trt.errors import BackendError, LoweringError, ModelError
from pytest_trt.lowering.casts import fp32_ends
from pytest_trt.lowering.lowering import lower
from pytest_trt.model.feeds import split
from pytest_trt.model.graph import constants
from pytest_trt.model.model import Model, nodes_of
from pytest_trt.model.onnx_session import open_session, require_onnxruntime
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_trt.backends.build_options import BuildOptions
    from pytest_trt.backends.recipe import Profile, Recipe

__all__ = ["OnnxruntimeGpuBackend", "open_backend"]

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


_TENSORRT = "TensorrtExecutionProvider"

_PROVIDERS = {"onnxruntime-cuda": "CUDAExecutionProvider", "onnxruntime-tensorrt": _TENSORRT}

_LIBRARIES = {
    "CUDAExecutionProvider": "CUDA and cuDNN",
    _TENSORRT: "TensorRT, CUDA and cuDNN",
}


@dataclass(frozen=True)
class OnnxruntimeGpuBackend:
    """Runs on the GPU by one execution provider; all of the graph, or it is an error."""

    name: str
    release: str
    simulated: bool = False

    @property
    def provider(self) -> str:
        """onnxruntime's name of it."""
        return _PROVIDERS[self.name]

    @property
    def builds_engines(self) -> bool:
        """Whether its provider is TensorRT's."""
        return self.provider == _TENSORRT

    @property
    def version(self) -> str:
        """onnxruntime's release, and the provider."""
        return f"onnxruntime {self.release}, {self.provider}"

    def build(self, recipe: Recipe) -> OnnxruntimeEngine:
        """See :meth:`pytest_trt.backends.backend.Backend.build`."""
        self._require_able(recipe)
        asked = asked_of(recipe.precision, recipe.model)
        lowered = _lowered(recipe)
        options = self._options(recipe, lowered, asked)
        session = self._open(lowered, options)
        names = tuple(output.name for output in recipe.model.outputs)
        return OnnxruntimeEngine(
            lowered, recipe.precision, session, names, recipe.batch, self.name, False,
            {**self._facts(options), "lowering": recipe.lowering}, _doubts(recipe),
        )  # fmt: skip

    def _require_able(self, recipe: Recipe) -> None:
        if recipe.precision is Precision.FP8:
            raise BackendError(
                f"backend {self.name!r} runs no fp8: choose --trt-backend=tensorrt, or onnxruntime, which simulates it."
            )
        if recipe.plan is not None:
            raise BackendError(
                f"backend {self.name!r} can't load the engine {recipe.plan}: choose --trt-backend=tensorrt."
            )
        require_no_override(recipe.precision, self.name)
        if self.builds_engines:
            require_tf32_off(recipe.precision, self.name)

    def _options(self, recipe: Recipe, lowered: Model, asked: str) -> dict[str, Any]:
        if self.builds_engines:
            return tensorrt_options(recipe, lowered, asked, self.release, self.name)
        return cuda_options(recipe, self.name)

    def _open(self, lowered: Model, options: Mapping[str, Any]) -> Any:
        try:
            session = open_session(lowered.proto, lowered.source, self.provider, options)
        except ModelError as error:
            raise self._explained(error, lowered.source, options) from error
        self._require_loaded(session)
        return session

    def _require_loaded(self, session: Any) -> None:
        loaded = session.get_providers()
        if loaded[:1] != [self.provider]:
            raise self._not_loaded(f"it took {', '.join(loaded) or 'nothing'} instead, without an error")

    def _not_loaded(self, what: str) -> BackendError:
        return BackendError(
            f"onnxruntime {self.release} has {self.provider} and could not load it: {what}. Look at which library its"
            f" line on stderr misses: {_LIBRARIES[self.provider]}, in the releases that this onnxruntime was built for,"
            " must be found through LD_LIBRARY_PATH (PATH on Windows)."
        )

    def _explained(self, error: ModelError, source: str, options: Mapping[str, Any]) -> Exception:
        text = str(error.__cause__)
        if "fallback to CPU EP" in text:
            # nodes are left to the CPU as well where the provider was not loaded at all
            self._require_loaded(open_session(_nothing(), source, self.provider, _device(options), whole=False))
            return BackendError(
                f"{source}: {self.provider} does not take all of the graph, and onnxruntime would run the rest on the"
                " CPU, where nothing of this precision and speed is known. Shape arithmetic counts: export with fixed"
                " shapes or simplify the graph, or choose another backend with --trt-backend."
            )
        if "install TensorRT libraries" in text:
            return self._not_loaded("it says that TensorRT's libraries are not installed")
        if "provider option" in text.lower():
            return BackendError(f"onnxruntime {self.release} does not take these options of {self.provider}: {text}")
        if "CUDA failure" in text or "device ID" in text:
            return BackendError(
                f"{self.provider} can't use GPU {options['device_id']}: {text} Look at nvidia-smi, CUDA_VISIBLE_DEVICES"
                " and the build option device."
            )
        return error

    def _facts(self, options: Mapping[str, Any]) -> dict[str, Any]:
        override = {OVERRIDE: os.environ[OVERRIDE]} if OVERRIDE in os.environ else {}
        return {
            "onnxruntime": self.release,
            "provider": self.provider,
            "provider_options": dict(options),
            **override,
        }


def open_backend(name: str) -> OnnxruntimeGpuBackend:
    """The backend, if onnxruntime has its provider.

    Raises:
        BackendError: it has not.
    """
    onnxruntime = require_onnxruntime()
    available = onnxruntime.get_available_providers()
    if _PROVIDERS[name] not in available:
        raise BackendError(
            f"backend {name!r} needs {_PROVIDERS[name]}, and onnxruntime {onnxruntime.__version__} has only"
            f" {', '.join(available)}. Install onnxruntime-gpu in its place: pip uninstall onnxruntime, then"
            ' pip install "pytest-trt[gpu]".'
        )
    return OnnxruntimeGpuBackend(name, onnxruntime.__version__)


def _lowered(recipe: Recipe) -> Model:
    """The graph in the precision's own types, or left fp32 where an option says the precision."""
    weak = recipe.options.typing == "weak" and recipe.precision in (Precision.FP16, Precision.BF16)
    left = weak or recipe.precision in (Precision.FP32, Precision.TF32)
    if left and recipe.precision is not Precision.FP32 and (recipe.keep or recipe.ops):
        raise LoweringError(
            f"onnxruntime is told {recipe.precision} by an option, for the graph as a whole: keep and ops have no word"
            " there. Leave typing at auto, ask for another precision, or leave them out."
        )
    precision = Precision.FP32 if left else recipe.precision
    lowered = lower(recipe.model, precision, ranges_of(recipe), typed=True, keep=recipe.keep, ops=recipe.ops)
    if precision is Precision.BF16 and not _computes_in_bf16(lowered):
        raise LoweringError(
            f"{recipe.model.source} can't be expressed in bf16 itself, only as fp32 rounded to bf16, which would be a"
            " simulation: run that with --trt-backend=onnxruntime, or ask for fp16."
        )
    return Model(fp32_ends(lowered.proto), lowered.source)


def _computes_in_bf16(model: Model) -> bool:
    """Whether any node but a Cast reads a bf16 tensor."""
    nodes = list(nodes_of(model.proto.graph))
    narrow = {name for name, tensor in constants(model.proto).items() if tensor.data_type == TensorProto.BFLOAT16}
    casts = [node for node in nodes if node.op_type == "Cast"]
    narrow |= {node.output[0] for node in casts if node.attribute[0].i == TensorProto.BFLOAT16}
    return any(node.op_type != "Cast" and narrow & set(node.input) for node in nodes)


def _nothing() -> Any:
    """The least graph, which any provider takes."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "nothing", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _device(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"device_id": options["device_id"]}


def _doubts(recipe: Recipe) -> tuple[str, ...]:
    if recipe.options.dla_core is None:
        return notes_of(recipe)
    return (
        *notes_of(recipe),
        f"onnxruntime runs on the GPU where there is no DLA core {recipe.options.dla_core}, and does not say so.",
    )
