"""Findings of whole cases: each fault planted in a case, and a healthy twin that passes without one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networks
import numpy as np
import pytest
from onnx import helper, numpy_helper

from pytest_trt import Case, Verdict, check
from pytest_trt.backends.backend import Layer
from pytest_trt.errors import ForeignPlan
from pytest_trt.evidence.evidence import Evidence, Refusal
from pytest_trt.evidence.finding import Choice, Scrutiny
from pytest_trt.evidence.hops import Hop
from pytest_trt.evidence.output_errors import Observed
from pytest_trt.evidence.reproducibility import Again, Repeated, rebuilt
from pytest_trt.evidence.rounding import half_weights
from pytest_trt.findings.diagnosis import diagnose
from pytest_trt.golden.create import update
from pytest_trt.golden.golden import read, write
from pytest_trt.lowering.qdq import int8_qdq
from pytest_trt.model.model import checked
from pytest_trt.precision import Precision
from pytest_trt.report.record import record_of
from pytest_trt.report.terminal import message


def judged(case: Case, precision: str = "fp32", **options: Any) -> Verdict:
    return check(case, precision, golden_dir=case.base / "golden", **options)


def codes(verdict: Verdict) -> list[str]:
    return [finding.code for finding in verdict.findings]


def deployed(case: Case, proto: Any) -> Case:
    networks.save(proto, case.base / "deployed.onnx")
    return replace(case, name="net", onnx="deployed.onnx", reference="net.onnx")


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "int8"])
def test_a_healthy_case_is_noted_to_be_simulated_and_nothing_else(case: Case, precision: str) -> None:
    verdict = judged(case, precision)

    assert (verdict.verdict, codes(verdict), verdict.warnings) == ("passed", ["TRT205"], ())


def test_fp8_of_an_output_that_hardly_moves_passes_by_a_weak_bound(case: Case) -> None:
    verdict = judged(case, "fp8")

    assert (verdict.verdict, codes(verdict), verdict.warnings) == ("passed", ["TRT307", "TRT205"], ())


def test_a_changed_model_is_blamed_in_fp32_and_not_on_its_precision(case: Case) -> None:
    changed = networks.with_weight(networks.convolutional(), "w1", lambda w: w * 1.1)

    verdict = judged(deployed(case, changed), "fp16")

    assert verdict.verdict == "failed"
    assert record_of(verdict)["blame"] == "golden -> fp32"
    assert verdict.findings[0].code == "TRT110"
    assert "'w1', read by conv1, is not the reference's: all of it is 1.1 times as large" in verdict.findings[0].message
    assert "so no precision is to blame" in verdict.findings[1].message
    assert [str(hop) for hop in verdict.hops] == ["golden -> fp32", "fp32 -> simulated"]


def nudged(case: Case) -> Case:
    """A file whose weights differ by less than int8 rounds."""
    return deployed(case, networks.with_weight(networks.convolutional(), "w1", lambda w: w * np.float32(1.002)))


def test_a_model_that_differs_in_fp32_fails_also_where_int8_hides_it(case: Case) -> None:
    verdict = judged(nudged(case), "int8")

    [finding] = [finding for finding in verdict.findings if finding.code == "TRT302"]
    assert (verdict.verdict, verdict.judgements[0].reasons) == ("failed", ())
    assert (finding.evidence["hop"], finding.evidence["bound"]) == ("golden -> fp32", 1e-4)
    assert "is inside its bound at int8" in finding.message
    assert "tolerance.fp32 = { rel_rms = 0." in finding.remedy
    assert "--trt-ignore=TRT302" in verdict.accept
    assert judged(nudged(case), "int8", scrutiny=Scrutiny(Choice(ignore=("TRT302",)))).verdict == "passed"


def test_a_difference_in_fp32_may_be_accepted_by_a_tolerance_at_fp32(case: Case) -> None:
    table = {"onnx": "x", "tolerance": {"fp32": {"rel_rms": 0.05}}}
    told = Case.from_table(table, case.base, "").tolerance

    assert judged(replace(nudged(case), tolerance=told), "int8").verdict == "passed"


def test_a_file_with_qdq_is_run_in_fp32_around_it_and_its_weights_may_be_rounded(case: Case) -> None:
    ranges = {"x": 4.0, "r1": 19.0, "f": 9.0}
    healthy = judged(deployed(case, int8_qdq(networks.convolutional(), ranges)), "model")
    other = networks.with_weight(networks.convolutional(), "w1", lambda w: w * np.float32(1.5))

    assert (healthy.verdict, [str(hop) for hop in healthy.hops]) == ("passed", ["golden -> fp32"])
    assert judged(deployed(case, int8_qdq(other, ranges)), "model").verdict == "failed"


def test_a_bad_range_is_blamed_on_the_lowering_and_its_tensor_is_first(case: Case) -> None:
    (case.base / "ranges.txt").write_text("x: 4\nr1: 0.05\nf: 20\n")

    verdict = judged(replace(case, calibration="ranges.txt"), "int8")

    assert verdict.verdict == "failed"
    assert record_of(verdict)["blame"] == "fp32 -> simulated"
    assert verdict.findings[0].code.startswith("TRT10")
    assert verdict.findings[0].evidence["tensor"] == "r1"
    assert verdict.located[0].tensor == "r1"
    assert "alone does not let it pass: there is TRT105 besides" in verdict.accept
    [outside] = [finding for finding in verdict.findings if finding.code == "TRT302"]
    assert outside.remedy.startswith("Look at tensor 'r1' of Relu 'relu1' first")


def test_placeholders_of_a_file_fail_it_also_where_its_outputs_are_inside(case: Case) -> None:
    placed = int8_qdq(networks.convolutional(), {"x": 2.0, "r1": 4.0, "f": 4.0})
    wide = {"model": {"rel_rms": 9.0}}
    loose = replace(
        deployed(case, placed), tolerance=Case.from_table({"onnx": "x", "tolerance": wide}, case.base, "").tolerance
    )

    verdict = judged(loose, "model")
    ignored = judged(loose, "model", scrutiny=Scrutiny(Choice(ignore=("TRT1",))))

    assert (verdict.verdict, verdict.findings[0].code[:4]) == ("failed", "TRT1")
    assert "inside its tolerance" in message(record_of(verdict))
    assert "--trt-ignore=TRT1" in verdict.accept
    assert (ignored.verdict, sum(ignored.ignored.values()) >= 1) == ("passed", True)


def test_no_calibration_is_told_as_uncalibrated(case: Case) -> None:
    verdict = judged(replace(case, calibration=None), "int8")

    assert (verdict.verdict, codes(verdict)) == ("error", ["TRT101"])


def test_ranges_of_another_model_are_told_as_stale(case: Case) -> None:
    (case.base / "ranges.txt").write_text("x: 4\nr1: 4\nf: 20\nconv9: 3\n")

    verdict = judged(replace(case, calibration="ranges.txt"), "int8")

    assert (verdict.verdict, codes(verdict)) == ("error", ["TRT104"])


def test_an_overflowing_weight_is_named(case: Case) -> None:
    large = networks.with_weight(networks.convolutional(), "w3", lambda w: w * np.float32(1e6))
    networks.save(large, case.base / "large.onnx")
    made = Case(onnx="large.onnx", base=case.base, where="trt.toml")
    update(made, case.base / "golden")

    verdict = judged(made, "fp16")

    assert (verdict.verdict, verdict.findings[0].code) == ("failed", "TRT202")
    assert verdict.findings[0].evidence["weights"].keys() >= {"w3"}
    assert "TRT202" not in codes(judged(made, "bf16"))


def test_an_overflowing_activation_is_named(case: Case) -> None:
    proto = networks.with_weight(networks.convolutional(), "w1", lambda w: w * np.float32(3e4))
    networks.save(networks.with_weight(proto, "w3", lambda w: w * np.float32(1e-4)), case.base / "large.onnx")
    made = Case(onnx="large.onnx", base=case.base, where="trt.toml")
    update(made, case.base / "golden")

    first = judged(made, "fp16").findings[0]

    assert first.code == "TRT202"
    assert first.evidence["tensor"] == "c1"


def test_a_nan_weight_is_traced_to_the_tensor_where_it_appears(case: Case) -> None:
    broken = networks.with_weight(
        networks.convolutional(), "w2", lambda w: np.where(w == w.max(), np.nan, w).astype("f")
    )

    verdict = judged(deployed(case, broken), "fp32")

    assert (verdict.verdict, verdict.findings[0].code) == ("failed", "TRT301")
    assert verdict.findings[0].evidence["tensor"] == "c2"


def test_weights_too_small_for_fp16_are_measured_and_a_few_small_ones_are_a_note() -> None:
    small = networks.with_weight(networks.convolutional(), "w2", lambda w: w * np.float32(1e-6))
    few = networks.with_weight(networks.convolutional(), "w2", lambda w: np.where(w == w.max(), 1e-6, w).astype("f"))

    assert [(f.code, f.severity.value) for f in of(half=half_weights(checked(small, "net")))] == [("TRT203", "error")]
    assert [(f.code, f.severity.value) for f in of(half=half_weights(checked(few, "net")))] == [("TRT203", "note")]
    assert of(half=half_weights(checked(networks.convolutional(), "net"))) == []
    assert of(half=half_weights(checked(small, "net"), ["conv2"])) == []


def capped(reader: str) -> list[str]:
    """Codes of a network with one value that fp16 does not hold, as this operator reads it."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "matmul"),
        helper.make_node(reader, ["h", "low", "high"] if reader == "Clip" else ["h", "high"], ["y"], "last"),
    ]
    shape: list[Any] = ["N", 4]
    weights = {"w": np.eye(4, dtype=np.float32), "low": np.float32(0), "high": np.float32(3.4e38)}
    proto = networks.model(nodes, {"x": (networks.FLOAT, shape)}, {"y": (networks.FLOAT, shape)}, weights)
    return [finding.code for finding in of(half=half_weights(checked(proto, "net")))]


