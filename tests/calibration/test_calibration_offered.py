from __future__ import annotations

from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest

from pytest_trt.calibration.calibration import calibrate
from pytest_trt.errors import DataError, LoweringError
from pytest_trt.lowering.lowering import lower
from pytest_trt.model.model import checked
from pytest_trt.ranges.amax import Ranges

X = networks.images(32)
WHOLE = float(np.abs(X).max())


def ranges(samples: Any, **further: Any) -> Ranges:
    return calibrate(checked(networks.convolutional(), "net.onnx"), ["x"], samples, "data", **further)


class Items:
    """Parts of X by their number, with no iterator and no end but a length."""

    def __init__(self, parts: int) -> None:
        self.parts = np.split(X, parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return {"x": self.parts[number % len(self.parts)]}


@pytest.mark.parametrize(
    "samples", [Items(4), [X[:9], X[9:]], X, {"x": X}, lambda _: X, lambda _: {"x": X}, (lambda _: Items(8))]
)
@pytest.mark.parametrize("method", ["minmax", "percentile:100"])
def test_samples_come_as_a_data_set_arrays_or_a_function_of_them(samples: Any, method: str) -> None:
    assert ranges(samples, method=method).amax["x"] == pytest.approx(WHOLE, rel=1e-3)


@pytest.mark.parametrize("samples", [None, 3, "data.npz", Path("data.npz"), lambda _: None, lambda _: "data.npz"])
def test_what_holds_no_samples_is_named_by_its_kind(samples: Any) -> None:
    with pytest.raises(DataError, match=r"data: the samples are (NoneType|int|str|\w*Path).*give arrays by input name"):
        ranges(samples)


def test_one_array_for_a_model_of_two_inputs_is_refused() -> None:
    with pytest.raises(DataError, match="one array without a name, and the model has the inputs 'ids', 'mask'"):
        calibrate(checked(networks.embedding(), "net"), ["mean"], [X], "data")


@pytest.mark.parametrize("precision", ["fp16", "fp4", "INT8"])
def test_a_precision_without_ranges_is_refused(precision: str) -> None:
    with pytest.raises(LoweringError, match=f"for int8 and fp8, and not for '{precision}'"):
        ranges(X, precision=precision, method="mse")


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_no_samples_is_refused(batch: int) -> None:
    with pytest.raises(DataError, match=f"a batch of {batch} samples is none"):
        ranges(X, batch=batch)


@pytest.mark.parametrize("precision", ["int8", "fp8", "fp16"])
def test_a_model_that_holds_a_precision_is_not_calibrated(precision: str) -> None:
    given = Ranges({"x": 4.0, "r1": 4.0, "f": 4.0}) if precision != "fp16" else None
    held = lower(checked(networks.convolutional(), "net.onnx"), precision, given, typed=precision == "fp16")

    with pytest.raises(LoweringError, match=f"net.onnx already holds {precision}: .* Name the fp32 file"):
        calibrate(held, ["x"], lambda _: pytest.fail("read"), "data")
