"""Blame for weights that were changed, whatever follows the operator that multiplies by them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt import Precision, lower
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.case.case import Case
from pytest_trt.evidence.finding import Scrutiny
from pytest_trt.evidence.localise import Located, localise
from pytest_trt.evidence.sensitivity import sensitivity
from pytest_trt.gate import check
from pytest_trt.golden.create import update
from pytest_trt.golden.envelope import Kept
from pytest_trt.golden.golden import read
from pytest_trt.lowering.casts import as_sandwich
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.model import Model, checked

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

FLOAT = TensorProto.FLOAT
RUNS = [{"x": networks.images(seed=seed)} for seed in (1, 2)]
AFTER: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "relu": [("Relu", {})],
    "batch norm": [("BatchNormalization", {}), ("Relu", {})],
    "max pool": [("Relu", {}), ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]})],
    "average pool": [("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]})],
    "residual": [("Add", {}), ("Relu", {})],
    "swish": [("Sigmoid", {}), ("Mul", {})],
}


def net(after: str, pruned: str = "") -> onnx.ModelProto:
    """Two blocks of a Conv and what follows it, a mean over the map and a matrix; half of one weight's rows zeroed."""
    draw = np.random.default_rng(0)
    weights = {
        "w0": draw.standard_normal((8, 2, 3, 3)) / 3,
        "w1": draw.standard_normal((8, 8, 3, 3)) / 6,
        "head": draw.standard_normal((8, 3)),
        **{name: draw.uniform(0.5, 1.5, 8) for name in ("scale", "variance")},
        **{name: 0.2 * draw.standard_normal(8) for name in ("shift", "mean")},
    }
    nodes, at = [], "x"
    for block in range(2):
        nodes.append(helper.make_node("Conv", [at, f"w{block}"], [f"c{block}"], f"conv{block}", pads=[1, 1, 1, 1]))
        before, at = at, f"c{block}"
        for place, (op, attributes) in enumerate(AFTER[after]):
            if op == "Add" and not block:
                continue
            others = {
                "Add": [before],
                "Mul": [f"c{block}"],
                "BatchNormalization": ["scale", "shift", "mean", "variance"],
            }.get(op, [])
            made = f"t{block}{place}"
            nodes.append(helper.make_node(op, [at, *others], [made], f"{op}{block}", **attributes))
            at = made
    nodes += [
        helper.make_node("GlobalAveragePool", [at], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "head"], ["y"], "matmul"),
    ]
    if pruned:
        weights[pruned][::2] = 0
    stored = {name: value.astype(np.float32) for name, value in weights.items()}
    return networks.model(nodes, {"x": (FLOAT, ["N", 2, 6, 6])}, {"y": (FLOAT, ["N", 3])}, stored)


def lowered(proto: onnx.ModelProto, kind: str) -> Model:
    model = checked(proto, "net")
    if kind == "int8":
        return lower(model, "int8", calibrate(model, quantised_activations(model.proto), RUNS, "images"))
    return Model(as_sandwich(lower(model, "fp16", typed=True).proto), "net")


def found(after: str, pruned: str, kind: str) -> tuple[Located, ...]:
    return localise(checked(net(after), "net"), lowered(net(after, pruned), kind), RUNS)


@pytest.mark.parametrize("kind", ["int8", "fp16"])
@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("after", AFTER)
def test_a_pruned_conv_is_to_blame_and_nothing_that_follows_it(after: str, block: int, kind: str) -> None:
    first = found(after, f"w{block}", kind)[0]

    assert first.node == f"conv{block}"
    assert first.own_db is not None
    assert first.own_db < 10


@pytest.mark.parametrize("after", AFTER)
def test_a_node_without_weights_does_nothing_by_itself_but_round(after: str) -> None:
    told = {one.node: one for one in found(after, "w0", "fp16")}

    assert told["pool"].own_db == math.inf
    assert told["pool"].added_db == pytest.approx(told["pool"].local_db)
    assert 60 < (told["matmul"].own_db or 0) < 90


