"""check(): a case that is right passes, and each fault that is planted does not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt import Case, Tolerance, Verdict, check
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.errors import SpecError
from pytest_trt.golden.create import update
from pytest_trt.lowering._strong_typing import bf16_typed, fp16_typed
from pytest_trt.lowering.casts import bf16_sandwich
from pytest_trt.lowering.qdq import int8_qdq
from pytest_trt.model.model import checked
from pytest_trt.report.record import record_of
from pytest_trt.report.terminal import message

if TYPE_CHECKING:
    from pathlib import Path

PRECISIONS = ["fp32", "tf32", "fp16", "bf16", "int8"]


def judged(case: Case, precision: str = "fp32", **options: Any) -> Verdict:
    return check(case, precision, golden_dir=case.base / "golden", **options)


def text(verdict: Verdict) -> str:
    return message(record_of(verdict))


@pytest.mark.parametrize("precision", [*PRECISIONS, "fp8"])
def test_a_right_model_passes_and_is_labelled_simulated(case: Case, precision: str) -> None:
    verdict = judged(case, precision)

    assert (verdict.verdict, verdict.simulated, verdict.backend) == ("passed", True, "onnxruntime")
    assert verdict.worst is not None
    assert verdict.worst.bound is not None
    assert verdict.worst.error <= verdict.worst.bound


def reference_to(case: Case, changed: onnx.ModelProto) -> Case:
    """The case with another file under test, judged against the golden of the first."""
    networks.save(changed, case.base / "changed.onnx")
    return replace(case, name="net", onnx="changed.onnx", reference="net.onnx")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("name", "factor"), [("w1", 1.1), ("w2", 1.1), ("w3", 1.1), ("b1", 1.1), ("b3", 1.2)])
def test_a_weight_scaled_by_a_tenth_more_fails(case: Case, precision: str, name: str, factor: float) -> None:
    changed = networks.with_weight(networks.convolutional(), name, lambda w: w * factor)

    assert judged(reference_to(case, changed), precision).verdict == "failed"


@pytest.mark.parametrize("name", ["w1", "w2", "w3"])
def test_a_weight_scaled_by_a_half_more_fails_at_fp8(case: Case, name: str) -> None:
    changed = networks.with_weight(networks.convolutional(), name, lambda w: w * 1.5)

    assert judged(reference_to(case, changed), "fp8").verdict == "failed"


def test_a_kept_node_is_in_the_record_and_moves_the_outputs(case: Case) -> None:
    kept = replace(case, keep=("fc",), ops=("Conv", "Gemm"))

    plain, found = judged(case, "int8"), judged(kept, "int8")

    assert found.verdict == "passed"
    assert record_of(found)["provenance"]["keep"] == ["fc"]
    assert record_of(found)["provenance"]["ops"] == ["Conv", "Gemm"]
    assert "keep" not in record_of(plain)["provenance"]
    assert found.worst is not None
    assert plain.worst is not None
    assert found.worst.error != plain.worst.error


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"keep": ("conv9",)}, "the model has no node 'conv9'; the nearest are 'conv2'"),
        ({"ops": ("conv",)}, "int8 lowers no operator 'conv': did you mean 'Conv'"),
        ({"keep": ("conv1", "conv2", "fc")}, "quantising would change nothing here"),
    ],
)
def test_a_node_that_can_not_be_kept_is_never_a_pass(case: Case, told: dict[str, Any], said: str) -> None:
    verdict = judged(replace(case, **told), "int8")

    assert (verdict.verdict, verdict.kind) == ("error", "LoweringError")
    assert said in verdict.message


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_weight_of_nan_fails(case: Case, precision: str, odd: float) -> None:
    changed = networks.with_weight(networks.convolutional(), "w3", lambda w: np.where(w == w.max(), odd, w).astype("f"))

    verdict = judged(reference_to(case, changed), precision)

    assert verdict.verdict == "failed", verdict.message
    assert "NaN" in text(verdict)


def test_nan_weights_can_not_be_judged_at_int8(case: Case) -> None:
    changed = networks.with_weight(networks.convolutional(), "w3", lambda w: w * np.nan)

    verdict = judged(reference_to(case, changed), "int8")

    assert (verdict.verdict, verdict.kind) == ("error", "LoweringError")
    assert "weight 'w3' holds NaN or infinity" in verdict.message


def test_nan_weights_make_the_models_own_golden_stale(case: Case) -> None:
    networks.save(networks.with_weight(networks.convolutional(), "w3", lambda w: w * np.nan), case.base / "net.onnx")

    assert judged(case).kind == "StaleGolden"


@pytest.mark.parametrize("scale", [0.1, 0.3, 10.0])
def test_calibration_of_another_scale_fails(case: Case, scale: float) -> None:
    np.savez(case.base / "wrong.npz", x=np.float32(scale) * networks.images(64, seed=2))

    verdict = judged(replace(case, calibration="wrong.npz"), "int8")

    assert verdict.verdict == "failed"
    assert "is over the bound" in text(verdict)


def test_int8_without_calibration_is_an_error_that_says_what_to_write(case: Case) -> None:
    verdict = judged(replace(case, calibration=None), "int8")

    assert (verdict.verdict, verdict.kind) == ("error", "CaseError")
    assert "calibration" in verdict.message


def test_calibration_on_the_golden_is_taken_when_it_is_asked_for(case: Case) -> None:
    verdict = judged(replace(case, calibration="golden"), "int8")

    assert verdict.passed
    assert verdict.provenance["calibration"] == "golden"


def test_calibration_that_can_not_be_used_is_an_error(case: Case) -> None:
    x = networks.images()
    x[5, 0, 0, 0] = np.nan
    np.savez(case.base / "nan.npz", x=x)
    np.savez(case.base / "none.npz", x=x[:0])

    assert "first in sample 5" in judged(replace(case, calibration="nan.npz"), "int8").message
    assert "holds no samples" in judged(replace(case, calibration="none.npz"), "int8").message
    assert "can't be read" in judged(replace(case, calibration="missing.npz"), "int8").message


def calibrated(proto: onnx.ModelProto) -> onnx.ModelProto:
    samples = [{"x": networks.images(64, seed=2)}]
    return int8_qdq(proto, calibrate(checked(proto, "net"), ["x", "r1", "f"], samples, "x").amax)


@pytest.mark.parametrize(
    ("lowered", "held"),
    [
        (calibrated, "int8"),
        (fp16_typed, "fp16"),
        (bf16_sandwich, "bf16"),
        (lambda p: p, "fp32"),
    ],
)
def test_a_file_of_any_tool_is_judged_as_it_is_by_the_precision_it_holds(case: Case, lowered: Any, held: str) -> None:
    verdict = judged(reference_to(case, lowered(networks.convolutional())), "model")

    assert verdict.verdict == "passed"
    assert verdict.held == held


def test_placeholder_ranges_in_a_file_fail(case: Case) -> None:
    placeholders = int8_qdq(networks.convolutional(), {"x": 2.0, "r1": 4.0, "f": 400.0})

    assert judged(reference_to(case, placeholders), "model").verdict == "failed"


def test_a_file_with_fp16_at_its_ends_is_judged_against_fp32(case: Case) -> None:
    proto = fp16_typed(networks.convolutional())
    half = TensorProto.FLOAT16
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = half
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to":
                attribute.i = half

    verdict = judged(reference_to(case, proto), "model")

    assert verdict.verdict == "passed"
    assert verdict.judgements[0].comparison.actual_dtype == "float16"


def test_asking_for_the_precision_that_a_file_holds_takes_it_as_it_is(case: Case) -> None:
    changed = reference_to(case, fp16_typed(networks.convolutional()))

    assert judged(changed, "fp16").verdict == "passed"
    assert "already holds fp16" in judged(changed, "bf16").message


def test_a_stale_reference_is_told_though_the_file_under_test_may_change(case: Case) -> None:
    changed = reference_to(case, fp16_typed(networks.convolutional()))
    networks.save(networks.with_weight(networks.convolutional(), "b3", lambda b: b + 1), case.base / "net.onnx")

    assert judged(changed, "model").kind == "StaleGolden"


def test_the_users_tolerance_replaces_the_envelope(case: Case) -> None:
    strict = replace(case, tolerance={"int8": Tolerance(rel_rms=1e-6)})
    loose = replace(case, tolerance={"fp32": Tolerance(rel_rms=0.5)})

    assert judged(strict, "int8").verdict == "failed"
    verdict = judged(loose, "fp32")
    assert (verdict.passed, verdict.judgements[0].origin) == (True, "tolerance")


def test_a_limit_on_classes_is_judged_beside_the_envelope(case: Case) -> None:
    limited = replace(case, tolerance={"int8": Tolerance(top1=1.0)})

    verdict = judged(limited, "int8")

    assert verdict.judgements[0].comparison.ranking is not None
    assert verdict.judgements[0].origin == "envelope"


def test_accuracy_on_labels_is_told_beside_fp32s_and_its_loss_is_bounded(case: Case) -> None:
    np.save(case.base / "labels.npy", np.zeros(8, np.int64))
    labelled = replace(case, labels="labels.npy", tolerance={"fp32": Tolerance(accuracy_drop=0.0)})
    update(labelled, case.base / "golden")

    verdict = judged(labelled)

    assert verdict.passed
    assert verdict.judgements[0].accuracy is not None
    assert verdict.judgements[0].accuracy.actual == verdict.judgements[0].accuracy.reference


def test_a_limit_on_accuracy_without_labels_is_an_error(case: Case) -> None:
    limited = replace(case, tolerance={"fp32": Tolerance(accuracy_drop=0.1)})

    assert "holds no labels" in judged(limited).message


def test_a_limit_on_an_output_that_is_not_there_is_an_error(case: Case) -> None:
    limited = replace(case, tolerance={"fp32": Tolerance(outputs={"logit": Tolerance(rel_rms=1.0)})})

    assert "tolerance.fp32.outputs.logit is no output" in judged(limited).message


def test_a_required_engine_is_not_simulated(case: Case) -> None:
    verdict = judged(case, require_engine=True)

    assert (verdict.verdict, verdict.kind) == ("error", "BackendError")
    assert "--trt-require-engine" in verdict.message


def test_an_unknown_word_is_a_word_to_the_caller(case: Case) -> None:
    with pytest.raises(SpecError, match="unknown precision"):
        check(case, "int9")
    with pytest.raises(SpecError, match="unknown backend"):
        check(case, "int8", backend="tensorr")


def test_several_inputs_and_outputs_integers_among_them(tmp_path: Path) -> None:
    networks.save(networks.embedding(), tmp_path / "net.onnx")
    table = {"onnx": "net.onnx", "input": {"ids": {"low": 0, "high": 9}}, "samples": 64}
    case = Case.from_table(table, tmp_path, "trt.toml")
    update(case, tmp_path / "golden")

    for precision in ("fp32", "fp16", "bf16"):
        verdict = judged(case, precision)
        assert verdict.verdict == "passed"
        assert [(j.output, j.whole) for j in verdict.judgements] == [("scores", False), ("best", True)]


def test_a_wrong_integer_output_fails(tmp_path: Path) -> None:
    proto = networks.embedding()
    networks.save(proto, tmp_path / "net.onnx")
    off = onnx.ModelProto()
    off.CopyFrom(proto)
    off.graph.node[-1].output[0] = "nearly"
    off.graph.node.append(helper.make_node("Add", ["nearly", "one"], ["best"]))
    off.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    networks.save(off, tmp_path / "off.onnx")
    table = {"onnx": "net.onnx", "input": {"ids": {"low": 0, "high": 9}}}
    update(Case.from_table(table, tmp_path, "t"), tmp_path / "golden")

    verdict = judged(
        Case.from_table({**table, "onnx": "off.onnx", "reference": "net.onnx", "name": "net"}, tmp_path, "t")
    )

    assert verdict.verdict == "failed"
    assert "share of unequal elements 1 is over the bound 0" in text(verdict)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_run_as_often_as_the_samples_need(tmp_path: Path, batch: int) -> None:
    networks.save(networks.convolutional(batch), tmp_path / "net.onnx")
    case = Case(onnx="net.onnx", calibration="golden", base=tmp_path)
    update(case, tmp_path / "golden")

    verdict = judged(case, "int8")

    assert verdict.verdict == "passed"
    assert verdict.judgements[0].comparison.shape == (8 * batch, 3)


def test_a_dynamic_batch_gives_the_same_whatever_is_run_at_once(case: Case) -> None:
    whole, parts = judged(case, "fp16"), judged(replace(case, batch=3), "fp16")

    assert parts.passed
    assert whole.judgements[0].error == pytest.approx(parts.judgements[0].error, rel=1e-3)


def test_a_renamed_output_is_no_match(case: Case) -> None:
    changed = networks.convolutional()
    changed.graph.output[0].name = changed.graph.node[-1].output[0] = "scores"

    verdict = judged(reference_to(case, changed))

    assert verdict.kind == "GoldenMismatch"
    assert "has the outputs 'logits', and" in verdict.message


def test_swapped_channels_of_the_input_fail(case: Case) -> None:
    changed = networks.with_weight(networks.convolutional(), "w1", lambda w: w[:, ::-1].copy())

    assert judged(reference_to(case, changed)).verdict == "failed"


def test_a_failure_reads_top_down(case: Case) -> None:
    changed = networks.with_weight(networks.convolutional(), "w1", lambda w: w * 1.1)
    verdict = judged(replace(reference_to(case, changed), class_output="logits"), "fp16")
    told = message(record_of(verdict), whole=True)

    lines = told.splitlines()
    assert lines[0] == "net at fp16 on onnxruntime (simulated): FAILED, outside tolerance"
    assert lines[1].startswith("  TRT110 error: weight 'w1', read by conv1, is not the reference's")
    assert "  TRT304 error: output 'logits' is off by" in told
    assert "  output 'logits': float32[8, 3] against golden float32, bound by the envelope" in lines
    assert "to blame: golden -> fp32" in told
    for part in (
        "is over the bound",
        "of 24 elements differ by more than is allowed",
        "p99.9",
        "bias",
        "top-1 agrees on",
    ):
        assert part in told
    assert [line.split()[0] for line in lines if line.strip()[:2] in ("1.", "2.", "3.", "4.", "5.")] == [
        "1.", "2.", "3.", "4.", "5.",
    ]  # fmt: skip
    assert "write tolerance.fp16 = { rel_rms = " in lines[-1]


def test_the_hint_how_to_accept_an_error_does_accept_it(case: Case) -> None:
    changed = reference_to(case, networks.with_weight(networks.convolutional(), "w1", lambda w: w * 1.1))
    hint = judged(changed, "fp16").accept
    limit = float(hint.partition("rel_rms = ")[2].partition(" }")[0])

    assert judged(replace(changed, tolerance={"fp16": Tolerance(rel_rms=limit)}), "fp16").passed


def test_a_model_at_a_precision_without_envelope_needs_a_tolerance(tmp_path: Path) -> None:
    proto = networks.embedding()
    table = {"onnx": "net.onnx", "input": {"ids": {"low": 0, "high": 9}}}
    networks.save(proto, tmp_path / "net.onnx")
    case = Case.from_table(table, tmp_path, "trt.toml")
    update(case, tmp_path / "golden")
    double = helper.make_node("QuantizeLinear", ["mask", "s", "z"], ["q"])
    back = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["mask2"])
    changed = networks.embedding()
    changed.opset_import[0].version = 21
    changed.ir_version = 10
    changed.graph.node[3].ClearField("attribute")
    changed.graph.node[3].input.append("one")
    changed.graph.node[3].attribute.append(helper.make_attribute("keepdims", 0))
    changed.graph.node[1].input[0] = "mask2"
    for node in (back, double):
        changed.graph.node.insert(0, node)
    for name, value in (("s", np.float32(0.2)), ("one", np.array([1]))):
        changed.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    changed.graph.initializer.append(helper.make_tensor("z", TensorProto.INT4, [], [0]))
    networks.save(changed, tmp_path / "q.onnx")
    other = Case.from_table({**table, "onnx": "q.onnx", "reference": "net.onnx", "name": "net"}, tmp_path, "trt.toml")

    verdict = judged(other, "model")

    assert verdict.kind == "GoldenError"
    assert "how large the error of 'scores' at int4 may be" in verdict.message
    limits = Tolerance(rel_rms=0.1, outputs={"best": Tolerance(mismatch=0.5)})
    assert judged(replace(other, tolerance={"model": limits}), "model").verdict == "passed"


def test_a_file_that_stayed_fp32_is_shown_to_hold_fp32(case: Case) -> None:
    verdict = judged(reference_to(case, networks.convolutional()), "model")

    assert verdict.held == "fp32"


def test_an_error_as_large_as_the_output_is_not_talked_into_a_tolerance(case: Case) -> None:
    changed = networks.with_weight(networks.convolutional(), "w3", lambda w: -w)

    verdict = judged(reference_to(case, changed), "fp16")

    assert "tolerance.fp16" not in verdict.accept
    assert "look at the calibration data, the inputs' scale and order" in verdict.accept


def test_an_overflow_is_told_with_the_node_to_keep(tmp_path: Path) -> None:
    def too_large(w: np.ndarray) -> np.ndarray:
        return w * np.float32(1e6)

    networks.save(networks.with_weight(networks.convolutional(), "w3", too_large), tmp_path / "net.onnx")
    case = Case(onnx="net.onnx", base=tmp_path, where="trt.toml")
    update(case, tmp_path / "golden")

    told = text(judged(case, "fp16"))

    assert "tensor 'logits' of Gemm 'fc' is the first that is not finite" in told
    assert 'keep = ["fc"]' in told
    assert "NaN and infinity are inside no tolerance" in told


@pytest.mark.parametrize("typed", [fp16_typed, bf16_typed])
def test_a_typed_file_is_simulated_with_the_rounding_of_its_type(case: Case, typed: Any) -> None:
    changed = reference_to(case, typed(networks.convolutional()))

    own, file = judged(case, typed.__name__.split("_")[0]), judged(changed, "model")

    assert file.verdict == "passed"
    assert file.judgements[0].error == pytest.approx(own.judgements[0].error, rel=0.5)
