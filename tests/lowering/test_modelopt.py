"""The refusals, with a modelopt that is a fake, so that each of its faults can be injected."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from fakes.modelopt import FakeModelopt
from fakes.tensorrt import RELEASES, install
from networks import convolutional, images
from onnx import helper

from pytest_trt import Case, check
from pytest_trt.backends.backend import choose
from pytest_trt.backends.tensorrt.backend import open_backend
from pytest_trt.case.build_settings import How, recipe_of
from pytest_trt.case.reference import Subject
from pytest_trt.comparison.comparison import compare
from pytest_trt.errors import BackendError, DataError, LoweringError
from pytest_trt.lowering.modelopt import lower_by_modelopt
from pytest_trt.model.model import Model, checked
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_trt.backends.recipe import Recipe


@pytest.fixture
def modelopt(monkeypatch: pytest.MonkeyPatch) -> FakeModelopt:
    fake = FakeModelopt()
    fake.install(monkeypatch)
    return fake


@pytest.fixture
def model() -> Model:
    return checked(convolutional(), "net.onnx")


def samples(_: int | None = None) -> list[dict[str, Any]]:
    return [{"x": 2 * images(4)}, {"x": images(4, seed=2)}]


def left_behind() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("pytest-trt-*"))


def test_int8_comes_from_our_samples_with_the_rest_in_fp32(modelopt: FakeModelopt, model: Model) -> None:
    found = lower_by_modelopt(model, "int8", samples, batch=2, ops=("Conv",), keep=("fc",))
    assert found.by == "modelopt 0.47.0"
    told = modelopt.calls[0]
    assert told["calibration_method"] == "max"
    assert told["calibration_eps"] == ["cpu"]
    assert told["high_precision_dtype"] == "fp32"
    assert told["op_types_to_quantize"] == ["Conv"]
    assert told["nodes_to_exclude"] == ["fc$"]


def test_fp16_is_never_decided_by_a_reference_run_which_would_be_on_random_inputs(
    modelopt: FakeModelopt, model: Model
) -> None:
    assert lower_by_modelopt(model, "fp16").model.inputs == model.inputs
    assert modelopt.calls[0]["data_max"] == np.inf
    assert modelopt.calls[0]["keep_io_types"] is True


def test_what_it_logs_as_a_warning_is_a_note_and_nothing_is_printed(
    modelopt: FakeModelopt, model: Model, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert lower_by_modelopt(model, "fp16").notes == ("ModelOpt: shared constants were found",)
    lower_by_modelopt(model, "int8", samples)
    assert capsys.readouterr() == ("", "")
    assert not caplog.records
    assert not logging.getLogger("modelopt").handlers


def test_int8_without_samples_is_refused_before_the_call(modelopt: FakeModelopt, model: Model) -> None:
    with pytest.raises(LoweringError, match="would calibrate on random numbers"):
        lower_by_modelopt(model, "int8", None)
    with pytest.raises(DataError, match="calibration holds no samples"):
        lower_by_modelopt(model, "int8", lambda _: [])
    assert not modelopt.calls


def test_a_result_calibrated_on_other_data_than_ours_is_refused(modelopt: FakeModelopt, model: Model) -> None:
    modelopt.reads = False
    with pytest.raises(LoweringError, match="did not read calibration to the end"):
        lower_by_modelopt(model, "int8", samples)


@pytest.mark.parametrize(("scaled", "method"), [(0.9, "minmax"), (1.1, "minmax"), (1.1, "entropy")])
def test_a_result_whose_scales_do_not_fit_the_samples_is_refused(
    modelopt: FakeModelopt, model: Model, scaled: float, method: str
) -> None:
    modelopt.scaled = scaled
    with pytest.raises(LoweringError, match="scaled input 'x' for values up to"):
        lower_by_modelopt(model, "int8", samples, method=method)


def test_entropy_may_clip(modelopt: FakeModelopt, model: Model) -> None:
    modelopt.scaled = 0.7
    assert lower_by_modelopt(model, "int8", samples, method="entropy").by == "modelopt 0.47.0"


@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_a_calibration_method_that_it_has_not_is_refused(modelopt: FakeModelopt, model: Model, method: str) -> None:
    with pytest.raises(LoweringError, match=f"no calibration method '{method}': take minmax or entropy"):
        lower_by_modelopt(model, "int8", samples, method=method)


def test_a_bad_sample_is_said_even_where_modelopt_hides_it(modelopt: FakeModelopt, model: Model) -> None:
    def bad(_: int | None) -> Iterator[dict[str, Any]]:
        yield {"x": images(2)}
        yield {"x": np.full((2, 2, 6, 6), np.nan, np.float32)}

    def hidden(path: str, **told: Any) -> None:
        try:
            list(iter(told["calibration_data_reader"].get_next, None))
        except DataError:
            raise RuntimeError("no data is collected") from None

    sys.modules["modelopt.onnx.quantization"].quantize = hidden  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="'x' has 144 NaN or infinite value"):
        lower_by_modelopt(model, "int8", bad)


def without_output(proto: onnx.ModelProto) -> onnx.ModelProto:
    del proto.graph.output[0]
    proto.graph.output.append(helper.make_tensor_value_info("f", networks.FLOAT, ["N", 4]))
    return proto


def without_input(proto: onnx.ModelProto) -> onnx.ModelProto:
    for node in proto.graph.node:
        node.input[:] = ["image" if name == "x" else name for name in node.input]
    proto.graph.input[0].name = "image"
    return proto


def broken(proto: onnx.ModelProto) -> onnx.ModelProto:
    proto.graph.node[0].input[0] = "nowhere"
    return proto


def fp32(proto: onnx.ModelProto) -> onnx.ModelProto:
    return convolutional()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_input, "changed the inputs: they were 'x' float32"),
        (without_output, "changed the outputs: they were 'logits' float32"),
        (broken, "made no valid model"),
        (fp32, "holds fp32, and nothing in fp16"),
    ],
)
def test_a_result_that_is_no_lowering_of_the_model_is_refused(
    modelopt: FakeModelopt, model: Model, change: Callable[[onnx.ModelProto], onnx.ModelProto], message: str
) -> None:
    modelopt.change = change
    with pytest.raises(LoweringError, match=message):
        lower_by_modelopt(model, "fp16")


def raised(error: BaseException) -> Callable[[], None]:
    def fault() -> None:
        Path(tempfile.gettempdir(), "left.onnx").write_bytes(b"")
        raise error

    return fault


def test_a_result_that_computes_as_before_beside_what_it_quantised_is_refused(
    modelopt: FakeModelopt, model: Model
) -> None:
    modelopt.change = lambda proto: rewired(proto, ("conv1", "conv2", "fc"))
    with pytest.raises(LoweringError, match="it left all 3 matrix operators in fp32"):
        lower_by_modelopt(model, "int8", samples)


def test_matrix_operators_that_it_leaves_are_noted_but_for_those_kept(modelopt: FakeModelopt, model: Model) -> None:
    modelopt.change = lambda proto: rewired(proto, ("conv2", "fc"))
    notes = lower_by_modelopt(model, "int8", samples, keep=("fc",)).notes
    assert notes == ("ModelOpt: 1 of 3 matrix operators stay in fp32: 'conv2'",)


def rewired(proto: onnx.ModelProto, names: tuple[str, ...]) -> onnx.ModelProto:
    """These nodes read what stands before their Q/DQ."""
    quantised = {node.output[0]: node.input[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    before = {
        node.output[0]: quantised[node.input[0]]
        for node in proto.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in quantised
    }
    for node in proto.graph.node:
        if node.name in names:
            node.input[0] = before[node.input[0]]
    return proto


@pytest.mark.parametrize("error", [AssertionError("no node"), SystemExit(1)], ids=["assertion", "exit"])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_its_exceptions_are_sentences(
    modelopt: FakeModelopt, model: Model, precision: str, error: BaseException
) -> None:
    modelopt.fault = raised(error)
    with pytest.raises(LoweringError, match=f"net.onnx at {precision} by ModelOpt: it fails: {type(error).__name__}"):
        lower_by_modelopt(model, precision, samples)


def test_a_ctrl_c_leaves_no_file_and_everything_as_it_was(
    modelopt: FakeModelopt, model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # others have files in the common one
    before, folder, out = left_behind(), tempfile.gettempdir(), sys.stdout
    modelopt.fault = raised(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        lower_by_modelopt(model, "int8", samples)
    assert left_behind() == before
    assert not Path(folder, "left.onnx").exists()
    assert not Path(modelopt.calls[0]["path"]).parent.exists()
    assert tempfile.gettempdir() == folder
    assert sys.stdout is out
    assert not logging.getLogger("modelopt").handlers


def test_a_missing_modelopt_says_what_to_install(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    with pytest.raises(LoweringError, match=r'pip install "pytest-trt\[modelopt\]", in an environment of its own'):
        lower_by_modelopt(model, "fp16")


def test_names_to_keep_must_be_the_models(modelopt: FakeModelopt, model: Model) -> None:
    with pytest.raises(LoweringError, match="keep names nodes that the model has not: 'conv9'"):
        lower_by_modelopt(model, "fp16", keep=("conv1", "conv9"))


def test_operators_of_others_are_refused_which_it_would_run_on_random_inputs(modelopt: FakeModelopt) -> None:
    proto = convolutional()
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "Gelu2", "mine"
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    with pytest.raises(LoweringError, match=r"operators beyond ONNX's own \(Gelu2\)"):
        lower_by_modelopt(Model(proto, "net.onnx"), "fp16")


def case_of(folder: Path, **told: Any) -> Case:
    return Case(onnx="net.onnx", calibration="calibration.npz", lowering="modelopt", base=folder, **told)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_case_is_judged_as_modelopt_lowers_it_and_the_record_says_so(
    modelopt: FakeModelopt, golden: Path, project: Path, precision: str
) -> None:
    verdict = check(case_of(project), precision, golden_dir=golden.parent)
    assert (verdict.verdict, verdict.message) == ("passed", "")
    assert verdict.provenance["lowering"] == "modelopt 0.47.0"
    assert verdict.held is None
    assert verdict.warnings == (() if precision == "int8" else ("ModelOpt: shared constants were found",))
    assert len(modelopt.calls) == 1


@pytest.mark.parametrize("precision", ["fp32", "tf32", "model"])
def test_precisions_that_it_has_not_are_ours_as_before(
    modelopt: FakeModelopt, golden: Path, project: Path, precision: str
) -> None:
    verdict = check(case_of(project), precision, golden_dir=golden.parent)
    assert (verdict.verdict, verdict.provenance["lowering"]) == ("passed", "own")
    assert not modelopt.calls


def test_ranges_in_place_of_samples_are_refused(modelopt: FakeModelopt, golden: Path, project: Path) -> None:
    (project / "ranges.txt").write_text("x: 4\n")
    case = Case(onnx="net.onnx", calibration="ranges.txt", lowering="modelopt", base=project)
    verdict = check(case, "int8", golden_dir=golden.parent)
    assert verdict.verdict == "error"
    assert "it calibrates itself" in verdict.message
    assert "Give samples as calibration, not ranges" in verdict.message


def test_weak_typing_is_refused(modelopt: FakeModelopt, golden: Path, project: Path) -> None:
    verdict = check(case_of(project, build={"typing": "weak"}), "fp16", golden_dir=golden.parent)
    assert verdict.verdict == "error"
    assert "leave one of them out" in verdict.message


def test_an_overflow_of_its_fp16_graph_is_seen(modelopt: FakeModelopt, tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "large"], ["y"]), helper.make_node("Mul", ["y", "small"], ["z"])]
    weights = {"large": np.float32(6e4), "small": np.float32(1e-4)}
    ends = networks.FLOAT, ["N", 3]
    networks.save(networks.model(nodes, {"x": ends}, {"z": ends}, weights), tmp_path / "net.onnx")
    case = case_of(tmp_path)
    model = checked(onnx.load(tmp_path / "net.onnx"), "net.onnx")
    engine = choose("onnxruntime").build(recipe_of(Subject(case, Precision.FP16, model), (), How()))
    values = engine.run({"x": np.array([[1, 2, 1]], np.float32)})["z"]
    assert np.isinf(values).tolist() == [[False, True, False]]


def test_the_command_line_counts_before_the_case_and_the_ini_file_after_it(
    modelopt: FakeModelopt, golden: Path, project: Path, pytester: pytest.Pytester
) -> None:
    def lowered_by(*options: str) -> str:
        assert pytester.runpytest("--trt-precision=fp16", "--trt-report=r.json", *options).ret == 0
        return str(json.loads((project / "r.json").read_text())["results"][0]["provenance"]["lowering"])

    assert lowered_by() == "own"
    assert lowered_by("--trt-lowering=modelopt") == "modelopt 0.47.0"
    pytester.makeini("[pytest]\ntrt_lowering = modelopt\n")
    assert lowered_by() == "modelopt 0.47.0"
    (project / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\nlowering = "own"\n')
    assert lowered_by() == "own"
    assert lowered_by("--trt-lowering=modelopt") == "modelopt 0.47.0"


@pytest.mark.parametrize("where", ["option", "ini", "case"])
def test_an_unknown_lowering_names_the_nearest(project: Path, pytester: pytest.Pytester, where: str) -> None:
    if where == "ini":
        pytester.makeini("[pytest]\ntrt_lowering = modelop\n")
    if where == "case":
        (project / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\nlowering = "modelop"\n')
    result = pytester.runpytest(*(["--trt-lowering=modelop"] if where == "option" else []))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "did you mean 'modelopt'?" in "\n".join([*result.outlines, *result.errlines])


def modelopt_recipe(folder: Path, precision: str, store: Path | None = None, lowering: str = "modelopt") -> Recipe:
    networks.save(convolutional(), folder / "net.onnx")
    np.savez(folder / "calibration.npz", x=images(8))
    case = Case(onnx="net.onnx", calibration="calibration.npz", lowering=lowering, base=folder)
    model = checked(convolutional(), "net.onnx")
    return recipe_of(Subject(case, Precision.parse(precision), model), ({"x": images(8)},), How(store=store))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("release", RELEASES)
def test_tensorrt_takes_what_it_made_and_says_so(
    modelopt: FakeModelopt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, release: str, precision: str
) -> None:
    install(monkeypatch, release)
    backend = choose("tensorrt-rtx" if release.startswith("rtx") else "tensorrt")
    engine = backend.build(modelopt_recipe(tmp_path, precision))
    assert engine.facts["lowering"] == "modelopt 0.47.0"
    assert ("ModelOpt: shared constants were found" in engine.warnings) == (precision == "fp16")
    exact = choose("onnxruntime").build(modelopt_recipe(tmp_path, "fp32")).run({"x": images(8)})
    assert compare(engine.run({"x": images(8)})["logits"], exact["logits"]).rel_rms < 0.1


def test_a_plan_of_ours_is_not_taken_for_one_of_modelopts(
    modelopt: FakeModelopt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "11.4")
    for lowering in ("own", "modelopt", "modelopt"):
        last = open_backend().plan(modelopt_recipe(tmp_path, "int8", tmp_path / "store", lowering))
    assert len(list((tmp_path / "store").glob("*.plan"))) == 2
    assert last.facts["from_store"]
    assert last.facts["lowering"] == "modelopt 0.47.0"


def test_a_torch_module_is_nothing_for_it(modelopt: FakeModelopt, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs torch: pip install torch")
    with pytest.raises(BackendError, match="runs a torch module, and lowering = modelopt lowers an ONNX graph"):
        choose("torch").build(modelopt_recipe(tmp_path, "fp16"))
