"""Weights of MatMulNBits and Einsum, against what onnxruntime computes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt import Precision, lower
from pytest_trt.evidence._operands import operands
from pytest_trt.evidence.coverage import coverage_at
from pytest_trt.evidence.weights import weights_of
from pytest_trt.model.model import Model, checked
from pytest_trt.model.onnx_session import open_session

if TYPE_CHECKING:
    import onnx

FLOAT = TensorProto.FLOAT
K, N, BLOCK = 80, 12, 32


def plain() -> onnx.ModelProto:
    """(N, 80) times a matrix, to 12 channels."""
    w = np.random.default_rng(0).standard_normal((K, N)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "head")
    return networks.model([node], {"x": (FLOAT, ["N", K])}, {"y": (FLOAT, ["N", N])}, {"w": w})


def packed(levels: np.ndarray, bits: int) -> np.ndarray:
    per_byte = 8 // bits
    told = levels.reshape(*levels.shape[:-1], -1, per_byte).astype(np.uint8)
    return np.asarray((told << np.arange(0, 8, bits, dtype=np.uint8)).sum(-1), np.uint8)


def of_bits(w: np.ndarray, bits: int, *, zeros: bool, coarser: float = 1.0) -> onnx.ModelProto:
    """The same with its matrix in blocks of 32, as MatMulNBits holds it."""
    blocks = -(-K // BLOCK)
    whole = np.zeros((N, blocks * BLOCK), np.float32)
    whole[:, :K] = w.T
    rows = whole.reshape(N, blocks, BLOCK)
    top = 2**bits - 1
    low, high = np.minimum(rows.min(2), 0), np.maximum(rows.max(2), 0)
    scales = (high - low) / top if zeros else np.abs(rows).max(2) / (2 ** (bits - 1) - 1)
    scales = np.maximum(scales * coarser, 1e-6).astype(np.float32)
    zero = np.rint(-low / scales) if zeros else np.full(scales.shape, 2 ** (bits - 1))
    levels = np.clip(np.rint(rows / scales[..., None]) + zero[..., None], 0, top)
    stored: dict[str, Any] = {"q": packed(levels, bits), "s": scales.reshape(-1)}
    if zeros:
        padded = np.zeros((N, -(-blocks * bits // 8) * 8 // bits))
        padded[:, :blocks] = zero
        stored["z"] = packed(padded, bits).reshape(-1)
    node = helper.make_node(
        "MatMulNBits", ["x", *stored], ["y"], "head", domain="com.microsoft", K=K, N=N, bits=bits, block_size=BLOCK
    )
    proto = networks.model([node], {"x": (FLOAT, ["N", K])}, {"y": (FLOAT, ["N", N])}, stored)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


def matrix() -> np.ndarray:
    return np.array(numpy_helper.to_array(networks.weight(plain(), "w")))


@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "zero points"])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_packed_weight_is_read_as_onnxruntime_multiplies_by_it(bits: int, zeros: bool) -> None:
    proto = of_bits(matrix(), bits, zeros=zeros)
    [operand] = operands(proto)

    used = open_session(proto, "net").run(None, {"x": np.eye(K, dtype=np.float32)})[0]

    np.testing.assert_allclose(operand.stored().rows, used.T, atol=2e-5)


def weights(model: onnx.ModelProto, reference: onnx.ModelProto) -> Any:
    found = weights_of(Model(model, "net"), checked(reference, "net"))
    assert found.unpaired == ()
    return found.weights[0]


@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "zero points"])
def test_a_healthy_packed_weight_has_no_fault(zeros: bool) -> None:
    found = weights(of_bits(matrix(), 4, zeros=zeros), plain())

    assert (found.tensor, found.reference, found.kind) == ("q", "w", "uint4" if zeros else "int4")
    assert found.faults.count == 0
    assert found.alike


def test_zeroed_channels_of_a_packed_weight_are_found() -> None:
    pruned = matrix()
    pruned[:, :3] = 0

    assert weights(of_bits(pruned, 4, zeros=False), plain()).faults.zeroed == 3


def test_a_packed_weight_of_scales_too_coarse_is_found() -> None:
    assert weights(of_bits(matrix(), 8, zeros=False, coarser=16.0), plain()).faults.coarse == N


def einsum(equation: str, shape: tuple[int, ...], x: list[Any], y: list[Any]) -> onnx.ModelProto:
    w = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    node = helper.make_node("Einsum", ["x", "w"], ["y"], "project", equation=equation)
    return networks.model([node], {"x": (FLOAT, x)}, {"y": (FLOAT, y)}, {"w": w})


EINSUMS = [
    ("nk,kc->nc", (16, 6), ["N", 16], ["N", 6], (6, 16), 1),
    ("ntd,dhe->nthe", (16, 2, 3), ["N", 5, 16], ["N", 5, 2, 3], (6, 16), 2),
    ("nhe,hed->nd", (2, 3, 16), ["N", 2, 3], ["N", 16], (16, 6), 2),
]


@pytest.mark.parametrize(("equation", "shape", "x", "y", "rows", "axis"), EINSUMS)
def test_an_einsums_weight_has_a_row_for_each_channel(
    equation: str, shape: tuple[int, ...], x: list[Any], y: list[Any], rows: tuple[int, int], axis: int
) -> None:
    proto = einsum(equation, shape, x, y)
    pruned = networks.with_weight(proto, "w", lambda w: _without_one(w, axis))
    half = lower(pruned, "fp16", typed=True)

    [operand] = operands(proto)

    assert operand.shape == rows
    np.testing.assert_array_equal(operand.as_read(operand.stored().rows), _w(proto))
    assert weights(half, proto).faults.zeroed == rows[0] // shape[axis]


def _w(proto: onnx.ModelProto) -> np.ndarray:
    return np.array(numpy_helper.to_array(networks.weight(proto, "w")))


def _without_one(w: np.ndarray, axis: int) -> np.ndarray:
    changed = w.copy()
    np.moveaxis(changed, axis, 0)[0] = 0
    return changed


def test_einsums_count_in_the_coverage() -> None:
    proto = einsum("ntd,dhe->nthe", (16, 2, 3), ["N", 5, 16], ["N", 5, 2, 3])
    proto.graph.node.append(helper.make_node("MatMul", ["y", "m"], ["z"], "last"))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((3, 4), np.float32), "m"))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", FLOAT, ["N", 5, 2, 4]))
    feeds = {"x": np.ones((2, 5, 16), np.float32)}

    half, whole = (coverage_at(checked(proto, "net"), one, feeds) for one in (Precision.INT8, Precision.FP16))

    assert half is not None
    assert whole is not None
    products = 2 * 5 * 16 * 2 * 3
    assert half.macs == whole.macs == whole.reached_macs == products + 2 * 5 * 2 * 3 * 4
    assert half.left_out == ("project",)
    assert half.weights - half.reached_weights == 16 * 2 * 3
