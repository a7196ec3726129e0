"""Inspector: what an engine shows of itself, its layers and its inner tensors; each release words them its own way."""

from __future__ import annotations

import ctypes
import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pytest_trt.backends.backend import Layer
from pytest_trt.backends.cuda import DeviceArray, download, synchronize
from pytest_trt.backends.tensorrt._execution import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import ModuleType

    import tensorrt
    from numpy.typing import NDArray

__all__ = ["can_show", "layers_of", "mark", "showing"]

# what releases call a dtype, in the words of their tensors' formats and of weights
_DTYPES = (
    (r"\bfp32\b|\bfloat(32)?\b", "fp32"),
    (r"\bfp16\b|\bhalf\b|\bfloat16\b", "fp16"),
    (r"\bbf16\b|\bbfloat16\b", "bf16"),
    (r"\bfp8\b|\bfloat8\w*\b|\be4m3\w*\b", "fp8"),
    (r"\bfp4\b|\bfloat4\w*\b|\be2m1\w*\b", "fp4"),
    (r"\bint8\b", "int8"),
    (r"\bint4\b", "int4"),
    (r"\buint8\b", "uint8"),
    (r"\bint64\b", "int64"),
    (r"\bint32\b", "int32"),
    (r"\bbool(ean)?\b", "bool"),
)

_COMPUTES = re.compile(
    r"conv|gemm|matrixmultiply|matrix_multiply|matmul|fullyconnected|fully_connected|attention|mha|rnn|lstm|gru",
    re.IGNORECASE,
)
_MATRIX_NODE = re.compile(r"\b(conv|convtranspose|gemm|matmul|einsum|rnn|lstm|gru)(_\d+)?$", re.IGNORECASE)
_MOVES = re.compile(r"reformat|shuffle|constant|noop|signal|wait|copy|quantize", re.IGNORECASE)
_FUSED = re.compile(r"myelin|foreignnode", re.IGNORECASE)
_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


def layers_of(
    text: str, computing: frozenset[str] = frozenset(), kept: frozenset[str] = frozenset()
) -> tuple[Layer, ...]:
    """The layers that an inspector tells of.

    Args:
        text: its JSON, in which 8.6 leaves control characters as they are.
        computing: names of the ONNX nodes that multiply matrices, which tell what a fused layer holds.
        kept: names of those nodes that were to stay in fp32.

    Returns:
        None where the engine was built without details, and tells names alone.
    """
    try:
        found = json.loads(text, strict=False).get("Layers", [])
    except (ValueError, AttributeError):
        return ()
    return tuple(_layer(entry, computing, kept) for entry in found if isinstance(entry, dict))


def _layer(entry: dict[str, Any], computing: frozenset[str], kept: frozenset[str]) -> Layer:
    kind = str(entry.get("LayerType", ""))
    weights = entry.get("Weights")
    nodes = tuple(_ONNX_NODE.findall(str(entry.get("Metadata", ""))))
    inputs, tactic = _dtypes(entry.get("Inputs")), str(entry.get("TacticName", ""))
    return Layer(
        name=str(entry.get("Name", "")),
        type=kind,
        inputs=inputs,
        outputs=_dtypes(entry.get("Outputs")),
        weights=_dtype(str(weights.get("Type", ""))) if isinstance(weights, dict) and weights.get("Count") else None,
        tactic=tactic,
        onnx_nodes=nodes,
        precision=_precision(kind, inputs, tactic),
        computes=_computes(f"{kind} {entry.get('ParameterType', '')}", nodes, computing),
        kept=_kept(nodes or tuple(str(entry.get("Name", "")).split(" + ")), computing, kept),
    )


def _precision(kind: str, inputs: tuple[str, ...], tactic: str) -> str:
    if _FUSED.search(kind) or not inputs:
        return "unknown"
    return "tf32" if inputs[0] == "fp32" and "tf32" in tactic.lower() else inputs[0]


def _kept(nodes: tuple[str, ...], computing: frozenset[str], kept: frozenset[str]) -> bool:
    multiplied = [node for node in nodes if node in kept | computing or _MATRIX_NODE.search(node)]
    return bool(multiplied) and kept.issuperset(multiplied)


def _computes(told: str, nodes: tuple[str, ...], computing: frozenset[str]) -> bool:
    if _MOVES.search(told):
        return False
    return bool(_COMPUTES.search(told)) or any(node in computing or _MATRIX_NODE.search(node) for node in nodes)


def _dtypes(tensors: Any) -> tuple[str, ...]:
    found = [tensor for tensor in tensors or () if isinstance(tensor, dict)]
    return tuple(_dtype(f"{t.get('Datatype', '')} {t.get('Format/Datatype', '')}") for t in found)


def _dtype(words: str) -> str:
    plain = words.lower().replace("_", " ")
    return next((name for pattern, name in _DTYPES if re.search(pattern, plain)), "unknown")


def can_show(trt: ModuleType) -> bool:
    """Whether the release shows tensors without forbidding fusions for it."""
    return hasattr(trt, "IDebugListener") and hasattr(trt.INetworkDefinition, "mark_unfused_tensors_as_debug_tensors")


def mark(network: tensorrt.INetworkDefinition) -> None:
    """Let the engine be built so that it can show its tensors."""
    network.mark_unfused_tensors_as_debug_tensors()


@contextmanager
def showing(
    trt: ModuleType, context: tensorrt.IExecutionContext, names: Collection[str]
) -> Iterator[dict[str, NDArray[Any]]]:
    """A dict that running the context fills with those of the named tensors that there are, in float32.

    What goes wrong in between is raised afterwards, since TensorRT drops it.
    """
    found: dict[str, NDArray[Any]] = {}
    faults: list[Exception] = []
    listener = _listener(trt, found, faults, frozenset(names))
    context.set_debug_listener(listener)
    context.unfused_tensors_debug_state = True
    try:
        yield found
    finally:
        context.unfused_tensors_debug_state = False
        context.set_debug_listener(
            cast("Any", None)
        )  # none is one too, by the C++ interface, which its stub leaves out
    if faults:
        raise faults[0]


def _listener(trt: ModuleType, found: dict[str, NDArray[Any]], faults: list[Exception], names: Collection[str]) -> Any:
    class Listener(trt.IDebugListener):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IDebugListener.__init__(self)

        def process_debug_tensor(self, addr: Any, location: Any, type: Any, shape: Any, name: str, stream: int) -> bool:
            try:
                if name in names:
                    on_host = location == trt.TensorLocation.HOST
                    found[name] = _copied(_address(addr), type, tuple(shape), name, None if on_host else int(stream))
            except Exception as error:
                faults.append(error)
                return False
            return True

    return Listener()


def _copied(address: int, kind: Any, shape: tuple[int, ...], name: str, stream: int | None) -> NDArray[Any]:
    """What lies there for as long as the callback takes; on the host where there is no stream to wait for."""
    dtype = numpy_dtype(kind, repr(name))
    if stream is None:
        count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        held: NDArray[Any] = np.frombuffer(ctypes.string_at(address, count), dtype).reshape(shape)
    else:
        synchronize(stream)
        held = download(DeviceArray(address, shape, dtype))
    return held.astype(np.float32)


def _address(told: Any) -> int:
    """The bindings hand a pointer over in a capsule."""
    if isinstance(told, int):
        return told
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return int(api.PyCapsule_GetPointer(told, api.PyCapsule_GetName(told)) or 0)
