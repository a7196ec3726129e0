"""Right models and right ways of use that a first version refused, and wrong ones that it let through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from pytest_trt import Case, Verdict, check, compare, lower
from pytest_trt.comparison.tolerance import floor
from pytest_trt.golden.create import create, update
from pytest_trt.lowering.lowering import at_opset
from pytest_trt.model.model import checked, load
from pytest_trt.model.onnx_session import open_session
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from pathlib import Path

FLOAT = networks.FLOAT
DRAW = np.random.default_rng(0)


def judged(case: Case, precision: str) -> Verdict:
    return check(case, precision, golden_dir=case.base / "golden")


def resizing(opset: int) -> onnx.ModelProto:
    """Conv, linear Resize (Upsample before opset 10) by 2, Conv."""
    draw = np.random.default_rng(0)
    weights = {
        "w1": draw.standard_normal((4, 2, 3, 3)).astype(np.float32),
        "w2": draw.standard_normal((3, 4, 3, 3)).astype(np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    op = "Resize" if opset >= 10 else "Upsample"
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node(op, ["c", "scales"], ["u"], mode="linear"),
        helper.make_node("Conv", ["u", "w2"], ["y"], pads=[1, 1, 1, 1]),
    ]
    return networks.model(nodes, {"x": (FLOAT, ["N", 2, 6, 6])}, {"y": (FLOAT, ["N", 3, 12, 12])}, weights, opset=opset)


@pytest.mark.parametrize("opset", [9, 10])
def test_raising_the_opset_leaves_the_network_what_it_was(opset: int) -> None:
    model = checked(resizing(opset), "net")

    raised = at_opset(model, Precision.INT8)

    feeds = {"x": networks.images()}
    before, after = (open_session(m.proto, "net").run(None, feeds)[0] for m in (model, raised))
    assert compare(after, before).rel_rms < 1e-6


@pytest.mark.parametrize("opset", [9, 10])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_an_old_opset_is_judged_at_its_own_error(tmp_path: Path, opset: int, precision: str) -> None:
    networks.save(resizing(opset), tmp_path / "net.onnx")
    case = Case(onnx="net.onnx", calibration="golden", base=tmp_path)
    update(case, tmp_path / "golden")

    verdict = judged(case, precision)

    assert verdict.verdict == "passed"
    assert verdict.judgements[0].error < 3e-2


def test_a_conversion_that_changes_the_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks.save(networks.convolutional(opset=11), tmp_path / "net.onnx")
    other = networks.with_weight(networks.convolutional(opset=13), "w1", lambda w: 1.5 * w)
    monkeypatch.setattr(onnx.version_converter, "convert_version", lambda *_: other)

    golden = create(Case(onnx="net.onnx", base=tmp_path))

    assert "raising the opset for this precision changes the network" in golden.refused["int8"]


def masked(fill: float) -> onnx.ModelProto:
    """softmax(x w + (1 - mask) * fill) v: attention with an additive mask."""
    draw = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("Sub", ["one", "mask"], ["hidden"]),
        helper.make_node("Mul", ["hidden", "fill"], ["bias"]),
        helper.make_node("Add", ["scores", "bias"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    weights = {
        "w": draw.standard_normal((6, 5)).astype(np.float32),
        "v": draw.standard_normal((5, 4)).astype(np.float32),
        "one": np.float32(1),
        "fill": np.float32(fill),
    }
    shapes: dict[str, tuple[int, list[Any]]] = {"x": (FLOAT, ["N", 6]), "mask": (FLOAT, ["N", 5])}
    return networks.model(nodes, shapes, {"y": (FLOAT, ["N", 4])}, weights)


@pytest.mark.parametrize("fill", [-1e4, -1e9, float(np.finfo(np.float32).min)])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_masks_of_attention_are_clamped_not_overflown(tmp_path: Path, fill: float, precision: str) -> None:
    networks.save(masked(fill), tmp_path / "net.onnx")
    mask = np.ones((8, 5), np.float32)
    mask[:, 3:] = 0
    x = DRAW.standard_normal((8, 6)).astype(np.float32)
    np.savez(tmp_path / "in.npz", x=x, mask=mask)
    case = Case(onnx="net.onnx", inputs="in.npz", base=tmp_path)
    update(case, tmp_path / "golden")

    assert judged(case, precision).verdict == "passed"
    assert lower(load(tmp_path / "net.onnx"), "fp16", typed=True)


def test_a_weight_that_fp16_can_not_hold_is_infinite_not_clamped(tmp_path: Path) -> None:
    def too_large(w: np.ndarray) -> np.ndarray:
        return w * np.float32(1e6)

    networks.save(networks.with_weight(networks.convolutional(), "w3", too_large), tmp_path / "net.onnx")
    case = Case(onnx="net.onnx", base=tmp_path)
    update(case, tmp_path / "golden")

    assert judged(case, "fp16").verdict == "failed"


@pytest.mark.parametrize("through", ["Mul", "Div", "Einsum", "Transpose"])
def test_what_is_no_mask_overflows_wherever_it_is_stored(tmp_path: Path, through: str) -> None:
    w = (1e5 * DRAW.standard_normal((6, 6))).astype(np.float32)
    small = np.float32(1e-5)
    nodes = {
        "Mul": [helper.make_node("Mul", ["x", "big"], ["m"]), helper.make_node("Mul", ["m", "small"], ["y"])],
        "Div": [helper.make_node("Div", ["x", "big"], ["m"]), helper.make_node("Div", ["m", "small"], ["y"])],
        "Einsum": [
            helper.make_node("Einsum", ["x", "w"], ["m"], equation="ij,jk->ik"),
            helper.make_node("Mul", ["m", "small"], ["y"]),
        ],
        "Transpose": [
            helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "t"], ["m"]),
            helper.make_node("Mul", ["m", "small"], ["y"]),
        ],
    }[through]
    shapes = ({"x": (FLOAT, ["N", 6])}, {"y": (FLOAT, ["N", 6])})
    weights = {"w": w, "big": np.float32(1e5), "small": small}
    networks.save(networks.model(nodes, *shapes, weights), tmp_path / "net.onnx")
    case = Case(onnx="net.onnx", base=tmp_path)
    update(case, tmp_path / "golden")

    assert judged(case, "fp16").verdict != "passed"


def test_a_first_axis_that_is_no_batch_is_calibrated_whole(tmp_path: Path) -> None:
    nodes = [helper.make_node("CumSum", ["x", "axis"], ["c"]), helper.make_node("MatMul", ["c", "w"], ["y"])]
    weights = {"axis": np.array(0), "w": DRAW.standard_normal((4, 4)).astype(np.float32)}
    proto = networks.model(nodes, {"x": (FLOAT, ["p", 4])}, {"y": (FLOAT, ["p", 4])}, weights)
    networks.save(proto, tmp_path / "net.onnx")
    np.savez(tmp_path / "in.npz", x=np.abs(DRAW.standard_normal((64, 4))).astype(np.float32))
    case = Case(onnx="net.onnx", inputs="in.npz", calibration="golden", base=tmp_path)
    update(case, tmp_path / "golden")

    verdict = judged(case, "int8")

    assert verdict.verdict == "passed"
    assert verdict.judgements[0].error < 2e-2


def test_inputs_of_their_own_lengths_are_calibrated_whole(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["q", "w"], ["a"]),
        helper.make_node("Transpose", ["k"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["a", "t"], ["y"]),
    ]
    w = DRAW.standard_normal((6, 6)).astype(np.float32)
    shapes: dict[str, tuple[int, list[Any]]] = {"q": (FLOAT, ["nq", 6]), "k": (FLOAT, ["nk", 6])}
    networks.save(networks.model(nodes, shapes, {"y": (FLOAT, ["nq", "nk"])}, {"w": w}), tmp_path / "net.onnx")
    data: dict[str, Any] = {name: DRAW.standard_normal((n, 6)).astype(np.float32) for name, n in (("q", 16), ("k", 20))}
    np.savez(tmp_path / "in.npz", **data)
    case = Case(onnx="net.onnx", inputs="in.npz", calibration="golden", base=tmp_path)
    update(case, tmp_path / "golden")

    assert judged(case, "int8").verdict == "passed"


def test_an_initial_state_has_its_batch_beside_its_layers(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    weights = {
        "w": draw.standard_normal((1, 9, 4)).astype(np.float32),
        "r": draw.standard_normal((1, 9, 3)).astype(np.float32),
    }
    node = helper.make_node("GRU", ["x", "w", "r", "", "", "h0"], ["y"], hidden_size=3)
    shapes: dict[str, tuple[int, list[Any]]] = {"x": (FLOAT, [5, "n", 4]), "h0": (FLOAT, [1, "n", 3])}
    networks.save(networks.model([node], shapes, {"y": (FLOAT, [5, 1, "n", 3])}, weights), tmp_path / "net.onnx")
    told = {"x": {"shape": [5, 1, 4]}, "h0": {"shape": [1, 1, 3]}}
    case = Case.from_table({"onnx": "net.onnx", "input": told}, tmp_path, "trt.toml")
    update(case, tmp_path / "golden")

    assert judged(case, "fp16").verdict == "passed"


def test_a_near_tie_may_change_one_class_id_of_few() -> None:
    assert floor(2.0**-11, whole=True, count=8) == 0.125
    assert floor(2.0**-11, whole=True, count=1000) == 0.01
    assert floor(2.0**-11, whole=True, count=1) == 0.25
    assert floor(2.0**-24, whole=True, count=8) == 0.0


def test_single_samples_of_several_data_sets_are_evidence_together(tmp_path: Path) -> None:
    from onnx_test_data import write

    table = DRAW.standard_normal((10, 4)).astype(np.float32)
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    proto = networks.model([node], {"ids": (TensorProto.INT64, [1])}, {"y": (FLOAT, [1, 4])}, {"table": table})
    for number in (0, 1, 2):
        write(tmp_path / "net", proto, number, [np.array([3 * number])])

    assert judged(Case(onnx="model.onnx", base=tmp_path / "net"), "fp16").verdict == "passed"


def test_data_sets_without_evidence_are_not_told_to_be_made_anew(tmp_path: Path) -> None:
    from onnx_test_data import write

    write(
        tmp_path / "net",
        networks.with_weight(networks.convolutional(), "w3", lambda w: w * 1e-7),
        0,
        [networks.images()],
    )

    verdict = judged(Case(onnx="model.onnx", base=tmp_path / "net"), "fp16")

    assert verdict.kind == "EmptyGolden"
    assert "pytest-trt never writes there" in verdict.message
    assert "--trt-update-golden" not in verdict.message


def test_an_output_without_a_shape_and_an_axis_of_minus_one_are_taken(tmp_path: Path) -> None:
    proto = networks.convolutional()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    networks.save(proto, tmp_path / "net.onnx")
    case = Case(onnx="net.onnx", base=tmp_path)
    update(case, tmp_path / "golden")

    assert load(tmp_path / "net.onnx").outputs[0].shape is None
    assert judged(case, "fp16").verdict == "passed"


def test_an_operator_that_onnxruntime_knows_from_before_onnx_did_is_taken(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("LayerNormalization", ["x", "g"], ["n"], axis=-1),
        helper.make_node("MatMul", ["n", "w"], ["y"]),
    ]
    shapes = ({"x": (FLOAT, ["N", 6])}, {"y": (FLOAT, ["N", 6])})
    weights = {"g": np.ones(6, np.float32), "w": DRAW.standard_normal((6, 6)).astype(np.float32)}
    networks.save(networks.model(nodes, *shapes, weights, opset=15), tmp_path / "net.onnx")
    case = Case(onnx="net.onnx", calibration="golden", base=tmp_path)
    update(case, tmp_path / "golden")

    for precision in ("fp32", "tf32", "fp16", "bf16", "int8"):
        assert judged(case, precision).verdict == "passed"


def test_the_advice_for_a_file_as_it_is_names_the_key_that_is_read(tmp_path: Path) -> None:
    from onnx_test_data import write

    write(tmp_path / "net", networks.convolutional(), 0, [networks.images()])
    half = convert_float_to_float16(networks.convolutional(), keep_io_types=True)
    networks.save(half, tmp_path / "net" / "model.onnx")

    verdict = judged(Case(onnx="model.onnx", base=tmp_path / "net"), "model")

    assert "Write tolerance.model = " in verdict.message


@pytest.mark.parametrize("keep_io_types", [True, False])
def test_a_file_of_onnxruntimes_fp16_tool_is_judged_as_it_is(tmp_path: Path, keep_io_types: bool) -> None:
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    half = convert_float_to_float16(networks.convolutional(), keep_io_types=keep_io_types)
    networks.save(half, tmp_path / "half.onnx")
    case = Case(name="half", onnx="half.onnx", reference="net.onnx", base=tmp_path)
    update(case, tmp_path / "golden")

    verdict = judged(case, "model")

    assert (verdict.verdict, verdict.held) == ("passed", "fp16")


class Samples(CalibrationDataReader):
    def __init__(self, scale: float) -> None:
        self.batches = iter([{"x": np.float32(scale) * networks.images(64, seed=2)}])

    def get_next(self) -> Any:
        return next(self.batches, None)


@pytest.mark.skipif(
    not hasattr(onnx, "mapping") and onnxruntime.__version__.startswith(("1.17", "1.18")),
    reason="the quantizer of this onnxruntime needs an older onnx",
)
@pytest.mark.parametrize(("kind", "bias", "scale", "expected"), [
    (QuantFormat.QDQ, False, 1.0, ("passed", "TRT205")),
    (QuantFormat.QDQ, False, 0.1, ("failed", "TRT108")),
    (QuantFormat.QDQ, True, 1.0, ("failed", "TRT109")),  # biases of int32 behind Q/DQ, which TensorRT refuses
    (QuantFormat.QOperator, True, 1.0, ("failed", "TRT109")),
])  # fmt: skip
def test_a_file_of_onnxruntimes_quantizer_is_judged_by_its_calibration(
    tmp_path: Path, kind: QuantFormat, bias: bool, scale: float, expected: tuple[str, str]
) -> None:
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    quantize_static(
        tmp_path / "net.onnx", tmp_path / "q.onnx", Samples(scale), quant_format=kind, per_channel=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "QuantizeBias": bias},
    )  # fmt: skip
    case = Case(name="q", onnx="q.onnx", reference="net.onnx", base=tmp_path)
    update(case, tmp_path / "golden")

    verdict = judged(case, "model")

    assert verdict.held == "int8"
    assert (verdict.verdict, verdict.findings[0].code) == expected


# --- through pytest


def test_models_written_into_addopts_are_added_to_the_suite(pytester: pytest.Pytester, golden: Path) -> None:
    (pytester.path / "trt.toml").unlink()
    pytester.makeini("[pytest]\naddopts = --trt-model=net.onnx --trt-precision=fp16\n")
    pytester.makepyfile("def test_plain(): assert 0")

    pytester.runpytest().assert_outcomes(passed=1, failed=1)


def test_what_failed_last_is_run_again_alone(pytester: pytest.Pytester, golden: Path) -> None:
    good = np.load(pytester.path / "calibration.npz")["x"]
    np.savez(pytester.path / "calibration.npz", x=0.1 * good)
    pytester.runpytest("--trt-precision=fp16,int8").assert_outcomes(passed=1, failed=1)
    np.savez(pytester.path / "calibration.npz", x=good)

    result = pytester.runpytest("--trt-precision=fp16,int8", "--lf", "-v")

    result.stdout.fnmatch_lines(["trt.toml::net[[]int8] PASSED*"])
    assert "net[fp16]" not in result.stdout.str()
    assert result.ret == 0


def test_a_swallowed_failure_is_no_pass(pytester: pytest.Pytester, golden: Path) -> None:
    golden.unlink()
    pytester.makepyfile("import pytest\ndef test_net(trt_check):\n    with pytest.raises(BaseException): trt_check()\n")

    result = pytester.runpytest("-k", "test_net")

    result.assert_outcomes(failed=1, deselected=1)
    result.stdout.fnmatch_lines(["*swallowed a verdict: error, which is never a pass.*"])


def test_the_command_that_mends_is_quoted(pytester: pytest.Pytester) -> None:
    networks.save(networks.convolutional(), pytester.path / "my nets" / "a net.onnx")

    result = pytester.runpytest("--trt-model=my nets", "--trt-golden-dir=my goldens")

    result.stdout.fnmatch_lines(
        ['*pytest --trt-model="my nets/a net.onnx" --trt-golden-dir="my goldens" --trt-update-golden']
    )


def test_lf_waives_nothing_that_it_did_not_leave_out(pytester: pytest.Pytester, golden: Path) -> None:
    result = pytester.runpytest("--lf", "--trt-precision=int8,fp16", "-k", "fp16")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["ERROR: --trt-precision=int8 was asked for*"])


def test_models_in_an_argument_file_are_judged(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile(test_a="def test_a(): pass")
    (pytester.path / "args.txt").write_text("--trt-model=net.onnx\n")

    pytester.runpytest("@args.txt", "test_a.py").assert_outcomes(passed=2)


def test_a_golden_is_not_called_unused_because_lf_left_its_case_out(pytester: pytest.Pytester, golden: Path) -> None:
    networks.save(networks.convolutional(seed=5), pytester.path / "k.onnx")
    (pytester.path / "k.trt.toml").write_text('[[model]]\nonnx = "k.onnx"\n')
    pytester.runpytest("k.trt.toml", "--trt-update-golden").assert_outcomes(passed=1)
    golden.write_bytes(b"")
    pytester.runpytest().assert_outcomes(passed=1, failed=1)

    assert "unused golden" not in pytester.runpytest("--lf").stdout.str()


def test_nan_in_fp32_is_not_called_an_overflow(tmp_path: Path) -> None:
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    networks.save(networks.with_weight(networks.convolutional(), "b3", lambda b: b * np.nan), tmp_path / "nan.onnx")
    case = Case(name="net", onnx="nan.onnx", reference="net.onnx", base=tmp_path)
    update(case, tmp_path / "golden")

    assert "Look for NaN among its weights" in judged(case, "fp32").accept
