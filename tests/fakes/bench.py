"""A release of the fake tensorrt on a bench, and networks to put there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
from onnx import TensorProto, helper

from fakes.tensorrt import install

if TYPE_CHECKING:
    import pytest


class Bench:
    """A release with a logger that keeps its lines, and the steps from ONNX bytes to an output."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, release: str, **faults: Any) -> None:
        self.trt, self.cuda = install(monkeypatch, release, **faults)
        trt = self.trt
        lines: list[tuple[str, str]] = []

        base: Any = trt.ILogger

        class Log(base):
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


def half() -> onnx.ModelProto:
    ends = {name: (TensorProto.FLOAT16, [2, 3]) for name in ("x", "y")}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "matmul")]
    return networks.model(nodes, {"x": ends["x"]}, {"y": ends["y"]}, {"w": np.eye(3, dtype=np.float16)})
