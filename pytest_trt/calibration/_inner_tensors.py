"""Inner tensors: those of a model that are looked at, in as many sessions as keep memory under a limit.

A tensor that is an output of a session stays in memory until its run ends. Where all of them together are too large,
they go in groups, each with a session that computes the network once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from pytest_trt.errors import PytestTrtError
from pytest_trt.model.feeds import samples_in, split
from pytest_trt.model.graph import fresh, with_outputs
from pytest_trt.model.onnx_session import has_fixed_batch, independent, open_session, run

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model

__all__ = ["BATCH", "InnerTensors"]

BATCH = 4
"""Samples whose activations are in memory together, where the first axis is dynamic and memory allows."""

LIMIT = 1 << 28
"""Bytes of inner tensors that are in memory together, as far as one tensor of one run is not larger."""

_COMPARED = 8  # samples, of which two are enough where more would take too much memory
_COPIES = 3  # of a tensor while two halves are compared with the whole: that, the halves, and both joined


class InnerTensors:
    """The tensors that are wanted of a model.

    Args:
        model: what computes them; onnxruntime runs it as it is written.
        names: of inputs, and of what the nodes compute.

    Raises:
        ModelError: onnxruntime refuses the graph.
    """

    def __init__(self, model: Model, names: Iterable[str]) -> None:
        fed = {spec.name for spec in model.inputs}
        self._model, self._names = model, list(names)
        self._inner = [name for name in self._names if name not in fed]
        self._bytes: dict[str, float] | None = None  # of a sample; None before one was seen
        self._open = {tuple(self._inner): _outputs_of(model, self._inner)}

    def at_once(self, arrays: Arrays) -> int:
        """How many samples like these may be in one run, where they may be cut."""
        total = sum(self._sizes(arrays).values())
        return int(min(BATCH, max(1, LIMIT // total))) if total else BATCH

    def of(self, feeds: Arrays) -> Mapping[str, Any]:
        """All of them, for one run; read in the order in which they were named, each group is computed once."""
        return _Found(self, self._names, feeds, self._grouped(feeds, samples_in(feeds, self._model.inputs)))

    def independent(self, arrays: Arrays, deciding: Collection[str] | None = None) -> bool | None:
        """See :func:`pytest_trt.model.onnx_session.independent`."""
        answer: bool | None = None
        all_of = min(samples_in(arrays, self._model.inputs), _COMPARED)
        most = all_of if all_of * _COPIES * sum(self._sizes(arrays).values()) <= LIMIT else 2
        for names in self._grouped(arrays, _COPIES * most):
            answer = independent(self.session(names), self._model, arrays, deciding, most)
            if not answer:
                return answer
        return answer

    def session(self, names: tuple[str, ...]) -> Any:
        """With a group's tensors as further outputs; the last one stays open."""
        if names not in self._open:
            self._open.clear()
            self._open[names] = _outputs_of(self._model, names)
        return self._open[names]

    def run(self, names: tuple[str, ...], feeds: Arrays) -> Arrays:
        """One group's, for one run."""
        found = run(self.session(names), self._model, feeds)
        return {name: found[name] for name in names}

    def _grouped(self, arrays: Arrays, samples: int) -> list[tuple[str, ...]]:
        sizes, groups, held = self._sizes(arrays), [[]], 0.0  # type: tuple[dict[str, float], list[list[str]], float]
        for name in self._inner:
            size = sizes.get(name, 0.0) * samples
            if groups[-1] and held + size > LIMIT:
                groups.append([])
                held = 0.0
            groups[-1].append(name)
            held += size
        return [tuple(group) for group in groups]

    def _few(self, arrays: Arrays) -> Arrays:
        """Two of the samples, where all inputs have as many: enough to tell sizes by."""
        lengths = {array.shape[:1] for array in arrays.values()}
        if has_fixed_batch(self._model) or len(lengths) > 1 or () in lengths:
            return arrays
        return {name: array[:2] for name, array in arrays.items()}

    def _sizes(self, arrays: Arrays) -> dict[str, float]:
        if self._bytes is None:
            feeds = next(split(self._few(arrays), self._model.inputs))
            rows = max(samples_in(feeds, self._model.inputs), 1)
            try:
                counted = _counted(self._model, self._inner, feeds)
            except PytestTrtError:  # it is said where the tensors themselves are asked for
                counted = {}
            self._bytes = {name: 4 * count / rows for name, count in counted.items()}
        return self._bytes


class _Found(Mapping[str, Any]):
    """Tensors of one run, of which one group is in memory."""

    def __init__(self, tensors: InnerTensors, names: list[str], feeds: Arrays, groups: list[tuple[str, ...]]) -> None:
        self._tensors, self._names, self._feeds = tensors, names, feeds
        self._place = {name: group for group in groups for name in group}
        self._now: tuple[str, ...] | None = None
        self._held: Arrays = {}

    def __getitem__(self, name: str) -> Any:
        if name in self._feeds:
            return self._feeds[name]
        group = self._place[name]
        if group != self._now:
            self._held = {}
            self._now, self._held = group, self._tensors.run(group, self._feeds)
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _outputs_of(model: Model, names: Iterable[str]) -> Any:
    return open_session(with_outputs(model.proto, names), model.source, fusion="none")


def _counted(model: Model, names: list[str], feeds: Arrays) -> dict[str, int]:
    """How many elements each of the tensors has, counted in the graph, so that none of them is kept."""
    copy = ModelProto()
    copy.CopyFrom(model.proto)
    name = fresh(copy)
    counts = {tensor: name(f"{tensor}/count") for tensor in names}
    copy.graph.node.extend(helper.make_node("Size", [tensor], [count]) for tensor, count in counts.items())
    del copy.graph.output[:]
    kind = helper.make_tensor_type_proto(TensorProto.INT64, [])
    copy.graph.output.extend(ValueInfoProto(name=count, type=kind) for count in counts.values())
    found = run(open_session(copy, model.source, fusion="none"), model, feeds) if counts else {}
    return {tensor: int(found[count]) for tensor, count in counts.items()}
