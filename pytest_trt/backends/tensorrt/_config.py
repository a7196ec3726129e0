"""Config: build options and optimization profiles for TensorRT's builder; what the release lacks is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.backends.recipe import Span, profile_of_feeds, require_fit
from pytest_trt.backends.tensorrt._release import label, member, require
from pytest_trt.errors import BackendError, CaseError
from pytest_trt.model.feeds import split
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    import tensorrt

    from pytest_trt.backends.build_options import BuildOptions
    from pytest_trt.backends.recipe import Profile, Recipe
    from pytest_trt.model.feeds import Arrays

__all__ = ["add_profiles", "calibration_profile", "configure", "load_plugins", "profiles_of"]


def configure(
    trt: ModuleType, builder: tensorrt.Builder, precision: Precision, flags: list[Any], options: BuildOptions
) -> tensorrt.IBuilderConfig:
    """The builder's configuration, all but profiles, calibrator and timing cache.

    Args:
        trt: the release.
        builder: that will build.
        precision: decides TF32, which TensorRT has on by default: on for tf32 and off for all others.
        flags: of the precision.
        options: what else was asked.

    Raises:
        BackendError: the release or the GPU lacks what an option asks for.
    """
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else no layer tells its precision
    _switch(config, trt.BuilderFlag.TF32, on=precision is Precision.TF32)
    for flag in flags:
        config.set_flag(flag)
    _set_flags(trt, config, options)
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.tactic_sources is not None:
        config.set_tactic_sources(_mask(trt, options.tactic_sources))
    if options.hardware_compatibility != "none":
        config.hardware_compatibility_level = _compatibility(trt, options.hardware_compatibility)
    if options.gpu_fallback and options.dla_core is None:
        raise BackendError("gpu_fallback is for layers that DLA can't run: name a dla_core, or leave it out.")
    if options.dla_core is not None:
        _use_dla(trt, builder, config, precision, options)
    if options.compute_capabilities:
        _target(trt, config, options.compute_capabilities)
    return config


def load_plugins(trt: ModuleType, paths: tuple[str, ...]) -> None:
    """Load plugin libraries.

    Raises:
        BackendError: one can't be loaded.
    """
    for path in paths:
        try:
            found = trt.get_plugin_registry().load_library(path)
        except Exception as error:  # the binding turns the loader's errors into whatever kind
            raise BackendError(f"the plugin library {path} can't be loaded: {error}.") from error
        if found is None:
            raise BackendError(
                f"the plugin library {path} can't be loaded: look whether it is there, was built for {label(trt)},"
                " and finds its own libraries (ldd)."
            )


def _set_flags(trt: ModuleType, config: tensorrt.IBuilderConfig, options: BuildOptions) -> None:
    wanted = {
        "REFIT": options.refit,
        "SPARSE_WEIGHTS": options.sparsity,
        "VERSION_COMPATIBLE": options.version_compatible,
        "GPU_FALLBACK": options.gpu_fallback,
    }
    for name, on in wanted.items():
        if on:
            config.set_flag(require(member(trt.BuilderFlag, name), f"builder flag {name}", trt, "leave it out"))


def _switch(config: tensorrt.IBuilderConfig, flag: Any, *, on: bool) -> None:
    turn: Callable[[Any], None] = config.set_flag if on else config.clear_flag
    turn(flag)


def _mask(trt: ModuleType, names: tuple[str, ...]) -> int:
    known = [name for name in dir(trt.TacticSource) if name.isupper()]
    instead = f"it has {', '.join(known)}, and none"
    sources = [require(member(trt.TacticSource, name), f"tactic source {name}", trt, instead) for name in names]
    return sum({1 << int(source) for source in sources})


def _compatibility(trt: ModuleType, word: str) -> Any:
    found = member(trt.HardwareCompatibilityLevel, word.upper())
    return require(found, f"hardware compatibility {word}", trt, "ampere_plus is in every release from 8.6")


def _use_dla(
    trt: ModuleType,
    builder: tensorrt.Builder,
    config: tensorrt.IBuilderConfig,
    precision: Precision,
    options: BuildOptions,
) -> None:
    cores = builder.num_DLA_cores
    if options.dla_core is None or options.dla_core >= cores:
        raise BackendError(
            f"DLA core {options.dla_core} was asked, and {label(trt)} sees {cores} on this machine. DLA is on Jetson"
            " Xavier and Orin and on DRIVE, with TensorRT 8 and 10; leave dla_core out to build for the GPU."
        )
    if precision in (Precision.FP32, Precision.TF32, Precision.BF16, Precision.FP8):
        raise BackendError(f"DLA computes in fp16 and int8 only, and {precision} was asked.")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = options.dla_core


def _target(trt: ModuleType, config: Any, capabilities: tuple[str, ...]) -> None:
    kinds = getattr(trt, "ComputeCapability", None)
    if kinds is None:
        raise BackendError(
            f"{label(trt)} builds for the GPU it runs on; build option compute_capabilities is TensorRT-RTX's"
            " (--trt-backend=tensorrt-rtx)."
        )
    known = ", ".join(name for name in dir(kinds) if name.startswith("SM"))
    config.num_compute_capabilities = len(capabilities)
    for number, text in enumerate(capabilities):
        name = f"SM{text.replace('.', '')}"
        config.set_compute_capability(require(member(kinds, name), f"target {text}", trt, f"it has {known}"), number)


def profiles_of(recipe: Recipe) -> tuple[Profile, ...]:
    """The recipe's profiles, else one that covers its feeds; none where every axis is fixed.

    Raises:
        CaseError: a profile does not fit the model.
    """
    specs = recipe.model.inputs
    for number, profile in enumerate(recipe.profiles, 1):
        require_fit(profile, specs, f"{recipe.model.source}: profile {number}")
    if recipe.profiles:
        return recipe.profiles
    profile = profile_of_feeds(_runs(recipe), specs)
    return (profile,) if profile else ()


def add_profiles(
    builder: tensorrt.Builder,
    config: tensorrt.IBuilderConfig,
    network: tensorrt.INetworkDefinition,
    recipe: Recipe,
    told: tuple[Profile, ...],
) -> None:
    """Give the builder its profiles: those of :func:`profiles_of`, as far as the network has dynamic inputs.

    Raises:
        CaseError: an input is dynamic, and neither a profile nor a golden tells its shapes.
        BackendError: TensorRT refuses one.
    """
    inputs = [network.get_input(number) for number in range(network.num_inputs)]
    dynamic = [tensor for tensor in inputs if tensor.is_shape_tensor or any(axis < 0 for axis in tensor.shape)]
    # one profile even where it says nothing: without any, 8.6 runs no network whose outputs' shapes depend on the data
    profiles = told if dynamic and told else ({},)
    for number, profile in enumerate(profiles, 1):
        added = builder.create_optimization_profile()
        for tensor in dynamic:
            _set(added, tensor, _span(tensor, profile, recipe), f"{recipe.model.source}: profile {number}")
        if config.add_optimization_profile(added) < 0:
            raise BackendError(f"{recipe.model.source}: TensorRT refuses profile {number}: {dict(profile)}.")


def calibration_profile(
    builder: tensorrt.Builder, network: tensorrt.INetworkDefinition, first: Arrays
) -> tensorrt.IOptimizationProfile:
    """The profile that a calibrator is run in: just the shapes of its first batch."""
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        if any(axis < 0 for axis in tensor.shape):
            shape = first[tensor.name].shape
            profile.set_shape(tensor.name, shape, shape, shape)
    return profile


def _span(tensor: Any, profile: Profile, recipe: Recipe) -> Span:
    if tensor.is_shape_tensor and (tensor.name not in profile or not recipe.profiles):
        return _values(tensor.name, recipe)
    if tensor.name not in profile:
        raise CaseError(
            f"{recipe.model.source}: the shape of input {tensor.name!r} is dynamic, and nothing tells what to build"
            " for: in a trt.toml, write "
            f"profiles = [{{ {tensor.name} = {{ min = [...], opt = [...], max = [...] }} }}], or make the"
            " case's golden."
        )
    return profile[tensor.name]


def _runs(recipe: Recipe) -> list[Arrays]:
    """The recipe's feeds, cut as they will be fed."""
    return [feeds for arrays in recipe.feeds for feeds in split(arrays, recipe.model.inputs, recipe.batch)]


def _values(name: str, recipe: Recipe) -> Span:
    """The least and largest values of an input that tells shapes."""
    runs = [tuple(int(v) for v in run[name].ravel()) for run in _runs(recipe)]
    if not runs or len({len(run) for run in runs}) != 1:
        raise CaseError(
            f"{recipe.model.source}: input {name!r} tells shapes by its values, and nothing tells which, or several"
            " numbers of them: write their min, opt and max in the case's profiles, or make its golden."
        )
    axes = list(zip(*runs, strict=True))
    return Span(tuple(map(min, axes)), runs[0], tuple(map(max, axes)))


def _set(profile: Any, tensor: Any, span: Span, where: str) -> None:
    put = profile.set_shape_input if tensor.is_shape_tensor else profile.set_shape
    try:
        put(tensor.name, span.min, span.opt, span.max)
    except Exception as error:  # the binding raises what its own checks raise
        raise BackendError(f"{where}: TensorRT refuses the shapes {span} of {tensor.name!r}: {error}.") from error
