from __future__ import annotations

import networks
import numpy as np
import pytest

from pytest_trt.calibration.calibration import calibrate
from pytest_trt.errors import DataError
from pytest_trt.model.model import checked

torch = pytest.importorskip("torch", reason="needs torch: pip install -e '.[cpu,examples]'")

X = networks.images(32)


def test_tensors_of_torch_are_samples() -> None:
    model = checked(networks.convolutional(), "net.onnx")

    found = calibrate(model, ["x"], [{"x": torch.from_numpy(X)}], "data")

    assert found.amax["x"] == pytest.approx(float(np.abs(X).max()))


def test_a_tensor_that_wants_its_gradient_is_told_how_to_become_an_array() -> None:
    model = checked(networks.convolutional(), "net.onnx")

    with pytest.raises(DataError, match=r"detach\(\)\.numpy\(\)"):
        calibrate(model, ["x"], [{"x": torch.from_numpy(X).requires_grad_()}], "data")
