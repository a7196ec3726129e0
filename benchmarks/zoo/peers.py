"""What other tools say of the same output tensors, each with its defaults.

``numpy.allclose``, ``torch.testing.assert_close`` and Polygraphy's ``CompareFunc.simple`` are asked themselves where
they are installed. Else their rules stand here as the tools have them: torch's for float32 is rtol 1.3e-6 and atol
1e-5, and whole numbers equal; Polygraphy 0.53 calls an element off that is beyond both its absolute and its relative
tolerance of 1e-5, or NaN. Torch-TensorRT's test of cosine similarity over 0.99 is three lines. An output of another
shape is a mismatch for each.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pytest_trt.model.feeds import Arrays

__all__ = ["PEERS", "accepted_by", "asked_themselves"]


def _allclose(actual: NDArray[Any], expected: NDArray[Any], tolerance: float) -> bool:
    return bool(np.allclose(actual, expected, rtol=tolerance, atol=tolerance))


def asked_themselves() -> dict[str, str]:
    """The versions of the tools that are installed, and so asked in person."""
    found = {name: importlib.metadata.version(name) for name in ("torch", "polygraphy") if _installed(name)}
    return {"numpy": np.__version__, **found}


@cache
def _installed(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def _torch(actual: NDArray[Any], expected: NDArray[Any]) -> bool:
    if _installed("torch"):
        torch = importlib.import_module("torch")
        try:
            torch.testing.assert_close(torch.tensor(actual), torch.tensor(expected))
        except AssertionError:
            return False
        return True
    return _torchs_rule(actual, expected)


def _torchs_rule(actual: NDArray[Any], expected: NDArray[Any]) -> bool:
    if expected.dtype.kind in "iub":
        return bool(np.array_equal(actual, expected))
    return bool(np.allclose(actual, expected, rtol=1.3e-6, atol=1e-5))


def _cosine(actual: NDArray[Any], expected: NDArray[Any]) -> bool:
    one, other = (array.astype(np.float64).ravel() for array in (actual, expected))
    with np.errstate(all="ignore"):
        return bool(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)) > 0.99)


def _polygraphy(actual: NDArray[Any], expected: NDArray[Any]) -> bool:
    if _installed("polygraphy"):
        comparator = importlib.import_module("polygraphy.comparator")
        logger = importlib.import_module("polygraphy.logger").G_LOGGER
        logger.module_severity = logger.CRITICAL
        results = (comparator.IterationResult({"y": array}) for array in (actual, expected))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a newer name for the same
            return all(map(bool, comparator.CompareFunc.simple()(*results).values()))
    return _polygraphys_rule(actual, expected)


def _polygraphys_rule(actual: NDArray[Any], expected: NDArray[Any]) -> bool:
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
