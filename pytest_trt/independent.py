"""Independent: whether the samples of a piece can be told apart, so that it may be cut into smaller runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.errors import BackendError, DataError
from pytest_trt.model import is_float
from pytest_trt.session import run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.feeds import Arrays
    from pytest_trt.model import Model, TensorSpec

__all__ = ["has_fixed_batch", "independent"]

_MOST = 8  # samples that are compared
_ROUNDING = 1e-4  # of a tensor's largest |x|: kernels of another batch size add up in another order


def has_fixed_batch(model: Model) -> bool:
    """Whether the model itself says how many samples it takes at once."""
    return any(spec.shape and isinstance(spec.shape[0], int) for spec in model.inputs)


def independent(session: Any, model: Model, arrays: Arrays) -> bool | None:
    """Whether the first axis may be cut: of some samples, two halves compute what the whole does.

    It may be time, points or nodes, where a cut makes another network. Every tensor that the session returns is
    compared, relative to its own size: outputs value by value, inner tensors by their largest |x| where the batch is
    not their axis 0. Padding tells nothing, so that samples are taken which are neither zero nor one another's copies.

    Args:
        session: of the model, with the tensors that are calibrated as further outputs.
        model: whose inputs have dynamic first axes.
        arrays: a piece of samples that fits the model.

    Returns:
        None where fewer than two samples of the piece tell anything.

    Raises:
        DataError: never; what can't be run in halves is not independent.
    """
    batched = [spec for spec in model.inputs if spec.shape and arrays[spec.name].ndim]
    lengths = {arrays[spec.name].shape[0] for spec in batched}
    if has_fixed_batch(model) or len(lengths) > 1:
        return False  # fixed first axes are cut as they are anyway
    telling = _telling(arrays, batched)
    if len(telling) < 2:
        return None
    some = {**arrays, **{spec.name: arrays[spec.name][telling] for spec in batched}}
    try:
        whole = run(session, model, some)
        halves = run(session, model, some, len(telling) // 2)
    except (BackendError, DataError):
        return False
    outputs = {output.name for output in model.outputs}
    return all(_same(array, halves[name], whole_shape=name in outputs) for name, array in whole.items())


def _telling(arrays: Arrays, batched: list[TensorSpec]) -> list[int]:
    """The numbers of some samples, each with a value other than 0 in its float inputs, no two of them the same."""
    floats = [spec.name for spec in batched if is_float(spec.dtype)] or [spec.name for spec in batched]
    count = min((arrays[spec.name].shape[0] for spec in batched), default=0)
    found: dict[bytes, int] = {}
    for number in range(count):
        if any(np.count_nonzero(arrays[name][number]) for name in floats):
            found.setdefault(b"".join(arrays[spec.name][number].tobytes() for spec in batched), number)
        if len(found) == _MOST:
            break
    numbers = list(found.values())
    return numbers[: len(numbers) // 2 * 2]


def _same(whole: NDArray[Any], halves: NDArray[Any], *, whole_shape: bool) -> bool:
    if not is_float(whole.dtype):
        return not whole_shape or np.array_equal(whole, halves)
    first, second = whole.astype(np.float32, copy=False), halves.astype(np.float32, copy=False)
    room = _ROUNDING * _largest(first)
    if first.shape == second.shape:
        return np.allclose(first, second, rtol=0, atol=room, equal_nan=True)
    return not whole_shape and abs(_largest(first) - _largest(second)) <= room


def _largest(array: NDArray[Any]) -> float:
    return float(np.abs(array[np.isfinite(array)]).max(initial=0))
