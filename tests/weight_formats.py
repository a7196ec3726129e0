"""One small network, its first weight stored in each format that files come in today."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
from networks import FLOAT
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS, COLUMNS = 128, 32
_DRAW = np.random.default_rng(0)
WEIGHT = (_DRAW.normal(size=(ROWS, COLUMNS)) / 8).astype(np.float32)
_HEAD = (_DRAW.normal(size=(COLUMNS, 10)) / 4).astype(np.float32)


def network(
    before: list[onnx.NodeProto], weights: dict[str, Any], opset: int, product: onnx.NodeProto | None = None
) -> onnx.ModelProto:
    """x (N, 128) times w, Relu, times a second weight to y (N, 10)."""
    nodes = [
        *before,
        product or helper.make_node("MatMul", ["x", "w"], ["h"], "fc1"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "head"], ["y"], "fc2"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", FLOAT, ["N", ROWS])],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 10])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in {**weights, "head": _HEAD}.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=11)


def fp32() -> onnx.ModelProto:
    return network([], {"w": WEIGHT}, 21)


def in_blocks(most: float, block: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Levels and scales along axis 0, round to nearest."""
    blocks = WEIGHT.reshape(-1, block, COLUMNS)
    scale = np.abs(blocks).max(1) / most
    levels = blocks / scale[:, None]
    return (np.rint(levels) if most in (7, 127) else levels).reshape(WEIGHT.shape).astype(dtype), scale


def dq(levels: Any, scale: Any, opset: int, zero: Any = None, cast: bool = False, **told: Any) -> onnx.ModelProto:
    weights = {"w_q": levels, "w_s": scale, **({} if zero is None else {"w_z": zero})}
    nodes = [helper.make_node("DequantizeLinear", list(weights), ["w_d" if cast else "w"], "dq", **told)]
    nodes += [helper.make_node("Cast", ["w_d"], ["w"], "cast", to=FLOAT)] if cast else []
    return network(nodes, weights, opset)


def int4(opset: int = 21) -> onnx.ModelProto:
    return dq(*in_blocks(7, 64, ml_dtypes.int4), opset, axis=0, block_size=64)


def int4_fp16() -> onnx.ModelProto:
    levels, scale = in_blocks(7, 32, ml_dtypes.int4)
    return dq(levels, scale.astype(np.float16), 21, cast=True, axis=0, block_size=32)


def uint4() -> onnx.ModelProto:
    blocks = WEIGHT.reshape(-1, 32, COLUMNS)
    low, high = blocks.min(1), blocks.max(1)
    scale = (high - low) / 15
    zero = np.rint(-low / scale)
    levels = np.clip(np.rint(blocks / scale[:, None]) + zero[:, None], 0, 15).reshape(WEIGHT.shape)
    return dq(levels.astype(ml_dtypes.uint4), scale, 21, zero.astype(ml_dtypes.uint4), axis=0, block_size=32)


def int8_blocks() -> onnx.ModelProto:
    return dq(*in_blocks(127, 32, np.int8), 21, axis=0, block_size=32)


def int8_channels() -> onnx.ModelProto:
    scale = np.abs(WEIGHT).max(0) / 127
    return dq(np.rint(WEIGHT / scale).astype(np.int8), scale, 19, axis=1)


def fp8(opset: int = 19) -> onnx.ModelProto:
    scale = np.float32(np.abs(WEIGHT).max() / 448)
    return dq((WEIGHT / scale).astype(ml_dtypes.float8_e4m3fn), scale, opset)


def nvfp4() -> onnx.ModelProto:
    """As ModelOpt writes it: blocks of 16 in E2M1, their scales in E4M3 behind a DequantizeLinear of their own."""
    whole = np.float32(np.abs(WEIGHT).max() / (6 * 448))
    blocks = WEIGHT.reshape(-1, 16, COLUMNS)
    scale = (np.abs(blocks).max(1) / 6 / whole).astype(ml_dtypes.float8_e4m3fn)
    levels = np.clip(blocks / (scale.astype(np.float32)[:, None] * whole), -6, 6).reshape(WEIGHT.shape)
    nodes = [
        helper.make_node("DequantizeLinear", ["w_s8", "w_g"], ["w_s"], "dq_scale"),
        helper.make_node("DequantizeLinear", ["w_q", "w_s"], ["w"], "dq", axis=0, block_size=16),
    ]
    return network(nodes, {"w_q": levels.astype(ml_dtypes.float4_e2m1fn), "w_s8": scale, "w_g": whole}, 23)


def mxfp8() -> onnx.ModelProto:
    blocks = WEIGHT.reshape(-1, 32, COLUMNS)
    scale = 2.0 ** (np.floor(np.log2(np.abs(blocks).max(1))) - 8)
    levels = np.clip(blocks / scale[:, None], -448, 448).reshape(WEIGHT.shape).astype(ml_dtypes.float8_e4m3fn)
    return dq(levels, scale.astype(ml_dtypes.float8_e8m0fnu), 25, axis=0, block_size=32, output_dtype=FLOAT)


def packed() -> onnx.ModelProto:
    """MatMulNBits of onnxruntime: two values a byte, a row of blocks for each output channel."""
    levels, scale = in_blocks(7, 32, np.int8)
    rows = (levels.T.astype(np.int16) + 8).astype(np.uint8).reshape(COLUMNS, -1, 32)
    weights = {"w_Q4": rows[..., 0::2] | (rows[..., 1::2] << 4), "w_s": scale.T.reshape(-1).astype(np.float32)}
    told: Any = {"K": ROWS, "N": COLUMNS, "bits": 4, "block_size": 32}
    return network(
        [],
        weights,
        21,
        helper.make_node("MatMulNBits", ["x", *weights], ["h"], "fc1", domain="com.microsoft", **told),
    )


FORMATS = {
    "int4": (int4, "int4 in blocks of 64"),
    "int4 of opset 25": (lambda: int4(25), "int4 in blocks of 64"),
    "int4 with fp16 scales": (int4_fp16, "int4 in blocks of 32"),
    "uint4": (uint4, "uint4 in blocks of 32 with zero points"),
    "int8 by block": (int8_blocks, "int8 in blocks of 32"),
    "int8 by channel": (int8_channels, "int8 by channel"),
    "fp8 of opset 19": (fp8, "fp8 by tensor"),
    "fp8 of opset 23": (lambda: fp8(23), "fp8 by tensor"),
    "nvfp4": (nvfp4, "nvfp4 in blocks of 16"),
    "mxfp8": (mxfp8, "mxfp8 in blocks of 32"),
    "MatMulNBits": (packed, "int4 in blocks of 32 (MatMulNBits)"),
}
"""By name: what writes the file, and what its format is called."""


@cache
def inputs(samples: int = 16) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((samples, ROWS)).astype(np.float32)


def without(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Without these initializers."""
    for tensor in [tensor for tensor in proto.graph.initializer if tensor.name in names]:
        proto.graph.initializer.remove(tensor)
    return proto
