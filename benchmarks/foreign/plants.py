"""Plants: what goes wrong on the way from a network of other people to its deployment.

Each takes the network and an empty folder. Those of the zoo that ask nothing of a network are taken from there.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.foreign.specimen import NoPlace, Planted
from benchmarks.zoo.given import by_onnxruntime, by_ranges, ranges_of, with_pairs
from benchmarks.zoo.surgery import change_weight, matrix_nodes, rescale_between, swap_producers, through
from benchmarks.zoo.weights import rounded_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    from benchmarks.foreign.draws import Foreign

__all__ = [
    "changed_labels",
    "changed_range",
    "dead_rows",
    "few_overflow",
    "flushed",
    "from_onnxruntime",
    "from_onnxruntime_with",
    "halves",
    "halves_with_zeros",
    "hardly_quantised",
    "healthy_scaled",
    "large_constant",
    "missing",
    "other_inputs",
    "ranges",
    "smallest_kept",
    "still_slice",
    "swallowed",
    "swapped",
    "weights",
    "wrongly_normalised",
]

LARGEST_HALF = 65504.0
MULTIPLY = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def ranges(change: Callable[[dict[str, float]], dict[str, float]], network: Foreign, folder: Path) -> Planted:
    """The healthy ranges, changed."""
    return Planted(by_ranges(change, network, folder))


def changed_range(factor: float, network: Foreign, folder: Path) -> Planted:
    """The range of an inner tensor in the middle, times a factor."""
    inputs = {value.name for value in network.proto().graph.input}
    names = [name for name in ranges_of(network) if name not in inputs]
    chosen = names[len(names) // 2]
    case = by_ranges(lambda amax: {**amax, chosen: amax[chosen] * factor}, network, folder)
    return Planted(case, frozenset([chosen]))


def wrongly_normalised(network: Foreign, folder: Path) -> Planted:
    """Calibration samples as another network takes them: of another scale, and pictures with another zero.

    Raises:
        NoPlace: no input is of floats.
    """
    samples = network.samples()
    name = next((name for name, array in samples.items() if _is_float(array)), "")
    if not name:
        raise NoPlace("no input is of floats")
    array = samples[name]
    if array.ndim == 4 and array.min() < 0:
        samples[name] = (array + 1) / 2
    elif array.ndim == 4:
        samples[name] = ((array - 0.45) / 0.225).astype(np.float32)
    else:
        samples[name] = (array * 0.05).astype(np.float32)
    np.savez(folder / "samples.npz", **samples)
    return Planted(replace(network.case, calibration=str(folder / "samples.npz")), frozenset([name]))


def weights(change: Any, precision: str, network: Foreign, folder: Path) -> Planted:
    """A file of rounded weights, of which the one in the middle is changed."""
    rounded = rounded_file(change, network, folder, precision)
    proto = onnx.load(str(rounded.onnx))
    healthy = _healthy_weights(network, precision)
    changed = {tensor.name for tensor in proto.graph.initializer if healthy[tensor.name] != _digest(tensor)}
    return Planted(rounded, _around(proto.graph.node, changed))


@cache
def _healthy_weights(network: Foreign, precision: str) -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        case = rounded_file(lambda levels, scale: (levels, scale), network, Path(folder), precision)
        return {tensor.name: _digest(tensor) for tensor in onnx.load(str(case.onnx)).graph.initializer}


def _digest(tensor: onnx.TensorProto) -> bytes:
    return sha256(tensor.SerializeToString()).digest()


def from_onnxruntime(network: Foreign, folder: Path, **told: Any) -> Planted:
    """The Q/DQ file that onnxruntime writes."""
    return Planted(by_onnxruntime(network, folder, **told))


def from_onnxruntime_with(change: Callable[[ModelProto], frozenset[str]], network: Foreign, folder: Path) -> Planted:
    """The Q/DQ file that onnxruntime writes, with a defect in it."""
    return _edited_file(change, Planted(by_onnxruntime(network, folder)))


def halves(network: Foreign, folder: Path) -> Planted:
    """The fp16 file that onnxconverter-common writes."""
    from onnxconverter_common import float16

    proto = float16.convert_float_to_float16(onnx.load(network.onnx), keep_io_types=True)
    return Planted(network.deployed(proto, folder))


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
    held = _held(proto)
    found = []
    for node in proto.graph.node:
        name = _stored_behind(proto, node.input[1]) if node.op_type in MULTIPLY else ""
        if name in held and len(held[name].dims) > 1 and max(held[name].dims) > 3:
            found.append((node, name))
    node, name = found[len(found) // 2]
    values = numpy_helper.to_array(held[name]).copy()
    moved = np.moveaxis(values, 0 if _rows_first(node) else -1, 0)
    moved[: max(1, len(moved) // 4)] = 0
    held[name].CopyFrom(numpy_helper.from_array(values, name))
    return _around(proto.graph.node, {name})


def small_scale(proto: ModelProto) -> frozenset[str]:
    """The scale of the middle one of the quantised tensors is a twentieth; says where."""
    held, inputs = _held(proto), {value.name for value in proto.graph.input}
    nodes = [n for n in proto.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in {*held, *inputs}]
    chosen = nodes[len(nodes) // 2]
    scale = held[chosen.input[1]]
    smaller = np.asarray(numpy_helper.to_array(scale) * np.float32(0.05), np.float32)
    scale.CopyFrom(numpy_helper.from_array(smaller, scale.name))
    return frozenset([chosen.input[0]])


def dead_rows(count: int, network: Foreign, folder: Path) -> Planted:
    """The weights of convolutions with ``count`` output channels, the classes of a detector, are zero.

    Raises:
        NoPlace: there are none.
    """
    proto = network.proto()
    held = _held(proto)
    found = [node for node in matrix_nodes(proto) if node.op_type == "Conv" and held[node.input[1]].dims[0] == count]
    if not found:
        raise NoPlace(f"no convolution has {count} channels")
    for node in found:
        change_weight(proto, node.input[1], np.zeros_like)
    names = {str(node.input[1]) for node in found}
    outputs = {value.name for value in proto.graph.output}
    return Planted(network.deployed(proto, folder), _around(proto.graph.node, names) | outputs)


def still_slice(network: Foreign, folder: Path) -> Planted:
    """One slice of an output stands still, of those that move the one in the middle.

    Raises:
        NoPlace: no output has slices.
    """
    outputs = _values(network, [value.name for value in network.proto().graph.output])
    name, axis, array = _sliced(outputs)
    slices = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1).astype(np.float64)
    spread = slices.std(1)
    moving = np.flatnonzero(spread > 1e-3 * spread.max())
    chosen = moving[np.argsort(spread[moving])[len(moving) // 2]]
    keep = np.ones([array.shape[axis] if place == axis else 1 for place in range(array.ndim)], np.float32)
    keep[tuple(chosen if place == axis else 0 for place in range(array.ndim))] = 0
    proto = network.proto()
    _store(proto, "slice/keep", keep)
    _store(proto, "slice/still", ((1 - keep) * slices[chosen].mean()).astype(np.float32))

    def nodes(before: str, after: str) -> list[NodeProto]:
        return [
            helper.make_node("Mul", [before, "slice/keep"], [f"{after}/kept"], "slice_kept"),
            helper.make_node("Add", [f"{after}/kept", "slice/still"], [after], "slice_filled"),
        ]

    through(proto, name, nodes)
    return Planted(network.deployed(proto, folder), frozenset([name]))


def _sliced(outputs: dict[str, NDArray[Any]]) -> tuple[str, int, NDArray[Any]]:
    """The first float output with slices that no symbolic axis counts: along axis 1, or the last of more than three."""
    for name, array in outputs.items():
        if _is_float(array) and array.ndim > 1 and array.size:
            axis = 1 if array.ndim == 2 or array.shape[1] < array.shape[-1] < 10 * array.shape[1] ** 2 else -1
            axis = 1 if array.shape[1] == 22 else axis % array.ndim
            return name, axis, array
    raise NoPlace("no output has slices")


def few_overflow(network: Foreign, folder: Path) -> Planted:
    """A layer's weights are scaled up and what it gives is scaled down: few golden samples overflow in fp16."""
    proto = network.proto()
    chosen = _middle(proto)
    factor = _between_samples(network, chosen.output[0])
    for name in chosen.input[1:]:
        change_weight(proto, name, lambda values: (values * np.float32(factor)).astype(np.float32))
    _scaled_down(proto, chosen.output[0], factor)
    tensors = _around(proto.graph.node, {chosen.output[0]}) | {chosen.name}
    return _with_own_golden(proto, network, folder, tensors)


