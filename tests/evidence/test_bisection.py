from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import networks
import pytest
from fakes.tensorrt import install
from onnx import helper

from pytest_trt.backends.backend import choose
from pytest_trt.backends.onnxruntime import open_backend
from pytest_trt.backends.recipe import Recipe
from pytest_trt.evidence.bisection import Departure, departure_of
from pytest_trt.evidence.localise import localise
from pytest_trt.lowering.lowering import lower
from pytest_trt.model.graph import with_outputs
from pytest_trt.model.model import Model, checked
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto

    from pytest_trt.backends.backend import Backend, Engine

RUNS = [{"x": networks.images()}]


@dataclass
class Spoiling:
    """onnxruntime, with a fault put into what it builds."""

    fault: Callable[[ModelProto], None]
    real: Backend = field(default_factory=open_backend)
    name: str = "spoiling"
    simulated: bool = False
    builds_engines: bool = True
    version: str = "1"
    marked: list[int] = field(default_factory=list)

    @property
    def shows(self) -> bool:
        return getattr(self.real, "shows", False)

    def build(self, recipe: Recipe) -> Engine:
        proto = type(recipe.model.proto).FromString(recipe.model.proto.SerializeToString())
        self.marked.append(len(proto.graph.output) - 1)
        self.fault(proto)
        return self.real.build(replace(recipe, model=Model(proto, "spoiled")))


def swapped(name: str) -> Callable[[ModelProto], None]:
    """Turns a node's result round."""

    def fault(proto: ModelProto) -> None:
        node = next(node for node in proto.graph.node if node.name == name)
        node.op_type = {"Add": "Sub", "Relu": "Neg", "GlobalAveragePool": "GlobalMaxPool"}[node.op_type]

    return fault


def departure(backend: Spoiling) -> Departure | None:
    net = checked(networks.convolutional(), "net")
    recipe = Recipe(net, Precision.FP16, feeds=tuple(RUNS))
    located = localise(net, lower(net, "fp16"), RUNS)
    outputs = [backend.build(recipe).run(arrays) for arrays in RUNS]
    return departure_of(backend, recipe, net, located, RUNS, outputs)


@pytest.mark.parametrize(
    ("node", "tensor", "after"),
    [("relu1", "r1", "c1"), ("add", "sum", "c2"), ("relu2", "r2", "sum"), ("pool", "p", "r2")],
)
def test_the_first_tensor_that_an_engine_computes_otherwise_is_found(node: str, tensor: str, after: str) -> None:
    found = departure(Spoiling(swapped(node)))

    assert found is not None
    assert (found.tensor, found.node, found.after) == (tensor, node, after)
    assert found.rel_rms > found.bound


def test_marked_tensors_come_out_of_tensorrts_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "8.6")
    found = departure(Spoiling(swapped("add"), choose("tensorrt")))

    assert found is not None
    assert (found.tensor, found.after, found.shown, found.builds > 1) == ("sum", "c2", False, True)


@pytest.mark.parametrize("release", ["10.16", "11.4", "rtx-1.7"])
def test_releases_with_debug_tensors_show_them_in_one_build(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, release, compute_capability=(8, 9))
    backend = Spoiling(swapped("pool"), choose("tensorrt-rtx" if "rtx" in release else "tensorrt"))
    found = departure(backend)

    assert found is not None
    assert (found.tensor, found.after, found.shown, found.builds, found.moved) == ("p", "r2", True, 1, 0.0)
    assert set(backend.marked) == {0}


def test_a_tensor_that_a_fusion_swallowed_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "10.16")
    found = departure(Spoiling(swapped("add"), choose("tensorrt")))

    assert found is not None
    assert (found.tensor, found.after) == ("r2", "c2")  # the Relu that reads the sum is fused with it


def test_the_first_tensor_that_is_nan_is_told_as_such() -> None:
    def fault(proto: ModelProto) -> None:
        node = next(node for node in proto.graph.node if node.name == "relu2")
        node.op_type = "Log"

    found = departure(Spoiling(fault))

    assert found is not None
    assert (found.tensor, found.nonfinite) == ("r2", True)
    assert str(found).startswith("the engine is first NaN or infinite at tensor 'r2' of Relu 'relu2'")


def test_an_engine_that_computes_what_its_simulation_does_has_no_departure() -> None:
    assert departure(Spoiling(lambda _: None)) is None


def test_few_tensors_are_marked_at_once() -> None:
    backend = Spoiling(swapped("add"))
    found = departure(backend)

    assert found is not None
    assert found.builds == len(backend.marked) - 1
    assert max(backend.marked) <= 4


def test_marking_that_leaves_the_outputs_alone_is_told_as_such() -> None:
    found = departure(Spoiling(swapped("add")))

    assert found is not None
    assert (found.moved, found.marking_changed) == (0.0, False)


def test_marking_that_moves_the_outputs_is_told() -> None:
    def fault(proto: ModelProto) -> None:
        swapped("pool" if len(proto.graph.output) == 1 else "add")(proto)

    found = departure(Spoiling(fault))

    assert found is not None
    assert found.marking_changed
    assert found.moved > 0.01


def test_the_model_that_is_marked_is_left_as_it_was() -> None:
    net = checked(networks.convolutional(), "net")

    assert [value.name for value in with_outputs(net.proto, ["r1", "logits"]).graph.output] == ["logits", "r1"]
    assert len(net.proto.graph.output) == 1


def test_a_tensor_of_another_shape_than_its_namesake_is_passed_over() -> None:
    halved = networks.convolutional()
    relu = next(node for node in halved.graph.node if node.name == "relu2")
    relu.output[0] = "wide"
    place = [node.name for node in halved.graph.node].index("pool")
    halved.graph.node.insert(
        place, helper.make_node("AveragePool", ["wide"], ["r2"], "half", kernel_shape=[2, 2], strides=[2, 2])
    )
    reference, net = checked(networks.convolutional(), "net"), checked(halved, "halved")
    recipe = Recipe(net, Precision.FP16, feeds=tuple(RUNS))
    located, backend = localise(reference, lower(net, "fp16"), RUNS), Spoiling(swapped("pool"))
    outputs = [backend.build(recipe).run(arrays) for arrays in RUNS]

    found = departure_of(backend, recipe, reference, located, RUNS, outputs)

    assert found is not None
    assert (found.tensor, found.after) == ("p", "sum")
