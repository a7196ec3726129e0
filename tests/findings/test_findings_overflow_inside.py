"""Overflows in the branches of an If and the bodies of Loop and Scan, each beside a healthy twin."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from onnx import TensorProto, helper

from pytest_trt import Case, check
from pytest_trt.golden.create import update

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from pytest_trt import Verdict

FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
node, value = helper.make_node, helper.make_tensor_value_info


def normalised(of: str, to: str) -> list[Any]:
    """A row over its size, written out; the squares of 300 are beyond fp16, and the division swallows that."""
    return [
        node("Mul", [of, of], ["squares"], "square"),
        node("ReduceMean", ["squares"], ["mean"], "mean", axes=[-1]),
        node("Sqrt", ["mean"], ["size"], "root"),
        node("Div", [of, "size"], [to], "divide"),
    ]


def branching() -> list[Any]:
    branch = helper.make_graph(normalised("a", "t"), "then", [], [value("t", FLOAT, None)])
    other = helper.make_graph([node("Neg", ["a"], ["e"], "negated")], "else", [], [value("e", FLOAT, None)])
    return [node("If", ["yes"], ["n"], "branches", then_branch=branch, else_branch=other)]


def not_taken() -> list[Any]:
    branch = helper.make_graph(normalised("a", "t"), "then", [], [value("t", FLOAT, None)])
    other = helper.make_graph([node("Tanh", ["a"], ["e"], "squashed")], "else", [], [value("e", FLOAT, None)])
    return [
        node("Not", ["yes"], ["no"], "not"),
        node("If", ["no"], ["n"], "branches", then_branch=branch, else_branch=other),
    ]


def nested() -> list[Any]:
    inner = helper.make_graph(branching(), "inner", [], [value("n", FLOAT, None)])
    other = helper.make_graph([node("Neg", ["a"], ["e2"], "negated twice")], "else2", [], [value("e2", FLOAT, None)])
    return [node("If", ["yes"], ["outer"], "around", then_branch=inner, else_branch=other)]


def looping() -> list[Any]:
    """Two turns, of a state that is multiplied by what a row over its size is."""
    body = helper.make_graph(
        [*normalised("s", "t"), node("Mul", ["t", "loud"], ["r"], "louder"), node("Identity", ["c"], ["d"], "on")],
        "body",
        [value("i", INT64, []), value("c", BOOL, []), value("s", FLOAT, [None, 8])],
        [value("d", BOOL, []), value("r", FLOAT, [None, 8])],
    )
    return [
        node("Loop", ["two", "yes", "a"], ["l"], "loop", body=body),
        node("Mul", ["l", "quiet"], ["n"], "quieter"),
    ]


def scanning() -> list[Any]:
    body = helper.make_graph(
        [*normalised("row", "t"), node("Identity", ["state"], ["kept"], "passed")],
        "rows",
        [value("state", FLOAT, [1]), value("row", FLOAT, [8])],
        [value("kept", FLOAT, [1]), value("t", FLOAT, [8])],
    )
    return [node("Scan", ["one", "a"], ["last", "n"], "scan", body=body, num_scan_inputs=1, scan_output_axes=[0])]


KINDS = {"If": branching, "nested If": nested, "Loop": looping, "Scan": scanning}


def network(kind: str, scale: float) -> onnx.ModelProto:
    draw = np.random.default_rng(0)
    inner = not_taken() if kind == "not taken" else KINDS[kind]()
    result = "outer" if kind == "nested If" else "n"
    nodes = [
        node("MatMul", ["x", "w"], ["a"], "fc"),
        *inner,
        node("MatMul", [result, "v"], ["y"], "out"),
    ]
    weights = {
        "w": (scale * draw.standard_normal((16, 8))).astype(np.float32),
        "v": draw.standard_normal((8, 4)).astype(np.float32),
        "yes": np.array(True),
        "two": np.array(2),
        "one": np.zeros(1, np.float32),
        "loud": np.float32(scale),
        "quiet": np.float32(1 / scale),
    }
    return networks.model(nodes, {"x": (FLOAT, ["N", 16])}, {"y": (FLOAT, ["N", 4])}, weights)


def case_of(folder: Path, kind: str, scale: float) -> Case:
    networks.save(network(kind, scale), folder / "net.onnx")
    np.savez(folder / "in.npz", x=np.random.default_rng(1).standard_normal((32, 16)).astype(np.float32))
    case = Case(onnx="net.onnx", inputs="in.npz", base=folder, where="trt.toml")
    update(case, folder / "golden")
    return case


def judged(case: Case, precision: str = "fp16") -> Verdict:
    return check(case, precision, golden_dir=case.base / "golden")


@pytest.mark.parametrize("kind", KINDS)
def test_an_overflow_inside_that_a_division_swallows_is_named_and_its_remedy_is_right(
    kind: str, tmp_path: Path
) -> None:
    case = case_of(tmp_path, kind, 300.0)

    verdict = judged(case)

    assert (verdict.verdict, verdict.findings[0].code) == ("failed", "TRT202")
    assert verdict.findings[0].evidence["tensor"] == "squares"
    words = re.search(r"keep = \[(.*?)\]", verdict.findings[0].remedy)
    assert words
    kept = replace(case, keep=tuple(word.strip('" ') for word in words[1].split(",")))
    assert judged(kept).verdict == "passed"


@pytest.mark.parametrize("kind", KINDS)
def test_its_healthy_twin_says_nothing(kind: str, tmp_path: Path) -> None:
    verdict = judged(case_of(tmp_path, kind, 1.0))

    assert (verdict.verdict, [one.code for one in verdict.findings]) == ("passed", ["TRT205"])


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_holds_it(kind: str, tmp_path: Path) -> None:
    assert judged(case_of(tmp_path, kind, 300.0), "bf16").verdict == "passed"


def test_a_branch_that_is_not_taken_tells_nothing(tmp_path: Path) -> None:
    assert judged(case_of(tmp_path, "not taken", 300.0)).verdict == "passed"
