"""Dtypes: numpy's for TensorRT's by name, since the bindings' own table fails on bf16, fp8 and newer numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from pytest_trt.errors import BackendError, DataError
from pytest_trt.model import is_float

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["as_dtype", "numpy_dtype", "to_engine"]

_BY_NAME: dict[str, Any] = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "FP8": ml_dtypes.float8_e4m3fn,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


def numpy_dtype(dtype: Any, what: str) -> np.dtype:
    """numpy's dtype of one of TensorRT's.

    Raises:
        BackendError: values of it fill no whole bytes (int4, fp4), so nothing can be fed or read.
    """
    if dtype.name not in _BY_NAME:
        raise BackendError(
            f"{what} is {dtype.name} in the engine, which can't be fed or read: keep it out of the ends."
        )
    found: np.dtype = np.dtype(_BY_NAME[dtype.name])
    return found


def as_dtype(array: NDArray[Any], dtype: np.dtype, what: str) -> NDArray[Any]:
    """The same values in another dtype of the same kind: floats are rounded, whole numbers must survive.

    Raises:
        DataError: floats where whole numbers are taken, or a number that does not fit.
    """
    if array.dtype == dtype:
        return array
    if is_float(array.dtype) and is_float(dtype):
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    cast = array.astype(dtype)
    if is_float(array.dtype) or is_float(dtype) or not np.array_equal(cast, array):
        raise DataError(f"{what} is {array.dtype}, and its values do not fit the engine's {dtype}.")
    return cast


def to_engine(array: NDArray[Any]) -> NDArray[Any]:
    """As TensorRT's network takes it where its own dtype is not known: no float64, and int64 stays."""
    return array.astype(np.float32) if array.dtype == np.float64 else array
