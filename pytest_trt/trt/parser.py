"""Parser: ONNX into TensorRT's network, every complaint of its parser kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.errors import ModelError
from pytest_trt.trt.log import heard, logger_of
from pytest_trt.trt.release import label, member

if TYPE_CHECKING:
    from types import ModuleType

    import tensorrt

    from pytest_trt.model import Model

__all__ = ["parse"]


def parse(trt: ModuleType, builder: tensorrt.Builder, graph: Model, typing: str) -> tensorrt.INetworkDefinition:
    """The network of a graph.

    Args:
        trt: the release.
        builder: that will build it.
        graph: as it is to be parsed.
        typing: "strong" or "weak".

    Raises:
        ModelError: the parser refuses it; with all its errors, or TensorRT's.
    """
    network = builder.create_network(_network_flags(trt, typing))
    parser = trt.OnnxParser(network, logger_of(trt))
    with heard(trt) as said:
        parsed = parser.parse(graph.proto.SerializeToString())
    errors = [_words(parser.get_error(number), graph) for number in range(parser.num_errors)]
    if errors:
        listing = "\n".join(f"  {error}" for error in errors)
        raise ModelError(f"{graph.source}: {label(trt)}'s parser refuses it, {len(errors)} error(s):\n{listing}")
    if not parsed or not network.num_outputs:
        raise ModelError(said.told(f"{graph.source}: {label(trt)}'s parser makes no network of it"))
    return network


def _network_flags(trt: ModuleType, typing: str) -> int:
    names = ["EXPLICIT_BATCH"] if typing == "weak" else ["EXPLICIT_BATCH", "STRONGLY_TYPED"]
    found = (member(trt.NetworkDefinitionCreationFlag, name) for name in names)
    return sum(1 << int(flag) for flag in found if flag is not None)


def _words(error: tensorrt.ParserError, graph: Model) -> str:
    number = error.node()
    node = graph.proto.graph.node[number] if 0 <= number < len(graph.proto.graph.node) else None
    name = _told(error, "node_name") or (node.name if node else "")
    operator = _told(error, "node_operator") or (node.op_type if node else "")
    where = f"node {name!r} ({operator}), number {number}" if operator else "the model as a whole"
    # some of the parser's descriptions are the bare condition that failed
    text = error.desc() if error.desc() not in ("", "false") else "it has no importer for this operator"
    if "Plugin not found" in text:
        text += " (name its library with the build option plugins)"
    return f"{where}: {text} [{_code(error)} in {error.func()}, {error.file()}:{error.line()}]"


def _told(error: Any, name: str) -> str:
    return str(getattr(error, name)()) if hasattr(error, name) else ""


def _code(error: Any) -> str:
    code = error.code()
    return str(getattr(code, "name", code))
