"""The building half of the fake tensorrt: callbacks, configuration, calibration, builder."""

from __future__ import annotations

import hashlib
import struct
import warnings
from typing import Any

import numpy as np

from fakes.api import Object, Option, call, check, deprecated
from fakes.network import RANGES
from fakes.plan import pack
from fakes.values import NUMPY, Dims, host_memory

_WEAK = ("FP16", "BF16", "INT8", "FP8", "INT4")
_CACHE = b"fake timing cache "


class ILogger(Object):
    _constructible = True


class Logger(ILogger):
    """Writes to nowhere; a test that reads the log gives a logger of its own."""

    def __init__(self, min_severity: Any = None) -> None:
        self._constructed = True
        self._min_severity = min_severity or self._world.trt.ILogger.Severity.WARNING

    @property
    def min_severity(self) -> Any:
        return self._min_severity

    @min_severity.setter
    def min_severity(self, value: Any) -> None:
        check(self, value, "_Severity", "min_severity")
        self._min_severity = value

    def log(self, severity: Any, msg: str) -> None:
        check(self, severity, "_Severity", "log")
        check(self, msg, "str", "log")


class IProgressMonitor(Object):
    _constructible = True


class IDebugListener(Object):
    _constructible = True


class IOutputAllocator(Object):
    _constructible = True


class IInt8Calibrator(Object):
    _constructible = True
    _algorithm = "LEGACY_CALIBRATION"

    def get_algorithm(self) -> Any:
        return getattr(self._world.trt.CalibrationAlgoType, self._algorithm)


class IInt8EntropyCalibrator2(IInt8Calibrator):
    _algorithm = "ENTROPY_CALIBRATION_2"


class IInt8MinMaxCalibrator(IInt8Calibrator):
    _algorithm = "MINMAX_CALIBRATION"


class IOptimizationProfile(Object):
    extra_memory_target = Option("float", 1.0)

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        shapes = [list(Dims(shape)) for shape in (min, opt, max)]
        for word, shape in zip(("min", "opt", "max"), shapes, strict=True):
            if len(shape) != len(shapes[0]) or any(size < 0 for size in shape):
                raise RuntimeError(f"Shape provided for {word} is inconsistent with other shapes.")
        self._shapes[input] = shapes

    def get_shape(self, input: str) -> list[Any]:
        return [Dims(shape) for shape in self._shapes.get(input, [])]

    def __bool__(self) -> bool:
        return all(a <= b <= c for shapes in self._shapes.values() for a, b, c in zip(*shapes, strict=True))


class ITimingCache(Object):
    def __init__(self, of: str, entries: list[str]) -> None:
        self._of, self._entries = of, entries

    def serialize(self) -> Any:
        _no_op(self)
        text = "\n".join([self._of, *self._entries]).encode()
        return host_memory(self._world, _CACHE + text)

    def reset(self) -> bool:
        _no_op(self)
        self._entries = []
        return True

    def combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
        _no_op(self)
        if input_cache._of != self._of and not ignore_mismatch:
            return False
        self._entries = sorted({*self._entries, *input_cache._entries})
        return True


def _no_op(self: Any) -> None:
    if self._world.rtx:
        text = "Use Deprecated in TensorRT-RTX 1.2. Timing cache operations are no-ops in TensorRT-RTX. instead."
        warnings.warn(text, DeprecationWarning, stacklevel=3)


