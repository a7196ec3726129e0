"""Weak typing: dynamic ranges and fp32 layers, set on a network where the release has them (TensorRT 8.6 to 10)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from onnx import TensorProto

from pytest_trt.backends.tensorrt._release import member, require
from pytest_trt.errors import BackendError, DataError
from pytest_trt.lowering.placement import kept_in_fp32
from pytest_trt.model.graph import element_types
from pytest_trt.precision import Precision
from pytest_trt.ranges.amax import LARGEST_FLOAT32, Ranges, collected

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    import tensorrt

    from pytest_trt.backends.recipe import Recipe

__all__ = ["keep_layers", "kept_nodes", "ranges_of_network", "require_keepable", "set_ranges"]


def set_ranges(network: tensorrt.INetworkDefinition, amax: Mapping[str, float]) -> tuple[str, ...]:
    """Give tensors a dynamic range by name; one that is always zero gets a range of 1, in which zero stays zero.

    TensorRT keeps the ends as float32, so of scales that a cache holds one in 128 comes out a last digit off.

    Args:
        network: of TensorRT 8.6 to 10.
        amax: largest absolute value by tensor; those that the network has not are left out.

    Returns:
        Names of the network's tensors without a range.

    Raises:
        BackendError: the release has no dynamic ranges, or refuses one.
    """
    found = {tensor.name: tensor for tensor in _tensors(network)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # asked for by name
        for name in found.keys() & amax.keys():
            bound = float(amax[name]) or 1.0
            if not 0 < bound <= LARGEST_FLOAT32 or not found[name].set_dynamic_range(-bound, bound):
                raise BackendError(f"TensorRT takes no dynamic range of {bound!r} for tensor {name!r}.")
    return tuple(name for name in found if name not in amax)


def ranges_of_network(network: tensorrt.INetworkDefinition, source: str) -> Ranges:
    """The dynamic ranges that were set on a network: of both ends the larger absolute value, as TensorRT takes it.

    Args:
        network: of TensorRT 8.6 to 10.
        source: what messages call it.

    Raises:
        BackendError: the release has no dynamic ranges.
        DataError: none is set, or one is NaN or infinite.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        ends = {tensor.name: tensor.dynamic_range for tensor in _tensors(network)}
    amax, constants = collected(
        (name, next((float(end) for end in pair if end != end), max(map(abs, pair))), source)
        for name, pair in ends.items()
        if pair is not None
    )
    if not amax:
        raise DataError(f"{source}: no tensor of the network has a dynamic range: set them first.")
    return Ranges(amax, source, constants)


def _tensors(network: tensorrt.INetworkDefinition) -> list[Any]:
    """Inputs and what the layers make, each once; of a release whose tensors have dynamic ranges."""
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    found = [network.get_input(number) for number in range(network.num_inputs)]
    found += [layer.get_output(number) for layer in layers for number in range(layer.num_outputs)]
    tensors = [tensor for tensor in found if tensor is not None]
    if any(not hasattr(type(tensor), "set_dynamic_range") for tensor in tensors):
        raise BackendError(
            "this release of TensorRT has no dynamic ranges (11 and TensorRT-RTX): there int8 is in the model itself."
            " Lower it with the ranges: pytest_trt.lower(model, 'int8', ranges)."
        )
    return tensors


def kept_nodes(recipe: Recipe) -> frozenset[str]:
    """Names that TensorRT may call the nodes by which were to stay in fp32; none where nothing was."""
    if recipe.precision in (Precision.FP32, Precision.MODEL):
        return frozenset()
    kept = kept_in_fp32(recipe.model.proto, recipe.precision, recipe.keep, recipe.ops)
    return frozenset(
        name
        for node in recipe.model.proto.graph.node
        if not kept.isdisjoint(node.output)
        for name in (node.name, f"node_of_{node.output[0]}", f"trt/kept/{node.output[0]}")
        if name
    )


def require_keepable(recipe: Recipe, typing: str) -> None:
    """Refuse to keep nodes where TensorRT has no word for it: by TF32, and of whole kinds in weak typing.

    Raises:
        BackendError: says what would do.
    """
    if not (recipe.keep or recipe.ops):
        return
    if recipe.precision is Precision.TF32:
        raise BackendError(
            "TF32 is on or off for a whole engine: keep and ops have no word there. Leave them out, or ask for fp16."
        )
    if recipe.ops and typing == "weak" and recipe.precision is not Precision.FP32:
        raise BackendError(
            "ops is told by the graph, and weak typing builds the fp32 graph: take --trt-typing=strong, or name nodes"
            " in keep."
        )


def keep_layers(trt: ModuleType, network: tensorrt.INetworkDefinition, config: Any, recipe: Recipe) -> None:
    """Ask weak typing to compute the kept nodes' layers in fp32, and to obey.

    Raises:
        BackendError: a node has no layer of its name.
    """
    proto = recipe.model.proto
    kept = kept_in_fp32(proto, recipe.precision, recipe.keep)
    types = element_types(proto)
    # of a release with weak typing, so that layers have a precision
    layers: dict[str, Any] = {layer.name: layer for layer in map(network.get_layer, range(network.num_layers))}
    for node in proto.graph.node:
        if kept.isdisjoint(node.output) or types.get(node.output[0]) != TensorProto.FLOAT:
            continue
        layer = layers.get(node.name) or layers.get(f"node_of_{node.output[0]}")
        if layer is None:
            raise BackendError(
                f"{recipe.model.source}: TensorRT's network has no layer {node.name!r} ({node.op_type}) that could be"
                " kept in fp32: take --trt-typing=strong, or leave it out of keep."
            )
        layer.precision = trt.float32
    obey = member(trt.BuilderFlag, "OBEY_PRECISION_CONSTRAINTS")
    config.set_flag(require(obey, "precision constraints", trt, "take --trt-typing=strong"))
