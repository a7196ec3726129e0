"""Envelope: the error that a correct implementation at a precision is expected to have on these inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.backends.backend import DEFAULT, choose
from pytest_trt.backends.onnxruntime import open_backend
from pytest_trt.backends.recipe import Recipe, sampled
from pytest_trt.comparison.comparison import compare
from pytest_trt.comparison.tolerance import SLACK, floor, toml_key
from pytest_trt.errors import LoweringError, PytestTrtError
from pytest_trt.golden._partition import BLIND, ROOM, error_of, partition, saturating
from pytest_trt.golden._reassociation import reassociated
from pytest_trt.golden.folds import folded, widened
from pytest_trt.golden.index_outputs import IndexOutputs, Simulation, reach
from pytest_trt.golden.overflow import Settled, recorded, settle
from pytest_trt.lowering.casts import fp16_sandwich, fp32_ends
from pytest_trt.lowering.lowering import at_opset, held_precision
from pytest_trt.lowering.placement import kept_in_fp32
from pytest_trt.model.external_data import scratch
from pytest_trt.model.feeds import is_float, period_of
from pytest_trt.model.graph import MATRIX_OPERANDS, constants, fresh, opset
from pytest_trt.model.model import Model
from pytest_trt.model.onnx_session import open_session, run
from pytest_trt.precision import Precision
from pytest_trt.storage.entry_point import blame

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from onnx import ModelProto, NodeProto

    from pytest_trt.backends.onnxruntime import OnnxruntimeEngine
    from pytest_trt.calibration.calibration import Progress
    from pytest_trt.golden._partition import PartError
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.ranges.amax import Ranges

__all__ = ["MOST_UNEQUAL", "Kept", "envelope_of", "fp16_accumulated", "provable", "simulate", "takes_anything"]

_AT_ONCE = 16  # products that a matrix unit adds before it rounds
_LONGEST = 4608  # the longest sum that was measured in fp16; longer ones are split, and their parts added in fp32
_TURNS = 41.0  # of the sine, per standard deviation of the error


def fp16_accumulated(model: ModelProto, kept: frozenset[str] = frozenset()) -> ModelProto:
    """The cast sandwich of fp16, with the error of fp16 accumulation added to every sum of more than 16 products.

    Sums of whose factors neither is stored (products of two activations, weights that are computed first), and those in
    subgraphs, are left as they are; so are those of nodes that stay in fp32, told by what they compute.

    Raises:
        LoweringError: the type of a tensor can't be inferred.
    """
    copy = fp16_sandwich(model, kept)
    held, name = constants(copy), fresh(copy)
    nodes: list[NodeProto] = []
    for node in copy.graph.node:
        nodes.append(node)
        roundings = math.ceil(min(_products(node, held), _LONGEST) / _AT_ONCE)
        if roundings > 1 and kept.isdisjoint(node.output):
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
    shape = tuple(held[node.input[stored[0]]].dims)
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


MOST_UNEQUAL = 0.9
"""A bound that takes this share of unequal elements judges nothing."""

_SAME = 1e-5


def envelope_of(
    reference: Model,
    inputs: list[Arrays],
    precisions: Sequence[Precision],
    batch: int | None,
    progress: Progress | None = None,
    kept: Kept | None = None,
    judged: Collection[str] | None = None,
    computed: list[Arrays] | None = None,
    rounded: Model | None = None,
) -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, str], dict[str, dict[str, Any]]]:
    """Simulate each precision on the inputs, calibrated on them too, and measure it against fp32.

    Nodes at which a simulation overflows stay in fp32 for it, so that no bound is made of a broken one.

    Args:
        reference: the fp32 model.
        inputs: runs of arrays by input name.
        precisions: which to simulate.
        batch: the most samples at once where the first axis is dynamic.
        progress: told what is going on.
        kept: which nodes stay in fp32 as the case says.
        judged: the outputs that are measured; all if not given.
        computed: the reference's fp32 outputs, one set a run, where it has run already.
        rounded: the same network with the weights that a file stores in few bits, which is simulated in its place.

    Returns:
        By precision and output: ``error`` (relative RMS; for integer outputs the share that differs; of
        several runs the largest) and ``bound`` = 2.5 x error + floor; where the precision takes ranges, of the error
        with those of either half of the inputs too (:mod:`pytest_trt.golden.folds`). Of integer outputs also ``reach``,
        what :func:`~pytest_trt.golden.index_outputs.reach` says, and of indices ``near``, how far apart the values that
        they pick may be to be a near tie. Why a precision has none. And what overflows in a precision, as
        :func:`pytest_trt.golden.overflow.recorded` tells it.
    """
    computed = computed or [simulate(reference, Precision.FP32, run, batch) for run in inputs]
    exact = [_only(outputs, judged) for outputs in computed]
    indices = IndexOutputs(reference, batch)
    envelope: dict[str, dict[str, dict[str, Any]]] = {}
    refused: dict[str, str] = {}
    overflown: dict[str, dict[str, Any]] = {}
    taken: dict[tuple[str, ...], list[Ranges]] = {}
    kept, network = kept or Kept(), rounded or reference
    for number, precision in enumerate(precisions):
        if progress:
            progress(f"{reference.source}: simulating {precision.label}", number / len(precisions))
        try:
            with scratch():  # weights of one precision lie on the disk at a time
                model = at_opset(network, precision)
                _require_same_network(model, network, inputs, None if rounded else exact, batch)
                is_done = precision is Precision.FP32 and kept == Kept() and rounded is None
                ours = (model, precision, inputs, batch, kept, [] if rounded else exact)
                settled = _exactly(model, computed) if is_done else _settled(*ours)
                overflown |= {precision.label: record} if (record := recorded(settled)) else {}
                _require_settled(settled, precision)
                keep = replace(kept, keep=(*kept.keep, *settled.keep))
                roads = [Simulation(precision, settled.model or model, settled.outputs)]
                if precision is Precision.FP32 and rounded is None:
                    again = reassociated(reference, inputs, exact, batch)
                    roads += [Simulation(precision, model, outputs) for outputs in again]
                roads += _accumulated(model, precision, inputs, batch, keep) if settled.lowers else ()
                halves = folded(model, precision, inputs, batch, keep.keep, keep.ops, taken)
                envelope[precision.label] = _entries(model, precision, roads, halves, inputs, exact, indices)
        except PytestTrtError as error:
            refused[precision.label] = str(error)
        except Exception as error:  # a fault of ours at one precision leaves the others
            refused[precision.label] = f"a fault of pytest-trt, please report it: {blame(error)}"
    if progress:
        progress("", None)
    return envelope, refused, overflown


@dataclass(frozen=True)
class Kept:
    """What a case keeps in fp32.

    Attributes:
        keep: nodes, each by its name or by a tensor that it computes.
        ops: kinds of operators that are lowered, all others being kept; if none, nothing is kept by its kind.
    """

    keep: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()


def _exactly(model: Model, computed: list[Arrays]) -> Settled:
    """What settling fp32 would say: the golden is made of it, nothing is lowered and nothing overflows."""
    return Settled(computed, (), None, (), model=model)


def _settled(
    model: Model, precision: Precision, inputs: list[Arrays], batch: int | None, kept: Kept, exact: list[Arrays]
) -> Settled:
    calibration = sampled(model, lambda _: inputs, "the golden's inputs", batch)

    def build(more: tuple[str, ...]) -> OnnxruntimeEngine:
        keep = (*kept.keep, *more)
        return open_backend().build(Recipe(model, precision, calibration, batch, keep=keep, ops=kept.ops))

    return settle(model, build, inputs, batch, exact=exact)


def _require_settled(settled: Settled, precision: Precision) -> None:
    found = settled.overflow
    if found is not None and not settled.keep and settled.lowers:
        raise LoweringError(
            f"simulated at {precision}, tensor {found.tensor!r} of node {found.node!r} is not finite, or lost, where"
            f" fp32 is not, and keeping nodes in fp32 does not mend it: this model overflows at {precision}."
        )


def provable(
    envelope: Mapping[str, Mapping[str, Mapping[str, Any]]],
    refused: Mapping[str, str],
    moved: Mapping[str, float | None],
) -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, str]]:
    """Keep only bounds that a broken engine would miss.

    An engine that is blind to its input and answers the mean of the golden has exactly the error by which the
    output moves (std over samples / RMS). A bound stays under 0.8 of that; where this leaves less than 1.25 x the
    simulated error, or the bound would take any output at all, it can't be judged at the precision on this golden.
    Whole numbers can't be where nine in ten may be wrong, or nearly as many as in the answer for another sample.
    An output of which one part can't be judged has no bound at all, since the bounds of the others say nothing of it.

    Args:
        envelope: by precision and output, from :func:`envelope_of`.
        refused: why a precision has none.
        moved: movement by float output; those that may stand still are left out.
    """
    kept: dict[str, dict[str, dict[str, Any]]] = {}
    reasons = dict(refused)
    for precision, entries in envelope.items():
        capped = {name: _capped(entry, _moved(name, entry, moved)) for name, entry in entries.items()}
        weak = [name for name, entry in capped.items() if entry["bound"] < ROOM * entry["error"]]
        useless = [name for name, entry in capped.items() if takes_anything(entry)]
        if weak or useless:
            reasons[precision] = _too_weak((weak or useless)[0], precision, entries, moved)
        lost = {_output(name, entries[name]) for name in (*weak, *useless)}
        if left := {name: entry for name, entry in capped.items() if _output(name, entry) not in lost}:
            kept[precision] = left
    return kept, reasons


def _output(name: str, entry: Mapping[str, Any]) -> str:
    """The output that an entry tells of, whole or in part."""
    output: str = entry.get("part", {}).get("output", name)
    return output


def takes_anything(entry: Mapping[str, float]) -> bool:
    """Whether a bound judges nothing: it takes any floats, or nearly all whole numbers of another sample's answer."""
    if "reach" not in entry:
        return not entry["bound"] < 1
    return not entry["bound"] < MOST_UNEQUAL or SLACK * entry["error"] >= MOST_UNEQUAL * entry["reach"]