class IBuilderConfig(Object):
    DLA_core = Option("int", -1)
    avg_timing_iterations = Option("int", 1)
    builder_optimization_level = Option("int", 3)
    default_device_type = Option("DeviceType", "GPU")
    engine_capability = Option("EngineCapability", "STANDARD")
    hardware_compatibility_level = Option("HardwareCompatibilityLevel", "NONE")
    int8_calibrator = Option("IInt8Calibrator", None, RANGES)
    max_aux_streams = Option("int", -1)
    max_num_tactics = Option("int", -1)
    max_workspace_size = Option("int", 1 << 34, ("8.6", "get_memory_pool_limit"))
    num_compute_capabilities = Option("int", 0)
    profile_stream = Option("int", 0)
    profiling_verbosity = Option("ProfilingVerbosity", "LAYER_NAMES_ONLY")
    progress_monitor = Option("IProgressMonitor", None)
    runtime_platform = Option("RuntimePlatform", "SAME_AS_BUILD")
    tiling_optimization_level = Option("TilingOptimizationLevel", "NONE")

    def __init__(self, logger: Any) -> None:
        self._logger, self._cache = logger, None
        self._profiles: list[Any] = []
        self._bits = 1 << int(self._world.trt.BuilderFlag.TF32)
        self._pools: dict[Any, int] = {}
        self._previews: dict[Any, bool] = {}
        self._targets: dict[int, Any] = {}
        self._tactics, self._calibration_profile = 3, None

    @property
    def _flags(self) -> list[str]:
        return [name for name, flag in self._world.trt.BuilderFlag._members.items() if self._bits >> int(flag) & 1]

    @property
    def flags(self) -> int:
        return self._bits

    @flags.setter
    def flags(self, value: int) -> None:
        check(self, value, "int", "flags")
        self._bits = value

    def set_flag(self, flag: Any) -> None:
        check(self, flag, "BuilderFlag", "set_flag")
        self._bits |= 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        check(self, flag, "BuilderFlag", "clear_flag")
        self._bits &= ~(1 << int(flag))

    def get_flag(self, flag: Any) -> bool:
        check(self, flag, "BuilderFlag", "get_flag")
        return bool(self._bits >> int(flag) & 1)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def add_optimization_profile(self, profile: Any) -> int:
        check(self, profile, "IOptimizationProfile", "add_optimization_profile")
        if not profile:
            text = "Invalid optimization profiles: they must satisfy MIN<=OPT<=MAX"
            self._world.fail(self._logger, "IOptimizationProfile::isValid", text)
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @deprecated(*RANGES)
    def set_calibration_profile(self, profile: Any) -> bool:
        check(self, profile, "IOptimizationProfile", "set_calibration_profile")
        self._calibration_profile = profile
        return True

    @deprecated(*RANGES)
    def get_calibration_profile(self) -> Any:
        return self._calibration_profile

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        check(self, pool, "MemoryPoolType", "set_memory_pool_limit")
        check(self, pool_size, "int", "set_memory_pool_limit")
        self._pools[pool] = pool_size

    def get_memory_pool_limit(self, pool: Any) -> int:
        check(self, pool, "MemoryPoolType", "get_memory_pool_limit")
        return self._pools.get(pool, 1 << 34)

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        check(self, tactic_sources, "int", "set_tactic_sources")
        self._tactics = tactic_sources
        return True

    def get_tactic_sources(self) -> int:
        return self._tactics

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        check(self, feature, "PreviewFeature", "set_preview_feature")
        self._previews[feature] = enable

    def get_preview_feature(self, feature: Any) -> bool:
        check(self, feature, "PreviewFeature", "get_preview_feature")
        return self._previews.get(feature, False)

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        check(self, compute_capability, "ComputeCapability", "set_compute_capability")
        if not 0 <= index < vars(self).get("_num_compute_capabilities", 0):
            self._world.fail(self._logger, "IBuilderConfig::setComputeCapability", f"index {index}")
            return False
        self._targets[index] = compute_capability
        return True

    def get_compute_capability(self, index: int) -> Any:
        return self._targets.get(index, self._world.trt.ComputeCapability.NONE)

    def can_run_on_DLA(self, layer: Any) -> bool:
        check(self, layer, "ILayer", "can_run_on_DLA")
        return self._world.faults.dla_cores > 0

    def create_timing_cache(self, serialized_timing_cache: Any) -> Any:
        data = bytes(memoryview(serialized_timing_cache))
        if data and not data.startswith(_CACHE):
            if not self._world.rtx:
                return self._world.fail(self._logger, "IBuilderConfig::createTimingCache", "Failed to deserialize")
            text = "Failed to deserialize timing cache. Returning an empty timing cache."
            self._world.log(self._logger, "WARNING", text)
            data = b""
        release, *entries = data[len(_CACHE) :].decode().split("\n")
        return self._world.trt.ITimingCache._make(release or self._world.release, entries)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        _no_op(self)
        check(self, cache, "ITimingCache", "set_timing_cache")
        if cache._of != self._world.release and not ignore_mismatch:
            self._world.log(self._logger, "WARNING", "The timing cache was made by another version of TensorRT")
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        _no_op(self)
        return self._cache


