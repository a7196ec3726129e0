"""Engines of TensorRT: on its fake, and on a real GPU where there is one, as tests/gpu.py tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from gpu import FAST, WORDS, backend, built, machine, on_both, on_gpu, small
from onnx import TensorProto, helper
from places import DIGITS

from pytest_trt.backends.backend import choose
from pytest_trt.backends.build_options import merged, read_build_options
from pytest_trt.backends.recipe import Calibration, Recipe
from pytest_trt.case.build_settings import How
from pytest_trt.case.case import Case
from pytest_trt.case.reference import subject_of
from pytest_trt.comparison.comparison import compare
from pytest_trt.comparison.tolerance import SLACK
from pytest_trt.errors import BackendError, PytestTrtError
from pytest_trt.gate import build, check
from pytest_trt.golden.create import update
from pytest_trt.golden.load import open_golden
from pytest_trt.model.model import Model, load
from pytest_trt.model.onnx_session import open_session, run
from pytest_trt.precision import Precision
from pytest_trt.ranges.amax import Ranges

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_trt import Verdict

__all__ = ["machine", "small"]


def exact(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What onnxruntime computes in fp32."""
    return run(open_session(proto, "network"), Model(proto, "network"), feeds)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Path]:
    """The case of the example, and a folder with its golden."""
    folder = tmp_path_factory.mktemp("golden")
    case = Case(
        name="digits",
        onnx="digits.onnx",
        inputs="test.npz",
        labels="labels.npy",
        calibration="calibration.npz",
        base=DIGITS,
    )
    os.environ.pop("CI", None)
    update(case, folder)
    return case, folder


def judged(digits: tuple[Case, Path], precision: str, **told: Any) -> Verdict:
    case, folder = digits
    how = How(merged(FAST, read_build_options(told, "build")))
    return check(case, precision, backend="tensorrt", golden_dir=folder, how=how)


def accuracy(verdict: Verdict) -> float:
    found = verdict.judgements[0].accuracy
    assert found is not None
    return found.actual


@on_both
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "int8"])
def test_digits_pass_at_each_precision_by_flags(digits: tuple[Case, Path], precision: str) -> None:
    verdict = judged(digits, precision, typing="weak", honoured=0)

    assert verdict.passed, verdict
    assert accuracy(verdict) > 0.97
    assert not verdict.simulated
    assert verdict.layers["compute"] >= 5


@on_both
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_digits_pass_with_the_precision_in_the_model(digits: tuple[Case, Path], precision: str) -> None:
    verdict = judged(digits, precision, typing="strong", honoured=0)

    assert verdict.passed, verdict
    assert verdict.layers["by_precision"].get(precision, 0) > 0


def ran(case: Case, folder: Path, precision: str, **told: Any) -> np.ndarray:
    """The logits of an engine for the golden's inputs."""
    subject = subject_of(case, Precision.parse(precision))
    golden = open_golden(subject, folder)
    how = How(merged(FAST, read_build_options({"honoured": 0, **told}, "build")))
    engine = build(subject, golden, backend(), how)
    return np.asarray(engine.engine.run(golden.runs[0].inputs)["logits"])


@on_both
def test_int8_by_dynamic_ranges_and_by_qdq_agree_within_the_slack(digits: tuple[Case, Path], tmp_path: Path) -> None:
    case, folder = digits
    cache = tmp_path / "digits.cache"
    ran(case, folder, "int8", typing="weak", calibrator="entropy", calibration_cache=str(cache))
    by_cache = replace(case, calibration=str(cache))

    weak, strong = (ran(by_cache, folder, "int8", typing=typing) for typing in ("weak", "strong"))

    subject = subject_of(by_cache, Precision.INT8)
    golden = open_golden(subject, folder)
    simulated = build(subject, golden, choose("onnxruntime")).engine.run(golden.runs[0].inputs)
    slack = SLACK * compare(simulated["logits"], golden.outputs["logits"]).rel_rms
    assert 0 < compare(strong, weak).rel_rms <= slack


@on_both
def test_fp16_by_flag_and_by_typed_graph_agree_within_the_slack(digits: tuple[Case, Path]) -> None:
    case, folder = digits

    weak, strong = (ran(case, folder, "fp16", typing=typing) for typing in ("weak", "strong"))

    golden = open_golden(subject_of(case, Precision.FP16), folder)
    assert 0 < compare(strong, weak).rel_rms <= golden.envelope["fp16"]["logits"]["bound"]


