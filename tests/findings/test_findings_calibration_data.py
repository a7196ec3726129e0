"""TRT108: calibration data that are not like the golden's inputs, and healthy twins."""

from __future__ import annotations

from typing import Any

import networks
import numpy as np
import pytest
from onnx import TensorProto, helper
from quantised import calibrated_digits, calibration_of_digits, codes, digits, found

from pytest_trt import Precision
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.evidence.calibration_shift import likeness_of
from pytest_trt.evidence.finding import Finding, Severity
from pytest_trt.evidence.quant_ranges import quantised_evidence
from pytest_trt.model.model import Model, checked


def test_calibration_data_of_another_scale_are_named_before_their_signs() -> None:
    first, *signs = digits(samples=calibration_of_digits() * np.float32(255))

    assert (first.code, first.severity) == ("TRT108", Severity.ERROR)
    assert "as large" in first.message
    assert set(codes(signs)) == {"TRT106"}


def test_calibration_data_with_another_mean_are_named() -> None:
    first = digits(samples=calibration_of_digits() * np.float32(0.5) + np.float32(0.5))[0]

    assert first.code == "TRT108"
    assert "shifted" in first.message


def test_one_sample_whose_ranges_the_golden_exceeds_is_an_error() -> None:
    first = digits(samples=calibration_of_digits()[:1])[0]

    assert (first.code, first.severity, first.evidence["samples"]) == ("TRT108", Severity.ERROR, 1)


def test_ranges_of_data_of_another_scale_are_told_by_the_input_alone() -> None:
    first = digits({name: amax * 0.1 for name, amax in calibrated_digits().items()})[0]

    assert first.code == "TRT108"
    assert "0.1 times the largest |x|" in first.message


def colours(seed: int, order: list[int]) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    means = np.array([0.5, 0.1, -0.4], np.float32).reshape(1, 3, 1, 1)
    shade = draw.normal(0, 0.2, (16, 1, 1, 1))
    return {"x": (means + shade + draw.standard_normal((16, 3, 8, 8))).astype(np.float32)[:, order]}


def of_colours(order: list[int]) -> list[Finding]:
    proto = networks.model(
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv")],
        {"x": (networks.FLOAT, ["N", 3, 8, 8])},
        {"y": (networks.FLOAT, ["N", 2, 6, 6])},
        {"w": np.ones((2, 3, 3, 3), np.float32)},
    )
    model, data = checked(proto, "net.onnx"), colours(1, order)
    ranges = calibrate(model, ["x"], [data], "calibration.npz")
    return found(
        quantised_evidence(model, None, Precision.INT8, "fp32", ranges, [colours(2, [0, 1, 2])], None, samples=[data])
    )


def test_calibration_data_in_bgr_are_named() -> None:
    [finding] = of_colours([2, 1, 0])

    assert (finding.code, finding.severity) == ("TRT108", Severity.ERROR)
    assert "BGR" in finding.message


def test_calibration_data_in_the_goldens_own_order_are_not() -> None:
    assert of_colours([0, 1, 2]) == []


def of_states(data: np.ndarray, golden: np.ndarray) -> list[Finding]:
    """Findings on (N, 4) times a matrix, calibrated on data."""
    proto = networks.model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")],
        {"x": (networks.FLOAT, ["N", 4])},
        {"y": (networks.FLOAT, ["N", 4])},
        {"w": np.eye(4, dtype=np.float32)},
    )
    model, runs = checked(proto, "net.onnx"), [{"x": data.astype(np.float32)}]
    ranges = calibrate(model, ["x"], runs, "calibration.npz")
    fed = [{"x": golden.astype(np.float32)}]
    return found(quantised_evidence(model, None, Precision.INT8, "fp32", ranges, fed, None, samples=runs))


def loud(seed: int, samples: int) -> np.ndarray:
    """Samples of very different sizes, as of sounds."""
    draw = np.random.default_rng(seed)
    return draw.standard_normal((samples, 4)) * np.exp(draw.normal(0, 0.7, (samples, 1)))


