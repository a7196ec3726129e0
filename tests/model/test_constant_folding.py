"""Constants are folded when a file is read: weights that an exporter left behind other nodes are weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt import Case, check
from pytest_trt.golden.create import create, update
from pytest_trt.model.model import Model, checked

if TYPE_CHECKING:
    from pathlib import Path

DRAW = np.random.default_rng(0)
WEIGHT = DRAW.standard_normal((16, 8)).astype(np.float32)
FLOAT = networks.FLOAT


def network(before: list[onnx.NodeProto], **held: Any) -> onnx.ModelProto:
    """x @ w, where nodes compute w."""
    nodes = [*before, helper.make_node("MatMul", ["x", "w"], ["y"], "fc")]
    return networks.model(nodes, {"x": (FLOAT, ["N", 16])}, {"y": (FLOAT, ["N", 8])}, held)


def folded(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    model = checked(proto, "net").proto
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def transposed() -> onnx.ModelProto:
    return network([helper.make_node("Transpose", ["v"], ["w"], "turn", perm=[1, 0])], v=WEIGHT.T.copy())


def reshaped() -> onnx.ModelProto:
    return network([helper.make_node("Reshape", ["v", "shape"], ["w"])], v=WEIGHT.ravel(), shape=np.array([16, 8]))


def joined() -> onnx.ModelProto:
    return network([helper.make_node("Concat", ["a", "b"], ["w"], axis=0)], a=WEIGHT[:9], b=WEIGHT[9:])


def twice() -> onnx.ModelProto:
    nodes = [helper.make_node("Mul", ["v", "two"], ["d"]), helper.make_node("Transpose", ["d"], ["w"], perm=[1, 0])]
    return network(nodes, v=WEIGHT.T.copy() / 2, two=np.float32(2))


@pytest.mark.parametrize("build", [transposed, reshaped, joined, twice])
def test_what_is_computed_of_constants_is_stored_under_its_name(build: Any) -> None:
    model = checked(build(), "net").proto

    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    assert [tensor.name for tensor in model.graph.initializer if tensor.name == "w"] == ["w"]
    np.testing.assert_array_equal(folded(build())["w"], WEIGHT)
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("build", [transposed, reshaped, joined, twice])
def test_such_a_weight_is_quantised_as_a_weight(tmp_path: Path, build: Any) -> None:
    networks.save(network([], w=WEIGHT), tmp_path / "plain.onnx")
    networks.save(build(), tmp_path / "net.onnx")
    plain, other = (create(Case(onnx=f"{name}.onnx", base=tmp_path)) for name in ("plain", "net"))

    assert other.envelope["int8"] == plain.envelope["int8"]


def test_the_hash_is_that_of_the_file_as_it_was_read() -> None:
    proto = transposed()
    read = Model(type(proto).FromString(proto.SerializeToString()), "net").sha256

    assert checked(proto, "net").sha256 == read
    assert checked(network([], w=WEIGHT), "net").sha256 != read


def test_a_golden_is_that_of_its_model_when_the_file_is_read_again(tmp_path: Path) -> None:
    networks.save(transposed(), tmp_path / "net.onnx")
    case = Case(onnx="net.onnx", base=tmp_path)
    update(case, tmp_path / "golden")

    assert check(case, "fp16", golden_dir=tmp_path / "golden").verdict == "passed"


@pytest.mark.parametrize("op", ["DequantizeLinear", "RandomNormalLike"])
def test_what_quantises_and_what_draws_is_left(op: str) -> None:
    held: dict[str, Any] = {"v": WEIGHT}
    inputs = ["v"]
    if op == "DequantizeLinear":
        held, inputs = {"v": np.ones((16, 8), np.int8), "s": np.float32(0.1)}, ["v", "s"]

    model = checked(network([helper.make_node(op, inputs, ["w"])], **held), "net").proto

    assert [node.op_type for node in model.graph.node] == [op, "MatMul"]


def test_the_cast_of_a_stored_fp16_weight_tells_the_precision_and_stays() -> None:
    cast = helper.make_node("Cast", ["v"], ["w"], to=TensorProto.FLOAT)

    model = checked(network([cast], v=WEIGHT.astype(np.float16)), "net").proto

    assert [node.op_type for node in model.graph.node] == ["Cast", "MatMul"]


def test_an_output_that_is_constant_is_still_computed() -> None:
    proto = network([helper.make_node("Transpose", ["v"], ["w"], perm=[1, 0])], v=WEIGHT.T.copy())
    proto.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [16, 8]))

    model = checked(proto, "net").proto

    assert [node.op_type for node in model.graph.node] == ["Transpose", "MatMul"]


def test_a_body_reads_what_was_folded_outside_it() -> None:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"])], "body", [], [helper.make_tensor_value_info("z", FLOAT, None)]
    )
    nodes = [
        helper.make_node("Transpose", ["v"], ["w"], perm=[1, 0]),
        helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body),
    ]
    held = {"v": WEIGHT.T.copy(), "yes": np.array(True)}
    proto = networks.model(nodes, {"x": (FLOAT, ["N", 16])}, {"y": (FLOAT, ["N", 8])}, held)

    model = checked(proto, "net").proto

    assert [node.op_type for node in model.graph.node] == ["If"]
    assert "w" in {tensor.name for tensor in model.graph.initializer}


def test_a_constant_that_would_grow_beyond_reason_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_trt.model._constant_folding._LARGE", 100)
    expand = helper.make_node("Expand", ["v", "shape"], ["w"])

    model = checked(network([expand], v=WEIGHT[:, :1], shape=np.array([16, 8])), "net").proto

    assert [node.op_type for node in model.graph.node] == ["Expand", "MatMul"]
