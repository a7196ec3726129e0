"""onnxruntime: the one place that opens a session and runs it, and finds out whether its samples may be cut."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import weakref
from functools import cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import onnx
from onnx import helper

from pytest_trt.errors import BackendError, DataError, ModelError
from pytest_trt.model.external_data import shared_folder, with_weights_at
from pytest_trt.model.feeds import is_float, join, split
from pytest_trt.model.graph import opset
from pytest_trt.model.quantised_weights import without_kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from types import ModuleType

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    from pytest_trt.model.feeds import Arrays, TensorSpec

__all__ = ["has_fixed_batch", "independent", "open_session", "require_onnxruntime", "run"]

CPU = "CPUExecutionProvider"

# these take a Relu or Clip before a QuantizeLinear for rounding's work, with no eye for fp8: the Relu would be gone,
# the model with the Clip refused
_BLIND_TO_FP8 = ["ReluQuantRewrite", "ClipQuantRewrite"]

_IR_OF_QUESTIONS = 11  # the first that has 4 bits in floating point


class Fed(Protocol):
    """A graph that arrays are fed to: its inputs and outputs, and what messages call it."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def source(self) -> str: ...


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
    fusion: Literal["all", "some", "none"] = "some",
) -> Any:
    """An onnxruntime session: on the CPU it computes the graph as it is written, elsewhere as its provider likes.

    Args:
        proto: the graph.
        source: what messages call it.
        provider: onnxruntime's name of what runs it.
        options: the provider's own.
        whole: whether a provider that leaves nodes to the CPU is an error.
        in_order: whether nodes run in the graph's own order, on which its memory may depend.
        fusion: of nodes on the CPU: "all" that onnxruntime fuses by default, which adds up in another order; "some",
            that keeps to the graph; "none", so that no tensor's last digits depend on which others are outputs.

    Raises:
        ModelError: onnxruntime refuses the graph, for an unknown operator for example.
    """
    onnxruntime = require_onnxruntime()
    settings = _as_written(onnxruntime) if provider == CPU else _accelerated(onnxruntime, whole)
    folder = shared_folder(proto)
    if fusion != "some":
        level = {"all": "ORT_ENABLE_ALL", "none": "ORT_DISABLE_ALL"}[fusion]
        settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    if in_order or folder is not None:  # else all weights are dequantised first
        settings.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    providers = [(provider, dict(options or {}))]
    disabled = [*_BLIND_TO_FP8]
    if folder is not None:
        settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        # weights stay mapped pages: a copy laid out anew, or dequantised once for all runs, would be memory of our own
        settings.add_session_config_entry("session.disable_prepacking", "1")
        settings.enable_cpu_mem_arena = False
        disabled.append("ConstantFolding")

    def opened(graph: ModelProto) -> Any:
        written = graph if folder is None else with_weights_at(graph, folder)
        # with its fallback, onnxruntime would open and run the session on the CPU where the provider fails
        made = partial(
            onnxruntime.InferenceSession,
            written.SerializeToString(),
            settings,
            providers=providers,
            enable_fallback=0,
            disabled_optimizers=disabled,
        )
        return made() if folder is None or provider != CPU else _OneOpen(made)

    try:
        return opened(proto)
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        known = without_kernels(proto, _asking(opset(proto)))
        if known is None:
            raise ModelError(f"{source}: onnxruntime refuses the graph: {_plain(error)}") from error
    try:
        return opened(known)
    except Exception as error:
        raise ModelError(f"{source}: onnxruntime refuses the graph: {_plain(error)}") from error


class _OneOpen:
    """A session over weights in files: closed as soon as another such one is used, and opened again when it is used.

    So memory holds the weights of one of them, where a gate has several: fp32, lowered, with inner tensors as outputs.
    """

    _last: ClassVar[weakref.ref[_OneOpen] | None] = None

    def __init__(self, opened: Callable[[], Any]) -> None:
        _give_back_freed()
        self._opened, self._session = opened, None
        # names alone: onnxruntime's own objects would keep the session alive that they are from
        session = self._used()
        self._inputs, self._outputs = map(_names_alone, (session.get_inputs(), session.get_outputs()))

    def get_inputs(self) -> Any:
        return self._inputs

    def get_outputs(self) -> Any:
        return self._outputs

    def run(self, names: list[str], feeds: Arrays) -> Any:
        return self._used().run(names, feeds)

    def _used(self) -> Any:
        last = None if _OneOpen._last is None else _OneOpen._last()
        if last is not None and last is not self:
            last._session = None
        _OneOpen._last = weakref.ref(self)
        if self._session is None:
            self._session = self._opened()
        return self._session


def _names_alone(ends: Any) -> list[SimpleNamespace]:
    return [SimpleNamespace(name=end.name) for end in ends]


