from __future__ import annotations

from typing import TYPE_CHECKING

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pytest_trt.case.case import Case
from pytest_trt.comparison.comparison import compare
from pytest_trt.gate import check
from pytest_trt.golden.create import create, update
from pytest_trt.golden.envelope import envelope_of, simulate
from pytest_trt.golden.load import verify
from pytest_trt.model.model import Model
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from pathlib import Path

FLOAT = TensorProto.FLOAT
LEAST = 1e-5


def cancelling(stored: str = "initializer") -> onnx.ModelProto:
    """x (N, 64) times two matrices that differ by a thousandth, subtracted: (N, 8)."""
    draw = np.random.default_rng(0)
    first = draw.standard_normal((64, 8)).astype(np.float32)
    second = (first * (1 + 1e-3 * draw.standard_normal(first.shape))).astype(np.float32)
    weights = {"w1": first, "w2": second}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "first"),
        helper.make_node("MatMul", ["x", "w2"], ["b"], "second"),
        helper.make_node("Sub", ["a", "b"], ["y"], "sub"),
    ]
    if stored == "constant":
        held = [helper.make_node("Constant", [], [name], value=_tensor(array)) for name, array in weights.items()]
        nodes, weights = [*held, *nodes], {}
    return networks.model(nodes, {"x": (FLOAT, ["N", 64])}, {"y": (FLOAT, ["N", 8])}, weights)


def _tensor(array: np.ndarray) -> TensorProto:
    return onnx.numpy_helper.from_array(array)


def samples(count: int = 16, size: int = 64) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((count, size)).astype(np.float32)}


def entry(proto: onnx.ModelProto, feeds: dict[str, np.ndarray], output: str = "y") -> dict[str, float]:
    return envelope_of(Model(proto, "net"), [feeds], [Precision.FP32], None)[0]["fp32"][output]


def added_backwards(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Another correct fp32 implementation: one product after the other, the last one first."""
    totals = []
    for name in ("w1", "w2"):
        w = onnx.numpy_helper.to_array(networks.weight(proto, name))
        total = np.zeros((len(x), w.shape[1]), np.float32)
        for place in reversed(range(len(w))):
            total += x[:, place : place + 1] * w[place]
        totals.append(total)
    return np.asarray(totals[0] - totals[1])


def test_the_bound_of_a_network_that_cancels_takes_another_order_of_its_sums() -> None:
    proto, feeds = cancelling(), samples()

    error = compare(added_backwards(proto, feeds["x"]), simulate(Model(proto, "net"), Precision.FP32, feeds, None)["y"])

    assert LEAST < error.rel_rms < entry(proto, feeds)["bound"] < 1e-2


@pytest.mark.parametrize("stored", ["initializer", "constant"])
def test_weights_count_wherever_they_are_stored(stored: str) -> None:
    assert entry(cancelling(stored), samples())["error"] > 2e-5


def test_a_network_that_cancels_nothing_keeps_the_least_floor() -> None:
    found = entry(networks.convolutional(), {"x": networks.images()}, "logits")

    assert 0 < found["error"] < 1e-6
    assert found["bound"] == pytest.approx(LEAST, rel=0.25)


@pytest.mark.parametrize("proto", [cancelling(), networks.convolutional()], ids=["cancelling", "convolutional"])
def test_weights_that_changed_by_a_thousandth_are_outside(proto: onnx.ModelProto) -> None:
    feeds = (
        samples() if proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value == 64 else {"x": networks.images()}
    )
    output, name = proto.graph.output[0].name, proto.graph.initializer[0].name
    noise = np.random.default_rng(2)
    changed = networks.with_weight(
        proto, name, lambda w: (w * (1 + 1e-3 * noise.choice([-1, 1], w.shape))).astype(np.float32)
    )
    exact, found = (simulate(Model(one, "net"), Precision.FP32, feeds, None)[output] for one in (proto, changed))

    assert compare(found, exact).rel_rms > 2 * entry(proto, feeds, output)["bound"]


def test_sums_that_cancel_without_a_weight_count_too() -> None:
    """A variance as the mean of squares less the square of the mean."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["of_squares"], axes=[1]),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1]),
        helper.make_node("Mul", ["mean", "mean"], ["of_mean"]),
        helper.make_node("Sub", ["of_squares", "of_mean"], ["y"]),
    ]
    proto = networks.model(nodes, {"x": (FLOAT, ["N", 64])}, {"y": (FLOAT, ["N", 1])})
    feeds = {"x": np.rint(1000 + 30 * samples()["x"])}

    exact = feeds["x"].astype(np.float64).var(axis=1, keepdims=True)
    error = compare(simulate(Model(proto, "net"), Precision.FP32, feeds, None)["y"], exact).rel_rms

    assert LEAST < error < entry(proto, feeds)["bound"] < 1e-2


def test_an_output_that_jumps_with_the_last_digit_keeps_the_least_floor() -> None:
    """Whole numbers of a sum, which the last digit of a weight moves by one."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Floor", ["a"], ["y"])]
    weights = {"w": np.eye(4, dtype=np.float32)}
    proto = networks.model(nodes, {"x": (FLOAT, ["N", 4])}, {"y": (FLOAT, ["N", 4])}, weights)
    feeds = {"x": np.arange(1, 33, dtype=np.float32).reshape(8, 4)}

    assert entry(proto, feeds) == {"error": 0.0, "bound": LEAST}


def test_inputs_that_are_whole_numbers_are_left_alone() -> None:
    nodes = [helper.make_node("Floor", ["x"], ["y"])]
    proto = networks.model(nodes, {"x": (FLOAT, ["N", 4])}, {"y": (FLOAT, ["N", 4])})

    assert entry(proto, {"x": np.arange(32, dtype=np.float32).reshape(8, 4)})["error"] == 0


def test_factors_in_the_branches_of_an_if_count() -> None:
    inner = cancelling()
    then, other = (onnx.GraphProto.FromString(inner.graph.SerializeToString()) for _ in range(2))
    for number, branch in enumerate((then, other)):
        branch.name = f"branch{number}"
        del branch.input[:]
    nodes = [helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=other)]
    flag = {"flag": np.array(1, bool)}
    proto = networks.model(nodes, {"x": (FLOAT, ["N", 64])}, {"y": (FLOAT, ["N", 8])}, flag)

    assert entry(proto, samples())["error"] > 2e-5


def test_a_golden_that_is_verified_may_differ_by_its_own_bound(tmp_path: Path) -> None:
    networks.save(cancelling(), tmp_path / "net.onnx")
    case = Case(onnx="net.onnx", base=tmp_path)
    update(case, tmp_path / "golden")

    [agreement] = verify(case, tmp_path / "golden").agreements

    assert agreement.limit == create(case).envelope["fp32"]["y"]["bound"] > 2 * LEAST
    assert check(case, "fp32", golden_dir=tmp_path / "golden").passed
