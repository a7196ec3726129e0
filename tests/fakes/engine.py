"""The running half of the fake tensorrt: runtime, engine, inspector, execution context."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np
import onnx
import onnxruntime

from fakes.api import Object, Option, call, check
from fakes.builder import require_device
from fakes.plan import TYPES, information, types_and_shapes, unpack
from fakes.values import NUMPY, Dims, host_memory

_WHERE = "IRuntime::deserializeCudaEngine"


class Runtime(Object):
    _constructible = True
    DLA_core = Option("int", -1)
    engine_host_code_allowed = Option("bool", False)
    max_threads = Option("int", 1)
    temporary_directory = Option("str", "")
    tempfile_control_flags = Option("int", 3)

    def __init__(self, logger: Any) -> None:
        check(self, logger, "ILogger", "__init__")
        self._logger = logger
        require_device(self._world, logger, optional=self._world.rtx)
        self._constructed = True

    @property
    def logger(self) -> Any:
        return self._logger

    @property
    def num_DLA_cores(self) -> int:
        return self._world.faults.dla_cores

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        plan, world = bytes(memoryview(serialized_engine)), self._world
        if not require_device(world, self._logger, optional=True):
            return world.fail(self._logger, _WHERE, "cudaError: no device")
        found = unpack(plan)
        if found is None:
            empty = "Cannot deserialize with an empty memory buffer."
            text = "Serialization assertion header.magicTag == kEXPECTED_MAGIC_TAG failed." if plan else empty
            return world.fail(self._logger, _WHERE, text)
        if refusal := _foreign(world, found[0], vars(self).get("_engine_host_code_allowed", False)):
            return world.fail(self._logger, _WHERE, refusal)
        return world.trt.ICudaEngine._make(self._logger, plan, *found)


def _foreign(world: Any, header: dict[str, Any], host_code_allowed: bool) -> str | None:
    compatible = "VERSION_COMPATIBLE" in header["flags"]
    if compatible and "EXCLUDE_LEAN_RUNTIME" not in header["flags"] and not host_code_allowed:
        return "Cannot deserialize a version compatible engine: it holds host code, engine_host_code_allowed is False"
    if header["version"] != world.version and not compatible:
        text = "The engine plan file is not compatible with this version of TensorRT, expecting library version"
        return f"{text} {world.version} got {header['version']}, please rebuild."
    here = list(world.faults.compute_capability)
    if world.rtx:
        targets = [name for name in header["targets"] if name not in ("NONE", "CURRENT")]
        fits = f"SM{here[0]}{here[1]}" in targets if targets else header["compute_capability"] == here
    else:
        fits = header["gpu"] == world.faults.gpu or _hardware_fits(header, here)
    theirs = header["compute_capability"]
    text = f"expecting compute {here[0]}.{here[1]} got compute {theirs[0]}.{theirs[1]}, please rebuild."
    return None if fits else f"The engine plan file is generated on an incompatible device, {text}"


def _hardware_fits(header: dict[str, Any], here: list[int]) -> bool:
    if header["hardware"] == "SAME_COMPUTE_CAPABILITY":
        return header["compute_capability"] == here
    return header["hardware"] == "AMPERE_PLUS" and here[0] >= 8


class ICudaEngine(Object):
    def __init__(self, logger: Any, plan: bytes, header: dict[str, Any], model: bytes) -> None:
        self._logger, self._plan, self._header, self._model = logger, plan, header, model
        self._tensors = header["inputs"] | header["outputs"]
        self._names = list(self._tensors)
        self._contexts: Any = weakref.WeakSet()

    @property
    def name(self) -> str:
        return "Unnamed Network 0"

    @property
    def num_io_tensors(self) -> int:
        return len(self._names)

    @property
    def num_layers(self) -> int:
        return self._header["num_layers"]

    @property
    def num_optimization_profiles(self) -> int:
        return max(1, len(self._header["profiles"]))

    @property
    def num_aux_streams(self) -> int:
        return 0

    @property
    def refittable(self) -> bool:
        return "REFIT" in self._header["flags"]

    @property
    def device_memory_size(self) -> int:
        return 1 << 20

    @property
    def device_memory_size_v2(self) -> int:
        return 1 << 20

    @property
    def tactic_sources(self) -> int:
        return self._header["tactic_sources"]

    @property
    def profiling_verbosity(self) -> Any:
        return getattr(self._world.trt.ProfilingVerbosity, self._header["verbosity"])

    @property
    def hardware_compatibility_level(self) -> Any:
        return getattr(self._world.trt.HardwareCompatibilityLevel, self._header["hardware"])

    def serialize(self) -> Any:
        return host_memory(self._world, self._plan)

    def get_tensor_name(self, index: int) -> Any:
        return self._names[index] if 0 <= index < len(self._names) else self._unknown(f"index {index}")

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._world.trt.TensorIOMode
        if not self._known(name):
            return modes.NONE
        return modes.INPUT if name in self._header["inputs"] else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._world.trt.DataType, self._tensors.get(name, ["FLOAT"])[0])

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims((self._known(name) and self._tensors[name][1]) or ())

    def get_tensor_location(self, name: str) -> Any:
        self._known(name)
        return self._world.trt.TensorLocation.DEVICE

    def is_shape_inference_io(self, name: str) -> bool:
        self._known(name)
        return False

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        profiles = self._header["profiles"]
        if name not in self._header["inputs"]:
            self._unknown(name)
            return [Dims(), Dims(), Dims()]
        shapes = profiles[profile_index].get(name) if profile_index < len(profiles) else None
        return [Dims(shape) for shape in shapes or [self._tensors[name][1]] * 3]

    def create_execution_context(self) -> Any:
        if self._world.faults.no_context:
            return self._world.fail(self._logger, "ICudaEngine::createExecutionContext", "OutOfMemory: requested 1 GiB")
        return self._world.trt.IExecutionContext._make(self)

    def create_engine_inspector(self) -> Any:
        return self._world.trt.EngineInspector._make(self)

    def _known(self, name: str) -> bool:
        if name not in self._tensors:
            self._unknown(name)
        return name in self._tensors

    def _unknown(self, name: str) -> None:
        self._world.fail(self._logger, "ICudaEngine", f"Given invalid tensor name: {name}")


class EngineInspector(Object):
    execution_context = Option("IExecutionContext", None)

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def get_engine_information(self, format: Any) -> str:
        check(self, format, "LayerInformationFormat", "get_engine_information")
        shapes = {name: shape for name, (_, shape) in self._engine._tensors.items()}
        text = information(self._engine._header, self._engine._model, shapes)
        return text if format.name == "JSON" else text.replace("\n", " ")


class IExecutionContext(Object):
    def __init__(self, engine: Any) -> None:
        self._engine, self._logger = engine, engine._logger
        self._profile = -1 if self._is_taken(0) else 0
        engine._contexts.add(self)
        self._shapes: dict[str, list[int]] = {}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        self._grown: dict[str, tuple[int, int]] = {}
        self._session: Any = None
        self._listener: Any = None

    unfused_tensors_debug_state = Option("bool", False)

    def set_debug_listener(self, listener: Any) -> bool:
        if listener is not None:
            check(self, listener, "IDebugListener", "set_debug_listener")
        self._listener = listener
        return True

    def get_debug_listener(self) -> Any:
        return self._listener

    @property
    def engine(self) -> Any:
        return self._engine

    @property
    def active_optimization_profile(self) -> int:
        return self._profile

    def _is_taken(self, profile: int) -> bool:
        """Whether another context has the profile, which 8.6 lets only one have."""
        dynamic = any(-1 in (shape or []) for _, shape in self._engine._tensors.values())
        others = [context for context in self._engine._contexts if context is not self]
        return self._world.release == "8.6" and dynamic and any(other._profile == profile for other in others)

    @property
    def all_binding_shapes_specified(self) -> bool:
        return not self._unset()

    def set_optimization_profile_async(self, profile_index: int, stream_handle: Any) -> bool:
        self._world.cuda._device.stream(stream_handle)
        if not 0 <= profile_index < max(1, len(self._engine._header["profiles"])):
            return self._fail("setOptimizationProfileAsync", f"Profile index {profile_index} is out of range")
        if self._is_taken(profile_index):
            text = f"Profile {profile_index} has been chosen for another IExecutionContext"
            return self._fail("setOptimizationProfileAsync", text)
        self._profile, self._shapes = profile_index, {}
        return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        sizes, engine = list(Dims(shape)), self._engine
        if name not in engine._header["inputs"]:
            return self._fail("setInputShape", f"Given invalid tensor name: {name}")
        if self._profile < 0:
            return self._fail("setInputShape", "No optimization profile has been chosen")
        low, _, high = engine.get_tensor_profile_shape(name, self._profile)
        fits = len(sizes) == len(low) and all(a <= b <= c for a, b, c in zip(low, sizes, high, strict=True))
        if not fits:
            text = f"Static dimension mismatch or out of profile while setting input shape for {name}: {sizes}"
            return self._fail("setInputShape", f"{text}, the profile is {low} to {high}")
        self._shapes[name] = sizes
        return True

    def _unset(self) -> list[str]:
        inputs = self._engine._header["inputs"]
        return [name for name, (_, shape) in inputs.items() if -1 in (shape or []) and name not in self._shapes]

    def infer_shapes(self) -> list[str]:
        return self._unset()

    def get_tensor_shape(self, name: str) -> Dims:
        if name in self._engine._header["inputs"]:
            return Dims(self._shapes.get(name, self._engine._tensors[name][1]))
        if name not in self._engine._tensors:
            self._fail("getTensorShape", f"Given invalid tensor name: {name}")
            return Dims()
        shape = self._inferred(name)
        return Dims([-1] * len(shape) if name in self._world.faults.data_dependent else shape)

    def _inferred(self, name: str) -> list[int]:
        if self._unset():
            return self._engine._tensors[name][1] or []
        proto = onnx.load_from_string(self._engine._model)
        for value in proto.graph.input:
            for size, number in zip(value.type.tensor_type.shape.dim, self.get_tensor_shape(value.name), strict=True):
                size.dim_value = number
        for value in proto.graph.output:
            value.type.tensor_type.ClearField("shape")
        return types_and_shapes(proto)[name][1] or []

    def set_tensor_address(self, name: str, memory: Any) -> bool:
        if name not in self._engine._tensors:
            return self._fail("setTensorAddress", f"Given invalid tensor name: {name}")
        self._addresses[name] = int(memory)
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        check(self, output_allocator, "IOutputAllocator", "set_output_allocator")
        if name not in self._engine._header["outputs"]:
            return self._fail("setOutputAllocator", f"Given invalid tensor name: {name}")
        self._allocators[name] = output_allocator
        self._grown.pop(name, None)
        return True

    def get_output_allocator(self, name: str) -> Any:
        return self._allocators.get(name)

    def execute_async_v3(self, stream_handle: Any) -> bool:
        """Queues the inference; one with an output allocator runs at once, since its sizes are needed."""
        device = self._world.cuda._device
        stream, engine, where = device.stream(stream_handle), self._engine, "enqueueV3"
        if self._world.faults.execute_fails:
            return self._fail(where, "Cuda Runtime (an illegal memory access was encountered)")
        if missing := self._unset():
            return self._fail(where, f"Neither address nor shape is set for input tensors {missing}")
        for name in engine._names:
            if not self._addresses.get(name) and name not in self._allocators:
                return self._fail(where, f"Address is not set for tensor {name}. Call setTensorAddress first.")
        shapes = {name: list(self.get_tensor_shape(name)) for name in engine._header["inputs"]}
        addresses = dict(self._addresses)
        if self._listener is not None and self.unfused_tensors_debug_state and engine._header["shows"]:
            device.wait(stream)
            self._show(self._feeds(shapes, addresses), int(stream_handle))
        if not self._allocators:
            if unknown := [name for name in engine._header["outputs"] if -1 in list(self.get_tensor_shape(name))]:
                return self._fail(where, f"Output {unknown[0]} is data dependent and has no output allocator")
            if stream.captured is not None and self._world.faults.no_capture:
                stream.forbidden()
                return self._fail(where, "operation not permitted when stream is capturing")
            stream.put(lambda: self._write(self._outputs(shapes, addresses), addresses), device.inference_s)
            return True
        assert stream.captured is None, "an output allocator needs the sizes at once, which a capture has not"
        device.wait(stream)  # what was queued before is over before the inference takes its time
        device.time += device.inference_s
        return self._allocate(self._outputs(shapes, addresses), addresses, stream_handle)

    def _outputs(self, shapes: dict[str, list[int]], addresses: dict[str, int]) -> dict[str, np.ndarray]:
        session = self._session = self._session or _open(self._engine._model)
        feeds = self._feeds(shapes, addresses)
        wide = {value.name: np.int64 for value in session.get_inputs() if value.type == "tensor(int64)"}
        feeds = {name: value.astype(wide.get(name, value.dtype)) for name, value in feeds.items()}
        outputs = self._engine._header["outputs"]
        found = session.run(list(outputs), feeds)
        kinds = [NUMPY[kind] for kind, _ in outputs.values()]
        return {name: value.astype(kind) for name, value, kind in zip(outputs, found, kinds, strict=True)}

    def _show(self, feeds: dict[str, np.ndarray], stream: int) -> None:
        """Every float tensor that a node computes, but for those that only a Relu reads, which is fused."""
        proto = onnx.load_from_string(self._engine._model)
        readers: dict[str, list[str]] = {}
        for node in proto.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node.op_type)
        known = {name: TYPES.get(kind, "") for name, (kind, _) in types_and_shapes(proto).items()}
        names = [name for node in proto.graph.node for name in node.output if known.get(name) in ("FLOAT", "HALF")]
        names = [name for name in names if readers.get(name) != ["Relu"]]
        given = {value.name for value in proto.graph.output}
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
        found = _open(proto.SerializeToString()).run(names, feeds)
        place = self._world.trt.TensorLocation.DEVICE
        for name, value in zip(names, found, strict=True):
            _, address = self._world.cuda.cudaMalloc(max(value.nbytes, 1))
            self._world.cuda._device.write(int(address), value.tobytes())
            kind = getattr(self._world.trt.DataType, known[name])
            call(
                self._listener.process_debug_tensor,
                False,
                capsule(int(address)),
                place,
                kind,
                Dims(value.shape),
                name,
                stream,
            )
            self._world.cuda.cudaFree(address)

    def _feeds(self, shapes: dict[str, list[int]], addresses: dict[str, int]) -> dict[str, np.ndarray]:
        feeds = {}
        for name, (kind, _) in self._engine._header["inputs"].items():
            dtype = np.dtype(NUMPY[kind])
            data = self._world.cuda._device.read(addresses[name], int(np.prod(shapes[name])) * dtype.itemsize)
            feeds[name] = np.frombuffer(data, dtype).reshape(shapes[name])
        return feeds

    def _write(self, outputs: dict[str, np.ndarray], addresses: dict[str, int]) -> None:
        for name, value in outputs.items():
            self._world.cuda._device.write(addresses[name], value.tobytes())

    def _allocate(self, outputs: dict[str, np.ndarray], addresses: dict[str, int], stream: Any) -> bool:
        for name, value in outputs.items():
            if (allocator := self._allocators.get(name)) is None:
                continue
            held, room = self._grown.get(name, (0, 0))
            memory, size = held or addresses.get(name, 0), max(value.nbytes, 1)
            if room >= size:  # as 8.6 does: an allocator is asked again only where its memory is too small
                addresses[name] = held
                call(allocator.notify_shape, None, name, Dims(value.shape))
                continue
            several = getattr(type(allocator), "reallocate_output_async", None)
            if several is not None and self._world.release != "8.6":
                arguments = (name, memory, size, 256, int(stream))
                addresses[name] = call(allocator.reallocate_output_async, 0, *arguments) or 0
            else:
                addresses[name] = call(allocator.reallocate_output, 0, name, memory, size, 256) or 0
            if not addresses[name]:
                return self._fail("enqueueV3", f"The output allocator gave no memory for {name}")
            self._grown[name] = addresses[name], size
            call(allocator.notify_shape, None, name, Dims(value.shape))
        self._write(outputs, addresses)
        return True

    def _fail(self, where: str, text: str) -> bool:
        self._world.fail(self._logger, f"IExecutionContext::{where}", text)
        return False


def capsule(address: int) -> Any:
    """A pointer as pybind11 hands it over."""
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(address, None, None)


def _open(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
