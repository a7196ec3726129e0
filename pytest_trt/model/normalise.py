"""Normalise: one graph in order, without functions, each name once, constants as tensors and no inputs.

Lowering looks tensors up by name; what ONNX allows beyond that is brought into this form when a file is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.inliner
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

__all__ = ["free_name", "normalised", "read_by", "sort_nodes", "subgraphs"]

_FIRST_FREE_INITIALIZERS = 4  # the IR version from which an initializer need not be an input too

_CONSTANTS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


def normalised(model: ModelProto) -> ModelProto:
    """The same network: functions inlined, nodes sorted, subgraphs' names made unique, constants as tensors.

    Changes the argument, or returns another model.
    """
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _hold_initializers(model)
    sort_nodes(model.graph)
    _store_constants(model.graph)
    _name_once(model.graph, {}, _names(model.graph))
    return model


def _hold_initializers(model: ModelProto) -> None:
    """Before IR version 4 each stored tensor was an input too, and could be fed; here all of them are constants."""
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in held]
    if len(inputs) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        model.ir_version = max(model.ir_version, _FIRST_FREE_INITIALIZERS)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of If, Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def sort_nodes(graph: GraphProto) -> None:
    """Put every node after those that it reads from, in place and otherwise in order.

    onnxruntime's fp16 converter writes files that are not sorted; they run, but no checker takes them.
    """
    maker = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    needed = [sorted({maker[name] for name in read_by(node) if name in maker}) for node in graph.node]
    if any(reads and reads[-1] >= place for place, reads in enumerate(needed)):
        copies = [onnx.NodeProto.FromString(graph.node[place].SerializeToString()) for place in _order(needed)]
        del graph.node[:]
        graph.node.extend(copies)


def _order(needed: list[list[int]]) -> list[int]:
    """Places, each after those that it needs; those of a circle in any order, for the checker to refuse."""
    order: dict[int, None] = {}
    opened: set[int] = set()
    for start in range(len(needed)):
        stack = [start]
        while stack:
            place = stack[-1]
            missing = [read for read in needed[place] if read not in order and read not in opened]
            opened.add(place)
            if missing:
                stack.extend(reversed(missing))
            else:
                order[stack.pop()] = None
    return list(order)


def read_by(node: NodeProto) -> Iterator[str]:
    """Tensors that a node reads, those that its subgraphs capture included."""
    yield from node.input
    for subgraph in subgraphs(node):
        for inner in subgraph.node:
            yield from read_by(inner)


def _store_constants(graph: GraphProto) -> None:
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name in _CONSTANTS:
            tensor = numpy_helper.from_array(_value(node.attribute[0]), node.output[0])
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("value", tensor))
        for subgraph in subgraphs(node):
            _store_constants(subgraph)


def _value(attribute: AttributeProto) -> np.ndarray:
    return np.array(helper.get_attribute_value(attribute), _CONSTANTS[attribute.name])


def _names(graph: GraphProto) -> set[str]:
    """Names that the graph itself defines."""
    found = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    return found | {name for node in graph.node for name in node.output}


def _name_once(graph: GraphProto, outer: dict[str, str], taken: set[str]) -> None:
    """Give each tensor of a subgraph a name that no other graph has; ``outer`` tells what captured names became."""
    for node in graph.node:
        for subgraph in subgraphs(node):
            renamed = dict(outer)
            for name in sorted(_names(subgraph) - {""}):
                renamed[name] = free_name(name, taken)
            _rename(subgraph, renamed)
            _name_once(subgraph, renamed, taken)


def free_name(wish: str, taken: set[str]) -> str:
    """The wish, or with a number where it is taken; it is taken from now on."""
    name, number = wish, 0
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    taken.add(name)
    return name


def _rename(graph: GraphProto, renamed: dict[str, str]) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = renamed.get(value.name, value.name)
    for tensor in graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
