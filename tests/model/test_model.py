from __future__ import annotations

from typing import TYPE_CHECKING

import networks
import onnx
import pytest
from onnx import TensorProto, helper

from pytest_trt.errors import ModelError
from pytest_trt.model.model import checked, load

if TYPE_CHECKING:
    from pathlib import Path


def test_inputs_and_outputs_are_told_with_dtype_and_axes(tmp_path: Path) -> None:
    model = load(networks.save(networks.convolutional(), tmp_path / "net.onnx"))

    assert [str(spec) for spec in model.inputs] == ["'x' float32[N, 2, 6, 6]"]
    assert [str(spec) for spec in model.outputs] == ["'logits' float32[N, 3]"]


def test_an_initializer_listed_as_input_is_not_fed() -> None:
    proto = networks.convolutional()
    proto.graph.input.append(helper.make_tensor_value_info("w3", TensorProto.FLOAT, [3, 4]))

    assert [spec.name for spec in checked(proto, "net").inputs] == ["x"]


def test_the_hash_is_of_what_is_computed() -> None:
    proto = networks.convolutional()
    described = networks.convolutional()
    described.doc_string, described.producer_name = "told", "somebody"
    heavier = networks.with_weight(proto, "b3", lambda w: w * 1.0001)

    assert checked(proto, "a").sha256 == checked(described, "b").sha256
    assert checked(proto, "a").sha256 != checked(heavier, "c").sha256


def test_the_hash_does_not_depend_on_where_the_weights_lie(tmp_path: Path) -> None:
    proto = networks.convolutional()
    inside = load(networks.save(proto, tmp_path / "inside.onnx"))

    assert load(external(tmp_path / "outside.onnx")).sha256 == inside.sha256


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").touch()

    with pytest.raises(ModelError, match=r"net.onnx is empty \(0 bytes\)"):
        load(tmp_path / "net.onnx")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"net.onnx can't be read: No such file"):
        load(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    "content", [b"hello, this is no model", b"version https://git-lfs.github.com/spec/v1\n", b"\xff" * 99]
)
def test_another_kind_of_file_is_no_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)

    with pytest.raises(ModelError, match=r"net\.onnx"):
        load(tmp_path / "net.onnx")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_no_model(tmp_path: Path, share: float) -> None:
    data = networks.convolutional().SerializeToString()
    (tmp_path / "net.onnx").write_bytes(data[: int(share * len(data))])

    with pytest.raises(ModelError, match=r"net\.onnx"):
        load(tmp_path / "net.onnx")


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    proto = networks.convolutional()
    proto.graph.node[1].op_type = "Reloo"

    with pytest.raises(ModelError, match="Reloo"):
        load(networks.save(proto, tmp_path / "net.onnx"))


def test_a_string_input_is_refused() -> None:
    proto = networks.convolutional()
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING

    with pytest.raises(ModelError, match=r"'x' has no numeric element type|not a valid ONNX model"):
        checked(proto, "net")


def test_an_output_that_is_no_tensor_is_refused() -> None:
    proto = networks.convolutional()
    node = helper.make_node("SequenceConstruct", ["logits"], ["list"])
    proto.graph.node.append(node)
    proto.graph.output.append(helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, None))

    with pytest.raises(ModelError, match="'list' is sequence, not a tensor"):
        checked(proto, "net")


def external(path: Path, location: str = "weights.bin") -> Path:
    onnx.save_model(networks.convolutional(), path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def relocate(path: Path, location: str) -> None:
    proto = onnx.load_model(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    networks.save(proto, path)


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    path = external(tmp_path / "net.onnx")
    (tmp_path / "weights.bin").unlink()

    with pytest.raises(ModelError, match=r"external data 'weights.bin' of weight 'w1' is missing"):
        load(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin", ""])
def test_external_data_outside_the_models_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "models").mkdir()
    path = external(tmp_path / "models" / "net.onnx")
    (tmp_path / "weights.bin").write_bytes((tmp_path / "models" / "weights.bin").read_bytes())
    relocate(path, location)

    with pytest.raises(ModelError, match="outside the model's folder"):
        load(path)


def test_a_link_out_of_the_models_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    path = external(tmp_path / "models" / "net.onnx")
    (tmp_path / "models" / "weights.bin").rename(tmp_path / "weights.bin")
    (tmp_path / "models" / "weights.bin").symlink_to(tmp_path / "weights.bin")

    with pytest.raises(ModelError, match="outside the model's folder"):
        load(path)


def test_truncated_external_data_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path / "net.onnx")
    data = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(data[: len(data) // 2])

    with pytest.raises(ModelError, match=r"net.onnx: weight '\w+'"):
        load(path)


def test_nodes_out_of_order_are_sorted_and_otherwise_left_in_order(tmp_path: Path) -> None:
    proto = networks.convolutional()
    names = [node.name for node in proto.graph.node]
    nodes = list(reversed(proto.graph.node))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)

    model = load(networks.save(proto, tmp_path / "net.onnx"))

    assert [node.name for node in model.proto.graph.node] == names


def test_a_graph_that_runs_in_a_circle_is_refused(tmp_path: Path) -> None:
    proto = networks.convolutional()
    proto.graph.node[0].input[0] = "r2"

    with pytest.raises(ModelError, match="not a valid ONNX model"):
        load(networks.save(proto, tmp_path / "net.onnx"))
