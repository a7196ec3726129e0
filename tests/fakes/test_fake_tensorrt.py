# ruff: noqa: ARG002 - a callback takes what TensorRT gives it
from __future__ import annotations

import json
import struct
from typing import Any

import networks
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from fakes import tensorrt as fake_tensorrt
from fakes.tensorrt import RELEASES, install

IMAGES = networks.images(3)


class Bench:
    """A release with a logger that keeps its lines, and the steps from ONNX bytes to an output."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, release: str, **faults: Any) -> None:
        self.trt, self.cuda = install(monkeypatch, release, **faults)
        trt, lines = self.trt, []

        class Log(trt.ILogger):
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                lines.append((severity.name, msg))

        self.logger, self.lines = Log(), lines
        self.builder = trt.Builder(self.logger)
        self.config = self.builder.create_builder_config()

    def parse(self, model: bytes, flag: str = "") -> tuple[Any, Any, bool]:
        flags = self.trt.NetworkDefinitionCreationFlag
        names = [flag] if flag else []
        names += ["EXPLICIT_BATCH"] if self.trt._world.release == "8.6" else []
        network = self.builder.create_network(sum(1 << int(getattr(flags, name)) for name in names))
        parser = self.trt.OnnxParser(network, self.logger)
        return network, parser, parser.parse(model)

    def network(self, model: onnx.ModelProto, flag: str = "") -> Any:
        network, _, parsed = self.parse(model.SerializeToString(), flag)
        assert parsed
        return network

    def profile(self, **shapes: tuple[int, ...]) -> None:
        profile = self.builder.create_optimization_profile()
        for name, rest in shapes.items():
            profile.set_shape(name, (1, *rest), (4, *rest), (8, *rest))
        assert self.config.add_optimization_profile(profile) == 0

    def plan(self, network: Any = None) -> Any:
        network = network or self.network(networks.convolutional(4))
        return self.builder.build_serialized_network(network, self.config)

    def engine(self, plan: Any) -> Any:
        return self.trt.Runtime(self.logger).deserialize_cuda_engine(plan)

    def layers(self, network: Any = None) -> dict[str, Any]:
        self.config.profiling_verbosity = self.trt.ProfilingVerbosity.DETAILED
        inspector = self.engine(self.plan(network)).create_engine_inspector()
        text = inspector.get_engine_information(self.trt.LayerInformationFormat.JSON)
        return json.loads(text, strict=False)

    def upload(self, value: np.ndarray) -> int:
        _, pointer = self.cuda.cudaMalloc(value.nbytes)
        self.cuda.cudaMemcpy(pointer, value, value.nbytes, self.cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)
        return pointer

    def download(self, pointer: int, value: np.ndarray) -> np.ndarray:
        self.cuda.cudaMemcpy(value, pointer, value.nbytes, self.cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)
        return value

    def errors(self) -> str:
        return "\n".join(text for severity, text in self.lines if severity == "ERROR")

    def warnings(self) -> str:
        return "\n".join(text for severity, text in self.lines if severity == "WARNING")


def reference(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def half() -> onnx.ModelProto:
    ends = {name: (TensorProto.FLOAT16, [2, 3]) for name in ("x", "y")}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")]
    return networks.model(nodes, {"x": ends["x"]}, {"y": ends["y"]}, {"w": np.eye(3, dtype=np.float16)})


def found() -> onnx.ModelProto:
    nodes = [helper.make_node("NonZero", ["x"], ["places"], "find")]
    inputs, outputs = {"x": (TensorProto.FLOAT, [4])}, {"places": (TensorProto.INT64, [1, "found"])}
    return networks.model(nodes, inputs, outputs)


@pytest.mark.parametrize("release", RELEASES)
def test_a_network_is_built_loaded_and_run_as_onnxruntime_runs_it(release, monkeypatch):
    bench = Bench(monkeypatch, release)
    bench.profile(x=(2, 6, 6))
    context = bench.engine(bench.plan(bench.network(networks.convolutional()))).create_execution_context()
    assert context.infer_shapes() == ["x"]
    assert context.set_input_shape("x", IMAGES.shape)
    assert context.get_tensor_shape("logits") == (3, 3)
    source, target = bench.upload(IMAGES), bench.upload(np.zeros((3, 3), np.float32))
    assert context.set_tensor_address("x", source)
    assert context.set_tensor_address("logits", target)
    _, stream = bench.cuda.cudaStreamCreate()
    assert context.execute_async_v3(int(stream))
    assert bench.cuda._device.pending == 1
    bench.cuda.cudaStreamSynchronize(stream)
    actual = bench.download(target, np.empty((3, 3), np.float32))
    np.testing.assert_allclose(actual, reference(networks.convolutional(), x=IMAGES)[0], rtol=1e-4, atol=1e-5)
    assert bench.errors() == ""


@pytest.mark.parametrize("release", RELEASES)
def test_the_fake_has_no_name_that_is_not_listed(release, monkeypatch):
    trt, _ = install(monkeypatch, release)
    listed = fake_tensorrt.read_list(release)
    for name in vars(trt).keys() & listed["classes"].keys() - {"Dims", "IHostMemory"}:
        public = {key for key in dir(vars(trt)[name]) if not key.startswith("_")}
        assert public <= inherited(trt, listed, name), name
    known = {*listed["classes"], *listed["functions"]}
    assert {key for key in vars(trt) if not key.startswith("_")} <= known


def inherited(trt: Any, listed: dict[str, Any], name: str) -> set[str]:
    return {key for base in vars(trt)[name].__mro__ for key in listed["classes"].get(base.__name__, [])}


@pytest.mark.parametrize(
    ("release", "path"),
    [
        ("8.6", "IProgressMonitor"),
        ("8.6", "OnnxParserFlag"),
        ("8.6", "BuilderFlag.BF16"),
        ("8.6", "NetworkDefinitionCreationFlag.STRONGLY_TYPED"),
        ("10.16", "ICudaEngine.num_bindings"),
        ("10.16", "IBuilderConfig.max_workspace_size"),
        ("11.4", "BuilderFlag.FP16"),
        ("11.4", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH"),
        ("11.4", "IInt8EntropyCalibrator2"),
        ("11.4", "ITensor.set_dynamic_range"),
        ("rtx-1.7", "Builder.platform_has_fast_fp16"),
        ("rtx-1.7", "ITensor.location"),
    ],
)
def test_a_name_that_the_release_lacks_is_an_attribute_error(release, path, monkeypatch):
    trt, _ = install(monkeypatch, release)
    owner, _, name = path.rpartition(".")
    with pytest.raises(AttributeError, match=f"TensorRT {release}: .* has no attribute '{name}'"):
        getattr(getattr(trt, owner) if owner else trt, name)


def test_setting_a_name_that_the_release_lacks_is_an_attribute_error(monkeypatch):
    bench = Bench(monkeypatch, "11.4")
    with pytest.raises(AttributeError, match="IBuilderConfig has no attribute 'int8_calibrator'"):
        bench.config.int8_calibrator = None
    with pytest.raises(AttributeError, match="IBuilderConfig has no attribute 'optimisation'"):
        bench.config.optimisation = 3


def test_a_listed_name_without_behaviour_says_that_the_fake_lacks_it(monkeypatch):
    bench = Bench(monkeypatch, "11.4")
    with pytest.raises(NotImplementedError, match="the fake Builder has no build_engine_with_config yet"):
        _ = bench.builder.build_engine_with_config


def test_enums_count_otherwise_in_each_release(monkeypatch):
    flags = [fake_tensorrt.module(release).NetworkDefinitionCreationFlag.STRONGLY_TYPED for release in RELEASES[1:]]
    assert [int(flag) for flag in flags] == [1, 0, 0]
    assert len({int(fake_tensorrt.module(release).DataType.HALF) for release in RELEASES}) > 1
    assert flags[0] != 1
    with pytest.raises(TypeError):
        _ = 1 << flags[0]


def test_a_subclass_must_call_the_constructor_of_the_bindings(monkeypatch):
    trt, _ = install(monkeypatch, "10.16")

    class Log(trt.ILogger):
        def __init__(self) -> None:
            self.lines = []

    with pytest.raises(TypeError, match=r"ILogger.__init__\(\) must be called"):
        Log()


def test_host_memory_is_a_buffer_and_nothing_else(monkeypatch):
    bench = Bench(monkeypatch, "10.16")
    plan = bench.plan()
    assert bytes(plan) == bytes(memoryview(plan))
    assert plan.nbytes == len(bytes(plan))
    with pytest.raises(TypeError):
        len(plan)
    with pytest.raises(AttributeError):
        plan.tobytes()


def test_an_empty_file_parses_and_does_not_build(monkeypatch):
    bench = Bench(monkeypatch, "10.16")
    network, parser, parsed = bench.parse(b"")
    assert (parsed, parser.num_errors, network.num_layers) == (True, 0, 0)
    assert bench.plan(network) is None
    assert "Network must have at least one output" in bench.errors()


def test_a_truncated_file_does_not_parse(monkeypatch):
    bench = Bench(monkeypatch, "10.16")
    _, parser, parsed = bench.parse(networks.convolutional().SerializeToString()[:-9])
    assert not parsed
    assert parser.get_error(0).code() == bench.trt.ErrorCode.MODEL_DESERIALIZE_FAILED


def test_parser_errors_are_told_by_methods(monkeypatch):
    fault = {"code": "UNSUPPORTED_NODE", "desc": "false", "node": 3, "node_name": "odd", "node_operator": "Det"}
    bench = Bench(monkeypatch, "10.16", parser_errors=[fault])
    _, parser, parsed = bench.parse(networks.convolutional().SerializeToString())
    error = parser.get_error(0)
    assert (parsed, parser.num_errors) == (False, 1)
    assert (error.desc(), error.node(), error.node_name(), error.node_operator()) == ("false", 3, "odd", "Det")
    parser.clear_errors()
    assert parser.num_errors == 0


def test_the_node_of_a_parser_error_has_no_name_in_8_6(monkeypatch):
    bench = Bench(monkeypatch, "8.6", parser_errors=[{"code": "UNSUPPORTED_NODE", "desc": "false"}])
    _, parser, _ = bench.parse(networks.convolutional().SerializeToString())
    with pytest.raises(AttributeError, match="node_name"):
        parser.get_error(0).node_name()


def test_integers_narrow_in_8_6_alone(monkeypatch):
    kinds = {}
    for release in RELEASES:
        network = Bench(monkeypatch, release).network(networks.embedding())
        kinds[release] = (network.get_input(0).dtype.name, network.get_output(1).dtype.name)
    assert kinds == {"8.6": ("INT32",) * 2} | dict.fromkeys(RELEASES[1:], ("INT64",) * 2)


def test_bfloat16_is_unknown_to_the_parser_of_8_6(monkeypatch):
    nodes = [helper.make_node("Cast", ["x"], ["y"], "down", to=TensorProto.BFLOAT16)]
    model = networks.model(nodes, {"x": (TensorProto.FLOAT, [2])}, {"y": (TensorProto.BFLOAT16, [2])})
    bench = Bench(monkeypatch, "8.6")
    _, parser, parsed = bench.parse(model.SerializeToString())
    assert (parsed, parser.num_errors) == (False, 1)
    assert "unsupported datatype BFLOAT16 when importing tensor: y" in bench.errors()
    assert Bench(monkeypatch, "10.16").parse(model.SerializeToString())[2]


def test_a_dynamic_input_needs_a_profile(monkeypatch):
    bench = Bench(monkeypatch, "11.4")
    network = bench.network(networks.convolutional())
    assert bench.plan(network) is None
    assert "no optimization profile has been defined" in bench.errors()
    bench.profile(y=(2, 6, 6))
    assert bench.plan(network) is None
    assert "Dynamic input tensor x is missing dimensions in profile 0" in bench.errors()


def test_build_faults_are_lines_of_the_log(monkeypatch):
    bench = Bench(monkeypatch, "10.16", build_error="no tactic", build_warning="subnormal weights")
    assert bench.plan() is None
    assert "no tactic" in bench.errors()
    assert bench.warnings() == "subnormal weights"


def test_weak_int8_without_scales_does_not_build(monkeypatch):
    bench = Bench(monkeypatch, "8.6")
    bench.config.set_flag(bench.trt.BuilderFlag.INT8)
    assert bench.plan() is None
    assert "Calibrator is not being used" in bench.warnings()
    assert "no scaling factors" in bench.errors()


def test_dynamic_ranges_make_weak_int8_build_with_a_warning_for_each_that_lacks(monkeypatch):
    bench = Bench(monkeypatch, "8.6")
    bench.config.set_flag(bench.trt.BuilderFlag.INT8)
    network = bench.network(networks.convolutional(4))
    assert network.get_input(0).set_dynamic_range(-2.5, 2.5)
    assert bench.plan(network) is not None
    assert bench.trt._world.plans[0]["ranges"] == {"x": (-2.5, 2.5)}
    assert "Missing scale and zero-point for tensor logits" in bench.warnings()


def test_ranges_and_calibrators_are_deprecated_in_10_16(monkeypatch):
    bench = Bench(monkeypatch, "10.16")
    tensor = bench.network(networks.convolutional(4)).get_input(0)
    with pytest.warns(DeprecationWarning, match=r"Deprecated in TensorRT 10\.1"):
        tensor.set_dynamic_range(-1, 1)
    with pytest.warns(DeprecationWarning, match=r"Deprecated in TensorRT 10\.1"):
        bench.config.int8_calibrator = None


def test_half_tensors_need_their_flag_in_a_weakly_typed_network(monkeypatch):
    bench = Bench(monkeypatch, "10.16")
    assert bench.plan(bench.network(half())) is None
    assert "HALF" not in bench.errors()
    assert "FP16 is not configured in the builder" in bench.errors()
    assert bench.plan(bench.network(half(), "STRONGLY_TYPED")) is not None


def test_a_strongly_typed_network_takes_no_precision_flag(monkeypatch):
    bench = Bench(monkeypatch, "10.16")
    bench.config.set_flag(bench.trt.BuilderFlag.FP16)
    assert bench.plan(bench.network(networks.convolutional(4), "STRONGLY_TYPED")) is None
    assert "not allowed in a strongly typed network: FP16" in bench.errors()


def calibrator(bench: Bench, batches: list[np.ndarray], cache: bytes | None = None) -> Any:
    trt = bench.trt

    class Calibrator(trt.IInt8EntropyCalibrator2):
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self.written = b""

        def get_batch_size(self) -> int:
            return 4

        def get_batch(self, names: list[str]) -> list[int] | None:
            return [bench.upload(batches.pop(0))] if batches else None

        def read_calibration_cache(self) -> bytes | None:
            return cache

        def write_calibration_cache(self, cache: memoryview) -> None:
            self.written = bytes(cache)

    made = bench.config.int8_calibrator = Calibrator()
    bench.config.set_flag(trt.BuilderFlag.INT8)
    return made


def test_a_calibrator_is_fed_and_its_cache_saves_the_next_feeding(monkeypatch):
    bench = Bench(monkeypatch, "8.6")
    data = [networks.images(4, seed=seed) for seed in (1, 2)]
    first = calibrator(bench, list(data))
    assert bench.plan() is not None
    record = bench.trt._world.plans[0]["calibration"]
    assert (record["batches"], record["cache"]) == (2, False)
    assert record["sum"] == pytest.approx(float(np.sum(data, dtype=np.float64)))
    scale = struct.pack(">f", float(np.abs(data).max()) / 127).hex()
    assert first.written.decode().splitlines()[:2] == ["TRT-8600-EntropyCalibration2", f"x: {scale}"]
    calibrator(bench, [], first.written)
    assert bench.plan() is not None
    assert bench.trt._world.plans[1]["calibration"]["cache"]


def test_an_exception_in_a_calibrator_is_printed_and_lost(monkeypatch, capfd):
    bench = Bench(monkeypatch, "8.6")
    made = calibrator(bench, [])
    made.get_batch = lambda names: names.boom
    assert bench.plan() is None
    assert "Exception caught in" in capfd.readouterr().err
    assert "no scaling factors" in bench.errors()


def monitor(bench: Bench, goes_on: bool) -> list[tuple[Any, ...]]:
    trt, calls = bench.trt, []

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            calls.append(("start", phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            return goes_on

        def phase_finish(self, phase_name: str) -> None:
            calls.append(("finish", phase_name))

    bench.config.progress_monitor = Monitor()
    return calls


def test_a_progress_monitor_sees_the_phases_and_can_cancel(monkeypatch):
    bench = Bench(monkeypatch, "10.16")
    calls = monitor(bench, goes_on=True)
    assert bench.plan() is not None
    assert calls[0] == ("start", "Building engine", None, 2)
    assert calls[-1] == ("finish", "Building engine")
    monitor(bench, goes_on=False)
    assert bench.plan() is None
    assert "Build canceled by user" in bench.errors()


def test_a_timing_cache_grows_is_used_again_and_is_refused_when_damaged(monkeypatch):
    bench = Bench(monkeypatch, "10.16")
    cache = bench.config.create_timing_cache(b"")
    empty = cache.serialize().nbytes
    assert bench.config.set_timing_cache(cache, ignore_mismatch=False)
    bench.plan()
    data = bytes(bench.config.get_timing_cache().serialize())
    assert len(data) > empty
    assert bench.config.set_timing_cache(bench.config.create_timing_cache(data), False)
    bench.plan()
    assert [plan["timing_hits"] for plan in bench.trt._world.plans] == [0, 8]
    assert bench.config.create_timing_cache(b"damaged") is None
    assert "createTimingCache" in bench.errors()


def test_timing_caches_do_nothing_and_warn_in_tensorrt_rtx(monkeypatch):
    bench = Bench(monkeypatch, "rtx-1.7")
    cache = bench.config.create_timing_cache(b"")
    with pytest.warns(DeprecationWarning, match="no-ops in TensorRT-RTX"):
        bench.config.set_timing_cache(cache, False)


def test_a_dla_is_refused_where_there_is_none(monkeypatch):
    bench = Bench(monkeypatch, "8.6")
    assert bench.builder.num_DLA_cores == 0
    bench.config.default_device_type = bench.trt.DeviceType.DLA
    assert bench.plan() is None
    assert "no DLA cores" in bench.errors()
    assert Bench(monkeypatch, "8.6", dla_cores=2).builder.num_DLA_cores == 2


def test_a_damaged_plan_does_not_load(monkeypatch):
    bench = Bench(monkeypatch, "10.16")
    assert bench.engine(bytes(bench.plan())[:-1]) is None
    assert "magicTag" in bench.errors()


def test_the_plan_of_another_release_does_not_load(monkeypatch):
    plan = bytes(Bench(monkeypatch, "8.6").plan())
    bench = Bench(monkeypatch, "10.16")
    assert bench.engine(plan) is None
    assert "is not compatible with this version of TensorRT, expecting library version 10.16.1" in bench.errors()


def test_the_plan_of_another_gpu_does_not_load(monkeypatch):
    plan = bytes(Bench(monkeypatch, "10.16").plan())
    bench = Bench(monkeypatch, "10.16", gpu="OTHER", compute_capability=(9, 0))
    assert bench.engine(plan) is None
    assert "generated on an incompatible device, expecting compute 9.0 got compute 8.9" in bench.errors()


def test_a_version_compatible_plan_needs_leave_to_run_host_code(monkeypatch):
    bench = Bench(monkeypatch, "10.16")
    bench.config.set_flag(bench.trt.BuilderFlag.VERSION_COMPATIBLE)
    plan, runtime = bench.plan(), bench.trt.Runtime(bench.logger)
    assert runtime.deserialize_cuda_engine(plan) is None
    assert "engine_host_code_allowed" in bench.errors()
    runtime.engine_host_code_allowed = True
    assert runtime.deserialize_cuda_engine(plan) is not None


def test_an_rtx_plan_runs_on_its_targets_alone(monkeypatch):
    bench = Bench(monkeypatch, "rtx-1.7")
    bench.config.num_compute_capabilities = 1
    assert bench.config.set_compute_capability(bench.trt.ComputeCapability.SM86, 0)
    assert bench.engine(bench.plan()) is None
    assert bench.config.set_compute_capability(bench.trt.ComputeCapability.SM89, 0)
    assert bench.engine(bench.plan()) is not None


def test_a_context_may_not_be_had(monkeypatch):
    bench = Bench(monkeypatch, "10.16", no_context=True)
    assert bench.engine(bench.plan()).create_execution_context() is None
    assert "createExecutionContext" in bench.errors()


def test_a_shape_outside_the_profile_is_refused(monkeypatch):
    bench = Bench(monkeypatch, "10.16")
    bench.profile(x=(2, 6, 6))
    engine = bench.engine(bench.plan(bench.network(networks.convolutional())))
    assert [tuple(shape) for shape in engine.get_tensor_profile_shape("x", 0)] == [(n, 2, 6, 6) for n in (1, 4, 8)]
    assert not engine.create_execution_context().set_input_shape("x", (9, 2, 6, 6))
    assert "out of profile" in bench.errors()


def test_execution_may_fail(monkeypatch):
    bench = Bench(monkeypatch, "10.16", execute_fails=True)
    assert not bench.engine(bench.plan()).create_execution_context().execute_async_v3(0)
    assert "enqueueV3" in bench.errors()


def test_execution_needs_every_address(monkeypatch):
    bench = Bench(monkeypatch, "10.16")
    assert not bench.engine(bench.plan()).create_execution_context().execute_async_v3(0)
    assert "Address is not set for tensor x" in bench.errors()


@pytest.mark.parametrize("release", RELEASES)
def test_a_data_dependent_output_comes_through_its_allocator(release, monkeypatch):
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

    class Allocator(trt.IOutputAllocator):
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


def test_any_output_can_be_made_data_dependent(monkeypatch):
    bench = Bench(monkeypatch, "10.16", data_dependent=frozenset({"logits"}))
    context = bench.engine(bench.plan()).create_execution_context()
    assert context.get_tensor_shape("logits") == (-1, -1)


def test_the_inspector_writes_each_releases_own_form(monkeypatch):
    forms = {release: Bench(monkeypatch, release).layers() for release in RELEASES}
    first = {release: form["Layers"][0] for release, form in forms.items()}
    assert first["8.6"]["Inputs"][0]["Format/Datatype"] == "Row major linear FP32"
    assert first["10.16"]["Inputs"][0]["Format/Datatype"] == "Float"
    assert first["11.4"]["Inputs"][0]["Datatype"] == first["rtx-1.7"]["Inputs"][0]["Datatype"] == "Float"
    assert {layer["Metadata"] for layer in first.values()} == {"[ONNX Layer: conv1]\x1e[ONNX Layer: relu1]"}
    assert [set(form) - {"Layers"} for form in forms.values()] == [{"Bindings"}] * 2 + [{"I/O Tensors"}] * 2
    assert "tf32" in first["10.16"]["TacticName"]


def test_the_inspectors_text_of_8_6_is_no_strict_json(monkeypatch):
    bench = Bench(monkeypatch, "8.6")
    bench.config.profiling_verbosity = bench.trt.ProfilingVerbosity.DETAILED
    inspector = bench.engine(bench.plan()).create_engine_inspector()
    with pytest.raises(json.JSONDecodeError):
        json.loads(inspector.get_engine_information(bench.trt.LayerInformationFormat.JSON))


def test_without_detail_the_inspector_knows_names_alone(monkeypatch):
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
def test_a_quantized_network_runs_in_int8_without_calibration(release, monkeypatch):
    bench = Bench(monkeypatch, release)
    if release in ("8.6", "10.16"):
        bench.config.set_flag(bench.trt.BuilderFlag.INT8)
    assert weights(bench.layers(bench.network(quantized()))) == ["Int8"]


def test_layers_run_in_the_precision_that_was_asked(monkeypatch):
    bench = Bench(monkeypatch, "10.16")
    assert weights(bench.layers(bench.network(half(), "STRONGLY_TYPED"))) == ["Half"]
    bench.config.set_flag(bench.trt.BuilderFlag.FP16)
    assert weights(bench.layers()) == ["Half"] * 3


def test_layers_run_in_the_precision_that_the_fault_says(monkeypatch):
    bench = Bench(monkeypatch, "10.16", achieved={"int8": 1, "fp16": 1})
    bench.config.set_flag(bench.trt.BuilderFlag.FP16)
    assert weights(bench.layers()) == ["Int8", "Half", "Float"]


def test_without_a_device_tensorrt_has_no_builder(monkeypatch):
    with pytest.raises(TypeError, match="factory function returned nullptr"):
        Bench(monkeypatch, "10.16", cuda_faults={"driver_error": 35})


def test_without_a_device_tensorrt_rtx_builds_and_does_not_load(monkeypatch):
    bench = Bench(monkeypatch, "rtx-1.7", cuda_faults={"device_count": 0})
    assert bench.engine(bench.plan()) is None


def test_install_hides_the_other_package(monkeypatch):
    trt, cuda = install(monkeypatch, "rtx-1.7")
    import tensorrt_rtx
    from cuda.bindings import runtime

    assert (tensorrt_rtx, runtime) == (trt, cuda)
    with pytest.raises(ImportError):
        import tensorrt  # noqa: F401