def simulate(model: Model, precision: Precision, inputs: Arrays, batch: int | None) -> Arrays:
    """Outputs of the model at a precision, simulated, int8 and fp8 calibrated on these very inputs."""
    return _simulate_all(model, precision, [inputs], batch)[0]


def _simulate_all(model: Model, precision: Precision, inputs: list[Arrays], batch: int | None) -> list[Arrays]:
    calibration = sampled(model, lambda _: inputs, "the golden's inputs", batch)
    engine = choose(DEFAULT).build(Recipe(model, precision, calibration, batch))
    return [engine.run(run) for run in inputs]


def _accumulated(
    model: Model, precision: Precision, inputs: list[Arrays], batch: int | None, kept: Kept
) -> Iterator[Simulation]:
    """Outputs with sums accumulated in fp16, which is right for an engine too; of fp16 alone, where there are any."""
    if precision is Precision.FP16 and held_precision(model.proto) == "fp32":
        tensors = kept_in_fp32(model.proto, precision, kept.keep, kept.ops)
        noisy = Model(fp32_ends(fp16_accumulated(model.proto, tensors)), model.source)
        session = open_session(noisy.proto, noisy.source)
        yield Simulation(precision, noisy, [run(session, noisy, feeds, batch) for feeds in inputs])


def _only(outputs: Arrays, names: Collection[str] | None) -> Arrays:
    return outputs if names is None else {name: array for name, array in outputs.items() if name in names}


