"""TRT307: bounds near the movement of an output, and errors that rounding does not explain."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from onnx import TensorProto, helper

from pytest_trt import Case, check
from pytest_trt.errors import SpecError
from pytest_trt.evidence.finding import Choice, Scrutiny
from pytest_trt.evidence.localise import Located
from pytest_trt.evidence.weak_bounds import before, cause_of, depths
from pytest_trt.golden.create import update

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from pytest_trt.evidence.finding import Finding
    from pytest_trt.findings.verdict import Verdict

FLOAT = networks.FLOAT
MENDS = ("turned", "angle", "wave")


def phases(last: str = "Sin") -> onnx.ModelProto:
    """A wave over steps that the network counts: a large number is rounded, and the wave turns it into an error."""
    nodes = [
        helper.make_node("Cast", ["step"], ["count"], "turned", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["count", "rate"], ["phase"], "angle"),
        helper.make_node(last, ["phase"], ["swing"], "wave"),
        helper.make_node("MatMul", ["x", "w"], ["q"], "fc"),
        helper.make_node("Mul", ["q", "swing"], ["y"], "scaled"),
    ]
    draw = np.random.default_rng(2)
    weights = {"rate": draw.uniform(0.1, 1, 8).astype(np.float32), "w": draw.standard_normal((8, 8)).astype(np.float32)}
    inputs: dict[str, Any] = {"x": (FLOAT, ["N", 8]), "step": (TensorProto.INT32, ["N", 1])}
    return networks.model(nodes, inputs, {"y": (FLOAT, ["N", 8])}, weights)


def case_of(folder: Path, most: int, **told: Any) -> Case:
    networks.save(phases(), folder / "net.onnx")
    draw = np.random.default_rng(5)
    steps = draw.integers(0, most, (48, 1), np.int32)
    np.savez(folder / "in.npz", x=draw.standard_normal((48, 8)).astype(np.float32), step=steps)
    case = Case.from_table({"onnx": "net.onnx", "inputs": "in.npz", **told}, folder, "trt.toml")
    update(case, folder / "golden")
    return case


def checked(case: Case, precision: str, **told: Any) -> Verdict:
    return check(case, precision, golden_dir=case.base / "golden", **told)


def weak(verdict: Verdict) -> list[Finding]:
    return [finding for finding in verdict.findings if finding.code == "TRT307"]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_error_that_rounding_does_not_explain_is_told_with_the_tensor_that_it_begins_at(
    precision: str, tmp_path: Path
) -> None:
    verdict = checked(case_of(tmp_path, 500), precision)

    [finding] = weak(verdict)
    assert verdict.verdict == "passed"
    assert finding.severity.value == "warning"
    assert "rounding in 3 operators" in finding.message
    assert "begins at tensor 'swing' of Sin 'wave'" in finding.message
    assert finding.evidence["tensor"] == "swing"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_its_remedy_lets_it_pass_without_a_finding(precision: str, tmp_path: Path) -> None:
    case = case_of(tmp_path, 500)
    [finding] = weak(checked(case, precision))

    assert finding.evidence["keep"] == list(MENDS)
    assert 'keep = ["turned", "angle", "wave"]' in finding.remedy
    mended = checked(replace(case, keep=MENDS), precision)
    assert mended.verdict == "passed"
    assert not weak(mended)
    [judgement] = mended.judgements
    assert judgement.bound is not None
    assert judgement.bound < 0.05


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
def test_small_steps_have_no_finding(precision: str, tmp_path: Path) -> None:
    assert not weak(checked(case_of(tmp_path, 16), precision))


def test_a_bound_near_the_movement_is_told_and_its_advice_accepts_it(tmp_path: Path) -> None:
    case = case_of(tmp_path, 500)
    [finding] = weak(checked(case, "bf16"))
    limit = 1.2 * finding.evidence["error"]

    assert "is near the" in finding.message
    own = Case.from_table({"onnx": "net.onnx", "tolerance": {"bf16": {"rel_rms": limit}}}, tmp_path, "trt.toml")
    accepted = checked(replace(case, tolerance=own.tolerance), "bf16")
    assert accepted.verdict == "passed"
    assert not weak(accepted)


def test_a_case_can_ask_weak_bounds_to_fail(tmp_path: Path) -> None:
    verdict = checked(case_of(tmp_path, 500, weak_bounds="fail"), "fp16")

    [finding] = weak(verdict)
    assert verdict.verdict == "failed"
    assert finding.severity.value == "error"


def test_a_finding_that_is_left_out_costs_nothing_and_fails_nothing(tmp_path: Path) -> None:
    case = case_of(tmp_path, 500, weak_bounds="fail")

    verdict = checked(case, "fp16", scrutiny=Scrutiny(Choice(ignore=("TRT307",))))

    assert verdict.verdict == "passed"
    assert not verdict.located


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(SpecError, match=r"weak_bounds: unknown word for weak bounds 'fial'.*fail"):
        Case.from_table({"onnx": "net.onnx", "weak_bounds": "fial"}, None, "trt.toml")  # type: ignore[arg-type]


def test_depth_counts_operators_that_compute_and_a_loop_by_its_steps() -> None:
    assert depths(networks.convolutional())["logits"] == 7
    assert depths(phases())["y"] == 3


def test_a_recurrent_layer_is_as_deep_as_its_sequence_is_long() -> None:
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)
    weights = {"w": np.ones((1, 16, 3), np.float32), "r": np.ones((1, 16, 4), np.float32)}
    inputs = {"x": (FLOAT, [11, "N", 3])}

    assert depths(networks.model([node], inputs, {"y": (FLOAT, [11, 1, "N", 4])}, weights))["y"] == 11


def located(tensor: str, place: int, added: float) -> Located:
    return Located(tensor, tensor, "Op", (), place, None, added, added)


def test_an_error_begins_at_the_first_tensor_that_adds_half_of_it() -> None:
    found = (located("late", 3, 10.0), located("early", 1, 14.0), located("small", 0, 60.0))

    assert cause_of(found, 0.3) == found[1]
    assert cause_of(found, 100.0) == found[0]
    assert cause_of((), 0.3) is None


def test_what_a_node_is_computed_from_ends_at_layers_of_weights() -> None:
    assert before(phases(), "wave") == MENDS
    assert before(networks.convolutional(), "relu2") == ("relu1", "add", "relu2")


def test_a_cause_is_told_where_nothing_would_be_left_to_lower(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "rate"], ["phase"]), helper.make_node("Sin", ["phase"], ["y"], "wave")]
    shapes: dict[str, Any] = {"x": (FLOAT, ["N", 6])}
    outputs: dict[str, Any] = {"y": (FLOAT, ["N", 6])}
    networks.save(networks.model(nodes, shapes, outputs, {"rate": np.float32(0.7)}), tmp_path / "net.onnx")
    np.savez(tmp_path / "in.npz", x=np.random.default_rng(0).uniform(0, 500, (40, 6)).astype(np.float32))
    case = Case.from_table({"onnx": "net.onnx", "inputs": "in.npz"}, tmp_path, "trt.toml")
    update(case, tmp_path / "golden")

    [finding] = weak(checked(case, "fp16"))

    assert finding.evidence["tensor"] == "y"
    assert finding.evidence["keep"] == []
