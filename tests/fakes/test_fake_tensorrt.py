"""The fake tensorrt as a module: names of each release, its parser, and a network from bytes to outputs."""

from __future__ import annotations

from typing import Any

import networks
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from fakes import tensorrt as fake_tensorrt
from fakes.api import read_list
from fakes.bench import Bench
from fakes.tensorrt import RELEASES, install

IMAGES = networks.images(3)


def reference(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


@pytest.mark.parametrize("release", RELEASES)
def test_a_network_is_built_loaded_and_run_as_onnxruntime_runs_it(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_the_fake_has_no_name_that_is_not_listed(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, release)
    listed = read_list(release)
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
def test_a_name_that_the_release_lacks_is_an_attribute_error(
    release: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, _ = install(monkeypatch, release)
    owner, _, name = path.rpartition(".")
    with pytest.raises(AttributeError, match=f"TensorRT {release}: .* has no attribute '{name}'"):
        getattr(getattr(trt, owner) if owner else trt, name)


def test_setting_a_name_that_the_release_lacks_is_an_attribute_error(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "11.4")
    with pytest.raises(AttributeError, match="IBuilderConfig has no attribute 'int8_calibrator'"):
        bench.config.int8_calibrator = None
    with pytest.raises(AttributeError, match="IBuilderConfig has no attribute 'optimisation'"):
        bench.config.optimisation = 3


def test_a_listed_name_without_behaviour_says_that_the_fake_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "11.4")
    with pytest.raises(NotImplementedError, match="the fake Builder has no build_engine_with_config yet"):
        _ = bench.builder.build_engine_with_config


def test_enums_count_otherwise_in_each_release(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [fake_tensorrt.module(release).NetworkDefinitionCreationFlag.STRONGLY_TYPED for release in RELEASES[1:]]
    assert [int(flag) for flag in flags] == [1, 0, 0]
    assert len({int(fake_tensorrt.module(release).DataType.HALF) for release in RELEASES}) > 1
    assert flags[0] != 1
    with pytest.raises(TypeError):
        _ = 1 << flags[0]


def test_a_subclass_must_call_the_constructor_of_the_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, _ = install(monkeypatch, "10.16")

    base: Any = trt.ILogger

    class Log(base):
        def __init__(self) -> None:
            self.lines: list[str] = []

    with pytest.raises(TypeError, match=r"ILogger.__init__\(\) must be called"):
        Log()


def test_host_memory_is_a_buffer_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16")
    plan = bench.plan()
    assert bytes(plan) == bytes(memoryview(plan))
    assert plan.nbytes == len(bytes(plan))
    with pytest.raises(TypeError):
        len(plan)
    with pytest.raises(AttributeError):
        plan.tobytes()


def test_an_empty_file_parses_and_does_not_build(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16")
    network, parser, parsed = bench.parse(b"")
    assert (parsed, parser.num_errors, network.num_layers) == (True, 0, 0)
    assert bench.plan(network) is None
    assert "Network must have at least one output" in bench.errors()


def test_a_truncated_file_does_not_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "10.16")
    _, parser, parsed = bench.parse(networks.convolutional().SerializeToString()[:-9])
    assert not parsed
    assert parser.get_error(0).code() == bench.trt.ErrorCode.MODEL_DESERIALIZE_FAILED


def test_parser_errors_are_told_by_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = {"code": "UNSUPPORTED_NODE", "desc": "false", "node": 3, "node_name": "odd", "node_operator": "Det"}
    bench = Bench(monkeypatch, "10.16", parser_errors=[fault])
    _, parser, parsed = bench.parse(networks.convolutional().SerializeToString())
    error = parser.get_error(0)
    assert (parsed, parser.num_errors) == (False, 1)
    assert (error.desc(), error.node(), error.node_name(), error.node_operator()) == ("false", 3, "odd", "Det")
    parser.clear_errors()
    assert parser.num_errors == 0


def test_the_node_of_a_parser_error_has_no_name_in_8_6(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "8.6", parser_errors=[{"code": "UNSUPPORTED_NODE", "desc": "false"}])
    _, parser, _ = bench.parse(networks.convolutional().SerializeToString())
    with pytest.raises(AttributeError, match="node_name"):
        parser.get_error(0).node_name()


def test_integers_narrow_in_8_6_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {}
    for release in RELEASES:
        network = Bench(monkeypatch, release).network(networks.embedding())
        kinds[release] = (network.get_input(0).dtype.name, network.get_output(1).dtype.name)
    assert kinds == {"8.6": ("INT32",) * 2} | dict.fromkeys(RELEASES[1:], ("INT64",) * 2)


def test_bfloat16_is_unknown_to_the_parser_of_8_6(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], "down", to=TensorProto.BFLOAT16)]
    model = networks.model(nodes, {"x": (TensorProto.FLOAT, [2])}, {"y": (TensorProto.BFLOAT16, [2])})
    bench = Bench(monkeypatch, "8.6")
    _, parser, parsed = bench.parse(model.SerializeToString())
    assert (parsed, parser.num_errors) == (False, 1)
    assert "unsupported datatype BFLOAT16 when importing tensor: y" in bench.errors()
    assert Bench(monkeypatch, "10.16").parse(model.SerializeToString())[2]


def test_install_hides_the_other_package(monkeypatch: pytest.MonkeyPatch) -> None:
    trt, cuda = install(monkeypatch, "rtx-1.7")
    import tensorrt_rtx
    from cuda.bindings import runtime

    assert (tensorrt_rtx, runtime) == (trt, cuda)
    with pytest.raises(ImportError):
        import tensorrt  # noqa: F401
