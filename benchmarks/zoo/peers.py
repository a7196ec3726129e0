"""What other tools say of the same output tensors, each with its defaults.

The rules are written out as the tools have them, so that none has to be installed: ``numpy.allclose``,
``torch.testing.assert_close`` (float32: rtol 1.3e-6, atol 1e-5; whole numbers equal), Torch-TensorRT's test of cosine
similarity over 0.99, and Polygraphy 0.53's ``CompareFunc.simple`` (an element is off that is beyond both its absolute
and its relative tolerance of 1e-5, or NaN). An output of another shape is a mismatch for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pytest_trt.feeds import Arrays

__all__ = ["PEERS", "accepted_by"]


def _allclose(actual: NDArray[Any], expected: NDArray[Any], tolerance: float) -> bool:
    return bool(np.allclose(actual, expected, rtol=tolerance, atol=tolerance))


def _torch(actual: NDArray[Any], expected: NDArray[Any]) -> bool:
    if expected.dtype.kind in "iub":
        return bool(np.array_equal(actual, expected))
    return bool(np.allclose(actual, expected, rtol=1.3e-6, atol=1e-5))


def _cosine(actual: NDArray[Any], expected: NDArray[Any]) -> bool:
    one, other = (array.astype(np.float64).ravel() for array in (actual, expected))
    with np.errstate(all="ignore"):
        return bool(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)) > 0.99)


def _polygraphy(actual: NDArray[Any], expected: NDArray[Any]) -> bool:
    one, other = (array.astype(np.float64) for array in (actual, expected))
    with np.errstate(all="ignore"):
        absolute = np.abs(one - other)
        relative = absolute / np.abs(np.where(other == 0, np.finfo(np.float64).eps, other))
    return bool(((absolute <= 1e-5) | (relative <= 1e-5)).all())


PEERS: dict[str, Callable[[NDArray[Any], NDArray[Any]], bool]] = {
    "np.allclose, 1e-3": lambda actual, expected: _allclose(actual, expected, 1e-3),
    "np.allclose, 1e-5": lambda actual, expected: _allclose(actual, expected, 1e-5),
    "torch.testing.assert_close": _torch,
    "cosine > 0.99": _cosine,
    "Polygraphy 0.53": _polygraphy,
}


def accepted_by(actual: Arrays, expected: Arrays) -> dict[str, bool]:
    """By peer, whether it takes all outputs for right."""
    return {
        peer: all(
            name in actual and actual[name].shape == array.shape and rule(actual[name], array)
            for name, array in expected.items()
        )
        for peer, rule in PEERS.items()
    }
