"""The gate judges an output in its parts: what one part hides in another fails."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from onnx import TensorProto, helper

from pytest_trt import Case, Tolerance, check
from pytest_trt.golden.create import update
from pytest_trt.golden.golden import read, write
from pytest_trt.report.record import record_of
from pytest_trt.report.terminal import message

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_trt.findings.verdict import Verdict

FLOAT = TensorProto.FLOAT
DRAW = np.random.default_rng(0)
WEIGHTS = {
    "w": DRAW.standard_normal((16, 12)).astype(np.float32) / 2,
    "boxes": DRAW.standard_normal((12, 4)).astype(np.float32) / 2,
    "classes": DRAW.standard_normal((12, 6)).astype(np.float32) / 2,
    "size": np.float32(640),
}


def detector(**changed: Any) -> Any:
    """Boxes to 640 beside class scores to 1."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "stem"),
        helper.make_node("Relu", ["h"], ["a"], "act"),
        helper.make_node("MatMul", ["a", "boxes"], ["b"], "box"),
        helper.make_node("Sigmoid", ["b"], ["bs"], "box_sigmoid"),
        helper.make_node("Mul", ["bs", "size"], ["bp"], "pixels"),
        helper.make_node("MatMul", ["a", "classes"], ["c"], "class"),
        helper.make_node("Sigmoid", ["c"], ["cs"], "class_sigmoid"),
        helper.make_node("Concat", ["bp", "cs"], ["y"], "head", axis=1),
    ]
    return networks.model(nodes, {"x": (FLOAT, ["N", 16])}, {"y": (FLOAT, ["N", 10])}, {**WEIGHTS, **changed})


@pytest.fixture
def case(tmp_path: Path) -> Case:
    networks.save(detector(), tmp_path / "net.onnx")
    np.savez(tmp_path / "in.npz", x=np.random.default_rng(1).standard_normal((32, 16)).astype(np.float32))
    found = Case(onnx="net.onnx", inputs="in.npz", calibration="golden", base=tmp_path, where="trt.toml", name="net")
    update(found, tmp_path / "golden")
    return found


def judged(case: Case, precision: str) -> Verdict:
    return check(case, precision, golden_dir=case.base / "golden")


