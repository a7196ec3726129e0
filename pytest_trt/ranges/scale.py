"""Scale: what engines divide by, a float32."""

from __future__ import annotations

import numpy as np

from pytest_trt.ranges.amax import FP8_LARGEST, INT8_LEVELS

__all__ = ["same_scale"]


def same_scale(source: float, made: float) -> bool:
    """Whether two ranges give the same float32 scale: in fp8 where ``made`` is 448 times one, and in int8 else."""
    in_fp8 = _is_multiple(made, FP8_LARGEST) and not _is_multiple(made, INT8_LEVELS)
    levels = FP8_LARGEST if in_fp8 else INT8_LEVELS
    return bool(np.float32(source / levels) == np.float32(made / levels))


def _is_multiple(amax: float, levels: int) -> bool:
    return bool(levels * float(np.float32(amax / levels)) == amax)
