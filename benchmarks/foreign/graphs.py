"""What plants ask of a graph and do to it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.foreign.specimen import Planted
from benchmarks.zoo.surgery import matrix_nodes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    from benchmarks.foreign.draws import Foreign

__all__ = [
    "MULTIPLY",
    "around",
    "is_float",
    "middle_layer",
    "outputs_of",
    "relative_rms",
    "rows_first",
    "store",
    "stored_behind",
    "values_of",
    "with_own_golden",
]

ROUNDING = ("QuantizeLinear", "DequantizeLinear", "Cast")
MULTIPLY = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def relative_rms(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    """norm(actual - expected) / norm(expected) where ``expected`` is finite."""
    finite = np.isfinite(expected)
    wide = expected[finite].astype(np.float64)
    return float(np.linalg.norm(actual[finite].astype(np.float64) - wide) / max(np.linalg.norm(wide), 1e-300))


def outputs_of(model: Path | ModelProto, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What a network computes in onnxruntime on the CPU, by output, each node as it is written.

    Nothing is fused: onnxruntime's own int8 kernels add up in 16 bits on some CPUs, and saturate.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    given = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def values_of(network: Foreign, tensors: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Tensors of the healthy network on the golden inputs."""
    proto = network.proto()
    given = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in given)
    found = outputs_of(proto, network.inputs)
    return {name: found[name] for name in tensors}


def stored_behind(proto: ModelProto, name: str) -> str:
    """What is behind pairs of QuantizeLinear and DequantizeLinear, or a Cast."""
    makers = {output: node for node in proto.graph.node for output in node.output}
    while name in makers and makers[name].op_type in ROUNDING:
        name = makers[name].input[0]
    return name


def rows_first(node: NodeProto) -> bool:
    """Whether the weight has its output channels along axis 0, and not along the last."""
    return node.op_type == "Conv" or any(a.name == "transB" and a.i for a in node.attribute)


def around(nodes: Sequence[NodeProto], names: set[str]) -> frozenset[str]:
    """The tensors, and what is read from them through rounding, and by the layers behind."""
    for node in nodes:
        if node.op_type in ROUNDING and node.input[0] in names:
            names = {*names, *node.output}
    layers = [node for node in nodes if node.op_type in MULTIPLY and names & set(node.input)]
    return frozenset(names | {name for node in layers for name in (node.name, node.output[0]) if name})


def is_float(array: NDArray[Any]) -> bool:
    """Whether it holds floats."""
    return bool(array.dtype.kind == "f")


def store(proto: ModelProto, name: str, value: Any) -> None:
    """Give the graph an initializer."""
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def with_own_golden(
    proto: ModelProto, network: Foreign, folder: Path, tensors: frozenset[str], healthy: ModelProto | None = None
) -> Planted:
    """A deployment whose golden is of this very file, or of a healthy one that is not the network's own."""
    reference = None
    if healthy is not None:
        reference = str(folder / "healthy.onnx")
        onnx.save(healthy, reference)
    golden = str(folder / "own.safetensors")
    case = replace(network.deployed(proto, folder), reference=reference, golden=golden)
    return Planted(case, tensors, own_golden=True)


def middle_layer(proto: ModelProto) -> NodeProto:
    """The middle one of the nodes that multiply by a stored weight."""
    nodes = matrix_nodes(proto)
    return nodes[len(nodes) // 2]