def test_a_limit_that_caps_nothing_is_no_weight_beyond_fp16() -> None:
    assert capped("Clip") == capped("Min") == []
    assert capped("Add") == ["TRT202"]


def test_weights_that_no_node_reads_do_not_overflow() -> None:
    proto = networks.convolutional()
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1e6], np.float32), "left over"))

    assert of(half=half_weights(checked(proto, "net"))) == []


def of(precision: str = "fp16", **parts: Any) -> list[Any]:
    evidence = Evidence(
        case="net", precision=Precision.parse(precision), held="fp32", backend="tensorrt", simulated=False, **parts
    )
    return list(diagnose(evidence))


def layer(name: str, precision: str, **told: Any) -> Layer:
    return Layer(name, "conv", precision=precision, computes=True, **told)


def test_tf32_layers_of_an_fp32_engine_are_named() -> None:
    [finding] = of("fp32", layers=(layer("a", "fp32"), layer("b", "tf32")))

    assert (finding.code, finding.evidence["layers"]) == ("TRT204", ["b"])
    assert of("fp32", layers=(layer("a", "fp32"),)) == []
    assert of("tf32", layers=(layer("b", "tf32"),)) == []


@pytest.mark.parametrize(("error", "found"), [(5e-4, ["TRT204"]), (3e-7, []), (2e-5, []), (5e-3, [])])
def test_an_fp32_engine_that_errs_as_tf32_does_is_told_by_the_size_of_its_error(error: float, found: list[str]) -> None:
    envelope = {"fp32": {"y": {"error": 0.0, "bound": 1e-5}}, "tf32": {"y": {"error": 6e-4, "bound": 2e-3}}}
    seen = (Observed("y", error=error),)

    assert [f.code for f in of("fp32", envelope=envelope, observed=seen)] == found
    assert of("tf32", envelope=envelope, observed=seen) == []


