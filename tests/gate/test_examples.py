"""The examples are real: a trained network at its true accuracy, and the ResNet-18 that the project started from."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from places import DIGITS, ROOT

from pytest_trt import Case, Verdict, check, compare, lower
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.case.case import cases_of_file
from pytest_trt.case.reference import model_of
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.model import load
from pytest_trt.model.onnx_session import open_session, run

if TYPE_CHECKING:
    from pathlib import Path

PRECISIONS = ["fp32", "tf32", "fp16", "bf16", "int8"]


def example(folder: Path) -> Case:
    from pytest_trt.case.case_file import parse

    [case] = cases_of_file(parse(folder / "trt.toml")["model"], folder, "trt.toml")
    assert isinstance(case, Case)
    return case


def judged(case: Case, precision: str) -> Verdict:
    return check(case, precision, golden_dir=ROOT / "golden")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_digits_passes_at_its_true_accuracy(precision: str) -> None:
    verdict = judged(example(DIGITS), precision)

    assert verdict.verdict == "passed"
    accuracy = verdict.judgements[0].accuracy
    assert accuracy is not None
    labels = np.load(DIGITS / "labels.npy")
    model = load(DIGITS / "digits.onnx")
    logits = run(open_session(model.proto, "digits"), model, dict(np.load(DIGITS / "test.npz")))["logits"]
    assert accuracy.reference == (logits.argmax(1) == labels).mean() > 0.95
    assert abs(accuracy.actual - accuracy.reference) < 0.01


def test_the_files_of_digits_are_small() -> None:
    files = [*DIGITS.iterdir(), ROOT / "golden" / "digits.safetensors"]

    assert sum(file.stat().st_size for file in files if file.is_file()) < 3_000_000


def copy_of_digits(folder: Path) -> Path:
    for name in ("digits.onnx", "trt.toml", "test.npz", "labels.npy", "calibration.npz"):
        shutil.copy(DIGITS / name, folder)
    (folder / "golden").mkdir()
    shutil.copy(ROOT / "golden" / "digits.safetensors", folder / "golden")
    return folder


def test_digits_calibrated_on_a_tenth_of_its_data_fails_and_says_by_how_much(pytester: pytest.Pytester) -> None:
    folder = copy_of_digits(pytester.path)
    data = np.load(folder / "calibration.npz")["image"]
    np.savez(folder / "calibration.npz", image=0.1 * data)

    result = pytester.runpytest("--trt-precision=int8")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*relative RMS 1.* is over the bound 0.0[0-9]* ([0-9]* times)", "*accuracy fell by 0.8*"]
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_digits_with_a_nan_weight_never_passes(pytester: pytest.Pytester, precision: str) -> None:
    folder = copy_of_digits(pytester.path)
    proto = onnx.load_model(folder / "digits.onnx")
    tensor = proto.graph.initializer[0]
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    networks.save(proto, folder / "nan.onnx")
    toml = (folder / "trt.toml").read_text()
    (folder / "trt.toml").write_text(toml.replace('"digits.onnx"', '"nan.onnx"\nreference = "digits.onnx"'))

    result = pytester.runpytest(f"--trt-precision={precision}")

    result.assert_outcomes(failed=1)
    assert "NaN" in result.stdout.str()


# What research measured for this ResNet-18 on eight inputs of white noise (relative RMS).
SIMULATED = {"tf32": 6.1e-4, "fp16": 6.7e-4, "bf16": 5.8e-3}


@pytest.fixture(scope="module")
def resnet18() -> Any:
    """The exported model and its white noise; the project's conftest skips where torchvision does not import."""
    from pytest_trt.storage.entry_point import locate

    folder = ROOT / "examples" / "resnet18"
    made = model_of(example(folder))
    white_noise = locate("model:_made", folder, "inputs")()[1].numpy()
    return made, white_noise


def error_at(resnet18: Any, lowered: Any) -> float:
    model, noise = resnet18
    feeds = {"input": noise[:8]}
    exact = run(open_session(model.proto, "resnet18"), model, feeds)["output"]
    return compare(run(open_session(lowered.proto, "resnet18"), lowered, feeds)["output"], exact).rel_rms


@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16"])
def test_resnet18_errs_as_research_measured(resnet18: Any, precision: str) -> None:
    assert error_at(resnet18, lower(resnet18[0], precision)) == pytest.approx(SIMULATED[precision], rel=0.25)


def test_resnet18_errs_as_research_measured_at_int8(resnet18: Any) -> None:
    model, noise = resnet18
    samples = ({"input": noise[start : start + 8]} for start in range(32, 64, 8))
    ranges = calibrate(model, quantised_activations(model.proto), samples, "noise")

    assert 0.75 * 1.3e-2 < error_at(resnet18, lower(model, "int8", ranges)) < 1.25 * 2.3e-2


def test_resnet18_in_typed_fp16_errs_by_its_weights_rounding_alone_on_the_cpu(resnet18: Any) -> None:
    assert error_at(resnet18, lower(resnet18[0], "fp16", typed=True)) == pytest.approx(5.23e-4, rel=0.05)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_resnet18_passes(resnet18: Any, precision: str) -> None:
    verdict = judged(example(ROOT / "examples" / "resnet18"), precision)

    assert verdict.verdict == "passed"
    assert verdict.hops[0].rel_rms <= 1e-5  # PyTorch -> ONNX
