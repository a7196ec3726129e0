"""TRT110: weights of a file that no rounding makes of the reference's, found before the signs of them; healthy ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import onnx
import pytest
from onnx import numpy_helper

from pytest_trt import Case, Ranges, Tolerance, Verdict, check, lower
from pytest_trt.evidence.evidence import Evidence
from pytest_trt.evidence.finding import Severity
from pytest_trt.evidence.hops import Hop
from pytest_trt.evidence.output_errors import Observed
from pytest_trt.evidence.weights import StoredWeight, WeightFaults, Weights
from pytest_trt.findings._weights import alone, differing, is_at_fault, one_scale
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    import numpy as np

RANGES = Ranges({"x": 3.6, "r1": 14.0, "f": 6.0})
HEALTHY = StoredWeight(
    tensor="w/int8",
    node="conv1",
    reference="w",
    kind="int8",
    grain="channel",
    channels=64,
    faults=WeightFaults(),
    sqnr_db=41.0,
    lost_db=0.1,
    channel_lost_db=0.1,
    worst_db=35.0,
    beyond=0.0,
    span=1.0,
)


def known(*weights: StoredWeight, **more: Any) -> Evidence:
    return Evidence(
        case="net",
        precision=Precision.MODEL,
        held="int8",
        backend="onnxruntime",
        simulated=True,
        weights=Weights("net.onnx", weights, ()),
        **more,
    )


def faulty(**faults: int) -> StoredWeight:
    return replace(HEALTHY, faults=WeightFaults(**faults))


OVER = Hop("golden", "fp32", "y", 0.5, 0.01)
INSIDE = Hop("golden", "fp32", "y", 0.005, 0.01)
SEEN = Observed("y", ("relative RMS",), 0.5, 0.1, whole=False)


def test_healthy_weights_and_no_reference_say_nothing() -> None:
    unknown = replace(known(), weights=None)

    assert [*differing(known(HEALTHY)), *differing(unknown), *one_scale(known(HEALTHY)), *one_scale(unknown)] == []


@pytest.mark.parametrize(
    ("faults", "severity", "told"),
    [
        ({"zeroed": 1}, Severity.ERROR, "1 of 64 channels are zero throughout"),
        ({"clipped": 4}, Severity.ERROR, "4 of 64 channels are clipped"),
        ({"coarse": 64}, Severity.ERROR, "64 of 64 channels are too coarse"),
        ({"clipped": 3}, Severity.WARNING, "3 of 64 channels are clipped"),
        ({"coarse": 1}, Severity.WARNING, "1 of 64 channels are too coarse"),
    ],
)
def test_zeros_are_an_error_and_others_where_they_are_a_sixteenth(
    faults: dict[str, int], severity: Severity, told: str
) -> None:
    [finding] = differing(known(HEALTHY, faulty(**faults)))

    assert (finding.code, finding.severity, finding.evidence["tensor"]) == ("TRT110", severity, "w/int8")
    assert told in finding.message
    assert "read by conv1" in finding.message


def test_the_worst_of_several_is_named_and_those_at_fault_first() -> None:
    few = replace(faulty(coarse=1), tensor="few", sqnr_db=1.0)
    worst = replace(faulty(zeroed=16), tensor="worst", sqnr_db=6.0)

    [finding] = differing(known(few, faulty(clipped=64), worst))

    assert (finding.evidence["tensor"], finding.evidence["weights"]) == ("worst", ["few", "w/int8", "worst"])
    assert finding.message.endswith("; 2 more like it.")


@pytest.mark.parametrize(("changed", "told"), [({"gain": 8.0}, "8 times as large"), ({"alike": False}, "no copy")])
def test_a_factor_or_another_weight_counts_only_where_the_outputs_differ(changed: dict[str, Any], told: str) -> None:
    weight = replace(HEALTHY, **changed)

    [finding] = differing(known(weight, hops=(OVER,)))

    assert told in finding.message
    assert [*differing(known(weight, hops=(INSIDE,))), *differing(known(weight))] == []
    assert list(differing(known(weight, observed=(SEEN,)))) != []


def test_what_is_no_copy_is_not_at_fault_by_its_channels() -> None:
    assert not is_at_fault(replace(faulty(coarse=64), alike=False))


def test_one_scale_a_weight_is_a_note_and_a_warning_where_outputs_are_outside() -> None:
    weight = replace(HEALTHY, grain="tensor", channel_lost_db=24.0)

    [note], [warning] = one_scale(known(weight)), one_scale(known(weight, observed=(SEEN,)))

    assert (note.severity, warning.severity) == (Severity.NOTE, Severity.WARNING)
    assert "24.0 dB" in note.message
    assert list(one_scale(known(replace(weight, channel_lost_db=5.0)))) == []


def judged(case: Case, precision: str = "model") -> Verdict:
    return check(case, precision, golden_dir=case.base / "golden")


def deployed(case: Case, proto: onnx.ModelProto, **told: Any) -> Case:
    networks.save(proto, case.base / "deployed.onnx")
    return replace(case, name="net", onnx="deployed.onnx", reference="net.onnx", **told)


def int8(*names: str) -> onnx.ModelProto:
    """Our own file, the first channel of some weights zeroed."""
    proto = lower(networks.convolutional(), "int8", RANGES)
    for name in names:
        proto = networks.with_weight(proto, f"{name}/int8", _first_zeroed)
    return proto


def _first_zeroed(levels: np.ndarray) -> np.ndarray:
    levels[0] = 0
    return levels


def test_a_healthy_file_has_no_word_on_its_weights(case: Case) -> None:
    verdict = judged(deployed(case, int8()))

    assert (verdict.verdict, [finding.code for finding in verdict.findings]) == ("passed", ["TRT205"])


def test_the_fp32_form_of_a_healthy_file_differs_by_what_rounding_explains(case: Case) -> None:
    [hop] = [hop for hop in judged(deployed(case, int8())).hops if hop.end == "fp32"]

    assert hop.limit is not None
    assert 0.5 < hop.rel_rms / (hop.limit / 3) < 1.5
    assert hop.limit < judged(deployed(case, int8())).judgements[0].bound  # type: ignore[operator]


@pytest.mark.parametrize("name", ["w1", "w2", "w3"])
def test_a_zeroed_channel_is_named_first_and_no_preprocessing_is_suspected(case: Case, name: str) -> None:
    verdict = judged(deployed(case, int8(name)))

    first = verdict.findings[0]
    assert (verdict.verdict, first.code, first.evidence["tensor"]) == ("failed", "TRT110", f"{name}/int8")
    told = " ".join(f"{finding.message} {finding.remedy}" for finding in verdict.findings)
    assert "no precision is to blame" not in told
    assert "preprocessing" not in told


def test_a_zeroed_channel_of_halves_is_named_first(case: Case) -> None:
    proto = networks.with_weight(lower(networks.convolutional(), "fp16", typed=True), "w2", _first_zeroed)

    first = judged(deployed(case, proto)).findings[0]

    assert (first.code, first.evidence["tensor"], first.evidence["kind"]) == ("TRT110", "w2", "fp16")


def test_without_a_reference_the_rule_is_silent(case: Case) -> None:
    verdict = judged(replace(deployed(case, int8("w2")), reference=None, golden="golden/net.safetensors"))

    assert "TRT110" not in [finding.code for finding in verdict.findings]


def test_a_node_that_was_lost_beside_healthy_weights_fails_by_its_fp32_form(case: Case) -> None:
    proto = int8()
    lost = next(node for node in proto.graph.node if node.op_type == "Gemm")
    bias = networks.weight(proto, lost.input[2])
    bias.CopyFrom(numpy_helper.from_array(0.93 * numpy_helper.to_array(bias), bias.name))

    verdict = judged(deployed(case, proto))

    hops = [hop for hop in verdict.hops if hop.end == "fp32"]
    assert (verdict.verdict, [hop.over for hop in hops]) == ("failed", [True])
    told = " ".join(finding.message for finding in verdict.findings)
    assert "the file differs by more than the rounding of its weights explains" in told


def test_a_case_that_cannot_be_judged_is_told_of_its_weights(case: Case) -> None:
    verdict = judged(replace(deployed(case, int8("w1")), golden="golden/none.safetensors"))

    assert (verdict.verdict, verdict.findings[0].code) == ("error", "TRT110")


def test_your_own_tolerance_in_fp32_counts_for_a_file_of_rounded_weights(case: Case) -> None:
    told = {"fp32": Tolerance(rel_rms=0.25)}

    [hop] = [hop for hop in judged(deployed(case, int8(), tolerance=told)).hops if hop.end == "fp32"]

    assert hop.limit == 0.25


def test_weights_without_a_counterpart_are_noted_and_warned_of_where_the_file_differs() -> None:
    lone = Weights("net.onnx", (), ("merged",))

    noted = list(alone(replace(known(), weights=lone)))
    warned = list(alone(replace(known(), weights=lone, hops=(OVER,))))

    assert [finding.severity.value for finding in (*noted, *warned)] == ["note", "warning"]
    assert "'merged'" in noted[0].message
