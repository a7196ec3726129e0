"""Overflows that outputs do not show: each planted beside a healthy twin, and the advice of its finding followed."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from onnx import TensorProto, helper

from pytest_trt import Case, Tolerance, check
from pytest_trt.evidence.evidence import Evidence
from pytest_trt.evidence.output_errors import Observed
from pytest_trt.findings.diagnosis import diagnose
from pytest_trt.golden.create import update
from pytest_trt.golden.golden import read, write
from pytest_trt.golden.overflow import Overflow
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_trt import Finding, Verdict

FLOAT = networks.FLOAT
node = helper.make_node


def head() -> Any:
    return node("MatMul", ["x", "w"], ["a"], "fc")


def weight(scale: float, columns: int = 8) -> np.ndarray:
    return (scale * np.random.default_rng(0).standard_normal((16, columns))).astype(np.float32)


def case_of(folder: Path, nodes: list[Any], weights: dict[str, Any], x: np.ndarray | None = None) -> Case:
    shape: list[Any] = ["N", None]
    proto = networks.model(nodes, {"x": (FLOAT, ["N", 16])}, {"y": (FLOAT, shape)}, weights)
    networks.save(proto, folder / "net.onnx")
    np.savez(folder / "in.npz", x=np.random.default_rng(1).standard_normal((32, 16)).astype("f") if x is None else x)
    case = Case(onnx="net.onnx", inputs="in.npz", calibration="golden", base=folder, where="trt.toml")
    update(case, folder / "golden")
    return case


def judged(case: Case, precision: str = "fp16") -> Verdict:
    return check(case, precision, golden_dir=case.base / "golden")


def finding(verdict: Verdict) -> Finding:
    assert verdict.findings[0].code == "TRT202"
    return verdict.findings[0]


def advised(case: Case, verdict: Verdict) -> Case:
    """The case as the finding's own words say, and nothing else."""
    words = re.search(r"keep = \[(.*?)\]", finding(verdict).remedy)
    assert words
    return replace(case, keep=tuple(word.strip('" ') for word in words[1].split(",")))


def normalised(names: bool = True) -> list[Any]:
    """x / sqrt(mean(x^2)), written out: the square of 300 is beyond fp16."""
    nodes = [
        head(),
        node("Mul", ["a", "a"], ["square"], "sq"),
        node("ReduceMean", ["square"], ["mean"], "mean", axes=[-1]),
        node("Sqrt", ["mean"], ["deviation"], "sd"),
        node("Div", ["a", "deviation"], ["n"], "divide"),
        node("MatMul", ["n", "v"], ["y"], "out"),
    ]
    for one in nodes if not names else []:
        one.name = ""
    return nodes


@pytest.mark.parametrize("names", [True, False])
def test_an_infinity_that_a_division_swallows_is_named_and_its_remedy_is_right(tmp_path: Path, names: bool) -> None:
    case = case_of(tmp_path, normalised(names), {"w": weight(30), "v": weight(1)[:8]})

    verdict = judged(case)

    assert (verdict.verdict, finding(verdict).evidence["tensor"]) == ("failed", "square")
    assert verdict.judgements[0].comparison.mismatched == 0
    assert advised(case, verdict).keep == (("sq", "mean") if names else ("square", "mean"))
    assert judged(advised(case, verdict)).verdict == "passed"
    assert judged(case, "bf16").verdict == "passed"


def test_its_healthy_twin_says_nothing(tmp_path: Path) -> None:
    verdict = judged(case_of(tmp_path, normalised(), {"w": weight(1), "v": weight(1)[:8]}))

    assert (verdict.verdict, [one.code for one in verdict.findings]) == ("passed", ["TRT205"])