def test_a_weight_that_a_batch_normalization_was_folded_into_is_compared_with_its_result() -> None:
    """The file has one Conv where the reference has two nodes."""
    reference, folded = net("batch norm"), net("batch norm", "w1")
    stored = {tensor.name: tensor for tensor in folded.graph.initializer}
    scale, shift, mean, variance, w = (
        np.frombuffer(stored[name].raw_data, np.float32) for name in ("scale", "shift", "mean", "variance", "w1")
    )
    factor = scale / np.sqrt(variance + 1e-5)
    stored["w1"].raw_data = (w.reshape(8, 8, 3, 3) * factor.reshape(8, 1, 1, 1)).astype(np.float32).tobytes()
    folded.graph.initializer.append(numpy_helper.from_array(shift - mean * factor, "b1"))
    norm = next(node for node in folded.graph.node if node.name == "BatchNormalization1")
    conv = next(node for node in folded.graph.node if node.name == "conv1")
    conv.input.append("b1")
    conv.output[0] = norm.output[0]
    folded.graph.node.remove(norm)

    first = localise(checked(reference, "net"), lowered(folded, "fp16"), RUNS)[0]

    assert first.tensor == "t10"


@pytest.fixture
def case(tmp_path: Path) -> Case:
    networks.save(net("max pool"), tmp_path / "net.onnx")
    np.savez(tmp_path / "inputs.npz", x=networks.images(12))
    np.savez(tmp_path / "few.npz", x=0.4 * networks.images(8, seed=5))
    made = Case(onnx="net.onnx", inputs="inputs.npz", calibration="few.npz", base=tmp_path, name="net")
    update(made, tmp_path / "golden")
    return made


@pytest.mark.parametrize("precision", ["int8", "fp8", "fp16", "bf16", "tf32"])
def test_the_gate_localisation_and_sensitivity_give_one_figure(case: Case, precision: str) -> None:
    folder = case.base / "golden"
    verdict = check(case, precision, golden_dir=folder, scrutiny=Scrutiny(localise=True))
    golden = read(folder / "net.safetensors", "")
    model = checked(net("max pool"), "net")
    ranges = None
    if Precision.parse(precision).takes_ranges:
        samples = [{"x": 0.4 * networks.images(8, seed=5)}]
        ranges = calibrate(model, quantised_activations(model.proto), samples, "few.npz", precision=precision)

    alone = sensitivity(model, precision, [golden.inputs], ranges, exact=[golden.outputs])

    [judged] = verdict.judgements
    located = {one.tensor: one for one in verdict.located}
    assert located["y"].cumulative_db == judged.comparison.sqnr_db
    assert alone.error == judged.error
    assert verdict.hops[-1].rel_rms == judged.error


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_what_a_range_leaves_is_one_figure_in_findings_charts_and_localisation(case: Case, precision: str) -> None:
    verdict = check(case, precision, golden_dir=case.base / "golden", scrutiny=Scrutiny(localise=True))

    assert verdict.figures is not None
    ranges = {one.tensor: one.sqnr_db for one in verdict.figures.ranges}
    located = {one.tensor: one.local_sqnr_db for one in verdict.figures.tensors}
    told = {
        finding.evidence["tensor"]: finding.evidence["sqnr_db"]
        for finding in verdict.findings
        if "sqnr_db" in finding.evidence
    }

    assert ranges
    assert ranges == {name: located[name] for name in ranges}
    assert told == {name: pytest.approx(ranges[name], rel=1e-4) for name in told}


def test_sensitivity_begins_with_what_the_golden_was_made_to_keep() -> None:
    model = checked(net("relu"), "net")

    whole, kept = (sensitivity(model, "fp16", RUNS, kept=keep) for keep in (Kept(), Kept(keep=("conv0",))))

    assert [gain.node for gain in kept.layers if gain.node == "conv0"] == []
    assert next(gain.error for gain in whole.layers if gain.node == "conv0") == kept.error