@pytest.mark.parametrize(("in_fp32", "found"), [(5e-4, []), (1e-6, ["TRT204"])])
def test_a_difference_in_fp32_that_was_accepted_is_not_taken_for_tf32(in_fp32: float, found: list[str]) -> None:
    envelope = {"fp32": {"y": {"error": 0.0, "bound": 1e-5}}, "tf32": {"y": {"error": 6e-4, "bound": 2e-3}}}
    hops = (Hop("golden", "fp32", "y", in_fp32, 1e-2), Hop("fp32", "engine", "y", 5e-4, 1e-2))

    told = of("fp32", envelope=envelope, observed=(Observed("y", error=5.1e-4),), hops=hops)

    assert [finding.code for finding in told] == found


def test_what_the_builder_warns_of_is_told_beside_what_the_weights_show() -> None:
    said = (
        "TensorRT encountered issues when converting weights between types and that could affect accuracy.",
        " - 21 weights are affected by this issue: Detected subnormal FP16 values.",
        " - 4 weights are affected by this issue: Detected values less than smallest positive FP16 subnormal value and"
        " converted them to the FP16 minimum subnormalized value.",
    )
    [alone] = of("int8", warnings=said)
    [outside] = of("int8", warnings=said, observed=(Observed("y", reasons=("over",), error=1.0, whole=True),))[:1]
    small = networks.with_weight(networks.convolutional(), "w2", lambda w: w * np.float32(1e-6))
    [measured] = of(warnings=said, half=half_weights(checked(small, "net")))

    assert (alone.code, alone.severity.value) == ("TRT203", "note")
    assert alone.evidence["warned"].startswith("21 weights are affected")
    assert "4 weights are affected" in alone.message
    assert outside.code == "TRT302"
    assert (measured.severity.value, measured.evidence["warned"]) == ("error", alone.evidence["warned"])
    assert of("int8", warnings=said[:1]) == []