def changed(case: Case, **weights: Any) -> Case:
    networks.save(detector(**weights), case.base / "other.onnx")
    return replace(case, onnx="other.onnx", reference="net.onnx")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_a_healthy_detector_passes_in_two_parts(case: Case, precision: str) -> None:
    verdict = judged(case, precision)

    assert verdict.passed, verdict
    assert [one.part.name for one in verdict.judgements[0].parts] == ["y[:, 0:4]", "y[:, 4:10]"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_detector_that_sees_nothing_fails_and_its_columns_are_named(case: Case, precision: str) -> None:
    verdict = judged(changed(case, classes=WEIGHTS["classes"] * 0), precision)

    still = next(finding for finding in verdict.findings if finding.code == "TRT305")
    assert verdict.verdict == "failed"
    assert "y[:, 4:10]" in still.message
    assert verdict.judgements[0].part.name == "y[:, 4:10]"


def test_one_dead_class_fails_by_its_column_at_int8(case: Case) -> None:
    classes = WEIGHTS["classes"].copy()
    classes[:, 3] = 0

    verdict = judged(changed(case, classes=classes), "int8")

    still = next(finding for finding in verdict.findings if finding.code == "TRT305")
    assert still.evidence["slices"] == [7]


def test_the_record_and_the_message_tell_every_part(case: Case) -> None:
    verdict = judged(changed(case, classes=WEIGHTS["classes"] * 0), "fp16")
    record = record_of(verdict)

    parts = record["outputs"]["y"]["parts"]
    assert [(part["name"], part["outside"]) for part in parts] == [("y[:, 0:4]", False), ("y[:, 4:10]", True)]
    assert record["outputs"]["y"]["error"] == parts[1]["error"]
    assert "parts: y[:, 0:4]" in message(record, whole=True)


def test_a_golden_of_schema_1_is_judged_whole_and_said_to_be_older(case: Case) -> None:
    place = case.base / "golden" / "net.safetensors"
    golden = read(place, "")
    whole = {"fp16": {"y": {"error": 5e-4, "bound": 2e-3}}}
    write(replace(golden, envelope=whole), place, "net")
    place.write_bytes(place.read_bytes().replace(b'"schema":"2"', b'"schema":"1"'))

    verdict = judged(case, "fp16")

    assert verdict.passed
    assert verdict.judgements[0].part.name == "y"
    [older] = [finding for finding in verdict.findings if finding.code == "TRT507"]
    assert "older than this release, and knows no parts of outputs" in older.message


def test_a_users_limit_is_of_every_part(case: Case) -> None:
    loose = replace(changed(case, classes=WEIGHTS["classes"] * 1.2), tolerance={"fp16": Tolerance(rel_rms=0.02)})

    verdict = judged(loose, "fp16")

    assert verdict.judgements[0].part.name == "y[:, 4:10]"
    assert "relative RMS" in verdict.judgements[0].reasons[0]


@pytest.mark.parametrize("name", ["y", "head/y:0"])
def test_the_limit_that_a_weak_bound_names_is_taken_word_for_word(case: Case, name: str) -> None:
    proto = detector()
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = name
    networks.save(proto, case.base / "net.onnx")
    few = np.random.default_rng(3).standard_normal((32, 16)).astype(np.float32)
    np.savez(case.base / "in.npz", x=np.float32(0.02) * few + few[:1])
    update(case, case.base / "golden")
    [weak, *_] = [finding for finding in judged(case, "int8").findings if finding.code == "TRT307"]

    limit = re.search(r"tolerance\.int8 = \{.*\}", weak.remedy)
    assert limit
    table = tomllib.loads(limit[0])["tolerance"]["int8"]
    accepted = replace(case, tolerance={"int8": Tolerance.from_table(table, "trt.toml")})
    assert not [finding for finding in judged(accepted, "int8").findings if finding.code in ("TRT302", "TRT307")]


def test_sensitivity_judges_the_parts_that_the_gate_judges(case: Case) -> None:
    from pytest_trt.calibration.calibration import calibrate
    from pytest_trt.evidence.sensitivity import sensitivity
    from pytest_trt.lowering.qdq import quantised_activations
    from pytest_trt.model.model import load

    golden, model = read(case.base / "golden" / "net.safetensors", ""), load(case.base / "net.onnx")
    ranges = calibrate(model, quantised_activations(model.proto), [golden.inputs], "the golden")
    bounds = {name: entry["bound"] for name, entry in golden.envelope["int8"].items()}

    found = sensitivity(
        model, "int8", [golden.inputs], ranges, exact=[golden.outputs], bounds=bounds, parts=golden.parts("int8")
    )

    strains = [one.strain[1] for one in judged(case, "int8").judgements[0].parts]
    assert found.error == pytest.approx(max(strains), rel=1e-6)


def logits(low: float) -> Any:
    """Logits of which every fifth is forbidden."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"], "fc"),
        helper.make_node("Where", ["allowed", "s", "low"], ["y"], "forbid"),
    ]
    weights = {"w": WEIGHTS["w"][:, :10], "low": np.float32(low), "allowed": np.arange(10) % 5 != 0}
    return networks.model(nodes, {"x": (FLOAT, ["N", 16])}, {"y": (FLOAT, ["N", 10])}, weights)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
@pytest.mark.parametrize("low", [-1000, -1e4, -1e30, -np.inf])
def test_logits_beside_a_sentinel_are_judged_by_their_own_size(case: Case, low: float, precision: str) -> None:
    networks.save(logits(low), case.base / "net.onnx")
    update(case, case.base / "golden")
    broken = logits(low)
    networks.save(networks.with_weight(broken, "w", lambda w: w * np.float32(0.8)), case.base / "other.onnx")

    assert judged(case, precision).passed
    assert judged(replace(case, onnx="other.onnx", reference="net.onnx"), precision).verdict == "failed"


def test_a_single_sample_of_logits_beside_a_sentinel_is_seen_to_move(case: Case) -> None:
    networks.save(logits(-1e4), case.base / "net.onnx")
    np.savez(case.base / "in.npz", x=np.random.default_rng(1).standard_normal((1, 16)).astype(np.float32))
    update(case, case.base / "golden")

    assert judged(case, "fp16").passed


def test_an_infinity_of_the_golden_that_the_output_lacks_fails(case: Case) -> None:
    networks.save(logits(-np.inf), case.base / "net.onnx")
    update(case, case.base / "golden")
    networks.save(logits(-65504), case.base / "other.onnx")

    verdict = judged(replace(case, onnx="other.onnx", reference="net.onnx"), "fp16")

    assert "lacks 64 NaN or infinities that the golden has" in verdict.findings[0].message


def mean() -> Any:
    """A mean over a length that may be 0: 0/0 is NaN, and right."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"], "fc"),
        helper.make_node("Mul", ["s", "n"], ["p"], "pad"),
        helper.make_node("Div", ["p", "n"], ["y"], "mean"),
    ]
    inputs = {"x": (FLOAT, ["N", 16]), "n": (FLOAT, ["N", 1])}
    return networks.model(nodes, inputs, {"y": (FLOAT, ["N", 12])}, {"w": WEIGHTS["w"]})


def padded(case: Case) -> Case:
    networks.save(mean(), case.base / "net.onnx")
    n = (np.arange(32) % 4).reshape(-1, 1).astype(np.float32)
    np.savez(case.base / "in.npz", x=np.random.default_rng(1).standard_normal((32, 16)).astype(np.float32), n=n)
    return case


