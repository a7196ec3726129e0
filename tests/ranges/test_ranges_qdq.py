from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pytest_trt import Ranges, lower
from pytest_trt.errors import DataError, ModelError
from pytest_trt.ranges.files import read_ranges, write_ranges
from pytest_trt.ranges.qdq import ranges_of_graph

if TYPE_CHECKING:
    from pathlib import Path

FLOAT = networks.FLOAT
AMAX = {"x": 2.5, "r1": 3.0, "f": 0.7}
ZERO = np.int8(0)


def node(scale: Any, zero: Any = ZERO, **attributes: Any) -> onnx.ModelProto:
    """One QuantizeLinear of x, with its DequantizeLinear."""
    weights = {"s": scale} if zero is None else {"s": scale, "z": zero}
    return graph(weights, ["x", *weights], **attributes)


def graph(weights: dict[str, Any], inputs: list[str], **attributes: Any) -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", inputs, ["q"], "quant", **attributes),
        helper.make_node("DequantizeLinear", ["q", *inputs[1:]], ["d"], "dequant"),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    inputs_of_graph = {"x": (FLOAT, [1, 4]), "t": (FLOAT, [])}
    return networks.model(nodes, inputs_of_graph, {"y": (FLOAT, [1, 4])}, weights, opset=21)


def test_the_ranges_of_our_own_int8_model_are_those_it_was_made_with() -> None:
    found = ranges_of_graph(lower(networks.convolutional(), "int8", Ranges(AMAX)), "net")

    assert {name: np.float32(value / 127) for name, value in found.amax.items()} == {
        name: np.float32(value / 127) for name, value in AMAX.items()
    }


def test_a_model_that_onnxruntime_quantised_gives_its_scales_under_the_models_own_names(tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"x": networks.images()}]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    source = networks.save(networks.convolutional(), tmp_path / "net.onnx")
    quantize_static(
        source,
        tmp_path / "int8.onnx",
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "AddQDQPairToWeight": True},
    )

    found = read_ranges(tmp_path / "int8.onnx", "trt.toml").amax

    proto = onnx.load(tmp_path / "int8.onnx")
    scale = next(t for t in proto.graph.initializer if t.name == "x_scale")
    assert found["x"] == 127 * float(numpy_helper.to_array(scale).reshape(()))
    assert found["x"] == pytest.approx(np.abs(networks.images()).max(), rel=1e-2)
    assert "logits" in found
    assert not {"w1", "w2", "w3", "logits_QuantizeLinear_Input"} & set(found)
    assert lower(networks.convolutional(), "int8", Ranges(found))


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_the_scale_may_be_of_half_the_width_and_have_an_axis(kind: Any, shape: tuple[int, ...]) -> None:
    assert ranges_of_graph(node(np.full(shape, 0.1, kind)), "net").amax == {"x": 127 * float(kind(0.1))}


def test_the_scale_may_be_a_constant_node_or_an_identity_of_one() -> None:
    proto = node(np.float32(0.5))
    value = numpy_helper.from_array(np.float32(0.25), "c")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=value))
    proto.graph.node.insert(1, helper.make_node("Identity", ["c"], ["i"]))
    for each in proto.graph.node[2:4]:
        each.input[1] = "i"

    assert ranges_of_graph(proto, "net").amax == {"x": 127 * 0.25}


def test_fp8_counts_448_steps() -> None:
    zero = helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0])
    proto = node(np.float32(0.125))
    [old] = [tensor for tensor in proto.graph.initializer if tensor.name == "z"]
    old.CopyFrom(zero)

    assert ranges_of_graph(proto, "net").amax == {"x": 56.0}


def test_every_fp8_scale_survives_text(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).integers(0x00800000, 0x7D000000, 2000, np.uint32).view(np.float32)
    write_ranges(Ranges({f"t{n}": 448 * float(scale) for n, scale in enumerate(drawn)}), tmp_path / "a.txt")

    found = read_ranges(tmp_path / "a.txt", "x").amax

    np.testing.assert_array_equal(np.array([found[f"t{n}"] / 448 for n in range(len(drawn))], np.float32), drawn)