def test_what_was_not_honoured_is_told_layer_by_layer() -> None:
    facts = {"asked": "int8", "layers": [{"name": "a", "precision": "int8"}, {"name": "b", "precision": "fp32"}]}

    [finding] = of("int8", refused=Refusal("PrecisionNotHonoured", "1 of 2", facts))

    assert finding.code == "TRT201"
    assert finding.evidence["layers"] == [{"layer": "b", "asked": "int8", "got": "fp32"}]
    assert of("int8", layers=(layer("a", "int8"),)) == []


SAME, OTHER = Again("logits", 0.0, 0), Again("logits", 1e-6, 3)


@pytest.mark.parametrize(
    ("repeated", "code"),
    [
        (Repeated(OTHER), "TRT401"),
        (Repeated(SAME, OTHER), "TRT402"),
        (Repeated(SAME, SAME, (OTHER, replace(OTHER, reasons=("over",)))), "TRT403"),
    ],
)
def test_what_is_not_the_same_again_is_told(repeated: Repeated, code: str) -> None:
    assert [finding.code for finding in of(repeated=repeated)] == [code]


def test_the_same_again_and_rebuilds_inside_are_nothing() -> None:
    assert of(repeated=Repeated(SAME, SAME, (SAME, OTHER))) == []


class Engine:
    """Answers its inputs, times a factor."""

    def __init__(self, factor: float, tactic: str) -> None:
        self.factor, self.tactic = factor, tactic

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"y": inputs["x"] * self.factor}

    def layers(self) -> tuple[Layer, ...]:
        return (layer("fc", "fp16", tactic=self.tactic), layer("conv", "fp16", tactic="same"))