def test_one_sample_that_is_smaller_than_most_does_not_make_calibration_data_unlike() -> None:
    quiet = np.array([[0.5, -0.4, 0.4, -0.5]])

    assert "TRT108" not in codes(of_states(loud(1, 64), quiet))
    assert codes(of_states(255 * loud(1, 64), quiet))[0] == "TRT108"


def test_a_golden_of_zeros_tells_nothing_of_calibration_data() -> None:
    assert of_states(loud(1, 64), np.zeros((8, 4))) == []


def test_a_golden_that_stands_still_tells_nothing_of_how_calibration_data_vary() -> None:
    draw = np.random.default_rng(0)

    assert codes(of_states(draw.uniform(0.3, 0.8, (64, 4)), np.ones((8, 4))))[0] == "TRT105"


def test_samples_whose_second_axis_varies_are_no_colours() -> None:
    frames = [{"x": np.random.default_rng(0).standard_normal((2, count, 5, 8)).astype(np.float32)} for count in (4, 20)]
    proto = networks.model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")],
        {"x": (networks.FLOAT, ["N", "T", 5, 8])},
        {"y": (networks.FLOAT, ["N", "T", 5, 2])},
        {"w": np.ones((8, 2), np.float32)},
    )
    likeness = likeness_of(frames, frames, checked(proto, "net.onnx"))

    assert len(likeness.inputs[0].calibration.channels) == 1
    assert likeness.inputs[0].calibration.samples == 4


def smooth(seed: int, samples: int = 16) -> np.ndarray:
    """Images that change slowly, as photographs do: sums of noise, of mean 0 and spread 1."""
    image = np.random.default_rng(seed).standard_normal((samples, 2, 24, 24)).cumsum(2).cumsum(3)
    image -= image.mean((2, 3), keepdims=True)
    return (image / image.std((2, 3), keepdims=True)).astype(np.float32)


def of_smooth(change: Any, weight: float = 1.0) -> list[Finding]:
    """Findings on a network that adds up 25 pixels, calibrated on changed images and judged on smooth ones."""
    proto = networks.model(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "sum"),
            helper.make_node("Conv", ["c", "v"], ["y"], "conv"),
        ],
        {"x": (networks.FLOAT, ["N", 2, 24, 24])},
        {"y": (networks.FLOAT, ["N", 2, 18, 18])},
        {"w": np.full((2, 2, 5, 5), weight, np.float32), "v": np.ones((2, 2, 3, 3), np.float32)},
    )
    model, data = checked(proto, "net.onnx"), {"x": change(smooth(1)).astype(np.float32)}
    ranges = calibrate(model, ["x", "c"], [data], "calibration.npz")
    runs = [{"x": smooth(2)}]
    return found(quantised_evidence(model, None, Precision.INT8, "fp32", ranges, runs, None, samples=[data]))


def test_calibration_data_that_vary_less_are_named_though_their_size_is_alike() -> None:
    first = of_smooth(lambda x: 0.25 * x + 0.48)[0]  # as images of 0 to 1, where the golden's are normalised

    assert (first.code, first.severity) == ("TRT108", Severity.ERROR)
    assert "varies 0.25 times as much within a sample" in first.message


def test_noise_is_told_from_images_by_its_texture_where_it_spoils_a_range() -> None:
    first = of_smooth(lambda x: np.random.default_rng(3).standard_normal(x.shape))[0]

    assert (first.code, first.severity) == ("TRT108", Severity.ERROR)
    assert "of another texture" in first.message


def test_data_that_vary_less_and_whose_ranges_fit_are_not() -> None:
    assert of_smooth(lambda x: np.concatenate([0.25 * x[:-1], 4 * x[-1:]])) == []


def test_images_of_the_same_kind_are_not() -> None:
    assert of_smooth(lambda x: x) == []


