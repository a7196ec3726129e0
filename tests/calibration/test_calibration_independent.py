from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from onnx import helper

from pytest_trt.calibration.calibration import calibrate
from pytest_trt.errors import DataError
from pytest_trt.model.model import checked
from pytest_trt.model.sample_stream import pieces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_trt.model.model import Model

FLOAT = networks.FLOAT
METHODS = ("minmax", "mse")


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape).astype(np.float32)


def net(nodes: list[Any], weights: dict[str, Any], y: list[Any], x: list[Any] | None = None) -> Model:
    return checked(networks.model(nodes, {"x": (FLOAT, x or ["T", 4])}, {"y": (FLOAT, y)}, weights), "net")


def summing(by: float = 1.0) -> Model:
    """The running sum c over axis 0, and y, a product of it that may be small."""
    nodes = [helper.make_node("CumSum", ["x", "axis"], ["c"]), helper.make_node("MatMul", ["c", "w"], ["y"])]
    return net(nodes, {"axis": np.array(0), "w": np.float32(by) * np.eye(4, dtype=np.float32)}, ["T", 4])


def cut(x: np.ndarray) -> Any:
    return lambda most: [{"x": x[begin : begin + (most or len(x))]} for begin in range(0, len(x), most or len(x))]


def range_of(model: Model, tensor: str, samples: Any, method: str = "minmax") -> float:
    return calibrate(model, [tensor], samples, "data", method=method).amax[tensor]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("by", [1.0, 1e-6])
def test_outputs_that_are_small_hide_no_axis_of_time(by: float, method: str) -> None:
    x = drawn(64, 4)

    assert range_of(summing(by), "c", cut(x), method) > 0.7 * x.cumsum(axis=0).max()


def test_what_outputs_do_not_show_a_calibrated_tensor_does() -> None:
    nodes = [
        helper.make_node("CumSum", ["x", "axis"], ["c"]),
        helper.make_node("Mul", ["c", "zero"], ["none"]),
        helper.make_node("Add", ["x", "none"], ["y"]),
    ]
    x = drawn(64, 4)

    found = range_of(net(nodes, {"axis": np.array(0), "zero": np.float32(0)}, ["T", 4]), "c", cut(x))

    assert found == pytest.approx(x.cumsum(axis=0).max(), rel=1e-5)


@pytest.mark.parametrize("silent", [7, 8, 20, 63])
@pytest.mark.parametrize("method", METHODS)
def test_silence_at_the_beginning_is_not_taken_for_independence(silent: int, method: str) -> None:
    x = drawn(128, 4)
    x[:silent] = 0

    assert range_of(summing(), "c", cut(x), method) > 0.7 * x.cumsum(axis=0).max()


def test_more_silence_than_is_looked_at_makes_all_samples_one_run() -> None:
    x = drawn(128, 4)
    x[:100] = 0

    assert range_of(summing(), "c", cut(x)) == pytest.approx(x.cumsum(axis=0).max(), rel=1e-5)


def test_silence_before_independent_samples_does_not_keep_them_from_being_cut() -> None:
    asked: list[int | None] = []
    x = networks.images(32)
    x[:12] = 0

    def samples(most: int | None) -> Any:
        asked.append(most)
        return cut(x)(most)

    calibrate(checked(networks.convolutional(), "net"), ["x"], samples, "data")

    assert asked == [8]


def loud_first() -> Iterator[dict[str, np.ndarray]]:
    for size in (100, 1, 2, 3):
        yield {"x": size * drawn(8, 4)}


@pytest.mark.parametrize("kind", ["iterator", "function", "module"])
def test_what_can_be_read_once_loses_nothing_where_samples_are_not_independent(kind: str, tmp_path: Path) -> None:
    once = loud_first()
    (tmp_path / "data.py").write_text(
        "import numpy as np\n"
        "x = np.random.default_rng(0).random((8, 4)).astype('f')\n"
        "once = iter([{'x': size * x} for size in (100, 1, 2, 3)])\n"
        "def get(): return once\n"
    )
    given = {
        "iterator": once,
        "function": lambda _: once,
        "module": lambda most: pieces("data:get", tmp_path, summing().inputs, "calibration", most),
    }[kind]

    assert range_of(summing(), "c", given) == range_of(summing(), "c", list(loud_first()))


def test_an_iterator_made_once_that_is_at_its_end_after_a_first_look_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "import numpy as np\n"
        "once = iter([{'x': np.full((8, 4), size, 'f')} for size in (100, 1, 2, 3)])\n"
        "def get(): return once\n"
    )

    found = range_of(summing(), "c", lambda most: pieces("data:get", tmp_path, summing().inputs, "calibration", most))

    assert found == 800


def test_other_samples_at_each_reading_lose_none_of_the_first() -> None:
    readings = iter([[{"x": 100 * drawn(8, 4)}], [{"x": drawn(8, 4)}] * 3])

    assert range_of(summing(), "x", lambda _: next(readings)) == 100 * drawn(8, 4).max()


@pytest.mark.parametrize("method", METHODS)
def test_sequences_of_their_own_lengths_are_run_each_on_its_own(method: str) -> None:
    model = net(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"w": np.eye(4, dtype=np.float32)},
        ["N", "T", 4],
        ["N", "T", 4],
    )
    samples = [{"x": drawn(1, length, 4)} for length in (5, 7, 6)]

    found = calibrate(model, ["x", "y"], samples, "data", method=method)

    assert 0.5 < found.amax["y"] <= 1
    assert found.notes[0].startswith("data is 3 samples")


def test_an_output_whose_batch_is_another_axis_is_run_whole() -> None:
    model = net([helper.make_node("Transpose", ["x"], ["y"])], {}, [4, "T"])

    assert range_of(model, "y", cut(drawn(9, 4))) == drawn(9, 4).max()


def test_an_inner_tensor_whose_batch_is_another_axis_may_be_cut() -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["t"]), helper.make_node("Transpose", ["t"], ["y"])]
    asked: list[int | None] = []

    def samples(most: int | None) -> Any:
        asked.append(most)
        return cut(drawn(30, 4))(most)

    assert range_of(net(nodes, {}, ["T", 4]), "t", samples) == drawn(30, 4).max()
    assert asked == [8]


@pytest.mark.parametrize("kind", ["array", "file"])
def test_an_empty_inner_axis_is_no_crash(kind: str, tmp_path: Path) -> None:
    proto = networks.model(
        [helper.make_node("Concat", ["past", "x"], ["y"], axis=1)],
        {"past": (FLOAT, ["N", "P", 4]), "x": (FLOAT, ["N", "T", 4])},
        {"y": (FLOAT, ["N", "Q", 4])},
    )
    model = checked(proto, "net")
    arrays: dict[str, Any] = {"past": np.zeros((16, 0, 4), np.float32), "x": drawn(16, 2, 4)}
    np.savez(tmp_path / "a.npz", **arrays)
    samples = [arrays] if kind == "array" else lambda most: pieces("a.npz", tmp_path, model.inputs, "data", most)

    assert calibrate(model, ["past", "y"], samples, "data", method="mse").amax["past"] == 0


def test_samples_without_a_value_are_refused() -> None:
    model = net([helper.make_node("Relu", ["x"], ["y"])], {}, ["N", "T"], ["N", "T"])

    with pytest.raises(DataError, match="its 4 samples hold no values"):
        calibrate(model, ["y"], [{"x": np.zeros((4, 0), np.float32)}], "data")
