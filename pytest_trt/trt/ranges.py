"""Dynamic ranges: set on a network's tensors, and read from them, where the release has them (TensorRT 8.6 to 10)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import BackendError, DataError
from pytest_trt.ranges.amax import LARGEST_FLOAT32, Ranges, collected

if TYPE_CHECKING:
    from collections.abc import Mapping

    import tensorrt

__all__ = ["ranges_of_network", "set_ranges"]


def set_ranges(network: tensorrt.INetworkDefinition, amax: Mapping[str, float]) -> tuple[str, ...]:
    """Give tensors a dynamic range by name; one that is always zero gets a range of 1, in which zero stays zero.

    TensorRT keeps the ends as float32, so of scales that a cache holds one in 128 comes out a last digit off.

    Args:
        network: of TensorRT 8.6 to 10.
        amax: largest absolute value by tensor; those that the network has not are left out.

    Returns:
        Names of the network's tensors without a range.

    Raises:
        BackendError: the release has no dynamic ranges, or refuses one.
    """
    found = {tensor.name: tensor for tensor in _tensors(network)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # asked for by name
        for name in found.keys() & amax.keys():
            bound = float(amax[name]) or 1.0
            if not 0 < bound <= LARGEST_FLOAT32 or not found[name].set_dynamic_range(-bound, bound):
                raise BackendError(f"TensorRT takes no dynamic range of {bound!r} for tensor {name!r}.")
    return tuple(name for name in found if name not in amax)


def ranges_of_network(network: tensorrt.INetworkDefinition, source: str) -> Ranges:
    """The dynamic ranges that were set on a network: of both ends the larger absolute value, as TensorRT takes it.

    Args:
        network: of TensorRT 8.6 to 10.
        source: what messages call it.

    Raises:
        BackendError: the release has no dynamic ranges.
        DataError: none is set, or one is NaN or infinite.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        ends = {tensor.name: tensor.dynamic_range for tensor in _tensors(network)}
    amax, constants = collected(
        (name, next((float(end) for end in pair if end != end), max(map(abs, pair))), source)
        for name, pair in ends.items()
        if pair is not None
    )
    if not amax:
        raise DataError(f"{source}: no tensor of the network has a dynamic range: set them first.")
    return Ranges(amax, source, constants)


def _tensors(network: tensorrt.INetworkDefinition) -> list[Any]:
    """Inputs and what the layers make, each once; of a release whose tensors have dynamic ranges."""
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    found = [network.get_input(number) for number in range(network.num_inputs)]
    found += [layer.get_output(number) for layer in layers for number in range(layer.num_outputs)]
    tensors = [tensor for tensor in found if tensor is not None]
    if any(not hasattr(type(tensor), "set_dynamic_range") for tensor in tensors):
        raise BackendError(
            "this release of TensorRT has no dynamic ranges (11 and TensorRT-RTX): there int8 is in the model itself."
            " Lower it with the ranges: pytest_trt.lower(model, 'int8', ranges)."
        )
    return tensors
