from __future__ import annotations

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt.comparison.comparison import compare
from pytest_trt.golden.envelope import envelope_of, fp16_accumulated
from pytest_trt.lowering.casts import fp16_sandwich
from pytest_trt.model.model import Model
from pytest_trt.model.onnx_session import open_session, run
from pytest_trt.precision import Precision

FLOAT = TensorProto.FLOAT


def product(length: int, *, stored: bool = True) -> Model:
    """(64, length) times (length, 32)."""
    w = np.random.default_rng(0).standard_normal((length, 32)).astype(np.float32)
    inputs = {"x": (FLOAT, [64, length])} | ({} if stored else {"w": (FLOAT, [length, 32])})
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return Model(networks.model(nodes, inputs, {"y": (FLOAT, [64, 32])}, {"w": w} if stored else {}), "net")


def outputs(model: Model, proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    return run(open_session(proto, "net"), model, feeds)["y"]


def summed_in_fp16(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Sixteen products at a time, the running sum rounded to fp16."""
    total = np.zeros((x.shape[0], w.shape[1]), np.float32)
    for start in range(0, x.shape[1], 16):
        total = (total + x[:, start : start + 16] @ w[start : start + 16]).astype(np.float16).astype(np.float32)
    return total


@pytest.mark.parametrize("length", [64, 576, 4608])
def test_the_noise_is_as_large_as_what_adding_in_fp16_loses(length: int) -> None:
    model = product(length)
    x = np.random.default_rng(1).standard_normal((64, length)).astype(np.float16).astype(np.float32)
    weights = networks.weight(model.proto, "w")
    w = np.frombuffer(weights.raw_data, np.float32).reshape(length, 32).astype(np.float16).astype(np.float32)
    exact = outputs(model, fp16_sandwich(model.proto), {"x": x})

    real = compare(summed_in_fp16(x, w), exact).rel_rms
    drawn = compare(outputs(model, fp16_accumulated(model.proto), {"x": x}), exact).rel_rms

    assert 0.5 < drawn / real < 2


def test_sums_longer_than_any_that_was_measured_count_as_split() -> None:
    longest, longer = (fp16_accumulated(product(length).proto) for length in (4608, 25088))

    numbers = [
        [numpy_helper.to_array(tensor).item() for tensor in proto.graph.initializer if "accumulated" in tensor.name]
        for proto in (longest, longer)
    ]

    assert len(numbers[0]) == 5
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("scale", [500.0, 1e-2])
def test_each_sum_errs_by_its_own_size_beside_one_of_another(scale: float) -> None:
    model = product(576)
    weight = networks.weight(model.proto, "w")
    values = numpy_helper.to_array(weight).copy()
    values[:, 0] *= scale
    weight.CopyFrom(numpy_helper.from_array(values, "w"))
    feeds = {"x": np.random.default_rng(1).standard_normal((64, 576)).astype(np.float32)}
    plain = outputs(model, fp16_sandwich(model.proto), feeds)

    errors = outputs(model, fp16_accumulated(model.proto), feeds) - plain

    relative = np.sqrt((errors**2).mean(axis=0) / (plain**2).mean(axis=0))
    assert 0.5 < relative[0] / np.median(relative) < 2


def test_sums_of_positive_products_err_and_stay_positive() -> None:
    model = product(1024)
    weight = networks.weight(model.proto, "w")
    values = np.abs(numpy_helper.to_array(weight)) * np.logspace(-4, 0, 32).astype(np.float32)
    weight.CopyFrom(numpy_helper.from_array(values.astype(np.float32), "w"))
    x = np.abs(np.random.default_rng(1).standard_normal((64, 1024))).astype(np.float16).astype(np.float32)
    exact = outputs(model, fp16_sandwich(model.proto), {"x": x})

    drawn = outputs(model, fp16_accumulated(model.proto), {"x": x})

    real = summed_in_fp16(x, values.astype(np.float16).astype(np.float32))
    assert (drawn > 0).all()
    assert 0.4 < compare(drawn, exact).rel_rms / compare(real, exact).rel_rms < 2.5


def test_rows_of_zeros_stay_zero() -> None:
    model = product(576)

    assert not outputs(model, fp16_accumulated(model.proto), {"x": np.zeros((64, 576), np.float32)}).any()


@pytest.mark.parametrize("opset", [9, 13, 17, 21, 22])
def test_it_runs_in_every_opset(opset: int) -> None:
    proto = networks.convolutional(opset=opset)

    found = run(open_session(fp16_accumulated(proto), "net"), Model(proto, "net"), {"x": networks.images(2)})

    assert np.isfinite(found["logits"]).all()


def test_whole_numbers_are_left_as_they_are() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["n"], to=TensorProto.INT32),
        helper.make_node("MatMul", ["n", "w"], ["p"]),
        helper.make_node("Cast", ["p"], ["y"], to=FLOAT),
    ]
    weights = {"w": np.ones((64, 4), np.int32)}
    proto = networks.model(nodes, {"x": (FLOAT, [2, 64])}, {"y": (FLOAT, [2, 4])}, weights)

    assert not any(node.op_type == "Sin" for node in fp16_accumulated(proto).graph.node)


def test_a_stored_matrix_on_the_left_tells_the_length_too() -> None:
    weights = {"w": np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)}
    proto = networks.model(
        [helper.make_node("MatMul", ["w", "x"], ["y"])], {"x": (FLOAT, [64, 4])}, {"y": (FLOAT, [8, 4])}, weights
    )

    assert any(node.op_type == "Sin" for node in fp16_accumulated(proto).graph.node)


def test_it_is_drawn_the_same_each_time() -> None:
    model = product(576)
    feeds = {"x": np.ones((64, 576), np.float32)}
    lowered = fp16_accumulated(model.proto)

    assert np.array_equal(outputs(model, lowered, feeds), outputs(model, lowered, feeds))


@pytest.mark.parametrize("model", [product(16), product(512, stored=False)], ids=["short", "of two activations"])
def test_sums_that_are_short_or_of_unknown_length_are_left_as_they_are(model: Model) -> None:
    assert len(fp16_accumulated(model.proto).graph.node) == len(fp16_sandwich(model.proto).graph.node)


def test_convolutions_and_transposed_weights_tell_their_lengths() -> None:
    draw = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "c"], ["a"]),
        helper.make_node("ConvTranspose", ["a", "t"], ["b"]),
        helper.make_node("Flatten", ["b"], ["f"]),
        helper.make_node("Gemm", ["f", "g"], ["y"], transB=1),
    ]
    weights = {
        "c": draw.standard_normal((32, 4, 3, 3)).astype(np.float32),  # sums of 36
        "t": draw.standard_normal((32, 2, 3, 3)).astype(np.float32),  # sums of 32
        "g": draw.standard_normal((5, 32)).astype(np.float32),  # sums of 32
    }
    proto = networks.model(nodes, {"x": (FLOAT, [1, 4, 4, 4])}, {"y": (FLOAT, [1, 5])}, weights)

    lowered = fp16_accumulated(proto)

    assert sum(node.op_type == "Sin" for node in lowered.graph.node) == 3


def test_the_envelope_of_fp16_knows_it() -> None:
    model = product(4608)
    feeds = {"x": np.random.default_rng(1).standard_normal((64, 4608)).astype(np.float32)}
    added_in_fp32 = outputs(model, fp16_sandwich(model.proto), feeds)
    plain = compare(added_in_fp32, outputs(model, model.proto, feeds)).rel_rms

    envelope, refused, _ = envelope_of(model, [feeds], [Precision.FP16], None)

    entry = envelope["fp16"]["y"]
    assert refused == {}
    assert entry["error"] > 5 * plain
    assert entry["bound"] == pytest.approx(2.5 * entry["error"] + 2**-11)