def swallowed(network: Foreign, folder: Path) -> Planted:
    """The same before an operator that makes a finite number of infinity.

    Raises:
        NoPlace: there is none.
    """
    proto = network.proto()
    computed = {name for node in proto.graph.node for name in node.output}
    kinds = ("Sigmoid", "Softmax", "HardSigmoid", "Tanh", "Erf")
    found = [node for node in proto.graph.node if node.op_type in kinds and node.input[0] in computed]
    if not found:
        raise NoPlace("nothing swallows an infinity")
    node = found[len(found) // 2]
    tensor, before = node.input[0], f"{node.input[0]}/bounded"
    factor = _between_samples(network, tensor)
    _store(proto, "bounded/up", np.float32(factor))
    _store(proto, "bounded/down", np.float32(1 / factor))
    place = list(proto.graph.node).index(node)
    node.input[0] = before
    proto.graph.node.insert(place, helper.make_node("Mul", [f"{before}/large", "bounded/down"], [before], "bound_down"))
    proto.graph.node.insert(place, helper.make_node("Mul", [tensor, "bounded/up"], [f"{before}/large"], "bound_up"))
    return _with_own_golden(proto, network, folder, frozenset([f"{before}/large", "bound_up"]))


def flushed(network: Foreign, folder: Path) -> Planted:
    """What a layer gives is made so small that fp16 has nothing but zero for it, and large again."""
    proto = network.proto()
    tensor = _middle(proto).output[0]
    largest = np.abs(_values(network, [tensor])[tensor]).max()
    rescale_between(proto, tensor, 1e-9 / float(largest))
    return _with_own_golden(proto, network, folder, frozenset([f"{tensor}/after/large", "scale_up"]))


def healthy_scaled(network: Foreign, folder: Path) -> Planted:
    """A layer scaled up and down again within what fp16 holds."""
    proto = network.proto()
    chosen = _middle(proto)
    for name in chosen.input[1:]:
        change_weight(proto, name, lambda values: (values * np.float32(4)).astype(np.float32))
    _scaled_down(proto, chosen.output[0], 4.0)
    return _with_own_golden(proto, network, folder, frozenset())


def large_constant(network: Foreign, folder: Path) -> Planted:
    """A large number is added to what a layer gives, and taken away: what is left is rounded to steps of its size."""
    proto = network.proto()
    tensor = _middle(proto).output[0]
    values = _values(network, [tensor])[tensor].astype(np.float64)
    large = float(np.sqrt(np.mean(values**2))) * 1024
    _store(proto, "large", np.float32(large))

    def nodes(before: str, after: str) -> list[NodeProto]:
        return [
            helper.make_node("Add", [before, "large"], [f"{after}/large"], "add_large"),
            helper.make_node("Sub", [f"{after}/large", "large"], [after], "subtract_large"),
        ]

    through(proto, tensor, nodes)
    named = frozenset([f"{tensor}/after/large", f"{tensor}/after", "add_large", "large"])
    return _with_own_golden(proto, network, folder, named)


def hardly_quantised(network: Foreign, folder: Path) -> Planted:
    """A Q/DQ file of which only the smallest layer is int8."""
    return Planted(with_pairs(dict, network, folder, keep=lambda proto: _by_size(proto)[1:]))


def smallest_kept(network: Foreign, _: Path) -> Planted:
    """The smallest layer stays in fp32, and the case says so."""
    return Planted(replace(network.case, keep=tuple(_by_size(network.proto())[:1])))


def _by_size(proto: ModelProto) -> list[str]:
    """What layers compute, those with the fewest weights first."""
    held = _held(proto)
    nodes = [node for node in proto.graph.node if node.op_type in MULTIPLY and node.input[1] in held]
    return [str(node.output[0]) for node in sorted(nodes, key=lambda node: np.prod(held[node.input[1]].dims))]


def swapped(network: Foreign, folder: Path) -> Planted:
    """Two outputs of one shape under each other's name.

    Raises:
        NoPlace: no two are of one shape.
    """
    proto = network.proto()
    by_shape: dict[str, list[str]] = {}
    for name, array in _values(network, [value.name for value in proto.graph.output]).items():
        by_shape.setdefault(f"{array.dtype}{array.shape}", []).append(name)
    first, second = next(iter(names for names in by_shape.values() if len(names) > 1), ("", ""))[:2]
    if not first:
        raise NoPlace("no two outputs are of one shape")
    swap_producers(proto, first, second)
    return Planted(network.deployed(proto, folder), frozenset([first, second]))


def other_inputs(network: Foreign, folder: Path) -> Planted:
    """The case names other inputs than the golden has."""
    names = {name: array for name, array in network.inputs.items() if array.ndim}
    changed = {name: network.source.axes.get(name, 0) or 0 for name in names}
    rolled = {name: np.flip(array, changed[name]) for name, array in names.items()}
    np.savez(folder / "inputs.npz", **{**network.inputs, **rolled})
    return Planted(replace(network.case, inputs=str(folder / "inputs.npz")))


def changed_labels(network: Foreign, folder: Path) -> Planted:
    """The case names other true classes than the golden has.

    Raises:
        NoPlace: the network has none.
    """
    if not network.case.labels:
        raise NoPlace("no labels")
    np.save(folder / "labels.npy", 1 - np.load(network.case.labels))
    return Planted(replace(network.case, labels=str(folder / "labels.npy")))


def missing(key: str, network: Foreign, folder: Path) -> Planted:
    """A file that the case names is not there.

    Raises:
        NoPlace: the case names none.
    """
    if getattr(network.case, key) is None:
        raise NoPlace(f"the case has no {key}")
    return Planted(replace(network.case, **{key: str(folder / f"{key}.npz")}))


def _with_own_golden(proto: ModelProto, network: Foreign, folder: Path, tensors: frozenset[str]) -> Planted:
    golden = str(folder / "own.safetensors")
    case = replace(network.deployed(proto, folder), reference=None, golden=golden)
    return Planted(case, tensors, own_golden=True)


def _middle(proto: ModelProto) -> NodeProto:
    nodes = matrix_nodes(proto)
    return nodes[len(nodes) // 2]


def _scaled_down(proto: ModelProto, tensor: str, factor: float) -> None:
    _store(proto, "scaled/down", np.float32(1 / factor))
    through(
        proto,
        tensor,
        lambda before, after: [helper.make_node("Mul", [before, "scaled/down"], [after], "scaled_down")],
    )


def _between_samples(network: Foreign, tensor: str) -> float:
    """What makes the largest of few golden samples overflow in fp16, and none of the others."""
    values = np.abs(_values(network, [tensor])[tensor]).astype(np.float64)
    count = network.source.golden
    largest = np.sort(values.reshape(count, -1).max(1))[::-1] if len(values) % count == 0 else values.reshape(-1)
    steps = largest[:-1] / largest[1:]
    last = int(np.argmax(steps[: max(1, count // 4)]))
    return float(LARGEST_HALF / np.sqrt(largest[last] * largest[last + 1]))


def _values(network: Foreign, tensors: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Tensors of the healthy network on the golden inputs."""
    import onnxruntime

    proto = network.proto()
    given = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in given)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(tensors, session.run(list(tensors), network.inputs), strict=True))


def _held(proto: ModelProto) -> dict[str, onnx.TensorProto]:
    constants = [node.attribute[0].t for node in proto.graph.node if node.op_type == "Constant" and node.attribute]
    names = [node.output[0] for node in proto.graph.node if node.op_type == "Constant" and node.attribute]
    return {tensor.name: tensor for tensor in proto.graph.initializer} | dict(zip(names, constants, strict=True))


def _stored_behind(proto: ModelProto, name: str) -> str:
    """What is stored behind a DequantizeLinear or a Cast."""
    made = next((node for node in proto.graph.node if name in node.output), None)
    return str(made.input[0]) if made is not None and made.op_type in ("DequantizeLinear", "Cast") else name


def _rows_first(node: NodeProto) -> bool:
    return node.op_type == "Conv" or any(a.name == "transB" and a.i for a in node.attribute)


def _around(nodes: Sequence[NodeProto], names: set[str]) -> frozenset[str]:
    """The tensors, and what is read from them by a DequantizeLinear or Cast, and by the layer behind."""
    for _ in range(2):
        kinds = ("DequantizeLinear", "Cast")
        names = names | {node.output[0] for node in nodes if node.op_type in kinds and names & set(node.input)}
    layers = [node for node in nodes if node.op_type in MULTIPLY and names & set(node.input)]
    return frozenset(names | {name for node in layers for name in (node.name, node.output[0]) if name})


def _is_float(array: NDArray[Any]) -> bool:
    return bool(array.dtype.kind == "f")


def _store(proto: ModelProto, name: str, value: Any) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


zeros_by_onnxruntime = partial(from_onnxruntime_with, zero_channels)
scale_by_onnxruntime = partial(from_onnxruntime_with, small_scale)
