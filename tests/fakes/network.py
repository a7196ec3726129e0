"""The network of the fake tensorrt, and the ONNX parser that fills it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from fakes.api import Object, Option, check, deprecated, warn
from fakes.plan import QUANTIZED, TYPES, types_and_shapes
from fakes.values import Dims

RANGES = ("10.16", "Deprecated in TensorRT 10.1. Superseded by explicit quantization.")
_TYPING = ("10.16", "Deprecated in TensorRT 10.12. Superseded by strong typing.")
_LAYERS = {
    "Conv": "CONVOLUTION",
    "Relu": "ACTIVATION",
    "Sigmoid": "ACTIVATION",
    "Add": "ELEMENTWISE",
    "Mul": "ELEMENTWISE",
    "Gemm": "MATRIX_MULTIPLY",
    "MatMul": "MATRIX_MULTIPLY",
    "MaxPool": "POOLING",
    "AveragePool": "POOLING",
    "GlobalAveragePool": "REDUCE",
    "ReduceMean": "REDUCE",
    "Flatten": "SHUFFLE",
    "Reshape": "SHUFFLE",
    "Unsqueeze": "SHUFFLE",
    "Gather": "GATHER",
    "ArgMax": "TOPK",
    "Softmax": "SOFTMAX",
    "Cast": "CAST",
    "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE",
    "NonZero": "NON_ZERO",
    "Shape": "SHAPE",
}


class ITensor(Object):
    name = Option("str", "")
    location = Option("TensorLocation", "DEVICE")

    def __init__(self, name: str, kind: str, shape: Any, role: str = "") -> None:
        self._name, self._kind, self._shape, self._role = name, kind, shape, role
        self._range: tuple[float, ...] | None = None

    @property
    def shape(self) -> Dims:
        return Dims(self._shape or ())

    @property
    def dtype(self) -> Any:
        return getattr(self._world.trt.DataType, self._kind)

    @dtype.setter
    def dtype(self, value: Any) -> None:
        warn(self, *_TYPING)
        check(self, value, "DataType", "dtype")
        self._kind = value.name

    @property
    def is_network_input(self) -> bool:
        return self._role == "input"

    @property
    def is_network_output(self) -> bool:
        return self._role == "output"

    @property
    def is_shape_tensor(self) -> bool:
        return False

    @property
    def is_execution_tensor(self) -> bool:
        return True

    @property
    def dynamic_range(self) -> Any:
        warn(self, *RANGES)
        return self._range

    @dynamic_range.setter
    def dynamic_range(self, value: Any) -> None:
        warn(self, *RANGES)
        self._range = tuple(float(end) for end in value)

    @deprecated(*RANGES)
    def set_dynamic_range(self, min: float, max: float) -> bool:
        check(self, min, "float", "set_dynamic_range")
        check(self, max, "float", "set_dynamic_range")
        ends = float(min), float(max)
        self._range = ends
        return bool(np.isfinite(ends).all() and min <= max)

    @deprecated(*RANGES)
    def reset_dynamic_range(self) -> None:
        self._range = None


class ILayer(Object):
    name = Option("str", "")
    metadata = Option("str", "")

    def __init__(self, name: str, kind: str, inputs: list[Any], outputs: list[Any]) -> None:
        self._name, self._kind, self._inputs, self._outputs = name, kind, inputs, outputs
        self._chosen: Any = None

    @property
    def type(self) -> Any:
        return getattr(self._world.trt.LayerType, self._kind)

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> Any:
        return self._inputs[index] if 0 <= index < len(self._inputs) else None

    def get_output(self, index: int) -> Any:
        return self._outputs[index] if 0 <= index < len(self._outputs) else None

    @property
    def precision(self) -> Any:
        return self._chosen or self._world.trt.DataType.FLOAT

    @precision.setter
    def precision(self, value: Any) -> None:
        warn(self, *_TYPING)
        check(self, value, "DataType", "precision")
        self._chosen = value

    @property
    def precision_is_set(self) -> bool:
        return self._chosen is not None

    @deprecated(*_TYPING)
    def reset_precision(self) -> None:
        self._chosen = None

    @deprecated(*_TYPING)
    def set_output_type(self, index: int, dtype: Any) -> None:
        check(self, dtype, "DataType", "set_output_type")
        self._outputs[index]._kind = dtype.name


class INetworkDefinition(Object):
    name = Option("str", "")

    def __init__(self, logger: Any, flags: int) -> None:
        self._logger, self._bits = logger, flags
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._layers: list[Any] = []
        self._model = b""
        self._shows = False

    def _flag(self, name: str) -> bool:
        member = self._world.trt.NetworkDefinitionCreationFlag._members.get(name)
        return member is not None and bool(self._bits >> int(member) & 1)

    @property
    def _strong(self) -> bool:
        return self._world.always_strong or self._flag("STRONGLY_TYPED")

    @property
    def flags(self) -> int:
        return self._bits

    def get_flag(self, flag: Any) -> bool:
        check(self, flag, "NetworkDefinitionCreationFlag", "get_flag")
        return self._flag(flag.name)

    @property
    def has_implicit_batch_dimension(self) -> bool:
        return self._world.release == "8.6" and not self._flag("EXPLICIT_BATCH")

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_input(self, index: int) -> Any:
        return self._at(self._inputs, index, "getInput")

    def get_output(self, index: int) -> Any:
        return self._at(self._outputs, index, "getOutput")

    def get_layer(self, index: int) -> Any:
        return self._at(self._layers, index, "getLayer")

    def mark_unfused_tensors_as_debug_tensors(self) -> bool:
        self._shows = True
        return True

    def _at(self, among: list[Any], index: int, where: str) -> Any:
        if 0 <= index < len(among):
            return among[index]
        return self._world.fail(self._logger, f"INetworkDefinition::{where}", f"Parameter check failed: {index}")


class ParserError(Object):
    def __init__(self, code: str, desc: str, **facts: Any) -> None:
        self._code, self._desc, self._facts = code, desc, facts

    def code(self) -> Any:
        return getattr(self._world.trt.ErrorCode, self._code)

    def desc(self) -> str:
        return self._desc

    def node(self) -> int:
        return self._facts.get("node", -1)

    def node_name(self) -> str:
        return self._facts.get("node_name", "")

    def node_operator(self) -> str:
        return self._facts.get("node_operator", "")

    def func(self) -> str:
        return self._facts.get("func", "")

    def file(self) -> str:
        return self._facts.get("file", "")

    def line(self) -> int:
        return self._facts.get("line", 0)

    def local_function_stack(self) -> list[str]:
        return []

    def local_function_stack_size(self) -> int:
        return 0

    def __str__(self) -> str:
        return f"({self._facts.get('func', '')}): {self._code}: {self._desc}"


class OnnxParser(Object):
    _constructible = True

    def __init__(self, network: Any, logger: Any) -> None:
        check(self, network, "INetworkDefinition", "__init__")
        check(self, logger, "ILogger", "__init__")
        self._network, self._logger = network, logger
        self._errors: list[Any] = []
        self._flags = (
            0 if self._world.release == "8.6" else 1 << int(self._world.trt.OnnxParserFlag.NATIVE_INSTANCENORM)
        )
        self._constructed = True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index] if 0 <= index < len(self._errors) else None

    def clear_errors(self) -> None:
        self._errors = []

    @property
    def flags(self) -> int:
        return self._flags

    @flags.setter
    def flags(self, value: int) -> None:
        check(self, value, "int", "flags")
        self._flags = value

    def set_flag(self, flag: Any) -> None:
        check(self, flag, "OnnxParserFlag", "set_flag")
        self._flags |= 1 << int(flag)

    def get_flag(self, flag: Any) -> bool:
        check(self, flag, "OnnxParserFlag", "get_flag")
        return bool(self._flags >> int(flag) & 1)

    def clear_flag(self, flag: Any) -> None:
        check(self, flag, "OnnxParserFlag", "clear_flag")
        self._flags &= ~(1 << int(flag))

    def parse(self, model: Any, path: str | None = None) -> bool:  # noqa: ARG002 - where external weights lie
        data, proto = bytes(memoryview(model)), onnx.ModelProto()
        if self._network._layers:
            self._world.log(self._logger, "ERROR", "Parse was called with a non-empty network definition")
            return False
        try:
            proto.ParseFromString(data)
        except DecodeError:
            fault = "Failed to parse the ONNX model."
            text = f"Assertion failed: model->ParseFromCodedStream(&codedInput): {fault}"
            return self._refuse([{"code": "MODEL_DESERIALIZE_FAILED", "desc": text, "func": "deserializeOnnxModel"}])
        faults = list(self._world.faults.parser_errors) or _unsupported(self._world, self._network, proto)
        if faults:
            return self._refuse(faults)
        if proto.graph.node:
            _fill(self._network, proto, data)
        return True

    def _refuse(self, faults: list[Any]) -> bool:
        self._errors = [self._world.trt.ParserError._make(**fault) for fault in faults]
        for error in self._errors:
            self._world.log(self._logger, "ERROR", str(error))
        return False


def _unsupported(world: Any, network: Any, proto: onnx.ModelProto) -> list[dict[str, Any]]:
    if world.release == "8.6" and not network._flag("EXPLICIT_BATCH"):
        text = "This version of the ONNX parser only supports networks with an explicit batch dimension"
        return [{"code": "INVALID_VALUE", "desc": f"Assertion failed: {text}"}]
    known = set(TYPES) - ({TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN} if world.release == "8.6" else set())
    types = types_and_shapes(proto) if proto.graph.node else {}
    bad = {name for name, (kind, _) in types.items() if kind and kind not in known}
    for place, node in enumerate(proto.graph.node):
        if touched := bad & {*node.input, *node.output}:
            name = TensorProto.DataType.Name(types[min(touched)][0])
            text = f"Found unsupported datatype {name} when importing tensor: {min(touched)}"
            code = "UNSUPPORTED_NODE" if world.release == "8.6" else "UNSUPPORTED_NODE_DATATYPE"
            return [{"code": code, "desc": text, "node": place, "node_name": node.name, "node_operator": node.op_type}]
    return []


def _fill(network: Any, proto: onnx.ModelProto, data: bytes) -> None:
    """Inputs, outputs and one layer a node; a weight that no layer holds itself is a constant layer."""
    trt, types = network._world.trt, types_and_shapes(proto)
    narrow = {"INT64": "INT32"} if network._world.release == "8.6" else {}
    graph, weights = proto.graph, {weight.name for weight in proto.graph.initializer}
    roles = {value.name: "output" for value in graph.output}
    roles |= {value.name: "input" for value in graph.input if value.name not in weights}
    tensors: dict[str, Any] = {}

    def tensor(name: str, known: str = "") -> Any:
        kind, shape = types.get(known or name, (TensorProto.FLOAT, None))
        kind_name = TYPES.get(kind, "FLOAT")
        made = trt.ITensor._make(name, narrow.get(kind_name, kind_name), shape, roles.get(name, ""))
        return tensors.setdefault(known or name, made)

    for node in graph.node:
        held = weights if node.op_type in ("Conv", "Gemm", "BatchNormalization", *QUANTIZED) else set()
        for name in weights.intersection(node.input) - held - tensors.keys():
            label = f"(Unnamed Layer* {len(network._layers)}) [Constant]"
            constant = tensor(f"{label}_output", name)
            network._layers.append(trt.ILayer._make(label, "CONSTANT", [], [constant]))
        inputs = [tensor(name) for name in node.input if name and name not in held]
        outputs = [tensor(name) for name in node.output if name]
        label = node.name or f"node_of_{node.output[0]}"
        network._layers.append(trt.ILayer._make(label, _LAYERS.get(node.op_type, "IDENTITY"), inputs, outputs))
    network._inputs = [tensor(value.name) for value in graph.input if value.name not in weights]
    network._outputs = [tensor(value.name) for value in graph.output]
    network._model = data
