"""Stored weights against the reference's: every way of storing one, healthy, and with faults in some channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import networks
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from pytest_trt import Ranges, lower
from pytest_trt.evidence.weights import StoredWeight, rounded_reference, weights_of
from pytest_trt.model.graph import array_of, constants
from pytest_trt.model.model import Model

FLOAT = networks.FLOAT
RANGES = {"x": 3.6, "r1": 14.0, "f": 6.0}
DRAW = np.random.default_rng(3)
W = DRAW.standard_normal((8, 32)).astype(np.float32)


def compared(file: onnx.ModelProto, reference: onnx.ModelProto) -> dict[str, StoredWeight]:
    found = weights_of(Model(file, "file"), Model(reference, "reference"))
    assert found.unpaired == ()
    return {weight.reference: weight for weight in found.weights}


def gemm(weights: dict[str, Any], before: list[onnx.NodeProto], reads: str = "w", **told: Any) -> onnx.ModelProto:
    """x (N, 32) times a weight of 8 channels to y (N, 8)."""
    node = helper.make_node("Gemm", ["x", reads], ["y"], "fc", **(told or {"transB": 1}))
    return networks.model([*before, node], {"x": (FLOAT, ["N", 32])}, {"y": (FLOAT, ["N", 8])}, weights, 21)


REFERENCE = gemm({"w": W}, [])


def rounded(values: np.ndarray, scale: np.ndarray, most: int = 127, dtype: Any = np.int8) -> np.ndarray:
    return np.clip(np.rint(values / scale), -most, most).astype(dtype)


def by_channel(most: int = 127) -> np.ndarray:
    return np.abs(W).max(1, keepdims=True) / most


def dq(levels: np.ndarray, scale: np.ndarray, **told: Any) -> onnx.ModelProto:
    weights = {"w_q": levels, "w_s": np.asarray(scale, np.float32)}
    return gemm(weights, [helper.make_node("DequantizeLinear", ["w_q", "w_s"], ["w"], "dq", **told)])


def per_channel(levels: np.ndarray, scale: np.ndarray) -> onnx.ModelProto:
    return dq(levels, scale.reshape(-1), axis=0)


def int8() -> onnx.ModelProto:
    return per_channel(rounded(W, by_channel()), by_channel())


def per_tensor() -> onnx.ModelProto:
    scale = np.abs(W).max() / 127
    return dq(rounded(W, scale), scale)


def int4_blocks() -> onnx.ModelProto:
    blocks = W.reshape(8, 4, 8)
    scale = np.abs(blocks).max(2) / 7
    levels = rounded(blocks, scale[:, :, None], 7, ml_dtypes.int4).reshape(8, 32)
    return dq(levels, scale, axis=1, block_size=8)


def fp16() -> onnx.ModelProto:
    cast = helper.make_node("Cast", ["w_h"], ["w"], "cast", to=FLOAT)
    return gemm({"w_h": W.astype(np.float16)}, [cast])


def bf16() -> onnx.ModelProto:
    cast = helper.make_node("Cast", ["w_h"], ["w"], "cast", to=FLOAT)
    return gemm({"w_h": W.astype(ml_dtypes.bfloat16)}, [cast])


def transposed() -> onnx.ModelProto:
    """The other way round behind a Transpose, quantised along its last axis."""
    weights = {"w_q": rounded(W, by_channel()).T.copy(), "w_s": by_channel().reshape(-1)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w_q", "w_s"], ["w_t"], "dq", axis=1),
        helper.make_node("Transpose", ["w_t"], ["w"], "turn", perm=[1, 0]),
    ]
    return gemm(weights, nodes)


def stored_in_fp32() -> onnx.ModelProto:
    """As tools for training write it: the weight in fp32, behind Q and DQ."""
    weights = {"w": W, "w_s": by_channel().reshape(-1), "w_z": np.zeros(8, np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "w_s", "w_z"], ["w_q"], "q", axis=0),
        helper.make_node("DequantizeLinear", ["w_q", "w_s", "w_z"], ["w_d"], "dq", axis=0),
    ]
    return gemm(weights, nodes, "w_d")


def unsigned() -> onnx.ModelProto:
    low, high = W.min(), W.max()
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    weights = {
        "w_q": np.clip(np.rint(W / scale) + zero, 0, 255).astype(np.uint8),
        "w_s": np.float32(scale),
        "w_z": np.uint8(zero),
    }
    return gemm(weights, [helper.make_node("DequantizeLinear", ["w_q", "w_s", "w_z"], ["w"], "dq")])


STORED = {
    "int8": (int8, "int8", "channel", 41.0),
    "one scale": (per_tensor, "int8", "tensor", 38.0),
    "int4 in blocks": (int4_blocks, "int4", "block", 18.0),
    "fp16": (fp16, "fp16", "", 72.0),
    "bf16": (bf16, "bf16", "", 54.0),
    "transposed": (transposed, "int8", "channel", 41.0),
    "fp32 behind Q and DQ": (stored_in_fp32, "int8", "channel", 41.0),
    "uint8": (unsigned, "uint8", "tensor", 38.0),
}


@pytest.mark.parametrize(("file", "kind", "grain", "least"), STORED.values(), ids=list(STORED))
def test_a_healthy_weight_is_at_no_fault_however_it_is_stored(file: Any, kind: str, grain: str, least: float) -> None:
    [weight] = compared(file(), REFERENCE).values()

    assert (weight.kind, weight.grain, weight.channels, weight.faults.count) == (kind, grain, 8, 0)
    assert weight.sqnr_db > least
    assert weight.lost_db < 1.0
    assert (weight.alike, weight.gain) == (True, 1.0)


@pytest.mark.parametrize("file", [one[0] for one in STORED.values()], ids=list(STORED))
def test_channels_that_are_zero_are_counted_however_they_are_stored(file: Any) -> None:
    proto = file()
    stored = networks.weight(proto, next(name for name in ("w_q", "w_h", "w") if name in constants(proto)))
    values, zero = array_of(stored).copy(), constants(proto).get("w_z")
    channels = values.T if values.shape == (32, 8) else values
    channels[:2] = 0 if zero is None or zero.dims else array_of(zero)
    stored.CopyFrom(numpy_helper.from_array(values, stored.name))

    [weight] = compared(proto, REFERENCE).values()

    assert (weight.faults.zeroed, weight.faults.clipped, weight.faults.coarse) == (2, 0, 0)
    assert (weight.worst_db, weight.node) == (0.0, "fc")


@pytest.mark.parametrize("factor", [8, 16])
def test_steps_that_are_too_large_are_coarse(factor: int) -> None:
    scale = by_channel() * factor

    [weight] = compared(per_channel(rounded(W, scale), scale), REFERENCE).values()

    assert (weight.faults.coarse, weight.faults.zeroed, weight.faults.clipped) == (8, 0, 0)
    assert weight.span == pytest.approx(factor, rel=1e-3)


def test_a_range_of_half_clips() -> None:
    scale = by_channel() / 2

    [weight] = compared(per_channel(rounded(W, scale), scale), REFERENCE).values()

    assert (weight.faults.clipped, weight.faults.coarse) == (8, 0)
    assert weight.beyond == pytest.approx(float((np.abs(W) > 1.02 * 127 * scale).mean()), abs=0.01)


def test_halves_that_were_cut_off_are_clipped_too() -> None:
    cut = np.clip(W, -127 * by_channel() / 2, 127 * by_channel() / 2).astype(np.float16)

    [weight] = compared(gemm({"w": cut}, []), REFERENCE).values()

    assert (weight.kind, weight.faults.clipped) == ("fp16", 8)


def test_powers_of_two_for_scales_are_no_fault() -> None:
    scale = np.exp2(np.ceil(np.log2(by_channel())))

    [weight] = compared(per_channel(rounded(W, scale), scale), REFERENCE).values()

    assert weight.faults.count == 0
    assert 1.0 < weight.lost_db < 6.1


def test_one_scale_that_loses_small_channels_is_a_choice_and_no_fault() -> None:
    sized = W * np.array([1, *[0.02] * 7], np.float32)[:, None]
    scale = np.abs(sized).max() / 127

    [weight] = compared(dq(rounded(sized, scale), scale), gemm({"w": sized}, [])).values()

    assert weight.faults.count == 0
    assert weight.channel_lost_db > weight.lost_db + 6


def test_a_scale_for_another_weight_is_a_factor_of_all_channels() -> None:
    [weight] = compared(per_channel(rounded(W, by_channel()), 8 * by_channel()), REFERENCE).values()

    assert weight.gain == pytest.approx(8.0, rel=1e-2)
    assert weight.faults.count == 0


def test_one_channel_of_another_scale_is_at_fault_and_no_fold() -> None:
    scale = by_channel()
    scale[3] *= 8

    [weight] = compared(per_channel(rounded(W, by_channel()), scale), REFERENCE).values()

    assert (weight.faults.count, weight.gain) == (1, 1.0)


def test_factors_that_a_tool_folded_into_channels_are_no_fault() -> None:
    folded = W * np.linspace(0.3, 3, 8, dtype=np.float32)[:, None]
    scale = np.abs(folded).max(1, keepdims=True) / 127

    [weight] = compared(per_channel(rounded(folded, scale), scale), REFERENCE).values()

    assert (weight.faults.count, weight.gain, weight.alike) == (0, 1.0, True)


def test_another_weight_is_told_apart() -> None:
    other = np.random.default_rng(9).standard_normal(W.shape).astype(np.float32)

    [weight] = compared(gemm({"w": other}, []), REFERENCE).values()

    assert not weight.alike


def two(first: np.ndarray, second: np.ndarray, names: tuple[str, str]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], names[0]),
        helper.make_node("MatMul", ["h", "b"], ["y"], names[1]),
    ]
    return networks.model(nodes, {"x": (FLOAT, ["N", 8])}, {"y": (FLOAT, ["N", 8])}, {"a": first, "b": second})


def test_weights_that_names_pair_wrongly_find_their_like() -> None:
    a, b = W[:, :8].copy(), W[:, 8:16].copy()

    found = compared(two(a, b, ("one", "two")), two(b, a, ("one", "two")))

    assert [weight.alike for weight in found.values()] == [True, True]
    assert found["b"].tensor == "a"


def test_weights_without_names_in_common_are_paired_by_their_order() -> None:
    a, b = W[:, :8].copy(), W[:, 8:16].copy()
    file = two(a, b, ("p", "q"))
    for node in file.graph.node:
        node.input[:] = [{"a": "u", "b": "v", "h": "k"}.get(name, name) for name in node.input]
        node.output[:] = [{"h": "k", "y": "y"}.get(name, name) for name in node.output]
    for tensor in file.graph.initializer:
        tensor.name = {"a": "u", "b": "v"}[tensor.name]

    found = compared(file, two(a, b, ("one", "two")))

    assert {name: weight.tensor for name, weight in found.items()} == {"a": "u", "b": "v"}


def test_what_has_no_counterpart_is_told() -> None:
    found = weights_of(Model(networks.convolutional(), "file"), Model(REFERENCE, "reference"))

    assert (found.weights, found.unpaired) == ((), ("conv1", "conv2", "fc"))


def normalised(weight: np.ndarray, gain: np.ndarray | None) -> onnx.ModelProto:
    """A convolution, with its BatchNormalization behind it or folded in."""
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c" if gain is not None else "y"], "conv")]
    weights = {"w": weight}
    if gain is not None:
        nodes.append(helper.make_node("BatchNormalization", ["c", "g", "z", "z", "o"], ["y"], "bn", epsilon=0.0))
        weights |= {"g": gain, "z": zeros, "o": ones}
    return networks.model(nodes, {"x": (FLOAT, ["N", 2, 3, 3])}, {"y": (FLOAT, ["N", 4, 1, 1])}, weights)


def test_a_batch_normalisation_that_was_folded_in_is_folded() -> None:
    weight, gain = W.reshape(-1)[:72].reshape(4, 2, 3, 3), np.array([0.1, 5, 1, 0], np.float32)
    file = normalised(weight * gain[:, None, None, None], None)

    [found] = compared(file, normalised(weight, gain)).values()

    assert (found.faults.count, found.sqnr_db) == (0, np.inf)


@pytest.mark.parametrize("group", [1, 2])
def test_a_transposed_convolution_has_its_channels_on_its_second_axis(group: int) -> None:
    def net(weight: np.ndarray) -> onnx.ModelProto:
        node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], "up", group=group)
        return networks.model([node], {"x": (FLOAT, ["N", 4, 3, 3])}, {"y": (FLOAT, ["N", "C", 4, 4])}, {"w": weight})

    weight = np.random.default_rng(1).standard_normal((4, 6, 2, 2)).astype(np.float32)
    pruned = weight.copy()
    pruned[: 4 // group, 1] = 0

    [found] = compared(net(pruned), net(weight)).values()

    assert (found.channels, found.faults.zeroed) == (6 * group, 1)


def test_weights_in_subgraphs_are_compared_where_they_stand() -> None:
    def net(weight: np.ndarray) -> onnx.ModelProto:
        branches: dict[str, Any] = {
            branch: helper.make_graph(
                [helper.make_node("MatMul", ["x", "w"], [f"{branch}_y"], branch)],
                branch,
                [],
                [helper.make_tensor_value_info(f"{branch}_y", FLOAT, ["N", 8])],
                [numpy_helper.from_array(values, "w")],
            )
            for branch, values in (("then_branch", weight), ("else_branch", 2 * W.T.copy()))
        }
        node = helper.make_node("If", ["which"], ["y"], "if", **branches)
        inputs = {"x": (FLOAT, ["N", 32]), "which": (onnx.TensorProto.BOOL, [])}
        return networks.model([node], inputs, {"y": (FLOAT, ["N", 8])})

    pruned = W.T.copy()
    pruned[:, 0] = 0

    found = weights_of(Model(net(pruned), "file"), Model(net(W.T.copy()), "reference"))

    zeroed = {weight.node: weight.faults.zeroed for weight in found.weights}
    assert zeroed == {"then_branch": 1, "else_branch": 0}


def test_our_own_files_have_nothing_to_be_said_of() -> None:
    net = networks.convolutional()

    for precision, ranges in (("int8", Ranges(RANGES)), ("fp8", Ranges(RANGES)), ("fp16", None), ("bf16", None)):
        file = lower(net, precision, ranges, typed=ranges is None)
        assert {weight.faults.count for weight in compared(file, net).values()} == {0}, precision


def test_the_rounded_reference_holds_what_the_file_does() -> None:
    net = networks.convolutional()

    found = rounded_reference(Model(lower(net, "int8", Ranges(RANGES)), "file"), Model(net, "reference"))

    assert found is not None
    [again] = {weight.sqnr_db for weight in compared(found.proto, net).values() if weight.reference == "w2"}
    [before] = {w.sqnr_db for w in compared(lower(net, "int8", Ranges(RANGES)), net).values() if w.reference == "w2"}
    assert again == pytest.approx(before, abs=0.01)


def test_a_file_without_counterparts_has_no_rounded_reference() -> None:
    assert rounded_reference(Model(networks.convolutional(), "file"), Model(REFERENCE, "reference")) is None


def test_faults_add_up() -> None:
    [weight] = compared(int8(), REFERENCE).values()

    assert replace(weight.faults, zeroed=1, clipped=2, coarse=3).count == 6