def test_two_loud_samples_of_many_do_not_become_the_bound(tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((64, 16)).astype("f")
    x[[5, 40]] *= 30
    case = case_of(tmp_path, normalised(), {"w": weight(5), "v": weight(1)[:8]}, x)

    verdict = judged(case)

    assert (verdict.verdict, finding(verdict).evidence["node"]) == ("failed", "sq")
    bound = read(tmp_path / "golden" / "net.safetensors", "").envelope["fp16"]["y"]["bound"]
    assert bound < 0.01
    assert judged(advised(case, verdict)).judgements[0].bound == pytest.approx(bound, rel=0.5)


def test_a_tolerance_of_ones_own_does_not_hide_it(tmp_path: Path) -> None:
    case = case_of(tmp_path, normalised(), {"w": weight(30), "v": weight(1)[:8]})
    wide = replace(case, tolerance={"fp16": Tolerance(rel_rms=5.0)})

    verdict = judged(wide)

    assert (verdict.verdict, verdict.judgements[0].reasons) == ("failed", ())
    assert judged(advised(replace(case, tolerance={"fp16": Tolerance(rel_rms=0.01)}), verdict)).verdict == "passed"


SWALLOWED = {
    "a Sigmoid": (
        [
            head(),
            node("Neg", ["a"], ["n"]),
            node("Exp", ["n"], ["e"]),
            node("Add", ["e", "one"], ["s"]),
            node("Div", ["one", "s"], ["y"]),
        ],
        3,
    ),
    "a Clip": ([head(), node("Mul", ["a", "large"], ["m"]), node("Clip", ["m", "one", "six"], ["y"])], 3),
    "zeros": ([head(), node("Mul", ["a", "zero"], ["z"]), node("Add", ["a", "z"], ["y"])], 1),
}


@pytest.mark.parametrize("how", SWALLOWED)
def test_an_infinity_that_is_rightly_swallowed_is_no_fault(tmp_path: Path, how: str) -> None:
    nodes, scale = SWALLOWED[how]
    numbers = {"one": 1, "six": 6, "large": 6e4, "zero": 0}
    case = case_of(tmp_path, nodes, {"w": weight(scale), **{key: np.float32(n) for key, n in numbers.items()}})

    assert [one.code for one in judged(case).findings] == ["TRT205"]


FLUSHED = {
    "a logarithm": ([node("Abs", ["a"], ["b"], "abs"), node("Add", ["b", "eps"], ["c"], "add")], "Log", "c"),
    "a reciprocal": ([node("Relu", ["a"], ["b"], "relu"), node("Max", ["b", "eps"], ["c"], "max")], "Reciprocal", "c"),
}


def test_an_overflow_of_one_element_among_many_is_none_of_the_envelope(tmp_path: Path) -> None:
    nodes = [
        head(),
        node("Mul", ["a", "a"], ["q"], "sq"),
        node("Sqrt", ["q"], ["r"], "root"),
        node("Div", ["a", "r"], ["y"], "sign"),
    ]
    x = np.random.default_rng(1).standard_normal((32, 16)).astype("f")
    case = case_of(tmp_path, nodes, {"w": np.eye(16, 512, dtype=np.float32) + 0.01}, x)
    x[5, 3] = 400
    np.savez(tmp_path / "in.npz", x=x)
    update(case, tmp_path / "golden")

    assert finding(judged(case)).evidence["node"] == "sq"


@pytest.mark.parametrize("how", FLUSHED)
def test_what_is_flushed_to_zero_in_a_sample_and_divided_by_is_told_as_such(tmp_path: Path, how: str) -> None:
    before, last, cause = FLUSHED[how]
    x = np.random.default_rng(1).standard_normal((32, 16)).astype("f")
    x[3] = 0
    nodes = [head(), *before, node(last, ["c"], ["y"], "last")]
    case = case_of(tmp_path, nodes, {"w": weight(1), "eps": np.float32(1e-10)}, x)

    verdict = judged(case)

    assert finding(verdict).message.startswith(f"fp16 makes zero of what the model needs: tensor {cause!r}")
    assert "is flushed to zero throughout a sample" in finding(verdict).message
    assert finding(verdict).evidence["tensor"] == cause
    assert judged(advised(case, verdict)).verdict == "passed"


def test_a_tensor_that_is_flushed_throughout_is_found(tmp_path: Path) -> None:
    nodes = [head(), node("Mul", ["a", "tiny"], ["t"], "down"), node("Mul", ["t", "large"], ["y"], "up")]
    case = case_of(tmp_path, nodes, {"w": weight(1), "tiny": np.float32(1e-9), "large": np.float32(6e4)})

    verdict = judged(case)

    assert finding(verdict).evidence["kind"] == "flushed"
    assert judged(advised(case, verdict)).verdict == "passed"


def attention(folder: Path, rows: np.ndarray, fill: float) -> Case:
    """Softmax over scores plus a mask that is made in the graph, of 6 keys."""
    nodes = [
        node("MatMul", ["x", "w"], ["scores"], "scores"),
        node("Where", ["rows", "zero", "fill"], ["mask"], "mask"),
        node("Add", ["scores", "mask"], ["masked"], "add"),
        node("Softmax", ["masked"], ["p"], "softmax", axis=-1),
        node("MatMul", ["p", "v"], ["y"], "out"),
    ]
    weights = {"w": weight(4, 6), "v": weight(1)[:6], "rows": rows, "zero": np.float32(0), "fill": np.float32(fill)}
    return case_of(folder, nodes, weights)


LOWEST = float(np.finfo(np.float32).min)


@pytest.mark.parametrize("fill", [LOWEST, -65504, -1e9, -np.inf])
def test_masks_are_no_overflow(tmp_path: Path, fill: float) -> None:
    rows = np.arange(32 * 6).reshape(32, 6) % 3 > 0

    verdict = judged(attention(tmp_path, rows, fill))

    assert (verdict.verdict, [one.code for one in verdict.findings]) == ("passed", ["TRT205"])


def test_a_row_of_nothing_but_masks_is_told(tmp_path: Path) -> None:
    rows = np.arange(32 * 6).reshape(32, 6) % 3 > 0
    rows[7] = False
    case = attention(tmp_path, rows, LOWEST)

    verdict = judged(case)

    assert finding(verdict).evidence["node"] == "add"
    assert judged(advised(case, verdict)).verdict == "passed"


def test_keep_counts_in_an_envelope_that_was_made_without_it(tmp_path: Path) -> None:
    case = case_of(tmp_path, normalised(), {"w": weight(30), "v": weight(1)[:8]})
    kept = replace(case, keep=("sq", "mean", "sd", "divide"))

    late = judged(kept)
    update(kept, tmp_path / "golden")
    early = judged(kept)

    assert late.verdict == early.verdict == "passed"
    assert late.judgements[0].bound == early.judgements[0].bound
    assert judged(case).verdict == "failed"


def test_keep_narrows_the_bound_to_its_own_error(tmp_path: Path) -> None:
    case = case_of(tmp_path, [head(), node("MatMul", ["a", "v"], ["y"], "out")], {"w": weight(1), "v": weight(1)[:8]})

    whole, kept = (judged(one, "int8").judgements[0] for one in (case, replace(case, keep=("fc",))))

    assert kept.error < whole.error
    assert (kept.bound or 0) < 0.9 * (whole.bound or 0)


def test_a_golden_that_tells_nothing_of_it_is_read_and_looked_into(tmp_path: Path) -> None:
    case = case_of(tmp_path, normalised(), {"w": weight(30), "v": weight(1)[:8]})
    place = tmp_path / "golden" / "net.safetensors"
    write(replace(read(place, ""), overflow={}, kept={}), place, "net")

    assert finding(judged(case)).evidence["node"] == "sq"


def of(inner: Overflow, *, simulated: bool, outside: bool) -> list[Finding]:
    seen = Observed("y", ("outside",) if outside else (), 0.1, 0.2)
    evidence = Evidence(
        case="net",
        precision=Precision.FP16,
        held="fp32",
        backend="tensorrt",
        simulated=simulated,
        observed=(seen,),
        inner=inner,
    )
    return [one for one in diagnose(evidence) if one.code == "TRT202"]


@pytest.mark.parametrize(
    ("kind", "simulated", "outside", "severity"),
    [
        ("beyond", True, False, "error"),
        ("beyond", False, False, "warning"),
        ("beyond", False, True, "error"),
        ("masked", True, False, "warning"),
    ],
)
def test_an_engine_is_judged_by_its_own_outputs(kind: str, simulated: bool, outside: bool, severity: str) -> None:
    (found,) = of(Overflow("s", "sum", "ReduceSum", kind, "", ("sum",)), simulated=simulated, outside=outside)

    assert found.severity.value == severity


def looped() -> Any:
    """x @ w, then @ u in a branch of an If and three times in a Loop, all in fp32."""
    value = helper.make_tensor_value_info
    branch = helper.make_graph([node("MatMul", ["a", "u"], ["t"], "inside")], "t", [], [value("t", FLOAT, None)])
    other = helper.make_graph([node("Neg", ["a"], ["e"], "negated")], "e", [], [value("e", FLOAT, None)])
    state = [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, [])]
    body = helper.make_graph(
        [node("MatMul", ["s", "u"], ["m"], "again"), node("Identity", ["c"], ["d"]), node("Tanh", ["m"], ["r"])],
        "body",
        [*state, value("s", FLOAT, [None, 8])],
        [value("d", TensorProto.BOOL, []), value("r", FLOAT, [None, 8])],
    )
    nodes = [
        head(),
        node("ReduceMean", ["a"], ["mean"], "mean", keepdims=0),
        node("Greater", ["mean", "zero"], ["which"], "which"),
        node("If", ["which"], ["b"], "branches", then_branch=branch, else_branch=other),
        node("Loop", ["three", "", "b"], ["l"], "loop", body=body),
        node("MatMul", ["l", "v"], ["y"], "out"),
    ]
    weights = {"w": weight(1), "u": weight(0.5)[:8], "v": weight(1)[:8], "zero": np.float32(0), "three": np.int64(3)}
    shapes: tuple[Any, Any] = ({"x": (FLOAT, ["N", 16])}, {"y": (FLOAT, ["N", 8])})
    return networks.model(nodes, *shapes, weights)


