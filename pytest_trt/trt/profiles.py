"""Profiles: optimization profiles for the dynamic inputs of a network, the user's or those of the runs to come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.errors import BackendError, CaseError
from pytest_trt.feeds import split
from pytest_trt.profile import Span, profile_of_feeds, require_fit

if TYPE_CHECKING:
    import tensorrt

    from pytest_trt.feeds import Arrays
    from pytest_trt.profile import Profile
    from pytest_trt.recipe import Recipe

__all__ = ["add_profiles", "calibration_profile", "profiles_of"]


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