def _of_whole(
    road: Simulation, inputs: list[Arrays], exact: list[Arrays], indices: IndexOutputs
) -> dict[str, dict[str, Any]]:
    """The entries of whole numbers by one simulation; indices are wrong where they are no near ties, lists by rows."""
    widths = indices.widths(road, inputs, exact)
    pairs = [
        indices.settled(low, high, feeds, widths, number)
        for number, (low, high, feeds) in enumerate(zip(road.outputs, exact, inputs, strict=True))
    ]
    entries: dict[str, dict[str, Any]] = {}
    for name in (name for name, array in exact[0].items() if not is_float(array.dtype)):
        found = [(pair.actual[name], pair.reference[name]) for pair in pairs]
        alike = all(low.shape == high.shape for low, high in found)
        error = max(_error(low, high, whole=True) for low, high in found) if alike else math.inf
        bound = SLACK * error + floor(road.precision.unit_roundoff, whole=True, count=min(h.size for _, h in found))
        entries[name] = {"error": error, "bound": bound}
        entries[name] |= {"reach": 1.0 if name in indices.lists else reach(exact, name)} if alike else {}
        entries[name] |= {"near": widths[name]} if name in widths else {}
    return entries


def _widest(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of several roads, the entry of the largest bound, and the widest near tie."""
    near = {"near": max(entry["near"] for entry in entries)} if all("near" in entry for entry in entries) else {}
    return {**max(entries, key=lambda entry: float(entry["bound"])), **near}


def _require_same_network(
    model: Model, reference: Model, inputs: list[Arrays], exact: list[Arrays] | None, batch: int | None
) -> None:
    """onnx's version converter changes what some operators compute (Resize, Hardmax): see that it did not."""
    if model is reference:
        return
    exact = exact or _simulate_all(reference, Precision.FP32, inputs, batch)
    for converted, before in zip(_simulate_all(model, Precision.FP32, inputs, batch), exact, strict=True):
        for name, array in before.items():
            error = _error(converted[name], array, whole=not is_float(array.dtype))
            if not error <= _SAME:
                raise LoweringError(
                    f"raising the opset for this precision changes the network: output {name!r} moves by {error:.2g}."
                    f" Export the model again at opset {opset(model.proto)} or later"
                )


def _entries(
    model: Model,
    precision: Precision,
    roads: list[Simulation],
    folds: Iterable[Simulation],
    inputs: list[Arrays],
    exact: list[Arrays],
    indices: IndexOutputs,
) -> dict[str, dict[str, Any]]:
    """By part of an output: the largest error over all simulations that are right, and the bound that follows.

    Folds widen the bound; one that overflows where the golden's own calibration does not tells nothing.
    """
    entries: dict[str, dict[str, Any]] = {}
    probabilities = saturating(model.proto, precision)
    halves = list(folds)
    whole, half = ([_of_whole(road, inputs, exact, indices) for road in some] for some in (roads, halves))
    for name in exact[0]:
        if name in whole[0]:
            entries[name] = widened(_widest([one[name] for one in whole]), [one[name]["bound"] for one in half])
            continue
        values = [[low[name] for low in road.outputs] for road in roads]
        wanted = [high[name] for high in exact]
        if any(low.shape != high.shape for road in values for low, high in zip(road, wanted, strict=True)):
            entries[name] = {"error": math.inf, "bound": math.inf}
            continue
        period = period_of(wanted, inputs, model.inputs)
        for found in partition(name, values, wanted, probabilities.get(name, 0.0), period):
            errors = [error_of(found.part, [low[name] for low in fold.outputs], wanted) for fold in halves]
            bounds = [_bound(error, precision) for error in errors if error < math.inf]
            entries[found.part.name] = widened(_entry(found, precision), bounds)
    return entries


def _entry(found: PartError, precision: Precision) -> dict[str, Any]:
    if not found.error < math.inf:
        raise LoweringError(
            f"simulated at {precision}, output {found.part.output!r} is NaN or infinite where fp32 is not:"
            f" this model overflows at {precision}."
        )
    told = {} if found.part.whole else {"part": found.part.as_table(), "moved": found.moved}
    return {"error": found.error, "bound": _bound(found.error, precision), **told}


def _bound(error: float, precision: Precision) -> float:
    return SLACK * error + floor(precision.unit_roundoff, whole=False)


def _moved(name: str, entry: Mapping[str, Any], moved: Mapping[str, float | None]) -> float | None:
    """What a part moves by; None where its output may stand still."""
    if "part" not in entry:
        return moved.get(name)
    found: float | None = entry["moved"] if moved.get(entry["part"]["output"]) is not None else None
    return found


def _capped(entry: Mapping[str, Any], moved: float | None) -> dict[str, Any]:
    return {**entry, "bound": entry["bound"] if moved is None else min(entry["bound"], BLIND * moved)}


def _too_weak(
    name: str, precision: str, entries: Mapping[str, Mapping[str, Any]], moved: Mapping[str, float | None]
) -> str:
    """Why no bound is given, and what to do, without a stop."""
    output = _output(name, entries[name])
    others = any(_output(other, entry) != output for other, entry in entries.items())
    error, leave = entries[name]["error"], f'(ignore_outputs = ["{output}"])'
    if math.isinf(error):
        return (
            f"output {name!r} has another shape simulated at {precision} than in fp32: how many rows it has depends on"
            f" values. Leave it out {leave} and judge what it is taken from"
        )
    if "reach" in entries[name]:
        return (
            f"a correct implementation has {error:.2g} of the elements of {name!r} wrong, and a bound beyond that takes"
            f" any answer, so that it judges nothing. Leave it out {leave} and judge what it is taken from, or set a"
            f" limit of your own (tolerance.{precision}.outputs.{toml_key(name)} = {{ mismatch = ... }})"
        )
    still = _moved(name, entries[name], moved)
    told = "" if still is None else f", while the output itself moves by only {still:.2g} over the samples"
    return (
        f"a correct implementation errs on {name!r} by {error:.2g} of its size{told}: no bound tells it from a broken"
        " one. Give inputs that move the output more, or keep this model at a finer precision"
        f"{f', or leave the output out {leave}' if others else ''}"
    )


def _error(lowered: object, exact: object, *, whole: bool) -> float:
    return compare(lowered, exact).error(whole=whole)  # type: ignore[arg-type]
