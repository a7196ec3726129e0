"""A single sample's output is seen to move by other inputs of its kind; what can't be run says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt import Case, check
from pytest_trt.model.samples import InputSpec

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from pytest_trt.findings.verdict import Verdict

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
TYPES = {np.dtype(np.float32): FLOAT, np.dtype(np.int64): INT64, np.dtype(bool): BOOL}


def F(values: Any) -> Any:
    return np.asarray(values, np.float32)


@dataclass(frozen=True)
class Told:
    """A network of one node, with its inputs and outputs."""

    op: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    attributes: dict[str, Any]
    domain: str = ""


def told(op: str, inputs: dict[str, Any], output: Any, **attributes: Any) -> Told:
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    return Told(op, arrays, {"y": np.asarray(output)}, attributes)


def specs(arrays: dict[str, Any]) -> dict[str, tuple[int, list[Any]]]:
    return {name: (TYPES[array.dtype], list(array.shape)) for name, array in arrays.items() if name}


def network(of: Told) -> onnx.ModelProto:
    node = helper.make_node(of.op, [*of.inputs], [*of.outputs], domain=of.domain, **of.attributes)
    proto = networks.model([node], specs(of.inputs), specs(of.outputs))
    if of.domain:
        proto.opset_import.append(helper.make_opsetid(of.domain, 1))
    return proto


def judged(folder: Path, proto: onnx.ModelProto, inputs: dict[str, Any], outputs: dict[str, Any]) -> Verdict:
    networks.save(proto, folder / "net.onnx")
    place = folder / "test_data_set_0"
    place.mkdir()
    for kind, arrays in (("input", inputs), ("output", outputs)):
        for index, array in enumerate(array for name, array in arrays.items() if name):
            (place / f"{kind}_{index}.pb").write_bytes(numpy_helper.from_array(array).SerializeToString())
    return check(Case(onnx="net.onnx", base=folder), "fp32", golden_dir=folder / "golden")


def of(folder: Path, told: Told) -> Verdict:
    return judged(folder, network(told), told.inputs, told.outputs)


IMAGE = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
HEALTHY = {
    "scales": told("Resize", {"x": IMAGE, "": F(0), "s": F([1, 1, 2, 1])}, IMAGE.repeat(2, 2), mode="nearest"),
    "depth": told("OneHot", {"i": [1, 0], "d": 2, "v": F([1, 3])}, F([[1, 3], [3, 1]])),
    "range": told("Range", {"a": F(1), "b": F(5), "s": F(2)}, F([1, 3])),
    "whole": told("Cast", {"x": 3}, F(3), to=FLOAT),
    "switch": told("Cast", {"x": True}, F(1), to=FLOAT),
    "one hot": told("Hardmax", {"x": F([[3, 3, 1]])}, F([[1, 0, 0]])),
    "no axes": told("ReduceSum", {"x": F([[1, 2]]), "axes": np.zeros(0, np.int64)}, F([[3]])),
    "logarithm": told("Log", {"x": F([[2.0, 2.0]])}, np.log(F([[2.0, 2.0]]))),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_network_is_judged(tmp_path: Path, name: str) -> None:
    verdict = of(tmp_path, HEALTHY[name])

    assert verdict.passed, verdict.message


def test_a_network_that_is_wrong_is_seen_to_be(tmp_path: Path) -> None:
    wrong = of(tmp_path, told("OneHot", {"i": [1, 0], "d": 2, "v": F([1, 3])}, F([[1, 3], [1, 3]])))

    assert wrong.verdict == "failed"


def test_an_output_that_no_input_moves_is_no_evidence(tmp_path: Path) -> None:
    still = told("EyeLike", {"x": np.arange(4).reshape(2, 2)}, np.eye(2, dtype=np.float32), dtype=FLOAT)

    verdict = of(tmp_path, still)

    assert verdict.kind == "EmptyGolden"
    assert "moves by 0.0e+00" in verdict.message


def test_scales_do_not_make_a_dead_network_move(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["dead"]),
        helper.make_node("Resize", ["dead", "", "s"], ["y"], mode="nearest"),
    ]
    inputs, outputs = {"x": IMAGE, "s": F([1, 1, 2, 1])}, {"y": np.zeros((1, 1, 4, 2), np.float32)}
    proto = networks.model(nodes, specs(inputs), specs(outputs), {"zero": F(0)})

    verdict = judged(tmp_path, proto, inputs, outputs)

    assert verdict.kind == "EmptyGolden"
    assert "moves by 0.0e+00" in verdict.message


def test_infinities_of_a_division_by_zero_are_no_movement(tmp_path: Path) -> None:
    nodes = [helper.make_node("Div", ["x", "x"], ["y"])]
    inputs, outputs = {"x": F([[1, 2]])}, {"y": F([[1, 1]])}

    verdict = judged(tmp_path, networks.model(nodes, specs(inputs), specs(outputs)), inputs, outputs)

    assert verdict.kind == "EmptyGolden"


ALIEN = Told("Adagrad", {"x": F([[1]])}, {"y": F([[1]])}, {}, "of.another")


def test_what_onnxruntime_can_t_run_says_its_reason(tmp_path: Path) -> None:
    verdict = of(tmp_path, ALIEN)

    assert verdict.kind == "ModelError"
    assert "onnxruntime refuses the graph" in verdict.message
    assert "Adagrad" in verdict.message


def test_what_onnxruntime_can_t_run_is_said_before_nan_in_test_data(tmp_path: Path) -> None:
    verdict = of(tmp_path, replace(ALIEN, inputs={"x": F([[np.nan]])}))

    assert "Adagrad" in verdict.message


def test_what_fails_while_it_runs_says_its_reason(tmp_path: Path) -> None:
    verdict = of(tmp_path, told("Gather", {"x": F([[1, 2]]), "i": [7]}, F([[1, 2]])))

    assert verdict.kind == "BackendError"
    assert "Gather" in verdict.message


def test_outputs_without_elements_beside_others_are_as_they_should_be(tmp_path: Path) -> None:
    inputs, outputs = {"x": F([[1, 2]])}, {"y": F([[1, 2]]), "e": np.zeros((1, 0), np.float32)}
    nodes = [helper.make_node("Split", ["x", "n"], ["y", "e"], axis=1)]
    proto = networks.model(nodes, specs(inputs), specs(outputs), {"n": np.array([2, 0])})

    verdict = judged(tmp_path, proto, inputs, outputs)

    assert verdict.passed, verdict.message


def test_a_network_whose_every_output_is_empty_says_so(tmp_path: Path) -> None:
    empty = np.zeros((1, 0), np.float32)

    verdict = of(tmp_path, told("Relu", {"x": empty}, empty))

    assert verdict.kind == "EmptyGolden"
    assert "has no elements" in verdict.message


def test_an_empty_state_of_a_dynamic_axis_is_no_lack_of_samples(tmp_path: Path) -> None:
    inputs, outputs = {"x": F([[1, 2]]), "past": np.zeros((0, 2), np.float32)}, {"y": F([[1, 2]])}
    nodes = [helper.make_node("Concat", ["past", "x"], ["y"], axis=0)]
    proto = networks.model(nodes, {"x": (FLOAT, [1, 2]), "past": (FLOAT, ["P", 2])}, {"y": (FLOAT, ["T", 2])})

    assert judged(tmp_path, proto, inputs, outputs).passed


@pytest.mark.parametrize(
    "asked",
    [
        {"inputs": "x.npz"},
        {"labels": "y.npy"},
        {"input": {"x": InputSpec(low=0, high=1)}},
        {"seed": 1},
        {"samples": 8, "written": frozenset({"samples"})},
    ],
)
def test_what_a_case_asks_beside_test_data_is_refused_by_its_key(tmp_path: Path, asked: dict[str, Any]) -> None:
    healthy = HEALTHY["no axes"]
    of(tmp_path, healthy)

    verdict = check(Case(onnx="net.onnx", base=tmp_path, **asked), "fp32", golden_dir=tmp_path / "golden")

    assert verdict.verdict == "error"
    assert f"`{next(iter(asked))}` is never read, because the golden is the ONNX test data" in verdict.message