def _give_back_freed() -> None:
    """glibc keeps freed blocks of less than 32 MiB once it saw some freed, and every lowered weight would stay."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library may have no such setting
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


_M_MMAP_THRESHOLD = -3  # of malloc.h


def run(session: Any, model: Fed, inputs: Arrays, batch: int | None = None) -> Arrays:
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


def _asking(version: int) -> Callable[[NodeProto, Mapping[str, int]], bool]:
    """Whether onnxruntime's CPU runs a node of this opset, given the types of what it reads."""

    def runs(node: NodeProto, types: Mapping[str, int]) -> bool:
        alone = onnx.NodeProto.FromString(node.SerializeToString())
        told = tuple(types.get(name, 0) for name in node.input)
        alone.name, alone.input[:], alone.output[:] = (
            "",
            [f"x{at}" if kind else "" for at, kind in enumerate(told)],
            ["y"],
        )
        return _has_kernel(alone.SerializeToString(deterministic=True), told, version)

    return runs


@cache
def _has_kernel(node: bytes, types: tuple[int, ...], version: int) -> bool:
    """Asked once of each kind of node: a session over it alone."""
    onnxruntime = require_onnxruntime()
    inputs = [helper.make_tensor_value_info(f"x{at}", kind, None) for at, kind in enumerate(types) if kind]
    output = onnx.ValueInfoProto(name="y")
    graph = helper.make_graph([onnx.NodeProto.FromString(node)], "asked", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=_IR_OF_QUESTIONS)
    try:
        onnxruntime.InferenceSession(
            model.SerializeToString(), _as_written(onnxruntime), providers=[CPU], enable_fallback=0
        )
    except Exception:  # onnxruntime's exceptions share no base but Exception
        return False
    return True


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


_MOST = 8  # samples that are compared
_BLOCK = 1 << 18  # values
_ROUNDING = 1e-4  # of a tensor's largest |x|: kernels of another batch size add up in another order


def has_fixed_batch(model: Fed) -> bool:
    """Whether the model itself says how many samples it takes at once."""
    return any(spec.shape and isinstance(spec.shape[0], int) for spec in model.inputs)


def independent(
    session: Any, model: Fed, arrays: Arrays, deciding: Collection[str] | None = None, most: int = _MOST
) -> bool | None:
    """Whether the first axis may be cut: of some samples, two halves compute what the whole does.

    It may be time, points or nodes, where a cut makes another network. Every tensor that the session returns is
    compared, relative to its own size: outputs value by value, inner tensors by their largest |x| where the batch is
    not their axis 0. Padding tells nothing, so that samples are taken which are neither zero nor one another's copies.

    Args:
        session: of the model, with the tensors that are calibrated as further outputs.
        model: whose inputs have dynamic first axes.
        arrays: a piece of samples that fits the model.
        deciding: the inner tensors that are compared beside the outputs; all that the session returns if not given.
        most: so many samples are compared, an even number.

    Returns:
        None where fewer than two samples of the piece tell anything.

    Raises:
        DataError: never; what can't be run in halves is not independent.
    """
    batched = [spec for spec in model.inputs if spec.shape and arrays[spec.name].ndim]
    lengths = {arrays[spec.name].shape[0] for spec in batched}
    if has_fixed_batch(model) or len(lengths) > 1:
        return False  # fixed first axes are cut as they are anyway
    telling = _telling(arrays, batched, most)
    if len(telling) < 2:
        return None
    some = {**arrays, **{spec.name: arrays[spec.name][telling] for spec in batched}}
    try:
        whole = run(session, model, some)
        halves = run(session, model, some, len(telling) // 2)
    except (BackendError, DataError):
        return False
    outputs = {output.name for output in model.outputs}
    compared = whole if deciding is None else [name for name in whole if name in outputs or name in deciding]
    return all(_same(whole[name], halves[name], whole_shape=name in outputs) for name in compared)


def _telling(arrays: Arrays, batched: list[TensorSpec], most: int) -> list[int]:
    """The numbers of some samples, each with a value other than 0 in its float inputs, no two of them the same."""
    floats = [spec.name for spec in batched if is_float(spec.dtype)] or [spec.name for spec in batched]
    count = min((arrays[spec.name].shape[0] for spec in batched), default=0)
    found: dict[bytes, int] = {}
    for number in range(count):
        if any(np.count_nonzero(arrays[name][number]) for name in floats):
            found.setdefault(b"".join(arrays[spec.name][number].tobytes() for spec in batched), number)
        if len(found) == most:
            break
    numbers = list(found.values())
    return numbers[: len(numbers) // 2 * 2]


def _same(whole: NDArray[Any], halves: NDArray[Any], *, whole_shape: bool) -> bool:
    if not is_float(whole.dtype):
        return not whole_shape or np.array_equal(whole, halves)
    room = _ROUNDING * _largest(whole)
    if whole.shape == halves.shape:
        pairs = zip(_blocks(whole), _blocks(halves), strict=True)
        return all(np.allclose(first, second, rtol=0, atol=room, equal_nan=True) for first, second in pairs)
    return not whole_shape and abs(_largest(whole) - _largest(halves)) <= room


def _largest(array: NDArray[Any]) -> float:
    return max((float(np.abs(block[np.isfinite(block)]).max(initial=0)) for block in _blocks(array)), default=0.0)


def _blocks(array: NDArray[Any]) -> Iterator[NDArray[np.float32]]:
    """The values in float32, so many at once that what is made of them takes little memory."""
    flat = array.reshape(-1)
    return (flat[begun : begun + _BLOCK].astype(np.float32, copy=False) for begun in range(0, flat.size, _BLOCK))
