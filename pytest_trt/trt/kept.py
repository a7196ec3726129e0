"""Kept: nodes that stay in fp32, as TensorRT is told of them and tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import TensorProto

from pytest_trt.errors import BackendError
from pytest_trt.lowering.graph import element_types
from pytest_trt.lowering.kept import kept_in_fp32
from pytest_trt.precision import Precision
from pytest_trt.trt.release import member, require

if TYPE_CHECKING:
    from types import ModuleType

    import tensorrt

    from pytest_trt.recipe import Recipe

__all__ = ["keep_layers", "kept_nodes", "require_keepable"]


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
