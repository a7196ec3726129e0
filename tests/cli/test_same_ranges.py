"""What ``calibrate`` writes is, bit for bit, what the gate takes from the same samples."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import networks
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper

from pytest_trt import Case, Precision, lower
from pytest_trt.backends.recipe import ranges_of
from pytest_trt.case.build_settings import How, recipe_of
from pytest_trt.case.reference import Subject
from pytest_trt.cli.main import main
from pytest_trt.model.model import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_trt.model.model import Model

FLOAT = networks.FLOAT


def drawn(*shape: int) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).random(shape) + 0.1).astype(np.float32)


def normalised() -> onnx.ModelProto:
    """Convolutions with all that onnxruntime fuses behind them."""
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "b"], ["d"]),
        helper.make_node("Mul", ["d", "scale1"], ["m"]),
        helper.make_node("Add", ["m", "shift1"], ["s"]),
        helper.make_node("Relu", ["s"], ["t"]),
        helper.make_node("Conv", ["t", "e"], ["y"]),
    ]
    weights = {"a": drawn(8, 2, 3, 3), "b": drawn(8, 8, 3, 3), "e": drawn(4, 8, 3, 3)}
    weights |= {name: drawn(8) for name in ("scale", "shift", "mean", "var")}
    weights |= {name: drawn(1, 8, 1, 1) for name in ("scale1", "shift1")}
    return networks.model(nodes, {"x": (FLOAT, ["N", 2, 12, 12])}, {"y": (FLOAT, ["N", 4, 8, 8])}, weights)


def counting() -> onnx.ModelProto:
    """A tensor that nothing quantised reads tells how many samples run at once."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], end=1),
        helper.make_node("Cast", ["shape"], ["count"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Div", ["count", "count"], ["one"]),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Mul", ["m", "one"], ["s"]),
        helper.make_node("MatMul", ["s", "v"], ["y"]),
    ]
    weights = {"w": drawn(300, 40), "v": drawn(40, 30)}
    return networks.model(nodes, {"x": (FLOAT, ["N", 300])}, {"y": (FLOAT, ["N", 30])}, weights)


def samples(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


NETWORKS: dict[str, tuple[Callable[[], onnx.ModelProto], np.ndarray]] = {
    "convolutional": (networks.convolutional, networks.images(11)),
    "normalised": (normalised, samples(11, 2, 12, 12)),
    "counting": (counting, samples(11, 300)),
}
CARRIED = [("int8", suffix) for suffix in (".txt", ".cache", ".json", ".flatbuffers")] + [
    ("fp8", suffix) for suffix in (".txt", ".json", ".flatbuffers")
]


def gated(folder: Path, calibration: str, precision: str) -> Model:
    """The model as the gate lowers it."""
    case = Case(name="net", onnx="net.onnx", calibration=calibration, base=folder)
    recipe = recipe_of(Subject(case, Precision.parse(precision), load(folder / "net.onnx")), (), How())
    return lower(recipe.model, precision, ranges_of(recipe))


def bits(model: Model) -> dict[str, bytes]:
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in model.proto.graph.initializer}


@pytest.mark.parametrize(("precision", "suffix"), CARRIED)
@pytest.mark.parametrize("name", NETWORKS)
def test_calibrate_and_then_ranges_give_the_bits_that_the_gate_takes(
    name: str, precision: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, x = NETWORKS[name]
    onnx.save(make(), "net.onnx")
    np.savez("data.npz", x=x)
    run = partial(CliRunner().invoke, main)

    told = run(["calibrate", "net.onnx", "data.npz", "-o", f"ranges{suffix}", "--precision", precision])
    assert told.exit_code == 0, told.output
    told = run(["lower", "net.onnx", "--precision", precision, "--ranges", f"ranges{suffix}", "-o", "low.onnx"])
    assert told.exit_code == 0, told.output

    wanted = bits(gated(tmp_path, "data.npz", precision))
    assert bits(load(tmp_path / "low.onnx")) == wanted
    assert bits(gated(tmp_path, f"ranges{suffix}", precision)) == wanted