def test_nan_in_fp32_is_refused_and_the_way_that_the_message_names_judges_it(case: Case) -> None:
    from pytest_trt.errors import GoldenRefused

    with pytest.raises(GoldenRefused, match=r'nan_outputs = \["y"\]'):
        update(padded(case), case.base / "golden")

    listed = replace(case, nan_outputs=("y",))
    update(listed, case.base / "golden")
    assert judged(listed, "fp16").passed


@pytest.mark.parametrize("key", ["nan_outputs", "constant_outputs", "outputs", "ignore_outputs"])
def test_a_list_of_outputs_that_names_none_of_the_models_is_refused(case: Case, key: str) -> None:
    verdict = judged(replace(case, **{key: ("yy",)}), "fp16")  # type: ignore[arg-type]

    assert (verdict.verdict, verdict.kind) == ("error", "CaseError")
    assert f"{key} names 'yy', which is no output of" in verdict.message


def test_a_limit_on_sequences_is_refused_where_there_are_none(case: Case) -> None:
    verdict = judged(replace(case, tolerance={"fp16": Tolerance(top1_all=0.9)}), "fp16")

    assert verdict.kind == "CaseError"
    assert "take top1" in verdict.message


def test_right_sentinels_do_not_pass_values_beside_them_that_nothing_can_judge(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    samples = np.hstack([np.full((32, 1), 1000), draw.standard_normal((32, 8))]).astype(np.float32)
    weights = np.vstack([np.full((1, 4), 1e-3), draw.standard_normal((8, 4)) / 8]).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "lost_at_int8"),
        helper.make_node("Pad", ["h", "pads", "mask"], ["y"], "masked"),
    ]
    held = {"w": weights, "pads": np.array([0, 0, 0, 1], np.int64), "mask": np.float32(-1000)}
    networks.save(
        networks.model(nodes, {"x": (FLOAT, ["N", 9])}, {"y": (FLOAT, ["N", 5])}, held), tmp_path / "net.onnx"
    )
    np.savez(tmp_path / "in.npz", x=samples)
    case = Case(onnx="net.onnx", inputs="in.npz", calibration="golden", base=tmp_path, where="trt.toml", name="net")
    update(case, golden_dir=tmp_path / "golden")

    verdict = judged(case, "int8")

    assert not verdict.passed
    assert "a correct implementation errs on 'y'" in message(record_of(verdict))


def unbatched(**changed: Any) -> Any:
    """A detector of one picture, without an axis of samples: 10 rows of 16 places, boxes before class scores."""
    nodes = [
        helper.make_node("MatMul", ["boxes", "x"], ["b"], "box"),
        helper.make_node("Sigmoid", ["b"], ["bs"], "box_sigmoid"),
        helper.make_node("Mul", ["bs", "size"], ["bp"], "pixels"),
        helper.make_node("MatMul", ["classes", "x"], ["c"], "class"),
        helper.make_node("Sigmoid", ["c"], ["cs"], "class_sigmoid"),
        helper.make_node("Concat", ["bp", "cs"], ["y"], "head", axis=0),
    ]
    held = {"boxes": WEIGHTS["boxes"].T, "classes": WEIGHTS["classes"].T, "size": np.float32(640)} | changed
    return networks.model(nodes, {"x": (FLOAT, [12, 16])}, {"y": (FLOAT, [10, 16])}, held)


@pytest.fixture(params=[1, 5])
def flat(tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    """Of one or of five runs."""
    networks.save(unbatched(), tmp_path / "net.onnx")
    draw = np.random.default_rng(1).standard_normal((request.param * 12, 16)).astype(np.float32)
    np.savez(tmp_path / "in.npz", x=draw)
    case = Case(onnx="net.onnx", inputs="in.npz", calibration="golden", base=tmp_path, where="trt.toml", name="net")
    update(case, golden_dir=tmp_path / "golden")
    return case


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_rows_of_an_output_without_samples_are_judged_by_their_scale(flat: Case, precision: str) -> None:
    verdict = judged(flat, precision)

    assert verdict.passed
    assert {part.part.name for part in verdict.judgements[0].parts} == {"y[0:4]", "y[4:10]"}


def test_class_scores_that_died_fail_where_there_is_no_axis_of_samples(flat: Case) -> None:
    networks.save(unbatched(classes=np.zeros((6, 12), np.float32)), flat.base / "other.onnx")

    verdict = judged(replace(flat, onnx="other.onnx", reference="net.onnx"), "fp16")

    assert not verdict.passed
    assert "y[4:10]" in message(record_of(verdict))


def test_a_row_that_stands_still_is_found_where_runs_follow_one_another(tmp_path: Path, flat: Case) -> None:
    weights = WEIGHTS["classes"].T.copy()
    weights[2] = 0
    networks.save(unbatched(classes=weights), flat.base / "other.onnx")

    verdict = judged(replace(flat, onnx="other.onnx", reference="net.onnx"), "fp16")

    runs = len(np.load(flat.base / "in.npz")["x"]) // 12
    found = [finding for finding in verdict.findings if finding.code == "TRT305"]
    assert [finding.evidence["slices"] for finding in found] == ([[6]] if runs > 1 else [])
