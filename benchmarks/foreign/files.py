"""Plants in files: those that other tools write, and our own of rounded weights."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.foreign.graphs import MULTIPLY, around, rows_first, stored_behind
from benchmarks.foreign.specimen import Planted, Refused
from benchmarks.zoo.given import by_onnxruntime, with_pairs
from benchmarks.zoo.surgery import stored
from benchmarks.zoo.weights import rounded_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto

    from benchmarks.foreign.draws import Foreign

__all__ = [
    "from_onnxruntime",
    "from_onnxruntime_with",
    "halves",
    "halves_with_zeros",
    "hardly_quantised",
    "scale_by_onnxruntime",
    "small_scale",
    "smallest_kept",
    "weights",
    "zero_channels",
    "zeros_by_onnxruntime",
]


def from_onnxruntime(network: Foreign, folder: Path, **told: Any) -> Planted:
    """The Q/DQ file that onnxruntime writes.

    Raises:
        Refused: onnxruntime does not open it.
    """
    return _opened(Planted(by_onnxruntime(network, folder, **told)))


def from_onnxruntime_with(change: Callable[[ModelProto], frozenset[str]], network: Foreign, folder: Path) -> Planted:
    """The Q/DQ file that onnxruntime writes, with a defect in it."""
    return _edited_file(change, from_onnxruntime(network, folder))


def halves(network: Foreign, folder: Path) -> Planted:
    """The fp16 file that onnxconverter-common writes.

    Raises:
        Refused: onnxruntime does not open it, or the tool is not installed.
    """
    try:
        float16 = import_module("onnxconverter_common.float16")
    except ImportError:
        raise Refused("needs onnxconverter-common: pip install onnxconverter-common") from None
    with catch_warnings():
        simplefilter("ignore")  # that it cuts small values off
        proto = float16.convert_float_to_float16(
            onnx.load(network.onnx), keep_io_types=True, node_block_list=list(network.case.keep)
        )
    return _opened(Planted(network.deployed(proto, folder)))


def _opened(planted: Planted) -> Planted:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(planted.case.onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's classes of errors have no base of their own
        raise Refused(f"onnxruntime refuses the file: {' '.join(str(error).split())}"[:250]) from None
    return planted


def halves_with_zeros(network: Foreign, folder: Path) -> Planted:
    """The same with a quarter of a weight's channels zero."""
    return _edited_file(zero_channels, halves(network, folder))


def _edited_file(change: Callable[[ModelProto], frozenset[str]], planted: Planted) -> Planted:
    proto = onnx.load(str(planted.case.onnx))
    tensors = change(proto)
    onnx.save(proto, str(planted.case.onnx))
    return replace(planted, tensors=tensors)


def zero_channels(proto: ModelProto) -> frozenset[str]:
    """A quarter of the output channels of the middle one of the stored weights are zero; says where."""
    held = stored(proto)
    found = []
    for node in proto.graph.node:
        name = stored_behind(proto, node.input[1]) if node.op_type in MULTIPLY else ""
        if name in held and len(held[name].dims) > 1 and max(held[name].dims) > 3:
            found.append((node, name))
    node, name = found[len(found) // 2]
    values = numpy_helper.to_array(held[name]).copy()
    moved = np.moveaxis(values, 0 if rows_first(node) else -1, 0)
    moved[: max(1, len(moved) // 4)] = 0
    held[name].CopyFrom(numpy_helper.from_array(values, name))
    return around(proto.graph.node, {name})


def small_scale(proto: ModelProto) -> frozenset[str]:
    """The scale of the middle one of the quantised tensors is a twentieth; says where."""
    held, inputs = stored(proto), {value.name for value in proto.graph.input}
    nodes = [n for n in proto.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in {*held, *inputs}]
    chosen = nodes[len(nodes) // 2]
    scale = held[chosen.input[1]]
    smaller = np.asarray(numpy_helper.to_array(scale) * np.float32(0.05), np.float32)
    scale.CopyFrom(numpy_helper.from_array(smaller, scale.name))
    return frozenset([chosen.input[0]])


def weights(change: Any, precision: str, network: Foreign, folder: Path) -> Planted:
    """A file of rounded weights, of which the one in the middle is changed."""
    rounded = rounded_file(change, network, folder, precision)
    proto = onnx.load(str(rounded.onnx))
    healthy = _healthy_weights(network, precision)
    changed = {name for name, tensor in stored(proto).items() if healthy[name] != _digest(tensor)}
    return Planted(rounded, around(proto.graph.node, changed))


@cache
def _healthy_weights(network: Foreign, precision: str) -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        case = rounded_file(lambda levels, scale: (levels, scale), network, Path(folder), precision)
        return {name: _digest(tensor) for name, tensor in stored(onnx.load(str(case.onnx))).items()}


def _digest(tensor: onnx.TensorProto) -> bytes:
    return sha256(numpy_helper.to_array(tensor).tobytes()).digest()


def hardly_quantised(network: Foreign, folder: Path) -> Planted:
    """A Q/DQ file of which only the smallest layer is int8."""
    return Planted(with_pairs(dict, network, folder, keep=lambda proto: _by_size(proto)[1:]))


def smallest_kept(network: Foreign, _: Path) -> Planted:
    """The smallest layer stays in fp32, and the case says so."""
    return Planted(replace(network.case, keep=(*network.case.keep, *_by_size(network.proto())[:1])))


def _by_size(proto: ModelProto) -> list[str]:
    """What layers compute, those with the fewest weights first."""
    held = stored(proto)
    nodes = [node for node in proto.graph.node if node.op_type in MULTIPLY and node.input[1] in held]
    return [str(node.output[0]) for node in sorted(nodes, key=lambda node: np.prod(held[node.input[1]].dims))]


zeros_by_onnxruntime = partial(from_onnxruntime_with, zero_channels)
scale_by_onnxruntime = partial(from_onnxruntime_with, small_scale)
