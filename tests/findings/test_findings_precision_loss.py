"""Numbers that are flushed in part and sums that cancel destroy outputs at 16 bits; each beside a healthy twin."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt import Case, check
from pytest_trt.golden._precision_loss import Loss, destroyed, mended
from pytest_trt.golden.create import update
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_trt import Verdict

node = helper.make_node


def network(kind: str, size: float) -> onnx.ModelProto:
    """Rows of which a half is small and is scaled up again; or that get an offset and lose it again."""
    draw = np.random.default_rng(0)
    weights = draw.standard_normal((8, 16)).astype(np.float32)
    down = np.where(np.arange(16) < 8, size, 1).astype(np.float32)
    numbers = {"w": weights, "far": np.float32(size)}
    nodes = [node("MatMul", ["x", "w"], ["a"], "layer")]
    if kind == "small":
        numbers |= {"down": down, "up": np.sqrt(1 / down).astype(np.float32)}
        nodes += [
            node("Mul", ["a", "down"], ["tiny"], "quieter"),
            node("Mul", ["tiny", "up"], ["half"], "louder"),
            node("Mul", ["half", "up"], ["y"], "loud"),
        ]
    else:
        nodes += [node("Add", ["a", "far"], ["off"], "away"), node("Sub", ["off", "far"], ["d"], "back")]
        nodes += [node("Tanh", ["d"], ["y"], "head")]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", 8), ("y", 16)))
    graph = helper.make_graph(nodes, kind, [x], [y], [numpy_helper.from_array(v, k) for k, v in numbers.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def case_of(kind: str, size: float, folder: Path) -> Case:
    onnx.save(network(kind, size), folder / "model.onnx")
    case = Case(onnx="model.onnx", name="lost", base=folder)
    update(case, folder)
    return case


def found(case: Case, precision: str) -> Verdict:
    return check(case, precision, golden_dir=case.base)


@pytest.mark.parametrize(
    ("kind", "size", "precision", "tensor"),
    [
        ("small", 2e-7, "fp16", "tiny"),
        ("cancelled", 4096.0, "fp16", "d"),
        ("cancelled", 512.0, "bf16", "d"),
    ],
)
def test_what_destroys_an_output_is_named_and_the_advice_mends_it(
    kind: str, size: float, precision: str, tensor: str, tmp_path: Path
) -> None:
    case = case_of(kind, size, tmp_path)
    verdict = found(case, precision)
    first = next(finding for finding in verdict.findings if finding.code == "TRT202")
    assert verdict.verdict == "failed"
    assert (first.evidence["kind"], first.evidence["tensor"]) == (kind, tensor)
    keep = tuple(first.evidence["keep"])
    assert all(f'"{word}"' in first.remedy for word in keep)
    assert found(replace(case, keep=keep), precision).passed


def test_the_advice_keeps_what_the_case_keeps_already(tmp_path: Path) -> None:
    case = replace(case_of("cancelled", 4096.0, tmp_path), keep=("layer",))
    first = next(finding for finding in found(case, "fp16").findings if finding.code == "TRT202")
    assert 'keep = ["layer", "away", "back"]' in first.remedy
    assert "layer" not in first.evidence["keep"]


def test_bf16_is_advised_where_nothing_would_be_left_to_lower(tmp_path: Path) -> None:
    case = replace(case_of("cancelled", 4096.0, tmp_path), keep=("layer", "head"))
    verdict = found(case, "fp16")
    first = next(finding for finding in verdict.findings if finding.code == "TRT202")
    assert verdict.verdict == "failed"
    assert "Use bf16" in first.remedy


@pytest.mark.parametrize(("kind", "size"), [("small", 1e-2), ("cancelled", 4.0)])
def test_smaller_losses_are_not_told(kind: str, size: float, tmp_path: Path) -> None:
    verdict = found(case_of(kind, size, tmp_path), "fp16")
    assert verdict.passed
    assert "TRT202" not in [finding.code for finding in verdict.findings]


def test_outputs_that_err_little_cost_no_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_trt.golden.overflow.losses", lambda *_: pytest.fail("searched"))
    assert found(case_of("small", 1e-2, tmp_path), "fp16").passed


def test_a_near_tie_that_a_softmax_decides_otherwise_destroys_nothing() -> None:
    exact = [{"y": np.array([[0.51, 0.49], [1.0, 1e-9]], np.float32)}]
    flipped = [{"y": np.array([[0.45, 0.55], [1.0, 1e-9]], np.float32)}]

    assert destroyed(flipped, exact, Precision.FP16, {})
    assert not destroyed(flipped, exact, Precision.FP16, {"y": 1e-6})


def test_what_only_half_a_network_in_fp32_would_heal_is_no_loss() -> None:
    node = helper.make_node("Mul", ["a", "b"], ["t"], "n")
    words = tuple(f"n{number}" for number in range(40))

    assert mended([Loss("t", node, "small", (words,))], lambda _: pytest.fail("built"), lambda _: True) is None
