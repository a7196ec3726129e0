# ruff: noqa: ARG002 - a callback takes what TensorRT gives it
"""Engines of the fake tensorrt: which plans load, how they run, what their inspector tells."""

from __future__ import annotations

import json
from typing import Any

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fakes.bench import Bench, half
from fakes.tensorrt import RELEASES


def found() -> onnx.ModelProto:
    nodes = [helper.make_node("NonZero", ["x"], ["places"], "find")]
    inputs, outputs = {"x": (TensorProto.FLOAT, [4])}, {"places": (TensorProto.INT64, [1, "found"])}
    return networks.model(nodes, inputs, outputs)


def test_a_damaged_plan_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16")
    assert bench.engine(bytes(bench.plan())[:-1]) is None
    assert "magicTag" in bench.errors()


def test_the_plan_of_another_release_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = bytes(Bench(monkeypatch, "8.6").plan())
    bench = Bench(monkeypatch, "10.16")
    assert bench.engine(plan) is None
    assert "is not compatible with this version of TensorRT, expecting library version 10.16.1" in bench.errors()


def test_the_plan_of_another_gpu_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = bytes(Bench(monkeypatch, "10.16").plan())
    bench = Bench(monkeypatch, "10.16", gpu="OTHER", compute_capability=(9, 0))
    assert bench.engine(plan) is None
    assert "generated on an incompatible device, expecting compute 9.0 got compute 8.9" in bench.errors()


def test_a_version_compatible_plan_needs_leave_to_run_host_code(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16")
    bench.config.set_flag(bench.trt.BuilderFlag.VERSION_COMPATIBLE)
    plan, runtime = bench.plan(), bench.trt.Runtime(bench.logger)
    assert runtime.deserialize_cuda_engine(plan) is None
    assert "engine_host_code_allowed" in bench.errors()
    runtime.engine_host_code_allowed = True
    assert runtime.deserialize_cuda_engine(plan) is not None


def test_an_rtx_plan_runs_on_its_targets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "rtx-1.7")
    bench.config.num_compute_capabilities = 1
    assert bench.config.set_compute_capability(bench.trt.ComputeCapability.SM86, 0)
    assert bench.engine(bench.plan()) is None
    assert bench.config.set_compute_capability(bench.trt.ComputeCapability.SM89, 0)
    assert bench.engine(bench.plan()) is not None


def test_a_context_may_not_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16", no_context=True)
    assert bench.engine(bench.plan()).create_execution_context() is None
    assert "createExecutionContext" in bench.errors()


def test_a_shape_outside_the_profile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16")
    bench.profile(x=(2, 6, 6))
    engine = bench.engine(bench.plan(bench.network(networks.convolutional())))
    assert [tuple(shape) for shape in engine.get_tensor_profile_shape("x", 0)] == [(n, 2, 6, 6) for n in (1, 4, 8)]
    assert not engine.create_execution_context().set_input_shape("x", (9, 2, 6, 6))
    assert "out of profile" in bench.errors()


def test_execution_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16", execute_fails=True)
    assert not bench.engine(bench.plan()).create_execution_context().execute_async_v3(0)
    assert "enqueueV3" in bench.errors()


def test_execution_needs_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16")
    assert not bench.engine(bench.plan()).create_execution_context().execute_async_v3(0)
    assert "Address is not set for tensor x" in bench.errors()


@pytest.mark.parametrize("release", RELEASES)
def test_a_data_dependent_output_comes_through_its_allocator(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, release)
    context = bench.engine(bench.plan(bench.network(found()))).create_execution_context()
    context.set_tensor_address("x", bench.upload(np.array([0, 3, 0, 5], np.float32)))
    assert -1 in list(context.get_tensor_shape("places"))
    given = allocator(bench)
    assert context.set_output_allocator("places", given)
    assert context.execute_async_v3(0)
    kind = np.int32 if release == "8.6" else np.int64
    assert given.shape == (1, 2)
    assert bench.download(given.memory, np.empty((1, 2), kind)).tolist() == [[1, 3]]
    assert given.calls == (["sync"] if release == "8.6" else ["async"])


