"""Index outputs: near ties told by the values that indices pick, and lists of indices of any length as sets of rows.

TopK, ArgMax and ArgMin choose between values; where two of these are as near as the precision's error, another choice
is as right as the golden's. NonZero and NonMaxSuppression give as many rows as they find: one more shifts the rest.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from pytest_trt.comparison.tolerance import SLACK, floor
from pytest_trt.golden._traced import Traced
from pytest_trt.model.feeds import conform, is_float, split
from pytest_trt.model.graph import fresh, with_outputs
from pytest_trt.model.model import Model
from pytest_trt.model.onnx_session import open_session, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    from pytest_trt.model.feeds import Arrays
    from pytest_trt.precision import Precision

__all__ = ["NEAR_TIE", "Aligned", "IndexOutputs", "Simulation", "aligned", "is_counted", "reach"]

NEAR_TIE = 4.0
"""How many allowed errors two values may be apart to be a near tie: each of the two may err, in either direction."""

_TELLING = 0.5
_PICKS = {"TopK": 1, "ArgMax": 0, "ArgMin": 0}  # by operator, which of its outputs are the indices
_LISTS = ("NonZero", "NonMaxSuppression", "Unique", "Compress")
_MOVES = (
    "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice", "Gather", "GatherND",
    "GatherElements", "Split", "Expand", "Tile",
)  # fmt: skip
"""Operators that carry the values of their first input elsewhere and change none."""


@dataclass(frozen=True)
class Pick:
    """An output whose elements are indices along an axis of a tensor.

    Attributes:
        node: that picks: TopK, ArgMax or ArgMin.
        indices: the tensor of indices that it gives.
        axis: of the tensor that it reads, counted as the node counts.
        dropped: whether that axis is not among those of the indices.
        moves: outputs of the operators that carry the indices to the output.
    """

    node: NodeProto
    indices: str
    axis: int
    dropped: bool
    moves: frozenset[str]

    @property
    def tensor(self) -> str:
        """The tensor that is indexed."""
        return str(self.node.input[0])


@dataclass(frozen=True)
class List:
    """An output of as many rows as are found, along an axis; None where nobody knows which one."""

    axis: int | None


@dataclass(frozen=True)
class Simulation:
    """A simulated run.

    Attributes:
        precision: that is simulated.
        model: lowered to it, as it ran.
        outputs: of it, one set a run.
    """

    precision: Precision
    model: Model
    outputs: list[Arrays]


@dataclass(frozen=True)
class Aligned:
    """Outputs that may be compared element by element.

    Attributes:
        actual: by name, with the golden's index wherever the values are a near tie, and the rows of lists in its order.
        reference: the golden's, lists with a row of -1 for each that only the other side has.
        ties: by output of indices, how many elements differ and are near ties.
    """

    actual: Arrays
    reference: Arrays
    ties: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Table:
    """Values that an output's elements choose from.

    Attributes:
        values: a row for each choice, a column for each index.
        rows: of the output's shape: which row each element chose from.
        apart: whether the elements that chose from one row must differ, as those of TopK.
    """

    values: NDArray[Any]
    rows: NDArray[np.int64]
    apart: bool

    def picked(self, indices: NDArray[Any]) -> NDArray[np.float64]:
        """The value that each element picks; NaN where there is no such index."""
        inside = (indices >= 0) & (indices < self.values.shape[1])
        found: NDArray[Any] = self.values[self.rows, np.where(inside, indices, 0)].astype(np.float64)
        return np.where(inside, found, np.nan)

    @property
    def sizes(self) -> NDArray[np.float64]:
        """RMS of the row that each element chose from, so that a loud row opens no quiet one."""
        values = np.where(np.isfinite(self.values), self.values, 0).astype(np.float64)
        found: NDArray[np.float64] = np.sqrt(np.mean(values**2, axis=1))[self.rows]
        return found

    def near(self, actual: NDArray[Any], reference: NDArray[Any], width: float) -> NDArray[np.bool_]:
        """Which elements differ and pick a value that is as good: as near as a share of the row's size."""
        other, wanted = self.picked(actual), self.picked(reference)
        with np.errstate(invalid="ignore"):
            alike = (np.abs(other - wanted) <= width * self.sizes) | (other == wanted)
        found: NDArray[np.bool_] = (actual != reference) & alike
        return found & ~self._repeated(actual) if self.apart else found

    def _repeated(self, indices: NDArray[Any]) -> NDArray[np.bool_]:
        """Elements whose index an earlier one of the same row has."""
        keys = np.stack([self.rows.reshape(-1), indices.reshape(-1).astype(np.int64)])
        _, first = np.unique(keys, axis=1, return_index=True)
        repeated = np.ones(indices.size, bool)
        repeated[first] = False
        return repeated.reshape(indices.shape)