def of_whole(data: np.ndarray, golden: np.ndarray, kind: int = TensorProto.UINT8) -> list[Finding]:
    """Findings on pictures of whole numbers (N, 8, 8, 3) that the graph casts, scales and turns."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["turned"], ["float"], to=networks.FLOAT),
        helper.make_node("Div", ["float", "k"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "w"], ["y"], "conv"),
    ]
    proto = networks.model(
        nodes,
        {"x": (kind, ["N", 8, 8, 3])},
        {"y": (networks.FLOAT, ["N", 2, 6, 6])},
        {"w": np.ones((2, 3, 3, 3), np.float32), "k": np.float32(255)},
    )
    return of_any(checked(proto, "net.onnx"), data, golden, "scaled")


def of_any(model: Model, data: np.ndarray, golden: np.ndarray, tensor: str) -> list[Finding]:
    runs, fed = [{"x": data}], [{"x": golden}]
    ranges = calibrate(model, [tensor], runs, "calibration.npz")
    return found(quantised_evidence(model, None, Precision.INT8, "fp32", ranges, fed, None, samples=runs))


def pictures(seed: int, kind: Any = np.uint8) -> np.ndarray:
    draw = np.random.default_rng(seed)
    means = np.array([180, 120, 60]) + draw.normal(0, 12, (32, 1, 1, 1))
    return np.clip(means + draw.normal(0, 30, (32, 8, 8, 3)), 0, 255).astype(kind)


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64], ids=str)
def test_pictures_of_whole_numbers_that_are_darker_are_named(kind: int) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)

    first = of_whole(pictures(1, dtype) // 10, pictures(2, dtype), kind)[0]

    assert (first.code, first.severity, first.evidence["input"]) == ("TRT108", Severity.ERROR, "x")
    assert "as large" in first.message


def test_pictures_of_0_to_1_stored_as_whole_numbers_are_named() -> None:
    assert of_whole((pictures(1) / 255).round().astype(np.uint8), pictures(2))[0].code == "TRT108"


def test_pictures_of_whole_numbers_in_bgr_are_named() -> None:
    [finding] = of_whole(pictures(1)[..., ::-1], pictures(2))

    assert finding.code == "TRT108"
    assert "BGR" in finding.message


def test_pictures_of_whole_numbers_of_the_same_kind_are_not() -> None:
    assert of_whole(pictures(1), pictures(2)) == []


def rows(*, masked: bool) -> Model:
    """Ids (N, 6) that point at rows of a table; or a mask (N, 6) of whole numbers that is cast."""
    read = ["table", "x"] if not masked else ["float", "w"]
    nodes = [
        *([helper.make_node("Cast", ["x"], ["float"], to=networks.FLOAT)]),
        helper.make_node("MatMul" if masked else "Gather", read, ["rows"]),
        helper.make_node("MatMul", ["rows", "w2"], ["y"], "matmul"),
    ]
    if not masked:
        nodes[0] = helper.make_node("Cast", ["x"], ["unread"], to=networks.FLOAT)
    draw = np.random.default_rng(0)
    weights = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in _SHAPES.items()}
    shape = ["N", 3] if masked else ["N", 6, 3]
    proto = networks.model(nodes, {"x": (TensorProto.INT64, ["N", 6])}, {"y": (networks.FLOAT, shape)}, weights)
    return checked(proto, "net.onnx")


_SHAPES = {"table": (100, 4), "w": (6, 4), "w2": (4, 3)}


@pytest.mark.parametrize("masked", [True, False], ids=["a mask", "ids"])
def test_whole_numbers_that_are_no_amounts_may_be_others(masked: bool) -> None:
    draw = np.random.default_rng(3)
    small, large = ((2, 2), (2, 2)) if masked else ((0, 5), (60, 100))
    data = draw.integers(*small, (64, 6)) if not masked else (draw.random((64, 6)) < 0.2).astype(np.int64)
    golden = draw.integers(*large, (64, 6)) if not masked else (draw.random((64, 6)) < 0.9).astype(np.int64)

    assert "TRT108" not in codes(of_any(rows(masked=masked), data, golden, "rows"))
