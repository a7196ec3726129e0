from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import ml_dtypes
import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pytest_trt.errors import ModelError
from pytest_trt.golden.envelope import simulate
from pytest_trt.lowering.lowering import lower
from pytest_trt.model import external_data
from pytest_trt.model.external_data import array_of, is_reference, replaced, scratch, without_weights
from pytest_trt.model.graph import element_types, tensor_shapes
from pytest_trt.model.model import Model, load
from pytest_trt.model.onnx_session import open_session, run
from pytest_trt.precision import Precision
from pytest_trt.ranges.amax import Ranges

if TYPE_CHECKING:
    from pathlib import Path

FLOAT, WIDTH = TensorProto.FLOAT, 32


@pytest.fixture(autouse=True)
def _all_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_data, "WHOLE", 0)
    monkeypatch.setattr(external_data, "LEAST", 256)


def network() -> onnx.ModelProto:
    draw = np.random.default_rng(0)
    shapes = {"w": (WIDTH, WIDTH), "v": (WIDTH, WIDTH), "bias": (WIDTH,)}
    weights = {name: draw.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Add", ["a", "bias"], ["b"], "shift"),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        helper.make_node("MatMul", ["c", "v"], ["y"], "second"),
    ]
    return networks.model(nodes, {"x": (FLOAT, ["N", WIDTH])}, {"y": (FLOAT, ["N", WIDTH])}, weights)


def large(folder: Path) -> Path:
    """A file whose weights lie beside it."""
    path = folder / "net.onnx"
    onnx.save_model(network(), path, save_as_external_data=True, location="net.bin", size_threshold=256)
    return path


def small(folder: Path) -> Path:
    """The same with its weights inside."""
    return networks.save(network(), folder / "whole.onnx")


def references(model: Model) -> list[str]:
    return [tensor.name for tensor in model.proto.graph.initializer if is_reference(tensor)]


def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(4, WIDTH)).astype(np.float32)


def edited(path: Path, key: str, value: str) -> Path:
    proto = onnx.load_model(path, load_external_data=False)
    entries = [entry for entry in proto.graph.initializer[1].external_data if entry.key == key]
    assert entries
    entries[0].value = value
    return networks.save(proto, path)


@pytest.mark.parametrize("file", [large, small])
def test_large_weights_stay_where_they_lie_and_small_ones_are_read(tmp_path: Path, file: object) -> None:
    assert callable(file)
    model = load(file(tmp_path))

    assert references(model) == ["w", "v"]
    assert len(model.proto.SerializeToString()) < WIDTH * WIDTH * 4
    for tensor, wanted in zip(model.proto.graph.initializer, network().graph.initializer, strict=True):
        np.testing.assert_array_equal(array_of(tensor), onnx.numpy_helper.to_array(wanted))