def test_a_type_may_be_told_by_the_attribute_alone() -> None:
    proto = node(np.float32(0.5), None, output_dtype=TensorProto.INT8)

    assert ranges_of_graph(proto, "net").amax == {"x": 63.5}


@pytest.mark.parametrize(
    ("proto", "told"),
    [
        (node(np.float32(0.1), np.int8(3)), "is asymmetric: its zero point is 3"),
        (node(np.float32(0.1), np.uint8(0)), r"quantises to TensorProto.UINT8"),
        (node(np.float32(0.1), None), r"quantises to TensorProto.UINT8"),
        (node(np.float32(0.1), np.int16(0)), r"quantises to TensorProto.INT16"),
        (node(np.full(4, 0.1, "f"), np.zeros(4, "b"), axis=1), "has 4 scales, one a channel"),
        (node(np.float32(0)), "its scale 0.0 is zero"),
        (node(np.float32(-0.5)), "its scale -0.5 is negative"),
        (node(np.float32(np.nan)), "its scale nan is NaN"),
        (node(np.float32(np.inf)), "its scale inf is infinite"),
        (node(np.float32(1e-40)), "is subnormal"),
        (graph({"z": np.int8(0)}, ["x", "t", "z"]), "its scale 't' is computed, not stored"),
        (graph({"s": np.float32(1)}, ["x", "s", "t"]), "its zero point 't' is computed, not stored"),
    ],
)
def test_a_node_whose_scale_is_no_range_is_named(proto: onnx.ModelProto, told: str) -> None:
    with pytest.raises(DataError, match=rf"net: QuantizeLinear 'quant' of 'x'.*{told}"):
        ranges_of_graph(proto, "net")


def second_scale(proto: onnx.ModelProto, scale: float) -> onnx.ModelProto:
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(scale), "s2"))
    proto.graph.node.append(helper.make_node("QuantizeLinear", ["x", "s2", "z"], ["q2"], "again"))
    return proto


def test_two_scales_for_one_tensor_are_refused_with_both_nodes() -> None:
    with pytest.raises(DataError, match=r"'x' has two ranges: 127.0 at QuantizeLinear 'quant'.* 254.0 at .*'again'"):
        ranges_of_graph(second_scale(node(np.float32(1)), 2.0), "net")


def test_the_same_scale_twice_is_one_range() -> None:
    assert ranges_of_graph(second_scale(node(np.float32(1)), 1.0), "net").amax == {"x": 127.0}


def test_a_pair_with_different_scales_is_refused() -> None:
    proto = node(np.float32(1))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(2), "s2"))
    proto.graph.node[1].input[1] = "s2"

    with pytest.raises(DataError, match="'quant' of 'x' and DequantizeLinear 'dequant' of 'q' have different scales"):
        ranges_of_graph(proto, "net")


def test_weights_are_left_out_also_where_they_are_computed_from_constants() -> None:
    proto = node(np.float32(1))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((1, 4), np.float32), "w"))
    proto.graph.node.insert(0, helper.make_node("Neg", ["w"], ["n"]))
    proto.graph.node.insert(1, helper.make_node("QuantizeLinear", ["n", "s", "z"], ["wq"]))

    assert list(ranges_of_graph(proto, "net").amax) == ["x"]


def test_a_model_without_q_dq_holds_no_ranges(tmp_path: Path) -> None:
    path = networks.save(networks.convolutional(), tmp_path / "net.onnx")

    with pytest.raises(DataError, match="no QuantizeLinear node that reads an activation"):
        read_ranges(path, "trt.toml")


def test_a_damaged_model_is_refused_as_a_model(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_text("no model")

    with pytest.raises(ModelError, match="is not an ONNX file"):
        read_ranges(path, "trt.toml")
