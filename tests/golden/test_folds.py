"""Halves of the golden's inputs, and what they make of a bound."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import networks
import numpy as np
import pytest

from pytest_trt import Case, check
from pytest_trt.golden.create import create, update
from pytest_trt.golden.folds import halves, widened
from pytest_trt.model.feeds import TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

FLOAT = np.dtype(np.float32)


def numbered(*shape: int, axis: int = 0) -> np.ndarray:
    turned = np.arange(shape[axis], dtype=np.float32).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.broadcast_to(turned, shape).copy()


def test_a_dynamic_axis_is_cut_in_the_middle_or_by_turns() -> None:
    specs = (TensorSpec("x", FLOAT, ("N", 2)),)
    arrays = {"x": numbered(5, 2)}

    assert [half["x"][:, 0].tolist() for [half] in halves([arrays], specs)] == [[0, 1], [2, 3, 4]]
    assert [half["x"][:, 0].tolist() for [half] in halves([arrays], specs, by_turns=True)] == [[0, 2, 4], [1, 3]]


def test_a_state_is_cut_along_the_axis_that_is_called_as_the_samples_are() -> None:
    specs = (TensorSpec("x", FLOAT, ("N", 2)), TensorSpec("state", FLOAT, (2, "N", 3)), TensorSpec("rate", FLOAT, ()))
    arrays = {"x": numbered(4, 2), "state": numbered(2, 4, 3, axis=1), "rate": np.float32(16)}

    [[first], [second]] = halves([arrays], specs)

    assert first["state"].shape == (2, 2, 3)
    assert second["state"][0, :, 0].tolist() == second["x"][:, 0].tolist() == [2, 3]
    assert first["rate"] == 16


def test_runs_of_a_fixed_batch_make_halves_and_one_sample_none() -> None:
    fixed = (TensorSpec("x", FLOAT, (1, 2)),)

    assert [len(half) for half in halves([{"x": numbered(5, 2)}], fixed)] == [2, 3]
    assert halves([{"x": numbered(1, 2)}], (TensorSpec("x", FLOAT, ("N", 2)),)) == []


@pytest.mark.parametrize(("own", "fold", "bound"), [(0.1, 0.05, 0.1), (0.1, 0.2, 0.2), (0.1, 9, 0.3), (0.3, 9, 0.5)])
def test_a_fold_widens_a_bound_up_to_three_times_and_to_half_of_the_output(
    own: float, fold: float, bound: float
) -> None:
    found = widened({"error": 0.04, "bound": own}, [fold])

    assert found == {"error": 0.04, "bound": pytest.approx(bound)}


@pytest.fixture
def case(tmp_path: Path) -> Case:
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    x = networks.images(64, seed=3)
    np.savez(tmp_path / "inputs.npz", x=networks.images(16, seed=4))
    for number in range(4):
        np.savez(tmp_path / f"honest{number}.npz", x=x[16 * number : 16 * number + 16])
    np.savez(tmp_path / "tenth.npz", x=x * np.float32(0.1))
    return Case(name="net", onnx="net.onnx", inputs="inputs.npz", base=tmp_path, golden="golden.safetensors")


def checked_with(case: Case, calibration: str, precision: str) -> str:
    return check(replace(case, calibration=calibration), precision).verdict


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_each_honest_choice_of_samples_passes_and_wrong_ranges_do_not(case: Case, precision: str) -> None:
    update(case, case.base)
    needed = ("x", "c1", "r1", "c2", "sum", "r2", "p", "f", "logits")
    (case.base / "placeholders.txt").write_text("".join(f"{name}: 4\n" for name in needed))
    (case.base / "far.txt").write_text("".join(f"{name}: {0.2 + 0.01 * n}\n" for n, name in enumerate(needed)))

    assert [checked_with(case, f"honest{number}.npz", precision) for number in range(4)] == ["passed"] * 4
    for wrong in ("tenth.npz", "placeholders.txt", "far.txt"):
        assert checked_with(case, wrong, precision) == "failed", wrong


def test_precisions_without_ranges_keep_their_bounds(case: Case) -> None:
    entry = create(case).envelope["fp16"]["logits"]

    assert entry["bound"] == pytest.approx(2.5 * entry["error"] + 2.0**-11, rel=1e-6)