@pytest.mark.parametrize("file", [large, small])
def test_the_identity_is_that_of_the_same_model_in_memory(
    tmp_path: Path, file: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(file)
    path = file(tmp_path)
    referred = load(path).sha256
    monkeypatch.setattr(external_data, "WHOLE", 1 << 30)
    whole = load(path)

    assert not references(whole)
    assert referred == whole.sha256


@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32", "int8", "fp8"])
def test_every_precision_computes_what_it_does_of_weights_in_memory(
    tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, parsed = large(tmp_path), Precision.parse(precision)
    found = simulate(load(path), parsed, {"x": x()}, None)["y"]
    monkeypatch.setattr(external_data, "WHOLE", 1 << 30)

    np.testing.assert_array_equal(found, simulate(load(path), parsed, {"x": x()}, None)["y"])


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_lowered_model_is_written_with_its_weights_beside_it(tmp_path: Path, precision: str) -> None:
    ranges = Ranges({"x": 4.0, "c": 4.0}, "given") if precision == "int8" else None
    lowered = lower(load(large(tmp_path)), precision, ranges, typed=ranges is None)
    lowered.save(tmp_path / "out" / "lowered.onnx")
    again = onnx.load_model(tmp_path / "out" / "lowered.onnx")
    onnx.checker.check_model(str(tmp_path / "out" / "lowered.onnx"))

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["lowered.onnx", "lowered.onnx.data"]
    plain = lower(network(), precision, ranges, typed=ranges is None)
    for tensor, wanted in zip(again.graph.initializer, plain.graph.initializer, strict=True):
        assert (tensor.name, tensor.data_type, tensor.raw_data) == (wanted.name, wanted.data_type, wanted.raw_data)


def test_a_kept_node_reads_the_weight_as_it_lies_in_the_file(tmp_path: Path) -> None:
    lowered = lower(load(large(tmp_path)), "fp16", typed=True, keep=["first"])

    held = {tensor.name: tensor for tensor in lowered.proto.graph.initializer}
    assert array_of(held["w/exact"]).dtype == np.float32
    assert array_of(held["v"]).dtype == np.float16


def test_of_two_large_sessions_one_is_open_and_both_can_be_run(tmp_path: Path) -> None:
    model = load(large(tmp_path))
    first, second = (open_session(model.proto, "net") for _ in range(2))
    closed = weakref.ref(second._session)

    wanted = networks.evaluated(network(), x())
    np.testing.assert_allclose(run(first, model, {"x": x()})["y"], wanted, rtol=1e-5, atol=1e-5)
    assert closed() is None
    np.testing.assert_allclose(run(second, model, {"x": x()})["y"], wanted, rtol=1e-5, atol=1e-5)


def test_types_and_shapes_are_those_of_the_graph_with_its_weights(tmp_path: Path) -> None:
    model = load(large(tmp_path)).proto

    assert element_types(model) == element_types(network())
    assert tensor_shapes(model)["y"] == tensor_shapes(network())["y"] == ("N", WIDTH)
    assert tensor_shapes(model)["b"] == ("N", WIDTH)


def test_inference_never_sees_a_weight() -> None:
    light = without_weights(network(), 256)

    assert [value.name for value in light.graph.input] == ["x", "w", "v"]
    assert [tensor.name for tensor in light.graph.initializer] == ["bias"]


def test_weights_of_four_bits_are_read_from_their_file(tmp_path: Path) -> None:
    values = np.arange(-8, 8).repeat(64).astype(ml_dtypes.int4)
    (tmp_path / "four").write_bytes(onnx.numpy_helper.from_array(values).raw_data)
    tensor = TensorProto(name="w", data_type=TensorProto.INT4, dims=values.shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", str(tmp_path / "four")), ("offset", "0"), ("length", "512")):
        tensor.external_data.add(key=key, value=value)

    np.testing.assert_array_equal(array_of(tensor), values)
    np.testing.assert_array_equal(array_of(replaced(tensor, values[::-1])), values[::-1])


def test_the_same_values_are_written_once_and_scratch_is_removed(tmp_path: Path) -> None:
    held = load(large(tmp_path)).proto.graph.initializer[0]
    with scratch():
        first, second = replaced(held, array_of(held) * 2), replaced(held, array_of(held) * 2, "other")
        assert first.external_data[0].value == second.external_data[0].value
        assert onnx.numpy_helper.to_array(replaced(held, np.zeros(3))).shape == (3,)
    with pytest.raises(FileNotFoundError):
        array_of(first)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("offset", "-1", "weight 'v' tells its external data by the offset '-1'"),
        ("offset", "x", "weight 'v' tells its external data by the offset 'x'"),
        ("length", "many", "weight 'v' tells its external data by the length 'many'"),
        ("offset", "99999999", r"weight 'v' has 0 bytes in 'net.bin' where its shape \[32, 32\] needs 4096"),
        ("length", "12", "weight 'v' has 12 bytes in 'net.bin' where"),
        ("length", "8192", "weight 'v' has 8192 bytes in 'net.bin' where|weight 'v' has 4096"),
        ("location", "gone.bin", "external data 'gone.bin' of weight 'v' is missing"),
        ("location", "../net.bin", "outside the model's folder"),
    ],
)
def test_external_data_that_can_not_be_is_refused(tmp_path: Path, key: str, value: str, told: str) -> None:
    path = large(tmp_path)
    with (tmp_path / "net.bin").open("ab") as file:
        file.write(b"\0" * 8192)

    with pytest.raises(ModelError, match=told):
        load(edited(path, key, value))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_large_file_that_was_cut_short_is_no_model(tmp_path: Path, share: float) -> None:
    data = small(tmp_path).read_bytes()
    (tmp_path / "cut.onnx").write_bytes(data[: int(len(data) * share)])

    with pytest.raises(ModelError, match=r"cut.onnx .* is not an ONNX file, or it was cut short"):
        load(tmp_path / "cut.onnx")


def test_a_large_file_of_other_bytes_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 9)

    with pytest.raises(ModelError, match="a Git LFS pointer looks like this too"):
        load(tmp_path / "net.onnx")


def test_a_weight_inside_whose_bytes_do_not_fit_its_shape_is_refused(tmp_path: Path) -> None:
    proto = network()
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]

    with pytest.raises(ModelError, match=r"weight 'w' has 4092 bytes"):
        load(networks.save(proto, tmp_path / "net.onnx"))


def test_a_model_of_more_than_two_gib_is_read_and_lowered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rows = (1 << 29) // WIDTH + 1
    table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[rows, WIDTH])
    table.data_location = TensorProto.EXTERNAL
    table.external_data.add(key="location", value="net.bin")
    with (tmp_path / "net.bin").open("wb") as file:
        file.truncate(rows * WIDTH * 4)  # takes no room on the disk
    nodes = [helper.make_node("Gather", ["table", "i"], ["g"], "look"), helper.make_node("Relu", ["g"], ["y"], "relu")]
    proto = networks.model(nodes, {"i": (TensorProto.INT64, ["N"])}, {"y": (FLOAT, ["N", WIDTH])})
    proto.graph.initializer.append(table)

    model = load(networks.save(proto, tmp_path / "net.onnx"))

    assert simulate(model, Precision.FP32, {"i": np.array([0, rows - 1])}, None)["y"].shape == (2, WIDTH)