class IndexOutputs:
    """The outputs of a network in fp32 that are indices.

    Attributes:
        picks: by output that TopK, ArgMax or ArgMin computes, how.
        lists: outputs that hold as many rows as NonZero, NonMaxSuppression or the like find, by name.
    """

    def __init__(self, model: Model, batch: int | None = None) -> None:
        makers = {name: node for node in model.proto.graph.node for name in node.output if name}
        whole = [spec.name for spec in model.outputs if not is_float(spec.dtype)]
        traced = {name: _trace(name, makers) for name in whole}
        self.picks = {name: pick for name, pick in traced.items() if isinstance(pick, Pick)}
        self.lists = {name: found for name, found in traced.items() if isinstance(found, List)}
        self._model, self._batch = model, batch
        self._tables: dict[tuple[str, int], _Table] = {}

    def widths(self, simulation: Simulation, feeds: Sequence[Arrays], exact: Sequence[Arrays]) -> dict[str, float]:
        """By output, how far apart two values may be to be a near tie at a precision, as a share of their row's RMS.

        It is the error of the simulated run at the values that it and fp32 pick, with the slack of a bound. Where that
        is so wide that half of another sample's answers would be near ties, it tells nothing and is left out.

        Args:
            simulation: of the precision.
            feeds: runs of arrays by input name.
            exact: fp32's outputs, one set a run.
        """
        pairs = list(zip(simulation.outputs, exact, strict=True))
        asked = [name for name in self.picks if name in exact[0]]
        same = [name for name in asked if all(low[name].shape == high[name].shape for low, high in pairs)]
        found = {name: self._width(name, simulation, feeds, exact) for name in same}
        return {name: width for name, width in found.items() if self._tells(name, width, feeds, exact)}

    def _tells(self, name: str, width: float, feeds: Sequence[Arrays], exact: Sequence[Arrays]) -> bool:
        """Whether another sample's answer stays wrong, near ties or not."""
        wrong = left = 0
        for number, (arrays, outputs) in enumerate(zip(feeds, exact, strict=True)):
            own = outputs[name]
            other = np.roll(own, 1, axis=0) if own.ndim else own
            near = self._table(name, number, arrays).near(other, own, width)
            wrong, left = wrong + int((other != own).sum()), left + int(((other != own) & ~near).sum())
        return left >= _TELLING * wrong

    def _width(self, name: str, simulation: Simulation, feeds: Sequence[Arrays], exact: Sequence[Arrays]) -> float:
        errors = []
        for number, (arrays, low, high) in enumerate(zip(feeds, simulation.outputs, exact, strict=True)):
            table = self._table(name, number, arrays)
            if not is_float(table.values.dtype):
                return 0.0
            rounded = replace(table, values=self._simulated(self.picks[name], simulation.model, arrays))
            for indices in (low[name], high[name]):
                with np.errstate(divide="ignore", invalid="ignore"):
                    errors.append((rounded.picked(indices) - table.picked(indices)) / table.sizes)
        return NEAR_TIE * (SLACK * _rms(errors) + floor(simulation.precision.unit_roundoff, whole=False))

    def _simulated(self, pick: Pick, lowered: Model, feeds: Arrays) -> NDArray[Any]:
        """The rows of values that the simulated network picks from."""
        twin = Traced(self._model.proto, lowered.proto).lowered_input(pick.node, 0)
        session = open_session(with_outputs(lowered.proto, [twin]), lowered.source)
        return np.concatenate([_as_rows(part[twin], pick) for part in _parts(session, lowered, feeds, self._batch)])

    def settled(
        self, actual: Arrays, reference: Arrays, feeds: Arrays, widths: Mapping[str, float], number: int = 0
    ) -> Aligned:
        """Outputs of a run beside the golden's, so that what still differs is wrong.

        Args:
            actual: by output name.
            reference: the golden's.
            feeds: arrays by input name, which are run in fp32 only where an index differs.
            widths: what :meth:`widths` gave.
            number: of the run.
        """
        a, r, ties = dict(actual), dict(reference), {}
        for name, found in self.lists.items():
            if name in a and name in r:
                a[name], r[name] = aligned(a[name], r[name], found.axis)
        for name, width in widths.items():
            if name not in a or name not in r or name not in self.picks or a[name].shape != r[name].shape:
                continue
            ties[name] = 0
            if not np.array_equal(a[name], r[name]):
                near = self._table(name, number, feeds).near(a[name], r[name], width)
                a[name], ties[name] = np.where(near, r[name], a[name]), int(near.sum())
        return Aligned(a, r, ties)

    def _table(self, name: str, number: int, feeds: Arrays) -> _Table:
        if (name, number) not in self._tables:
            self._tables[name, number] = self._made(name, self.picks[name], feeds)
        return self._tables[name, number]

    def _made(self, name: str, pick: Pick, feeds: Arrays) -> _Table:
        inner = Model(with_outputs(self._model.proto, [pick.tensor, pick.indices]), self._model.source)
        session = open_session(inner.proto, inner.source)
        moved = _Moved(self._model, name, pick) if pick.moves else None
        values: list[NDArray[Any]] = []
        rows: list[NDArray[np.int64]] = []
        arrays = conform(feeds, self._model.inputs, self._model.source)
        for part, fed in zip(
            _parts(session, inner, arrays, self._batch), split(arrays, self._model.inputs, self._batch), strict=True
        ):
            found = _as_rows(part[pick.tensor], pick)
            own = _rows_of(part[pick.indices].shape, part[pick.tensor].ndim, pick) + sum(map(len, values))
            rows.append(moved.run(fed, own) if moved else own)
            values.append(found)
        joined = rows[0] if len(rows) == 1 else np.concatenate([np.atleast_1d(one) for one in rows])
        return _Table(np.concatenate(values), joined, pick.node.op_type == "TopK")