class Builder(Object):
    _constructible = True
    max_threads = Option("int", 1)

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

    @property
    def platform_has_fast_fp16(self) -> bool:
        return "fp16" in self._world.faults.fast

    @property
    def platform_has_fast_int8(self) -> bool:
        return "int8" in self._world.faults.fast

    @property
    def platform_has_tf32(self) -> bool:
        return "tf32" in self._world.faults.fast

    def create_network(self, flags: Any = 0) -> Any:
        known, bits = self._world.trt.NetworkDefinitionCreationFlag._members.values(), flags.__index__()
        if bits >= 2 << max(int(flag) for flag in known):
            return self._world.fail(self._logger, "IBuilder::createNetworkV2", "Parameter check failed: flags")
        strong = 1 if self._world.always_strong else 0
        return self._world.trt.INetworkDefinition._make(self._logger, bits | strong)

    def create_builder_config(self) -> Any:
        return self._world.trt.IBuilderConfig._make(self._logger)

    def create_optimization_profile(self) -> Any:
        return self._world.trt.IOptimizationProfile._make(self._logger)

    def is_network_supported(self, network: Any, config: Any) -> bool:
        return _refusal(network, config) is None

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        check(self, network, "INetworkDefinition", "build_serialized_network")
        check(self, config, "IBuilderConfig", "build_serialized_network")
        world, where = self._world, "IBuilder::buildSerializedNetwork"
        if world.faults.build_warning:
            world.log(self._logger, "WARNING", world.faults.build_warning)
        refusal = world.faults.build_error or _refusal(network, config)
        calibration = None if refusal else _calibrate(network, config)
        refusal = refusal or _uncalibrated(network, config, calibration)
        if not refusal and not _progress(config):
            refusal = "Build canceled by user"
        if refusal:
            return world.fail(self._logger, where, refusal)
        header = _header(network, config, calibration)
        world.plans.append(header)
        return host_memory(world, pack(header, network._model))


def require_device(world: Any, logger: Any, optional: bool = False) -> bool:
    error, *_ = world.cuda.cudaGetDeviceCount()
    if error and not optional:
        world.log(logger, "ERROR", f"CUDA initialization failure with error: {int(error)}")
        raise TypeError("pybind11::init(): factory function returned nullptr")
    return not error


def _refusal(network: Any, config: Any) -> str | None:
    """Why the builder builds nothing, if so."""
    world, options, flags = network._world, vars(config), config._flags
    if not network._outputs:
        return "Network must have at least one output"
    device = options.get("_default_device_type")
    if device is not None and device.name == "DLA" and not world.faults.dla_cores:
        return "Device type is DLA, but this GPU has no DLA cores"
    weak = [name for name in flags if name in _WEAK]
    if network._strong and weak:
        return f"Precision flags are not allowed in a strongly typed network: {', '.join(weak)}"
    if not network._strong and (kind := _half_without_flag(network, flags)):
        return f"{kind} precision has been set for a layer or layer output, but {kind} is not configured in the builder"
    return _profile_refusal(network, config)


def _half_without_flag(network: Any, flags: list[str]) -> str | None:
    kinds = {output._kind for layer in network._layers for output in layer._outputs}
    kinds |= {tensor._kind for tensor in network._inputs}
    return next((f for kind, f in (("HALF", "FP16"), ("BF16", "BF16")) if kind in kinds and f not in flags), None)


