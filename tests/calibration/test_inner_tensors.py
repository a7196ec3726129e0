from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest

from pytest_trt.calibration import _inner_tensors as inner_tensors
from pytest_trt.calibration._inner_tensors import BATCH, InnerTensors
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.model import Model, checked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_trt.ranges.amax import Ranges


def net() -> Model:
    return checked(networks.convolutional(), "net")


def ranges(method: str = "minmax") -> Ranges:
    model = net()
    return calibrate(model, quantised_activations(model.proto), [{"x": networks.images(16)}], "data", method=method)


@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_ranges_are_the_same_where_each_tensor_is_computed_by_itself(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = ranges(method)
    monkeypatch.setattr(inner_tensors, "LIMIT", 1)

    assert ranges(method).amax == pytest.approx(together.amax, rel=1e-5)


def test_tensors_of_one_run_are_in_memory_group_by_group(monkeypatch: pytest.MonkeyPatch) -> None:
    model, opened = net(), list[list[str]]()
    names = quantised_activations(model.proto)
    monkeypatch.setattr(inner_tensors, "LIMIT", 1)
    real = inner_tensors._outputs_of

    def spied(model: Model, names: Iterable[str]) -> Any:
        opened.append(list(names))
        return real(model, names)

    monkeypatch.setattr(inner_tensors, "_outputs_of", spied)
    tensors = InnerTensors(model, names)
    found = tensors.of({"x": networks.images(2)})

    assert list(found) == names
    assert all(np.isfinite(array).all() for array in found.values())
    assert opened == [names[1:], *([name] for name in names[1:])]


def test_fewer_samples_go_into_one_run_where_their_tensors_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, samples = InnerTensors(net(), quantised_activations(net().proto)), {"x": networks.images(8)}
    assert tensors.at_once(samples) == BATCH

    monkeypatch.setattr(inner_tensors, "LIMIT", 1)
    assert tensors.at_once(samples) == 1
    assert tensors.independent(samples) is True
