"""onnxruntime-gpu: its execution providers for CUDA and TensorRT, with nothing left to the CPU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnx import TensorProto, helper

from pytest_trt.backends.onnxruntime import OnnxruntimeEngine
from pytest_trt.backends.provider_options import cuda_options, tensorrt_options
from pytest_trt.backends.tf32 import OVERRIDE, require_no_override, require_tf32_off
from pytest_trt.errors import BackendError, LoweringError, ModelError
from pytest_trt.honoured import asked_of
from pytest_trt.lowering import lower
from pytest_trt.lowering.casts import fp32_ends
from pytest_trt.lowering.graph import constants
from pytest_trt.model import Model, nodes_of
from pytest_trt.precision import Precision
from pytest_trt.recipe import notes_of, ranges_of
from pytest_trt.session import open_session, require_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_trt.recipe import Recipe

__all__ = ["OnnxruntimeGpuBackend", "open_backend"]

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
        """See :meth:`pytest_trt.backends.Backend.build`."""
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
