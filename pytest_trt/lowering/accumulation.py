"""fp16 accumulation: what is lost by a kernel that adds its products up in fp16, as TensorRT's may.

A matrix unit adds 16 products at a time to a running sum, which such a kernel rounds to fp16, m times in all. The k-th
rounding errs by up to u = 2^-11 of the sum so far, whose square is about k / m x Q + (k / m)^2 x S^2, with Q the sum of
the squared products and S the whole sum. Uniform errors that are independent of one another add up to a variance of

    u^2 / 3 x (m / 2 x Q + m / 3 x S^2)

of this very element (rounding errors grow as a random walk does: N. J. Higham and T. Mary, A New Approach to
Probabilistic Rounding Error Analysis, SIAM J. Sci. Comput. 41, 2019). As in a kernel, the error is a fixed function of
the element's value: a sine of it, fast enough to look random, and of this variance.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.lowering.casts import fp16_sandwich
from pytest_trt.lowering.graph import MATRIX_OPERANDS, array_of, constants, fresh
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto, NodeProto

__all__ = ["fp16_accumulated"]

_AT_ONCE = 16  # products that a matrix unit adds before it rounds
_LONGEST = 4608  # the longest sum that was measured in fp16; longer ones are split, and their parts added in fp32
_TURNS = 41.0  # of the sine, per standard deviation of the error


def fp16_accumulated(model: ModelProto) -> ModelProto:
    """The cast sandwich of fp16, with the error of fp16 accumulation added to every sum of more than 16 products.

    Sums of whose factors neither is stored (products of two activations, weights that are computed first), and those in
    subgraphs, are left as they are.

    Raises:
        LoweringError: the type of a tensor can't be inferred.
    """
    copy = fp16_sandwich(model)
    held, name = constants(copy), fresh(copy)
    nodes: list[NodeProto] = []
    for node in copy.graph.node:
        nodes.append(node)
        roundings = math.ceil(min(_products(node, held), _LONGEST) / _AT_ONCE)
        if roundings > 1:
            nodes += _erring(copy, node, roundings, name)
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del copy.graph.node[:]
    copy.graph.node.extend(copies)
    return copy


def _products(node: NodeProto, held: dict[str, TensorProto]) -> int:
    """How many products one element of the output sums up; 0 where no stored fp32 weight tells."""
    if node.op_type not in MATRIX_OPERANDS:
        return 0
    stored = [index for index in (1, 0) if node.input[index] in held]
    if not stored or held[node.input[stored[0]]].data_type != TensorProto.FLOAT:
        return 0
    shape = array_of(held[node.input[stored[0]]]).shape
    if node.op_type == "Conv":
        return int(np.prod(shape[1:]))
    if node.op_type == "ConvTranspose":
        return int(shape[0])
    side = "transB" if stored[0] == 1 else "transA"
    transposed = any(attribute.name == side and attribute.i for attribute in node.attribute)
    rows = (stored[0] == 1) != transposed  # whether the sum runs over the rows of the stored matrix
    return int(shape[-2] if rows and len(shape) > 1 else shape[-1])


def _erring(model: ModelProto, node: NodeProto, roundings: int, name: Callable[[str], str]) -> list[NodeProto]:
    """The node's output with its error, under the same name."""
    output, u = node.output[0], Precision.FP16.unit_roundoff

    def made(operator: str, *inputs: str) -> str:
        nodes.append(helper.make_node(operator, list(inputs), [name(f"{output}/accumulated/{operator}")]))
        return str(nodes[-1].output[0])

    def number(value: float) -> str:
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name(f"{output}/accumulated/number")))
        return str(model.graph.initializer[-1].name)

    nodes: list[NodeProto] = []
    exact = node.output[0] = name(f"{output}/accumulated/exact")
    squares = [made("Mul", tensor, tensor) for tensor in node.input[:2]]
    summed = type(node).FromString(node.SerializeToString())  # of the squared products, without the bias
    summed.name, summed.input[:], summed.output[:] = "", squares, [name(f"{output}/accumulated/squared_products")]
    nodes.append(summed)
    walked = made("Mul", summed.output[0], number(u * u * roundings / 6))
    drifted = made("Mul", made("Mul", exact, exact), number(u * u * roundings / 9))
    deviation = made("Sqrt", made("Add", walked, drifted))
    turns = made("Mul", made("Div", exact, made("Add", deviation, number(1e-30))), number(_TURNS))
    error = made("Mul", made("Mul", made("Sin", turns), deviation), number(math.sqrt(2)))
    nodes.append(helper.make_node("Add", [exact, error], [output]))
    return nodes
