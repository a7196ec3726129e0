"""Reassociation: the same fp32 network as other correct implementations may compute it.

Nobody fixes the order in which a sum of products is added up. One other order is at hand: onnxruntime's fused kernels.
What any order may do is told by the network's condition: inputs and stored factors that are off by one unit in the last
place move the outputs as much as adding up in another order does (docs/tolerance.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.comparison.comparison import compare
from pytest_trt.comparison.tolerance import floor
from pytest_trt.errors import PytestTrtError
from pytest_trt.model.external_data import replaced
from pytest_trt.model.feeds import conform, is_float
from pytest_trt.model.graph import TF32_OPERANDS, array_of, constants, element_types, fresh, graphs, is_standard
from pytest_trt.model.model import Model
from pytest_trt.model.onnx_session import open_session, run
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

    from pytest_trt.model.feeds import Arrays

__all__ = ["reassociated"]

_SUMMING = (
    "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "AveragePool", "GlobalAveragePool", "CumSum",
)  # fmt: skip
_UP, _DOWN = np.float32(1 + 2.0**-23), np.float32(1 - 2.0**-23)


def reassociated(
    model: Model, inputs: Sequence[Arrays], exact: Sequence[Arrays], batch: int | None
) -> Iterator[list[Arrays]]:
    """Outputs of the network computed otherwise in fp32, one set a run, way by way.

    An output that jumps there (another row of a table, one more box), or moves by more than TF32 rounds, says nothing
    of the order of sums: the exact one stands in its place. A way that onnxruntime can't go is left out.

    Args:
        model: fp32.
        inputs: runs of arrays by input name.
        exact: the outputs as the golden has them, one set a run.
        batch: the most samples at once where the first axis is dynamic.
    """
    ways: list[tuple[ModelProto, list[Arrays], Literal["all", "some"]]] = [(model.proto, list(inputs), "all")]
    for seed, sums in enumerate((False, True)):  # a sum of whole numbers is exact, and may be compared with one
        noise = np.random.default_rng(seed)
        proto = _nudged(model.proto, noise, sums=sums)
        ways.append((proto, [_nudged_inputs(arrays, noise) for arrays in inputs], "some"))
    for proto, feeds, fusion in ways:
        try:
            found = _run(Model(proto, model.source), feeds, batch, fusion)
        except PytestTrtError:
            continue
        yield [_continuous(ours, theirs) for ours, theirs in zip(found, exact, strict=True)]


def _run(model: Model, inputs: list[Arrays], batch: int | None, fusion: Literal["all", "some"]) -> list[Arrays]:
    session = open_session(model.proto, model.source, fusion=fusion)
    return [run(session, model, conform(arrays, model.inputs, model.source), batch) for arrays in inputs]


def _nudged(model: ModelProto, noise: np.random.Generator, *, sums: bool) -> ModelProto:
    """A copy whose stored factors of products are off by one unit in the last place; its other sums too, if asked."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    factors = {
        node.input[place]
        for graph in graphs(copy.graph)
        for node in graph.node
        for place in (TF32_OPERANDS.get(node.op_type, ()) if is_standard(node) else ())
        if place < len(node.input)
    }
    for stored in {id(held): held for name, held in constants(copy).items() if name in factors}.values():
        if stored.data_type == TensorProto.FLOAT:
            stored.CopyFrom(replaced(stored, _beside(array_of(stored), noise)))
    if sums:
        _nudge_sums(copy, noise)
    return copy


def _nudge_sums(model: ModelProto, noise: np.random.Generator) -> None:
    """Put a factor next to 1 behind every fp32 node that adds up its input, but for those in subgraphs."""
    types, name, nodes = element_types(model), fresh(model), []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type in _SUMMING and is_standard(node) and types.get(node.output[0]) == TensorProto.FLOAT:
            result, node.output[0] = node.output[0], name(f"{node.output[0]}/sum")
            factor = numpy_helper.from_array(noise.choice([_UP, _DOWN]), name(f"{result}/factor"))
            model.graph.initializer.append(factor)
            nodes.append(helper.make_node("Mul", [node.output[0], factor.name], [result]))
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _nudged_inputs(arrays: Arrays, noise: np.random.Generator) -> Arrays:
    """Whole numbers stay: they may be positions, classes or flags, which everybody has exactly."""
    return {
        name: np.where(array == np.rint(array), array, _beside(array, noise)).astype(array.dtype)
        if array.dtype == np.float32
        else array
        for name, array in arrays.items()
    }


def _beside(values: NDArray[Any], noise: np.random.Generator) -> NDArray[np.float32]:
    """The next number above or below, by chance; zero, infinity and the largest stay."""
    ends = np.where(noise.random(values.shape) < 0.5, np.float32(-np.inf), np.float32(np.inf))
    with np.errstate(over="ignore"):
        found = np.nextafter(values, ends, dtype=np.float32)
    return np.asarray(np.where((values == 0) | ~np.isfinite(found), values, found), np.float32)


def _continuous(ours: Arrays, theirs: Arrays) -> Arrays:
    return {name: ours[name] if _moves_a_little(ours[name], exact) else exact for name, exact in theirs.items()}


def _moves_a_little(ours: NDArray[Any], exact: NDArray[Any]) -> bool:
    if ours.shape != exact.shape:
        return False
    most, whole = Precision.TF32.unit_roundoff, not is_float(exact.dtype)
    return compare(ours, exact).error(whole=whole) <= floor(most, whole=whole, count=exact.size)
