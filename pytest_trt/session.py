"""onnxruntime: the one place that opens a session and runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.errors import BackendError, ModelError
from pytest_trt.feeds import join, split

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from onnx import ModelProto

    from pytest_trt.feeds import Arrays
    from pytest_trt.model import Model

__all__ = ["CPU", "open_session", "require_onnxruntime", "run"]

CPU = "CPUExecutionProvider"

# these take a Relu or Clip before a QuantizeLinear for rounding's work, with no eye for fp8: the Relu would be gone,
# the model with the Clip refused
_BLIND_TO_FP8 = ["ReluQuantRewrite", "ClipQuantRewrite"]


def require_onnxruntime() -> ModuleType:
    """The onnxruntime module.

    Raises:
        BackendError: neither onnxruntime nor onnxruntime-gpu is installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            f"onnxruntime can't be imported ({error}), and goldens and simulation need it. Install exactly one of:"
            ' pip install "pytest-trt[cpu]" (onnxruntime) or pip install "pytest-trt[gpu]" (onnxruntime-gpu).'
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise BackendError(
            "onnxruntime is installed in part only: onnxruntime and onnxruntime-gpu overwrite each other."
            ' Uninstall both, then install one: pip install "pytest-trt[cpu]" or "pytest-trt[gpu]".'
        )
    return onnxruntime  # type: ignore[no-any-return]


def open_session(
    proto: ModelProto,
    source: str,
    provider: str = CPU,
    options: Mapping[str, Any] | None = None,
    *,
    whole: bool = True,
    in_order: bool = False,
) -> Any:
    """An onnxruntime session: on the CPU it computes the graph as it is written, elsewhere as its provider likes.

    Args:
        proto: the graph.
        source: what messages call it.
        provider: onnxruntime's name of what runs it.
        options: the provider's own.
        whole: whether a provider that leaves nodes to the CPU is an error.
        in_order: whether nodes run in the graph's own order, on which its memory may depend.

    Raises:
        ModelError: onnxruntime refuses the graph, for an unknown operator for example.
    """
    onnxruntime = require_onnxruntime()
    settings = _as_written(onnxruntime) if provider == CPU else _accelerated(onnxruntime, whole)
    if in_order:
        settings.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    providers = [(provider, dict(options or {}))]
    try:
        # with its fallback, onnxruntime would open and run the session on the CPU where the provider fails
        return onnxruntime.InferenceSession(
            proto.SerializeToString(),
            settings,
            providers=providers,
            enable_fallback=0,
            disabled_optimizers=_BLIND_TO_FP8,
        )
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        raise ModelError(f"{source}: onnxruntime refuses the graph: {_plain(error)}") from error


def run(session: Any, model: Model, inputs: Arrays, batch: int | None = None) -> Arrays:
    """Run a session over samples, as many at once as the model takes.

    Args:
        session: from :func:`open_session`.
        model: the graph whose inputs are fed.
        inputs: arrays by input name, samples along axis 0.
        batch: the most samples at once where the first axis is dynamic.

    Raises:
        BackendError: onnxruntime fails while running.
    """
    names = [output.name for output in session.get_outputs()]
    parts = []
    for feeds in split(inputs, model.inputs, batch):
        try:
            values = session.run(names, feeds)
        except Exception as error:
            raise BackendError(f"{model.source}: onnxruntime fails while running: {_plain(error)}") from error
        parts.append(dict(zip(names, values, strict=True)))
    return join(parts)


def _as_written(onnxruntime: ModuleType) -> Any:
    """``ORT_ENABLE_BASIC`` with ``session.disable_quant_qdq``.

    Higher levels fuse Q/DQ into integer kernels, whose results differ by CPU.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.log_severity_level = 4
    return options


def _accelerated(onnxruntime: ModuleType, whole: bool) -> Any:
    options = onnxruntime.SessionOptions()
    if whole:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.log_severity_level = 4
    return options


def _plain(error: Exception) -> str:
    text = next(iter(str(error).splitlines()), "")
    return text.removeprefix("[ONNXRuntimeError] : ").strip() or type(error).__name__
