"""Weights of few bits: told by their format, dequantised as ONNX says, and refused where they do not fit."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from weight_formats import FORMATS, fp8, inputs, int4, mxfp8, network, nvfp4, packed, uint4

from pytest_trt.errors import ModelError
from pytest_trt.model.model import checked
from pytest_trt.model.onnx_session import open_session
from pytest_trt.model.quantised_weights import dequantised, quantised_weights

IN_GRAPH = [name for name in FORMATS if name != "MatMulNBits"]  # which is onnxruntime's own
DRAW = np.random.default_rng(5)


def stored(proto: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in proto.graph.initializer if tensor.name == name)


def replaced(proto: onnx.ModelProto, name: str, array: Any) -> onnx.ModelProto:
    stored(proto, name).CopyFrom(numpy_helper.from_array(np.asarray(array), name))
    return proto


@pytest.mark.parametrize(("write", "told"), FORMATS.values(), ids=list(FORMATS))
def test_a_format_is_told(write: Any, told: str) -> None:
    [weight] = quantised_weights(write())

    assert weight.format == told


@pytest.mark.parametrize("name", IN_GRAPH)
def test_the_simulation_computes_what_onnx_does(name: str) -> None:
    proto = FORMATS[name][0]()

    [found] = open_session(proto, "file.onnx").run(None, {"x": inputs()})

    [exact] = list(ReferenceEvaluator(proto).run(None, {"x": inputs()}))
    np.testing.assert_allclose(found, np.asarray(exact), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "scale", "zero", "told"),
    [
        (np.int8, (), (), {}),
        (np.int8, (6,), (6,), {"axis": 1}),
        (np.uint8, (4,), (4,), {"axis": 0}),
        (np.int16, (4,), (4,), {"axis": -2}),
        (ml_dtypes.int4, (2, 6), None, {"axis": 0, "block_size": 2}),
        (ml_dtypes.uint4, (4, 2), (4, 2), {"axis": 1, "block_size": 3}),
        (ml_dtypes.int4, (4, 2), (4, 2), {"axis": 1, "block_size": 4}),  # the last block is cut short
        (ml_dtypes.float8_e4m3fn, (6,), None, {"axis": 1}),
        (ml_dtypes.float4_e2m1fn, (4, 3), None, {"axis": -1, "block_size": 2}),
    ],
    ids=["one scale", "channels", "rows", "a negative axis", "blocks", "asymmetric", "cut short", "fp8", "fp4"],
)
def test_dequantising_is_that_of_onnx(values: Any, scale: Any, zero: Any, told: Any) -> None:
    draws = [DRAW.integers(0, 7, (4, 6)), DRAW.random(scale) + 0.5, None if zero is None else DRAW.integers(0, 7, zero)]
    arrays = [np.asarray(draws[0]).astype(values), np.asarray(draws[1], np.float32)]
    arrays += [] if zero is None else [np.asarray(draws[2]).astype(values)]
    names = ["q", "s", "z"][: len(arrays)]
    graph = helper.make_graph(
        [helper.make_node("DequantizeLinear", names, ["y"], **told)],
        "g",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in zip(names, arrays, strict=True)
        ],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    [exact] = ReferenceEvaluator(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)
    ).run(None, dict(zip(names, arrays, strict=True)))

    block = told.get("block_size", 0)
    found = dequantised(arrays[0], arrays[1], arrays[2] if len(arrays) > 2 else None, told.get("axis", 1), block)

    np.testing.assert_array_equal(np.asarray(found), exact)


def short(proto: onnx.ModelProto) -> onnx.ModelProto:
    tensor = stored(proto, "w_q")
    tensor.raw_data = tensor.raw_data[:-40]
    return proto


def told(proto: onnx.ModelProto, name: str, value: int) -> onnx.ModelProto:
    node = next(node for node in proto.graph.node if node.op_type in ("DequantizeLinear", "MatMulNBits"))
    next(attribute for attribute in node.attribute if attribute.name == name).i = value
    return proto


def no_output_type() -> onnx.ModelProto:
    proto = mxfp8()
    node = proto.graph.node[0]
    node.attribute.remove(next(attribute for attribute in node.attribute if attribute.name == "output_dtype"))
    return proto


ONES = np.ones((2, 32), np.float32)
MALFORMED = {
    "packed short": (lambda: short(int4()), "'?w_q.*too small"),
    "blocks that do not divide": (
        lambda: told(int4(), "block_size", 48),
        r"'w_q'.*blocks of 48 along axis 0 need \[3, 32\]",
    ),
    "too many scales": (lambda: replaced(int4(), "w_s", np.ones((3, 32), np.float32)), r"'w_q'.*need \[2, 32\]"),
    "scales of one axis": (lambda: replaced(int4(), "w_s", np.ones(2, np.float32)), r"'w_q'.*scales of shape \[2\]"),
    "an axis too many": (lambda: told(int4(), "axis", 3), "'w_q'.*axis 3 is none of its 2 axes"),
    "a negative block": (lambda: told(int4(), "block_size", -8), "'w_q'.*block_size of -8"),
    "zeros of another shape": (lambda: replaced(uint4(), "w_z", np.zeros((4, 8), ml_dtypes.uint4)), "'w_z' of shape"),
    "zeros of another type": (lambda: replaced(uint4(), "w_z", np.zeros((4, 32), np.uint8)), "w_z.*uint8|uint8.*w_z"),
    "powers of two without a type": (no_output_type, "'w_q'.*no output_dtype"),
    "a block of nbits": (lambda: told(packed(), "block_size", 24), "'w_Q4'.*power of two"),
    "rows of nbits": (lambda: told(packed(), "N", 31), r"'w_Q4'.*need \[31, 4, 16\]"),
    "scales of nbits": (lambda: replaced(packed(), "w_s", np.ones(100, np.float32)), "100 scales in 'w_s'"),
}


@pytest.mark.parametrize(("write", "message"), MALFORMED.values(), ids=list(MALFORMED))
def test_a_malformed_weight_is_refused_with_file_and_tensor(write: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        checked(write(), "file.onnx")

    assert str(raised.value).startswith("file.onnx")


def test_a_zero_point_of_fp8_is_refused() -> None:
    proto = fp8()
    proto.graph.initializer.append(numpy_helper.from_array(np.array(1, ml_dtypes.float8_e4m3fn), "w_z"))
    proto.graph.node[0].input.append("w_z")

    with pytest.raises(ModelError, match=r"file.onnx: weight 'w_q'.*zero point 'w_z' is not 0"):
        checked(proto, "file.onnx")


def test_a_last_block_that_is_cut_short_is_sound_and_told() -> None:
    proto = replaced(int4(), "w_s", np.ones((2, 32), np.float32))

    [weight] = quantised_weights(checked(told(proto, "block_size", 100), "file.onnx").proto)

    assert weight.whole is False


def test_only_what_has_no_kernel_is_stored_in_fp32() -> None:
    session = open_session(nvfp4(), "file.onnx")

    assert [value.name for value in session.get_inputs()] == ["x"]


def test_what_no_dequantising_mends_is_refused_as_before() -> None:
    proto = network([], {"w": ONES}, 21, helper.make_node("TfIdf", ["x"], ["h"], domain="com.microsoft"))

    with pytest.raises(ModelError, match=r"file.onnx: onnxruntime refuses the graph"):
        open_session(proto, "file.onnx")
