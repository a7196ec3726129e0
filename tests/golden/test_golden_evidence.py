"""A bound that a broken engine would keep proves nothing, so it is not given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from pytest_trt import Case, Tolerance, check
from pytest_trt.errors import EmptyGolden
from pytest_trt.golden.create import create, update
from pytest_trt.golden.envelope import provable
from pytest_trt.lowering._strong_typing import fp16_typed
from pytest_trt.lowering.qdq import int8_qdq

if TYPE_CHECKING:
    from pathlib import Path

FLOAT = networks.FLOAT


def linear(w: np.ndarray, b: np.ndarray, batch: int | str = "N") -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    shapes = ({"x": (FLOAT, [batch, w.shape[0]])}, {"y": (FLOAT, [batch, w.shape[1]])})
    return networks.model(nodes, *shapes, {"w": w.astype("f"), "b": b.astype("f")})


def blind(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same network, fed with zeros whatever it is given."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.graph.node[0].input[0] = "dark"
    copy.graph.node.insert(0, helper.make_node("Mul", ["x", "nought"], ["dark"]))
    copy.graph.initializer.append(numpy_helper.from_array(np.float32(0), "nought"))
    return copy


def test_an_output_whose_file_declares_another_rank_is_judged_as_what_the_graph_gives(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    proto = linear(draw.standard_normal((8, 5)), draw.standard_normal(5))
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 1
    networks.save(proto, tmp_path / "net.onnx")
    networks.save(networks.with_weight(proto, "b", lambda b: b + 9), tmp_path / "other.onnx")
    update(Case(onnx="net.onnx", base=tmp_path), tmp_path / "golden")
    other = Case(name="net", onnx="other.onnx", reference="net.onnx", base=tmp_path)

    assert check(Case(onnx="net.onnx", base=tmp_path), "fp16", golden_dir=tmp_path / "golden").verdict == "passed"
    assert check(other, "fp16", golden_dir=tmp_path / "golden").verdict == "failed"


def test_a_bound_stays_under_the_error_of_an_engine_that_answers_the_mean() -> None:
    kept, refused = provable({"int8": {"y": {"error": 0.02, "bound": 0.06}}}, {}, {"y": 0.05})

    assert kept["int8"]["y"]["bound"] == pytest.approx(0.04)
    assert refused == {}


@pytest.mark.parametrize(("error", "bound", "moved"), [(0.02, 0.06, 0.02), (0.8, 2.0, 1.0), (0.5, 1.25, None)])
def test_a_precision_that_leaves_no_room_is_refused(error: float, bound: float, moved: float | None) -> None:
    kept, refused = provable({"int8": {"y": {"error": error, "bound": bound}}}, {}, {"y": moved})

    assert kept == {}
    assert "no bound tells it from a broken one" in refused["int8"]


def test_an_output_of_which_one_part_leaves_no_room_has_no_bound_at_all() -> None:
    rest = {"error": 0.2, "bound": 0.5, "moved": 0.2, "part": {"output": "y"}}
    sentinels = {"error": 0.0, "bound": 0.004, "moved": None, "part": {"output": "y", "sentinels": True}}
    other = {"error": 0.01, "bound": 0.025}

    kept, refused = provable({"int8": {"y": rest, "y (sentinels)": sentinels, "z": other}}, {}, {"y": 0.2, "z": 1.0})

    assert kept == {"int8": {"z": other}}
    assert "errs on 'y' by 0.2 of its size" in refused["int8"]


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "model"])
def test_a_blind_engine_never_passes(tmp_path: Path, precision: str) -> None:
    draw = np.random.default_rng(0)
    proto = linear(draw.standard_normal((8, 5)), 1500 + draw.standard_normal(5))
    networks.save(proto, tmp_path / "net.onnx")
    lowered = {"fp16": fp16_typed, "int8": lambda p: int8_qdq(p, {"dark": 4.0})}.get(precision, lambda p: p)
    networks.save(lowered(blind(proto)), tmp_path / "blind.onnx")
    update(Case(onnx="net.onnx", base=tmp_path), tmp_path / "golden")
    case = Case(name="net", onnx="blind.onnx", reference="net.onnx", calibration="golden", base=tmp_path)

    assert check(case, precision, golden_dir=tmp_path / "golden").verdict != "passed"


def test_an_engine_of_zeros_never_passes_where_int8_ruins_the_model(tmp_path: Path) -> None:
    scale = np.diag([300.0] + [1.0] * 7)
    w = np.random.default_rng(0).standard_normal((8, 4))
    w[0] = 0
    nodes = [
        helper.make_node("MatMul", ["x", "scale"], ["big"]),
        helper.make_node("Relu", ["big"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    shapes = ({"x": (FLOAT, ["N", 8])}, {"y": (FLOAT, ["N", 4])})
    proto = networks.model(nodes, *shapes, {"scale": scale.astype("f"), "w": w.astype("f")})
    networks.save(proto, tmp_path / "net.onnx")

    golden = create(Case(onnx="net.onnx", base=tmp_path))

    assert "int8" in golden.refused
    assert "int8" not in golden.envelope


def test_rows_of_a_bias_are_not_evidence(tmp_path: Path) -> None:
    b = np.random.default_rng(0).standard_normal((4, 5))
    networks.save(linear(np.zeros((8, 5)), b, batch=4), tmp_path / "net.onnx")

    for samples in (1, 3):
        with pytest.raises(EmptyGolden):
            create(Case(onnx="net.onnx", samples=samples, base=tmp_path))


def test_an_overflow_fails_with_its_figures(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "big"], ["b"]),
        helper.make_node("Mul", ["b", "small"], ["y"]),
    ]
    big = 1e5 * np.random.default_rng(0).standard_normal((8, 5))
    shapes = ({"x": (FLOAT, ["N", 8])}, {"y": (FLOAT, ["N", 5])})
    weights = {"big": big.astype("f"), "small": np.float32(1e-5)}
    networks.save(networks.model(nodes, *shapes, weights), tmp_path / "net.onnx")
    case = Case(onnx="net.onnx", base=tmp_path)
    update(case, tmp_path / "golden")

    verdict = check(case, "fp16", golden_dir=tmp_path / "golden")

    assert verdict.verdict == "failed"
    assert verdict.judgements[0].comparison.mismatched > 0


def test_one_precision_that_fails_leaves_the_envelope_of_the_others(tmp_path: Path) -> None:
    node = helper.make_node("Tanh", ["x"], ["y"])
    networks.save(networks.model([node], {"x": (FLOAT, ["N", 3])}, {"y": (FLOAT, ["N", 3])}), tmp_path / "net.onnx")

    golden = create(Case(onnx="net.onnx", base=tmp_path))

    assert set(golden.envelope) == {"fp32", "fp16", "bf16"}
    assert set(golden.refused) == {"tf32", "int8", "fp8"}


def test_limits_on_floats_do_not_set_integer_outputs_free(tmp_path: Path) -> None:
    table: dict[str, Any] = {"onnx": "net.onnx", "input": {"ids": {"low": 0, "high": 9}}, "name": "net"}
    networks.save(networks.embedding(), tmp_path / "net.onnx")
    update(Case.from_table(table, tmp_path, "t"), tmp_path / "golden")
    off = networks.embedding()
    off.graph.node[-1].output[0] = "nearly"
    off.graph.node.append(helper.make_node("Add", ["nearly", "one"], ["best"]))
    off.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    networks.save(off, tmp_path / "off.onnx")
    limits = {"model": {"rel_rms": 0.05}}
    case = Case.from_table({**table, "onnx": "off.onnx", "reference": "net.onnx", "tolerance": limits}, tmp_path, "t")

    verdict = check(case, "model", golden_dir=tmp_path / "golden")

    assert verdict.verdict == "failed"
    assert [j.output for j in verdict.judgements if j.reasons] == ["best"]


@pytest.mark.parametrize("key", ["mismatch", "outliers", "cosine", "top1", "top5", "accuracy_drop"])
def test_a_share_over_one_is_refused(key: str) -> None:
    from pytest_trt.errors import CaseError

    with pytest.raises(CaseError, match=r"is no share: write a number from 0 to 1, like 0.98 for 98 %"):
        Tolerance.from_table({key: 98}, "tolerance.int8")
