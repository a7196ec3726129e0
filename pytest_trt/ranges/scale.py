"""Scale: what engines divide by, a float32."""

from __future__ import annotations

import numpy as np

from pytest_trt.ranges.amax import FP8_LARGEST, INT8_LEVELS

__all__ = ["same_scale"]


def same_scale(first: float, second: float) -> bool:
    """Whether two ranges give one and the same float32 scale, in int8 or, where one was read from fp8, in fp8."""
    return any(
        np.float32(first / largest).tobytes() == np.float32(second / largest).tobytes()
        for largest in (INT8_LEVELS, FP8_LARGEST)
    )