@on_both
def test_a_lowered_file_is_judged_as_the_engine_of_its_ranges_is(digits: tuple[Case, Path], tmp_path: Path) -> None:
    case, folder = digits
    words = ["lower", str(DIGITS / "digits.onnx"), "--precision", "int8", "--ranges", str(tmp_path / "ranges.txt")]
    calibration = ["calibrate", str(DIGITS / "digits.onnx"), str(DIGITS / "calibration.npz"), "-o", words[-1]]
    for command in (calibration, [*words, "-o", str(tmp_path / "int8.onnx")]):
        subprocess.run([sys.executable, "-m", "pytest_trt.cli", *command], check=True)
    lowered = replace(case, onnx=str(tmp_path / "int8.onnx"), reference="digits.onnx", calibration=None)

    verdict = check(
        lowered, "model", backend="tensorrt", golden_dir=folder, how=How(merged(FAST, {"typing": "strong"}))
    )

    assert verdict.passed, verdict
    assert verdict.layers["by_precision"].get("int8", 0) > 0


@on_both
def test_fp32_is_free_of_tf32(digits: tuple[Case, Path]) -> None:
    verdict = judged(digits, "fp32")

    assert verdict.layers["by_precision"] == {"fp32": verdict.layers["compute"]}
    assert verdict.judgements[0].error < 2e-6


@on_both
def test_an_engine_that_keeps_to_fp32_is_no_fp16_engine(digits: tuple[Case, Path]) -> None:
    case, folder = digits
    plan = folder / "fp32.plan"
    model = load(DIGITS / "digits.onnx")
    feeds = ({"image": np.load(DIGITS / "test.npz")[model.inputs[0].name]},)
    named = {model.inputs[0].name: next(iter(feeds[0].values()))}
    plan.write_bytes(backend().plan(Recipe(model, Precision.FP32, feeds=(named,), options=merged(FAST))).data)

    verdict = check(case, "fp16", backend="tensorrt", golden_dir=folder, how=How(merged(FAST), plan=plan))

    assert (verdict.verdict, verdict.findings[0].code) == ("failed", "TRT201"), verdict
    assert "is not what was built" in verdict.findings[0].message
    assert verdict.judgements


@on_both
def test_a_precision_that_the_release_lacks_is_refused_with_what_has_it(digits: tuple[Case, Path]) -> None:
    import tensorrt

    if hasattr(tensorrt.BuilderFlag, "BF16") or hasattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        pytest.skip(f"TensorRT {tensorrt.__version__} has bf16")

    verdict = judged(digits, "bf16")

    assert "has no bf16: TensorRT 10 or later has it" in verdict.message


@on_both
@pytest.mark.parametrize("calibrator", ["entropy", "minmax"])
def test_tensorrts_own_calibrators_read_our_samples_and_keep_their_cache(
    digits: tuple[Case, Path], calibrator: str, tmp_path: Path
) -> None:
    cache = tmp_path / "digits.cache"

    first = judged(digits, "int8", typing="weak", calibrator=calibrator, calibration_cache=str(cache), honoured=0)
    written = cache.read_bytes()
    second = judged(
        (replace(digits[0], calibration=None), digits[1]),
        "int8",
        typing="weak",
        calibrator=calibrator,
        calibration_cache=str(cache),
        honoured=0,
    )

    assert accuracy(first) > 0.97, first
    assert written.startswith(b"TRT-")
    assert cache.read_bytes() == written
    assert second.verdict == first.verdict, second


@on_both
def test_int8_without_anything_fails_in_the_builders_own_words() -> None:
    proto = networks.convolutional(batch=8)
    nothing = Calibration(lambda _: Ranges({}), None, "nothing")
    options = merged(FAST, {"typing": "weak"})

    with pytest.raises(BackendError) as told:
        backend().build(Recipe(Model(proto, "net.onnx"), Precision.INT8, nothing, options=options))

    print(told.value)
    assert "builds no engine" in str(told.value)
    assert "TensorRT says" in str(told.value)


