"""A scale of zero, which a file holds of a channel that is all zero, divides nothing."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_trt.evidence._operands import _levels


@pytest.mark.parametrize("kind", ["int8", "float8_e4m3fn"])
def test_a_zero_scale_gives_levels_of_zero_without_a_word(kind: str) -> None:
    values, scale = np.array([[1, 2], [0, 3]], np.float32), np.array([[1], [0]], np.float32)
    assert _levels(values, scale, np.float32(0), kind).tolist() == [[1, 2], [0, 0]]