def allocator(bench: Bench) -> Any:
    trt = bench.trt

    base: Any = trt.IOutputAllocator

    class Allocator(base):
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.calls: list[str] = []

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            self.calls.append("sync")
            self.memory = bench.cuda.cudaMalloc(size)[1]
            return self.memory

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            self.calls.append("async")
            self.memory = bench.cuda.cudaMalloc(size)[1]
            return self.memory

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return Allocator()


def test_any_output_can_be_made_data_dependent(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16", data_dependent=frozenset({"logits"}))
    context = bench.engine(bench.plan()).create_execution_context()
    assert context.get_tensor_shape("logits") == (-1, -1)


def test_the_inspector_writes_each_releases_own_form(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = {release: Bench(monkeypatch, release).layers() for release in RELEASES}
    first = {release: form["Layers"][0] for release, form in forms.items()}
    assert first["8.6"]["Inputs"][0]["Format/Datatype"] == "Row major linear FP32"
    assert first["10.16"]["Inputs"][0]["Format/Datatype"] == "Float"
    assert first["11.4"]["Inputs"][0]["Datatype"] == first["rtx-1.7"]["Inputs"][0]["Datatype"] == "Float"
    assert {layer["Metadata"] for layer in first.values()} == {"[ONNX Layer: conv1]\x1e[ONNX Layer: relu1]"}
    assert [set(form) - {"Layers"} for form in forms.values()] == [{"Bindings"}] * 2 + [{"I/O Tensors"}] * 2
    assert "tf32" in first["10.16"]["TacticName"]


def test_the_inspectors_text_of_8_6_is_no_strict_json(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "8.6")
    bench.config.profiling_verbosity = bench.trt.ProfilingVerbosity.DETAILED
    inspector = bench.engine(bench.plan()).create_engine_inspector()
    with pytest.raises(json.JSONDecodeError):
        json.loads(inspector.get_engine_information(bench.trt.LayerInformationFormat.JSON))


def test_without_detail_the_inspector_knows_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16")
    inspector = bench.engine(bench.plan()).create_engine_inspector()
    layers = json.loads(inspector.get_engine_information(bench.trt.LayerInformationFormat.JSON))["Layers"]
    assert layers[0] == "conv1 + PWN(relu1)"


def weights(layers: dict[str, Any]) -> list[str]:
    return [layer["Weights"]["Type"] for layer in layers["Layers"] if "Weights" in layer]


def quantized() -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "dequantize"),
        helper.make_node("MatMul", ["d", "w"], ["y"], "matmul"),
    ]
    ends = {name: (TensorProto.FLOAT, [2, 3]) for name in ("x", "y")}
    weights = {"scale": np.float32(0.1), "zero": np.int8(0), "w": np.eye(3, dtype=np.float32)}
    return networks.model(nodes, {"x": ends["x"]}, {"y": ends["y"]}, weights)


@pytest.mark.parametrize("release", RELEASES)
def test_a_quantized_network_runs_in_int8_without_calibration(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, release)
    if release in ("8.6", "10.16"):
        bench.config.set_flag(bench.trt.BuilderFlag.INT8)
    assert weights(bench.layers(bench.network(quantized()))) == ["Int8"]


def test_layers_run_in_the_precision_that_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16")
    assert weights(bench.layers(bench.network(half(), "STRONGLY_TYPED"))) == ["Half"]
    bench.config.set_flag(bench.trt.BuilderFlag.FP16)
    assert weights(bench.layers()) == ["Half"] * 3


def test_layers_run_in_the_precision_that_the_fault_says(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16", achieved={"int8": 1, "fp16": 1})
    bench.config.set_flag(bench.trt.BuilderFlag.FP16)
    assert weights(bench.layers()) == ["Int8", "Half", "Float"]


def test_without_a_device_tensorrt_rtx_builds_and_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "rtx-1.7", cuda_faults={"device_count": 0})
    assert bench.engine(bench.plan()) is None