def test_what_multiplies_in_subgraphs_is_named_at_once_and_can_be_kept(tmp_path: Path) -> None:
    networks.save(looped(), tmp_path / "net.onnx")
    case = Case(onnx="net.onnx", calibration="golden", base=tmp_path, where="trt.toml", samples=16)
    update(case, tmp_path / "golden")

    refused = judged(case, "int8")

    assert refused.verdict == "error"
    assert 'keep = ["inside", "again"]' in refused.message
    assert judged(replace(case, keep=("inside", "again")), "int8").verdict == "passed"


def quiet_rows(least: float) -> np.ndarray:
    """Samples of which every other one is small, and rounded to zero by a range that fits the others."""
    rows = np.random.default_rng(1).standard_normal((32, 16)).astype(np.float32)
    rows[::2] *= least
    return rows


@pytest.mark.parametrize(("least", "codes"), [(1e-4, ["TRT202"]), (1.0, [])])
def test_a_logarithm_of_a_sum_that_int8_makes_zero_is_found_behind_a_clip(
    least: float, codes: list[str], tmp_path: Path
) -> None:
    nodes = [
        head(),
        node("Abs", ["a"], ["size"], "abs"),
        node("ReduceLogSum", ["size"], ["level"], "level", axes=[-1]),
        node("Clip", ["level", "low", "high"], ["y"], "clip"),
    ]
    weights = {"w": weight(1), "low": np.float32(-50), "high": np.float32(50)}

    verdict = judged(case_of(tmp_path, nodes, weights, quiet_rows(least)), "int8")

    found = [one for one in verdict.findings if one.code == "TRT202"]
    assert [one.code for one in found] == codes
    assert [one.evidence["tensor"] for one in found] == ["level"] * len(codes)