@on_both
def test_a_rerun_is_bit_equal_and_so_is_a_reload_and_a_rebuild_is_near(tmp_path: Path) -> None:
    proto, feeds = networks.convolutional(batch=8), {"x": networks.images(8)}
    recipe = Recipe(Model(proto, "net.onnx"), Precision.FP16, feeds=(feeds,), options=merged(FAST))
    plan = backend().plan(recipe)
    (tmp_path / "net.plan").write_bytes(plan.data)
    loaded = replace(recipe, plan=tmp_path / "net.plan")

    first = backend().build(loaded)
    outputs = first.run(feeds)["logits"]
    again = first.run(feeds)["logits"]
    reloaded = backend().build(loaded).run(feeds)["logits"]
    rebuilt = backend().build(recipe).run(feeds)["logits"]

    assert np.array_equal(outputs, again)
    assert np.array_equal(outputs, reloaded)
    assert compare(rebuilt, outputs).rel_rms < 5e-3


@on_both
def test_a_dynamic_batch_runs_at_every_size_of_its_profile_and_at_no_other() -> None:
    proto = networks.convolutional()
    sizes = (2, 8, 5)
    engine = built(proto, feeds=[{"x": networks.images(size)} for size in sizes])

    for size in sizes:
        feeds = {"x": networks.images(size, seed=size)}
        assert compare(engine.run(feeds)["logits"], exact(proto, feeds)["logits"]).rel_rms < 1e-5

    with pytest.raises(BackendError, match="no optimization profile"):
        engine.run({"x": networks.images(9)})


@on_both
def test_of_several_profiles_the_one_that_covers_the_shapes_is_taken() -> None:
    from pytest_trt.backends.recipe import Span

    proto = networks.convolutional()
    spans = [Span((n, 2, 6, 6), (n, 2, 6, 6), (m, 2, 6, 6)) for n, m in ((1, 4), (16, 32))]
    recipe = Recipe(
        Model(proto, "net.onnx"), Precision.FP32, profiles=tuple({"x": s} for s in spans), options=merged(FAST)
    )
    engine = backend().build(recipe)

    for size in (32, 2, 16, 4):
        feeds = {"x": networks.images(size)}
        assert compare(engine.run(feeds)["logits"], exact(proto, feeds)["logits"]).rel_rms < 1e-5
    with pytest.raises(BackendError, match="no optimization profile"):
        engine.run({"x": networks.images(10)})


@on_both
def test_whole_numbers_go_in_and_come_out_in_the_models_own_dtypes() -> None:
    proto = networks.embedding()
    feeds: dict[str, np.ndarray] = {"ids": np.ones((4, 5), np.int64), "mask": np.ones((4, 5), np.float32)}
    wanted = exact(proto, feeds)

    outputs = built(proto, feeds=[feeds]).run(feeds)

    for name, array in wanted.items():
        assert outputs[name].dtype == array.dtype
        assert np.allclose(outputs[name], array, rtol=1e-4, atol=1e-5)


@on_both
def test_boolean_outputs_come_out_as_boolean() -> None:
    nodes = [helper.make_node("Greater", ["x", "limit"], ["above"]), helper.make_node("Mul", ["x", "limit"], ["y"])]
    proto = networks.model(
        nodes,
        {"x": (TensorProto.FLOAT, [2, 3])},
        {"above": (TensorProto.BOOL, [2, 3]), "y": (TensorProto.FLOAT, [2, 3])},
        {"limit": np.float32(0.5)},
    )
    x = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)

    outputs = built(proto).run({"x": x})

    assert outputs["above"].dtype == np.bool_
    assert np.array_equal(outputs["above"], x > 0.5)


@on_both
def test_an_output_whose_shape_depends_on_the_data_has_the_shape_that_it_came_to() -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["where"]), helper.make_node("Mul", ["x", "x"], ["y"])]
    proto = networks.model(
        nodes,
        {"x": (TensorProto.FLOAT, [3, 4])},
        {"where": (TensorProto.INT64, [2, "found"]), "y": (TensorProto.FLOAT, [3, 4])},
    )
    engine = built(proto)

    for count in (5, 12, 1):
        x = np.zeros(12, np.float32)
        x[:count] = 1
        outputs = engine.run({"x": x.reshape(3, 4)})
        assert np.array_equal(outputs["where"], np.array(np.nonzero(x.reshape(3, 4))))