def _profile_refusal(network: Any, config: Any) -> str | None:
    dynamic = [tensor for tensor in network._inputs if -1 in (tensor._shape or [])]
    if dynamic and not config._profiles:
        return "Network has dynamic or shape inputs, but no optimization profile has been defined."
    for number, profile in enumerate(config._profiles):
        for tensor in dynamic:
            shapes = profile._shapes.get(tensor._name)
            if shapes is None:
                return f"Dynamic input tensor {tensor._name} is missing dimensions in profile {number}"
            if any(not _fits(shape, tensor._shape) for shape in shapes):
                return f"{tensor._name}: for dimension number 0 in profile {number} does not match network definition"
    return None


def _fits(shape: list[int], declared: list[int]) -> bool:
    return len(shape) == len(declared) and all(b in (-1, a) for a, b in zip(shape, declared, strict=True))


def _explicit(network: Any) -> bool:
    return any(layer._kind == "QUANTIZE" for layer in network._layers)


def _tensors(network: Any) -> list[Any]:
    made = [output for layer in network._layers for output in layer._outputs]
    return [tensor for tensor in (*network._inputs, *made) if tensor._kind in ("FLOAT", "HALF")]


def _calibrate(network: Any, config: Any) -> dict[str, Any] | None:
    """Asks the calibrator as the builder does, and sums what its device pointers hold."""
    calibrator, world = vars(config).get("_int8_calibrator"), network._world
    if calibrator is None or "INT8" not in config._flags or _explicit(network):
        return None
    size = call(calibrator.get_batch_size, -1)
    cache = call(calibrator.read_calibration_cache, None)
    head = f"TRT-{_number(world.version)}-{_algorithm(calibrator)}\n".encode()
    if cache is not None and bytes(memoryview(cache)).startswith(head):
        return {"cache": True, "batch_size": size, "batches": 0, "sum": 0.0}
    names, shapes = [tensor._name for tensor in network._inputs], _calibration_shapes(network, config)
    total, largest, batches = 0.0, dict.fromkeys(names, 0.0), 0
    while pointers := call(calibrator.get_batch, None, list(names)):
        for tensor, pointer in zip(network._inputs, pointers, strict=True):
            values = _values(world, int(pointer), tensor, shapes[tensor._name])
            total += float(values.sum(dtype=np.float64))
            largest[tensor._name] = max(largest[tensor._name], float(np.abs(values).max()))
        batches += 1
    if batches:
        _write_cache(calibrator, head, network, largest)
    return {"cache": False, "batch_size": size, "batches": batches, "sum": total}


def _number(version: str) -> int:
    """8.6.0 is 8600, 10.16.1 is 101601."""
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    return major * (1000 if major < 10 else 10000) + minor * 100 + patch


def _algorithm(calibrator: Any) -> str:
    words = {"ENTROPY_CALIBRATION_2": "EntropyCalibration2", "MINMAX_CALIBRATION": "MinMaxCalibration"}
    return words.get(calibrator._algorithm, "LegacyCalibration")


def _calibration_shapes(network: Any, config: Any) -> dict[str, list[int]]:
    profile = config._calibration_profile or next(iter(config._profiles), None)
    given = {} if profile is None else {name: shapes[1] for name, shapes in profile._shapes.items()}
    return {tensor._name: given.get(tensor._name, tensor._shape) for tensor in network._inputs}


def _values(world: Any, pointer: int, tensor: Any, shape: list[int]) -> np.ndarray:
    kind = np.dtype(NUMPY[tensor._kind])
    data = world.cuda._device.read(pointer, int(np.prod(shape)) * kind.itemsize)
    return np.frombuffer(data, kind)


