"""Ranges: the largest absolute value of each tensor, the one currency of int8 and fp8, in every format that holds it.

*Exact* means the scale, a float32, which is what engines use: int8 divides a tensor by amax / 127, fp8 by amax / 448.
Both products are exact in double (24 bits times 7, or times a power of two more), and dividing gives the float32 back,
so a scale that comes from a cache or a model goes out again bit for bit. A cache holds int8 scales alone: ranges whose
amax is no 127 times a float32 (those of samples, or of fp8) are rounded there as int8 rounds them.
"""

from __future__ import annotations

from pytest_trt.ranges.amax import Ranges
from pytest_trt.ranges.files import is_ranges_file, read_ranges, require_writable, write_ranges
from pytest_trt.ranges.qdq import ranges_of_graph
from pytest_trt.ranges.scale import same_scale
from pytest_trt.ranges.selection import select

__all__ = [
    "Ranges",
    "is_ranges_file",
    "ranges_of_graph",
    "read_ranges",
    "require_writable",
    "same_scale",
    "select",
    "write_ranges",
]
