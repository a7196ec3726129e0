"""Truth that owes the gate nothing: float64 by onnx.reference, and the files of other tools in plain onnxruntime.

Every error here is a relative RMS, norm(y - golden) / norm(golden), over all samples of an output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from benchmarks.foreign.graphs import outputs_of, relative_rms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

    from benchmarks.foreign.draws import Foreign

__all__ = ["THIRD", "is_worse", "truth_of", "widened"]

Row = dict[str, Any]
Arrays = dict[str, "NDArray[Any]"]
EXACT_SAMPLES = 4
"""How many golden samples are computed in float64, which numpy takes its time for."""

THIRD = {"onnxconverter's fp16 file": "fp16 file", "onnxruntime's Q/DQ file": "int8 file"}
"""The twins that another tool wrote, and our own file that each stands beside."""

WORSE = 2.0
"""What errs by more than so many times what our file does is no healthy file; both in plain onnxruntime."""


def truth_of(network: Foreign, files: Mapping[str, Path], rows: Sequence[Row]) -> list[Row]:
    """Errors of the golden in float64 and of the other tools' files, beside ours and our bounds.

    Args:
        network: the draw that the rows are of.
        files: by the name of the twin: of other tools, and ours.
        rows: what the gate said of this draw.

    Returns:
        a row for each output of each file; the verdict is the gate's on that file.
    """
    golden = outputs_of(network.onnx, network.inputs)
    exact = _exact_errors(network)
    return [row for name in THIRD if name in files for row in _rows(network, name, files, golden, exact, rows)]


def _rows(
    network: Foreign,
    name: str,
    files: Mapping[str, Path],
    golden: Arrays,
    exact: Mapping[str, Any],
    rows: Sequence[Row],
) -> Iterator[Row]:
    asked = THIRD[name].split()[0]
    simulated = next((row for row in rows if (row["precision"], row["seed"]) == (asked, 0)), {}).get("outputs", {})
    verdict = next((row["verdict"] for row in rows if row["name"] == name), None)
    theirs, ours = (_errors(files.get(file), network, golden) for file in (name, THIRD[name]))
    for output in theirs:
        error, bound = simulated.get(output, (None, None))
        yield {
            "network": network.name,
            "file": name,
            "output": output,
            "golden against float64": exact.get(output),
            "file in onnxruntime": theirs[output],
            "our file in onnxruntime": ours.get(output),
            "ours, simulated": error,
            "our bound": bound,
            "verdict": verdict,
        }


def _errors(path: Path | None, network: Foreign, golden: Arrays) -> dict[str, float]:
    """Of every float output of a file; none where there is no file, or onnxruntime refuses it."""
    try:
        found = outputs_of(path, network.inputs) if path else {}
    except Exception:  # onnxruntime's classes of errors have no base of their own
        return {}
    return {name: relative_rms(found[name], golden[name]) for name in found if golden[name].dtype.kind == "f"}


def is_worse(truth: Sequence[Row]) -> bool:
    """Whether a file errs by more than ours would, so that to refuse it is right."""
    known = [row for row in truth if row["our file in onnxruntime"] is not None]
    return any(row["file in onnxruntime"] > WORSE * row["our file in onnxruntime"] for row in known)


def _exact_errors(network: Foreign) -> dict[str, float | str]:
    """Of the golden's first samples in fp32 against float64; why there is none where there is none."""
    chosen = slice(0, min(EXACT_SAMPLES, network.source.golden))
    inputs = network.source.taken(network.inputs, chosen)
    narrow = outputs_of(network.onnx, inputs)
    wide = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in inputs.items()}
    try:
        evaluator = ReferenceEvaluator(widened(network.proto()), new_ops=[BatchNormalization])
        found = evaluator.run(list(narrow), wide)
    except Exception as error:  # the reference lacks an operator, or a type of one
        return dict.fromkeys(narrow, _short(error))
    return {name: relative_rms(narrow[name], value) for name, value in zip(narrow, found, strict=True)}


class BatchNormalization(OpRun):
    """Of a network that is not in training; onnx.reference trains those of opset 9 to 13."""

    op_domain = ""

    def _run(self, x: Any, scale: Any, bias: Any, mean: Any, variance: Any, epsilon: float = 1e-5, **_: Any) -> Any:
        shape = [-1, *[1] * (x.ndim - 2)]
        scale, bias, mean, variance = (array.reshape(shape) for array in (scale, bias, mean, variance))
        return ((x - mean) / np.sqrt(variance + epsilon) * scale + bias,)


def widened(proto: ModelProto) -> ModelProto:
    """The same network of float64, for onnx.reference."""
    _widen(proto.graph)
    for value in (*proto.graph.input, *proto.graph.output):
        kind = value.type.tensor_type
        kind.elem_type = TensorProto.DOUBLE if kind.elem_type == TensorProto.FLOAT else kind.elem_type
    return proto


def _widen(graph: GraphProto) -> None:
    del graph.value_info[:]
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        _widen_node(node)


def _widen_node(node: NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            _widen(attribute.g)
        elif attribute.type == AttributeProto.TENSOR:
            _widen_tensor(attribute.t)
        elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.DOUBLE
        elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
            values = np.asarray(helper.get_attribute_value(attribute), np.float64)
            attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(values)))


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]
