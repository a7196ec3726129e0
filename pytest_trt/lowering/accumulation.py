"""fp16 accumulation: what is lost by a kernel that adds its products up in fp16, as TensorRT's may.

A matrix unit adds 16 products at a time to a running sum, which such a kernel rounds to fp16. Of m roundings, the k-th
of a sum that has grown to k / m of the whole's variance, the errors add up to a standard deviation of

    u / sqrt(3) x sqrt(m / 2) = u x sqrt(m / 6)    with u = 2^-11

of the RMS of the sums: rounding errors grow as a random walk does (N. J. Higham and T. Mary, A New Approach to
Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput. 41, 2019). They are drawn as noise with a fixed seed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from onnx import helper, numpy_helper

from pytest_trt.lowering.casts import fp16_sandwich
from pytest_trt.lowering.graph import MATRIX_OPERANDS, array_of, constants, fresh
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto, NodeProto, TensorProto

__all__ = ["fp16_accumulated"]

_AT_ONCE = 16  # products that a matrix unit adds before it rounds
_LONGEST = 4608  # the longest sum that was measured in fp16; longer ones are split, and their parts added in fp32


def fp16_accumulated(model: ModelProto) -> ModelProto:
    """The cast sandwich of fp16, with the error of fp16 accumulation added to every sum of more than 16 products.

    Sums whose length the graph does not tell (products of two activations, subgraphs) are left as they are.

    Raises:
        LoweringError: the type of a tensor can't be inferred.
    """
    copy = fp16_sandwich(model)
    held, name = constants(copy), fresh(copy)
    nodes: list[NodeProto] = []
    for number, node in enumerate(copy.graph.node):
        nodes.append(node)
        roundings = math.ceil(min(_products(node, held), _LONGEST) / _AT_ONCE)
        if roundings > 1:
            nodes += _noise(copy, node, Precision.FP16.unit_roundoff * math.sqrt(roundings / 6), number, name)
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del copy.graph.node[:]
    copy.graph.node.extend(copies)
    return copy


def _products(node: NodeProto, held: dict[str, TensorProto]) -> int:
    """How many products one element of the output sums up; 0 where a stored weight does not tell."""
    if node.op_type not in MATRIX_OPERANDS or node.input[1] not in held:
        return 0
    weight = array_of(held[node.input[1]])
    if node.op_type == "Conv":
        return int(np.prod(weight.shape[1:]))
    if node.op_type == "ConvTranspose":
        return int(weight.shape[0])
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return int(weight.shape[-1 if transposed else -2 if weight.ndim > 1 else 0])


def _noise(
    model: ModelProto, node: NodeProto, relative: float, seed: int, name: Callable[[str], str]
) -> list[NodeProto]:
    """output + relative x RMS(output) x a standard normal number, under the output's name."""
    output = node.output[0]
    exact, square, mean, size, scale, drawn, error = (
        name(f"{output}/accumulated/{part}") for part in ("exact", "square", "mean", "rms", "scale", "drawn", "error")
    )
    factor = name(f"{output}/accumulated/factor")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(relative), factor))
    node.output[0] = exact
    return [
        helper.make_node("Mul", [exact, exact], [square]),
        helper.make_node("ReduceMean", [square], [mean]),
        helper.make_node("Sqrt", [mean], [size]),
        helper.make_node("Mul", [size, factor], [scale]),
        helper.make_node("RandomNormalLike", [exact], [drawn], seed=float(seed)),
        helper.make_node("Mul", [drawn, scale], [error]),
        helper.make_node("Add", [exact, error], [output]),
    ]