def _write_cache(calibrator: Any, head: bytes, network: Any, largest: dict[str, float]) -> None:
    scales = {tensor._name: largest.get(tensor._name, 127.0) / 127 for tensor in _tensors(network)}
    lines = [f"{name}: {struct.pack('>f', scale).hex()}\n" for name, scale in scales.items()]
    view = memoryview(head + "".join(lines).encode())
    call(calibrator.write_calibration_cache, None, view)
    view.release()  # the builder's own memory, gone after the call


def _uncalibrated(network: Any, config: Any, calibration: dict[str, Any] | None) -> str | None:
    if "INT8" not in config._flags or _explicit(network):
        return None
    reason = "Calibration failure occurred with no scaling factors detected. This could be due to no int8 calibrator"
    if calibration is not None:
        return None if calibration["cache"] or calibration["batches"] else reason
    tensors = _tensors(network)
    without = [tensor._name for tensor in tensors if tensor._range is None]
    if len(without) == len(tensors):
        text = "Users must provide dynamic range for all tensors that are not Int32 or Bool."
        network._world.log(network._logger, "WARNING", f"Calibrator is not being used. {text}")
        return reason
    for name in without:
        text = f"Missing scale and zero-point for tensor {name}, expect fall back to non-int8 implementation"
        network._world.log(network._logger, "WARNING", text)
    return None


def _progress(config: Any) -> bool:
    """Two nested phases; False where the monitor wants no more."""
    monitor = vars(config).get("_progress_monitor")
    if monitor is None:
        return True
    goes_on = True
    call(monitor.phase_start, None, "Building engine", None, 2)
    call(monitor.phase_start, None, "Timing tactics", "Building engine", 3)
    for phase, steps in (("Timing tactics", 3), ("Building engine", 2)):
        for step in range(steps):
            goes_on = goes_on and bool(call(monitor.step_complete, False, phase, step))
        call(monitor.phase_finish, None, phase)
    return goes_on


def _header(network: Any, config: Any, calibration: dict[str, Any] | None) -> dict[str, Any]:
    world, options = network._world, vars(config)

    def chosen(name: str, default: Any) -> Any:
        value = options.get(f"_{name}", default)
        return getattr(value, "name", value)

    return {
        "release": world.release,
        "version": world.version,
        "gpu": world.faults.gpu,
        "compute_capability": list(world.faults.compute_capability),
        "targets": [target.name for _, target in sorted(config._targets.items())],
        "flags": config._flags,
        "strongly_typed": network._strong,
        "network_flags": network._bits,
        "verbosity": chosen("profiling_verbosity", "LAYER_NAMES_ONLY"),
        "hardware": chosen("hardware_compatibility_level", "NONE"),
        "device": chosen("default_device_type", "GPU"),
        "dla_core": chosen("DLA_core", -1),
        "optimization_level": chosen("builder_optimization_level", 3),
        "tactic_sources": config._tactics,
        "pools": {pool.name: size for pool, size in config._pools.items()},
        "profiles": [profile._shapes for profile in config._profiles],
        "inputs": {tensor._name: [tensor._kind, tensor._shape] for tensor in network._inputs},
        "outputs": {tensor._name: [tensor._kind, tensor._shape] for tensor in network._outputs},
        "ranges": {tensor._name: tensor._range for tensor in _tensors(network) if tensor._range is not None},
        "calibration": calibration,
        "layer_precisions": {layer._name: layer._chosen.name for layer in network._layers if layer._chosen},
        "num_layers": len(network._layers),
        "shows": network._shows,
        "achieved": dict(world.faults.achieved),
        "timing_hits": _time(network, config),
    }


def _time(network: Any, config: Any) -> int:
    """Puts this build's layers into the timing cache; how many were there already."""
    if config._cache is None or network._world.rtx:
        return 0
    key = hashlib.sha256(network._model + str(config._bits).encode()).hexdigest()[:16]
    entries = {f"{key} {layer._name}" for layer in network._layers}
    known = entries & set(config._cache._entries)
    config._cache._entries = sorted({*config._cache._entries, *entries})
    return len(known)
