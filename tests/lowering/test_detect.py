from __future__ import annotations

import networks
import numpy as np
import pytest
from onnx import TensorProto, helper

from pytest_trt.lowering._strong_typing import fp16_typed
from pytest_trt.lowering.casts import bf16_sandwich, fp16_sandwich
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.lowering.qdq import int8_qdq


def test_a_plain_file_holds_fp32() -> None:
    assert held_precision(networks.convolutional()) == "fp32"
    assert held_precision(networks.embedding()) == "fp32"


def test_what_our_lowerings_write_is_recognised() -> None:
    proto = networks.convolutional()

    assert held_precision(fp16_sandwich(proto)) == "fp16"
    assert held_precision(fp16_typed(proto)) == "fp16"
    assert held_precision(bf16_sandwich(proto)) == "bf16"
    assert held_precision(int8_qdq(proto, {"x": 1.0, "r1": 1.0, "f": 1.0})) == "int8"


def test_qdq_on_fp16_is_judged_as_the_coarser_int8() -> None:
    proto = int8_qdq(networks.convolutional(), {"x": 1.0, "r1": 1.0, "f": 1.0})
    proto.graph.node.append(helper.make_node("Cast", ["logits"], ["half"], to=TensorProto.FLOAT16))

    assert held_precision(proto) == "int8"


@pytest.mark.parametrize(
    ("zero", "held"), [(np.int8(0), "int8"), (np.uint8(128), "int8"), (np.int16(0), "int16"), (None, "int8")]
)
def test_a_file_of_another_tool_is_known_by_its_zero_points(zero: object, held: str) -> None:
    weights = {"s": np.float32(0.1)} | ({} if zero is None else {"z": np.asarray(zero)})
    node = helper.make_node("QuantizeLinear", ["x", *weights], ["q"])
    back = helper.make_node("DequantizeLinear", ["q", *weights], ["y"])
    float_ = networks.FLOAT
    proto = networks.model([node, back], {"x": (float_, ["N"])}, {"y": (float_, ["N"])}, weights, opset=21)

    assert held_precision(proto) == held


def test_integer_operators_are_int8() -> None:
    proto = networks.model(
        [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])],
        {"x": (networks.FLOAT, ["N"])},
        {"s": (networks.FLOAT, [])},
    )

    assert held_precision(proto) == "int8"


def test_fp8_is_told_though_it_has_no_envelope_yet() -> None:
    zero = helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0])
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    float_ = networks.FLOAT
    proto = networks.model(
        [node], {"x": (float_, ["N"])}, {"q": (TensorProto.FLOAT8E4M3FN, ["N"])}, {"s": np.float32(1)}, 19
    )
    proto.graph.initializer.append(zero)

    assert held_precision(proto) == "fp8"