class _Moved:
    """The operators between the indices and the output, run on the numbers of rows."""

    def __init__(self, model: Model, output: str, pick: Pick) -> None:
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        unread = fresh(proto)(f"{pick.indices}/unread")
        for node in proto.graph.node:
            if pick.indices in node.output:
                node.output[list(node.output).index(pick.indices)] = unread
            elif node.op_type == "Cast" and pick.moves.intersection(node.output):
                node.op_type = "Identity"  # numbers of rows may not fit what indices fit
                del node.attribute[:]
        del proto.graph.output[:], proto.graph.value_info[:]
        proto.graph.output.append(onnx.ValueInfoProto(name=output))
        proto.graph.input.append(helper.make_tensor_value_info(pick.indices, TensorProto.INT64, None))
        self._indices, self._session = pick.indices, open_session(proto, model.source)

    def run(self, feeds: Arrays, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        known = {value.name for value in self._session.get_inputs()}
        fed = {name: array for name, array in {**feeds, self._indices: rows}.items() if name in known}
        found: NDArray[np.int64] = np.asarray(self._session.run(None, fed)[0], np.int64)
        return found


def aligned(
    actual: NDArray[Any], reference: NDArray[Any], axis: int | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two lists with the rows that they share in the reference's order, and -1 where one lacks a row of the other.

    Where the axis of the rows can't be told, both are given back as they are.
    """
    axis = _list_axis(actual.shape, reference.shape, axis)
    if axis is None or actual.dtype.kind not in "iu" or reference.dtype.kind not in "iu":
        return actual, reference
    ours, theirs = ([tuple(row) for row in _as_list(array, axis)] for array in (actual, reference))
    left = Counter(ours)
    found: list[tuple[int, ...] | None] = []
    for row in theirs:
        found.append(row if left[row] > 0 else None)
        left[row] -= 1
    more = [row for row, count in left.items() for _ in range(count)]
    none = (-1,) * _as_list(reference, axis).shape[1]
    a = [row if row is not None else none for row in found] + more
    r = [*theirs, *[none] * len(more)]
    return _as_array(a, none, axis, reference), _as_array(r, none, axis, reference)


def is_counted(model: ModelProto, output: str) -> bool:
    """Whether anything before an output finds a number of rows that depends on values."""
    makers = {name: node for node in model.graph.node for name in node.output if name}
    seen: set[str] = set()
    left = [output]
    while left:
        name = left.pop()
        node = makers.get(name)
        if name in seen or node is None:
            continue
        seen.add(name)
        if node.op_type in _LISTS:
            return True
        left += node.input
    return False


def reach(outputs: Sequence[Arrays], name: str) -> float:
    """Share of the elements of a whole-number output that another sample's answer has wrong: what a blind engine gets.

    1 where that can't be told: of a single sample, or of an output that stands still.
    """
    shares = [
        float(np.mean(run_[name] != np.roll(run_[name], 1, axis=0)))
        for run_ in outputs
        if run_[name].ndim and len(run_[name]) > 1
    ]
    return max(shares, default=0.0) or 1.0


def _trace(name: str, makers: Mapping[str, NodeProto]) -> Pick | List | None:
    """What computes the indices that an output holds; None where it holds something else."""
    moves: dict[str, str] = {}
    node = makers.get(name)
    while node is not None:
        if node.op_type in _LISTS:
            return List(_axis_of_rows(node, list(moves.values())))
        if node.op_type in _PICKS:
            return _pick(node, name, frozenset(moves)) if name == node.output[_PICKS[node.op_type]] else None
        if node.op_type not in _MOVES or not node.input:
            return None
        moves[name] = node.op_type
        name = node.input[0]
        node = makers.get(name)
    return None


def _axis_of_rows(node: NodeProto, moves: Sequence[str]) -> int | None:
    if node.op_type not in ("NonZero", "NonMaxSuppression"):
        return None
    turned = moves.count("Transpose") % 2 == 1
    return int((node.op_type == "NonZero") != turned)


def _pick(node: NodeProto, indices: str, moves: frozenset[str]) -> Pick:
    told = {attribute.name: attribute.i for attribute in node.attribute}
    topk = node.op_type == "TopK"
    axis = told.get("axis", -1 if topk else 0)
    return Pick(node, indices, axis, not topk and not told.get("keepdims", 1), moves)


def _as_rows(values: NDArray[Any], pick: Pick) -> NDArray[Any]:
    moved = np.moveaxis(values, pick.axis, -1)
    return moved.reshape(-1, moved.shape[-1])


def _rows_of(shape: tuple[int, ...], axes: int, pick: Pick) -> NDArray[np.int64]:
    """For each index the row of :func:`_as_rows` that it is of."""
    axis = pick.axis % axes
    kept = shape if pick.dropped else (*shape[:axis], *shape[axis + 1 :])
    rows = np.arange(int(np.prod(kept)), dtype=np.int64).reshape(kept)
    return rows if pick.dropped else np.ascontiguousarray(np.broadcast_to(np.expand_dims(rows, axis), shape))


def _parts(session: Any, model: Model, feeds: Arrays, batch: int | None) -> Iterator[Arrays]:
    """Outputs of each piece of the samples that the model takes at once."""
    for part in split(conform(feeds, model.inputs, model.source), model.inputs, batch):
        yield run(session, model, part, batch)


def _rms(parts: Sequence[NDArray[np.float64]]) -> float:
    values = np.concatenate([part.reshape(-1) for part in parts])
    values = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0


def _list_axis(first: tuple[int, ...], second: tuple[int, ...], axis: int | None) -> int | None:
    if len(first) != len(second) or len(first) not in (1, 2):
        return None
    axes = [place for place, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    if len(first) == 1:
        return 0
    return axes[0] if len(axes) == 1 else None if axes else axis


def _as_list(array: NDArray[Any], axis: int) -> NDArray[Any]:
    moved = np.moveaxis(array, axis, 0)
    return moved.reshape(len(moved), int(np.prod(moved.shape[1:])))


def _as_array(rows: Sequence[tuple[int, ...]], none: tuple[int, ...], axis: int, like: NDArray[Any]) -> NDArray[Any]:
    found = np.array(rows, np.int64).reshape(len(rows), *(() if like.ndim == 1 else (len(none),)))
    return np.moveaxis(found, 0, axis)