def test_a_rebuild_tells_the_tactics_that_changed() -> None:
    x = np.ones((2, 3), np.float32)
    builds = iter([Engine(1, "a"), Engine(2, "b")])
    first = [{"y": x}]

    same, other = rebuilt(2, lambda: next(builds), [{"x": x}], first, Engine(1, "a").layers(), lambda _: ())  # type: ignore[arg-type,return-value]

    assert (same.differs, same.tactics) == (False, ())
    assert (other.rel_rms, other.tactics) == (1.0, (("fc", "a", "b"),))


def test_a_foreign_plan_is_told() -> None:
    error = ForeignPlan("the plan can't be loaded", {"gpu": "another"})

    assert [f.code for f in of(refused=Refusal(type(error).__name__, str(error), error.facts))] == ["TRT404"]
    assert [f.code for f in of(warnings=("Using an engine plan file across different models of devices",))] == [
        "TRT404"
    ]
    assert of(warnings=("some other warning",)) == []


def test_each_refused_golden_has_its_code(case: Case) -> None:
    path = case.base / "golden" / "net.safetensors"
    whole = path.read_bytes()

    path.write_bytes(whole[:100])
    damaged = judged(case)
    path.unlink()
    missing = judged(case)
    path.write_bytes(whole)
    other = judged(deployed(case, networks.convolutional(classes=4)))
    networks.save(networks.convolutional(seed=9), case.base / "net.onnx")
    stale = judged(case)

    assert [codes(v) for v in (missing, stale, damaged, other)] == [["TRT501"], ["TRT502"], ["TRT503"], ["TRT504"]]
    assert {v.verdict for v in (missing, stale, damaged, other)} == {"error"}


def test_a_golden_without_evidence_or_with_another_export_has_its_code() -> None:
    assert [f.code for f in of(refused=Refusal("EmptyGolden", "holds no evidence"))] == ["TRT505"]
    assert [f.code for f in of(refused=Refusal("ExportMismatch", "disagree"))] == ["TRT506"]
    assert of(refused=Refusal("CaseError", "something else")) == []


def test_an_export_that_differs_is_told_from_a_goldens_own_arrays() -> None:
    [finding] = of(hops=(Hop("torch", "onnx fp32", "y", 1e-3, 1e-5),))

    assert (finding.code, finding.evidence["output"]) == ("TRT506", "y")
    assert of(hops=(Hop("torch", "onnx fp32", "y", 1e-6, 1e-5),)) == []


def test_a_golden_that_stands_still_is_refused_with_its_code(case: Case) -> None:
    path = case.base / "golden" / "net.safetensors"
    golden = read(path, "")
    run = golden.runs[0]
    still: dict[str, Any] = {
        side: {name: np.repeat(array[:1], len(array), 0) for name, array in getattr(run, side).items()}
        for side in ("inputs", "outputs")
    }
    write(replace(golden, runs=(replace(run, **still),)), path, "net")

    assert (judged(case).verdict, codes(judged(case))) == ("error", ["TRT505"])


def test_a_range_of_0_for_a_tensor_that_moves_is_no_pass(case: Case) -> None:
    (case.base / "ranges.txt").write_text("x: 4\nf: 20\n# constant: r1\n")

    verdict = judged(replace(case, calibration="ranges.txt"), "int8")

    assert verdict.verdict == "failed"
    assert codes(verdict)[0] == "TRT106"
    assert "taken for always 0, 'r1'" in verdict.warnings[0]


def test_rebuilds_that_were_asked_of_a_simulation_are_told_not_to_be_had(case: Case) -> None:
    [warning] = judged(case, "fp16", scrutiny=Scrutiny(rebuilds=2)).warnings

    assert "nothing was built again" in warning
    assert judged(case, "fp16").warnings == ()


def test_a_choice_of_codes_or_families_says_which_findings_count() -> None:
    assert Choice().takes("TRT105")
    assert not Choice(select=("TRT3",)).takes("TRT105")
    assert Choice(select=("TRT1", "TRT3")).takes("TRT105")
    assert not Choice(select=("TRT1",), ignore=("TRT105",)).takes("TRT105")
