"""Scores at the positions of sequences: how many samples read otherwise is told, and can be limited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from onnx import helper

from pytest_trt import Case, check
from pytest_trt.golden.create import create, update

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from pytest_trt.findings.verdict import Verdict

FLOAT = networks.FLOAT
SAMPLES, POSITIONS = 12, 30


def recogniser(*, first: bool = False) -> onnx.ModelProto:
    """Features of positions to scores of 20 classes, of which each has a near twin."""
    w = np.random.default_rng(0).standard_normal((16, 10)) / 4
    w = np.concatenate([w, w + 1e-3 * np.random.default_rng(1).standard_normal(w.shape)], axis=1)
    turned = [helper.make_node("Transpose", ["s"], ["y"], "turn", perm=[1, 0, 2])] if first else []
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["l"], "fc"),
        helper.make_node("Softmax", ["l"], ["s" if first else "y"], "softmax", axis=-1),
        *turned,
    ]
    shape = [POSITIONS, "N", 20] if first else ["N", POSITIONS, 20]
    inputs: dict[str, Any] = {"x": (FLOAT, ["N", POSITIONS, 16])}
    return networks.model(nodes, inputs, {"y": (FLOAT, shape)}, {"w": w.astype(np.float32)})


def case_of(folder: Path, *, first: bool = False, **told: Any) -> Case:
    networks.save(recogniser(first=first), folder / "net.onnx")
    x = np.random.default_rng(2).standard_normal((SAMPLES, POSITIONS, 16)).astype(np.float32)
    np.savez(folder / "in.npz", x=x)
    table = {"onnx": "net.onnx", "inputs": "in.npz", "calibration": "golden", **told}
    case = Case.from_table(table, folder, "trt.toml")
    update(case, folder / "golden")
    return case


def checked(case: Case, precision: str) -> Verdict:
    return check(case, precision, golden_dir=case.base / "golden")


@pytest.mark.parametrize("first", [False, True])
def test_samples_that_read_otherwise_are_told(first: bool, tmp_path: Path) -> None:
    verdict = checked(case_of(tmp_path, first=first), "int8")

    [finding] = [one for one in verdict.findings if one.code == "TRT303"]
    assert verdict.verdict == "passed"
    assert finding.severity.value == "warning"
    assert f"of {SAMPLES} samples" in finding.message
    assert f"of {SAMPLES * POSITIONS} positions" in finding.message


def test_fp32_reads_the_same(tmp_path: Path) -> None:
    verdict = checked(case_of(tmp_path), "fp32")

    [judgement] = verdict.judgements
    assert judgement.comparison.ranking is not None
    assert judgement.comparison.ranking.top1_all == 1
    assert not [one for one in verdict.findings if one.code == "TRT303"]


def test_its_advice_accepts_it(tmp_path: Path) -> None:
    [finding] = [one for one in checked(case_of(tmp_path), "int8").findings if one.code == "TRT303"]
    told = finding.remedy.partition("tolerance.int8 = { ")[2].partition(" }")[0]
    limits = {key: float(value) for key, _, value in (one.partition(" = ") for one in told.split(", "))}

    verdict = checked(case_of(tmp_path, tolerance={"int8": limits}), "int8")

    assert limits.keys() == {"top1", "top1_all"}
    assert verdict.verdict == "passed"
    assert not [one for one in verdict.findings if one.code == "TRT303"]


def test_a_limit_on_whole_sequences_fails_the_case(tmp_path: Path) -> None:
    verdict = checked(case_of(tmp_path, tolerance={"int8": {"top1_all": 0.99}}), "int8")

    [judgement] = verdict.judgements
    assert verdict.verdict == "failed"
    assert "share of sequences that keep every best class" in judgement.reasons[0]


def test_labels_of_each_position_give_an_accuracy(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.zeros((SAMPLES, POSITIONS), np.int64))

    [judgement] = checked(case_of(tmp_path, labels="labels.npy"), "fp32").judgements

    assert judgement.accuracy is not None
    assert judgement.accuracy.actual == judgement.accuracy.reference


def test_labels_of_samples_alone_are_refused(tmp_path: Path) -> None:
    case = case_of(tmp_path)
    np.save(tmp_path / "labels.npy", np.zeros(SAMPLES, np.int64))

    with pytest.raises(Exception, match=f"one whole number for each of the {SAMPLES} x {POSITIONS} positions"):
        create(Case.from_table({"onnx": "net.onnx", "inputs": "in.npz", "labels": "labels.npy"}, case.base, "trt.toml"))