@on_gpu
def test_arrays_of_pycuda_are_read_where_they_lie_and_outputs_stay_on_the_gpu() -> None:
    pytest.importorskip("pycuda.driver")
    import pycuda.autoprimaryctx  # noqa: F401 - makes the context that CUDA's runtime uses
    from pycuda import gpuarray

    proto, x = networks.convolutional(batch=8), networks.images(8)
    engine = built(proto)
    on_gpu = gpuarray.to_gpu(x)

    from_gpu = engine.run({"x": on_gpu})["logits"]
    kept = engine.run({"x": on_gpu}, on_device=True)["logits"]
    back = gpuarray.GPUArray(kept.shape, kept.dtype, gpudata=kept.address).get()

    assert np.array_equal(from_gpu, engine.run({"x": x})["logits"])
    assert np.array_equal(back, from_gpu)
    assert kept.__cuda_array_interface__["shape"] == (8, 3)


@on_gpu
def test_a_view_of_a_gpu_array_that_is_not_contiguous_is_refused() -> None:
    pytest.importorskip("pycuda.driver")
    import pycuda.autoprimaryctx  # noqa: F401
    from pycuda import gpuarray

    engine = built(networks.convolutional(batch=8))

    with pytest.raises(PytestTrtError, match="not C-contiguous"):
        engine.run({"x": gpuarray.to_gpu(networks.images(16))[::2]})


@on_gpu
def test_weights_that_fp16_loses_are_told_by_the_builder_and_kept() -> None:
    proto = networks.with_weight(networks.convolutional(batch=8), "w1", lambda w: w * np.float32(1e-7))

    engine = built(proto, "fp16", typing="weak")

    print(engine.warnings)
    assert any("ubnormal" in text or "FP16" in text for text in engine.warnings)


@on_both
@pytest.mark.parametrize(
    "told",
    [
        {"refit": True},
        {"version_compatible": True},
        {"hardware_compatibility": "ampere_plus"},
        {"sparsity": True},
        {"workspace": "64M"},
        {"optimization_level": 0},
    ],
    ids=lambda told: next(iter(told)),
)
def test_an_engine_built_with_each_option_runs_right(told: dict[str, Any]) -> None:
    proto, feeds = networks.convolutional(batch=8), {"x": networks.images(8)}

    try:
        engine = built(proto, **told)
    except BackendError as error:
        if "Unable to load library" in str(error):  # version compatibility takes TensorRT's lean runtime
            pytest.skip(str(error))
        raise

    assert compare(engine.run(feeds)["logits"], exact(proto, feeds)["logits"]).rel_rms < 1e-5


@on_both
def test_a_timing_cache_of_ones_own_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "own.cache"

    built(networks.convolutional(batch=8), timing_cache=str(path))
    first = path.stat().st_size
    built(networks.convolutional(batch=8), timing_cache=str(path))

    assert first > 100
    assert path.stat().st_size >= first


@on_both
@pytest.mark.parametrize(
    ("told", "words"),
    [({"dla_core": 0}, "sees 0 on this machine"), ({"device": 99}, "GPU 99 was asked")],
    ids=["DLA", "device"],
)
def test_hardware_that_is_not_there_is_told_plainly(told: dict[str, Any], words: str) -> None:
    with pytest.raises(BackendError, match=words):
        built(networks.convolutional(batch=8), "fp16", **told)


@on_gpu
def test_a_workspace_too_small_for_any_tactic_is_told_plainly() -> None:
    nodes = [helper.make_node("TopK", ["x", "k"], ["best", "where"], axis=1)]
    proto = networks.model(
        nodes,
        {"x": (TensorProto.FLOAT, [64, 8192])},
        {"best": (TensorProto.FLOAT, [64, 3000]), "where": (TensorProto.INT64, [64, 3000])},
        {"k": np.array([3000], np.int64)},
    )
    options = replace(merged(FAST), workspace=1)

    with pytest.raises(BackendError, match="builds no engine") as told:
        backend().build(Recipe(Model(proto, "topk.onnx"), Precision.FP32, options=options))
    print(told.value)


@on_both
def test_more_memory_than_the_gpu_has_is_told_plainly() -> None:
    from pytest_trt.backends.cuda import allocate, open_gpu

    gpu = open_gpu(0)

    with pytest.raises(BackendError, match="can't be had: out of memory"):
        allocate((2 * gpu.memory,), np.dtype(np.uint8))
    assert allocate((8,), np.dtype(np.uint8)).nbytes == 8


@on_both
@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "another model"])
def test_a_plan_that_is_not_one_of_this_model_here_is_told_plainly(damage: str, tmp_path: Path) -> None:
    recipe = Recipe(Model(networks.convolutional(batch=8), "net.onnx"), Precision.FP32, options=merged(FAST))
    data = backend().plan(recipe).data
    other = Recipe(Model(networks.convolutional(batch=4), "other.onnx"), Precision.FP32, options=merged(FAST))
    plans = {
        "truncated": data[: len(data) // 2],
        "garbage": bytes(4096),
        "empty": b"",
        "another model": backend().plan(other).data,
    }
    path = tmp_path / "net.plan"
    path.write_bytes(plans[damage])

    with pytest.raises(BackendError) as told:
        backend().build(replace(recipe, plan=path))

    print(told.value)
    assert "is empty" in str(told.value) or "can't be loaded" in str(told.value) or "is not one of" in str(told.value)


@on_gpu
def test_a_plan_for_another_gpu_is_told_plainly(tmp_path: Path) -> None:
    recipe = Recipe(Model(networks.convolutional(batch=8), "net.onnx"), Precision.FP32, options=merged(FAST))
    path = tmp_path / "net.plan"
    path.write_bytes(_for_another_gpu(backend().plan(recipe).data))

    with pytest.raises(BackendError, match="can't be loaded"):
        backend().build(replace(recipe, plan=path))


def _for_another_gpu(data: bytes) -> bytes:
    """The plan with the compute capability of its header changed, found by what TensorRT says of it."""
    import tensorrt

    from pytest_trt.backends.tensorrt._log import heard, logger_of

    runtime = tensorrt.Runtime(logger_of(tensorrt))
    for place in range(256):
        changed = data[:place] + bytes([data[place] ^ 0x0F]) + data[place + 1 :]
        with heard(tensorrt) as said:
            runtime.deserialize_cuda_engine(changed)
        if any("incompatible device" in line or "compute" in line.lower() for line in said.errors):
            print(place, said.errors)
            return changed
    pytest.skip("this release's plan header does not tell the GPU where it can be changed")


@on_both
def test_a_second_session_builds_nothing(small: Path, pytester: pytest.Pytester) -> None:
    words = [*WORDS, "--trt-store=plans", "--trt-precision=fp32,fp16,int8"]

    first = pytester.runpytest(*words, "--trt-report=first.json")
    second = pytester.runpytest(*words, "--trt-report=second.json")

    assert first.ret == second.ret == 0
    engines = [_engines(small / name) for name in ("first.json", "second.json")]
    assert all("from_store" not in engine for engine in engines[0])
    assert all("from_store" in engine for engine in engines[1])
    assert [e["plan_sha256"] for e in engines[0]] == [e["plan_sha256"] for e in engines[1]]


def _engines(report: Path) -> list[dict[str, Any]]:
    return [result["provenance"]["engine"] for result in json.loads(report.read_text())["results"]]


@on_both
def test_a_plan_named_on_the_command_line_is_judged(small: Path, pytester: pytest.Pytester) -> None:
    assert pytester.runpytest(*WORDS, "--trt-store=plans").ret == 0
    (plan,) = (small / "plans").glob("*.plan")
    plan.replace(small / "mine.plan")

    good = pytester.runpytest(*WORDS, "--trt-engine=mine.plan", "--trt-report=run.json", "--trt-require-engine")

    assert good.ret == 0
    assert _engines(small / "run.json")[0]["plan"].endswith("mine.plan")


@on_gpu
def test_a_machine_whose_gpus_are_hidden_is_told_to_look_there(small: Path) -> None:
    command = [sys.executable, "-m", "pytest", *WORDS]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}

    found = subprocess.run(command, cwd=small, env=hidden, capture_output=True, text=True, check=False)

    assert found.returncode == 1
    assert "no GPU can be used" in found.stdout
    assert "CUDA_VISIBLE_DEVICES" in found.stdout
    assert "Traceback" not in found.stdout
