from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pytest_trt.errors import CaseError, DataError
from pytest_trt.model.feeds import TensorSpec, conform, finite, fit, join, split
from pytest_trt.model.samples import InputSpec, generate, read, read_array

if TYPE_CHECKING:
    from pathlib import Path

F32, I64 = np.dtype("float32"), np.dtype("int64")
X = (TensorSpec("x", F32, ("N", 2)),)
X4 = (TensorSpec("x", F32, (4, 2)),)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def test_npz_npy_and_safetensors_hold_the_same_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=ones(3, 2))
    np.save(tmp_path / "a.npy", ones(3, 2))
    save_file({"x": ones(3, 2)}, tmp_path / "a.safetensors")

    for name in ("a.npz", "a.npy", "a.safetensors"):
        [found] = read(name, tmp_path, X, "inputs")
        np.testing.assert_array_equal(found["x"], ones(3, 2))


def test_a_function_may_return_arrays_or_yield_batches(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "import numpy as np\n"
        "def one():\n    return {'x': np.ones((3, 2), np.float32)}\n"
        "def bare():\n    return np.ones((3, 2), np.float32)\n"
        "def many():\n    for _ in range(3):\n        yield {'x': np.ones((1, 2), np.float32)}\n"
    )

    assert [len(list(read(f"data:{name}", tmp_path, X, "inputs"))) for name in ("one", "bare", "many")] == [1, 1, 3]


def test_two_folders_may_each_have_a_module_of_one_name(tmp_path: Path) -> None:
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.py").write_text(
            f"import numpy as np\ndef get():\n    return np.full((1, 2), {value}, np.float32)\n"
        )

    assert [next(read("data:get", tmp_path / f, X, "inputs"))["x"][0, 0] for f in ("a", "b")] == [1, 2]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "lacks 'x': the model's inputs are 'x'"),
        ({"y": ones(1, 2)}, "lacks 'x' and holds 'y', which the model has not"),
        ({"x": ones(1, 2), "z": ones(1)}, "holds 'z', which the model has not"),
        ({"x": ones(1, 2).astype(np.float64)}, "'x' is float64, and the model takes float32"),
        ({"x": ones(1, 3)}, r"'x' has shape \[1, 3\], and the model takes 'x' float32\[N, 2\]"),
        ({"x": ones(2)}, r"'x' has shape \[2\], and the model takes"),
        ({"x": ones(0, 2)}, "holds no samples"),
    ],
)
def test_what_does_not_fit_is_named(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"calibration 'c.npz'.*{message}"):
        fit(arrays, X, "calibration 'c.npz'")


def test_a_file_that_is_missing_empty_or_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "a.csv").write_text("1,2")

    for name in ("none.npz", "empty.npz", "text.npz", "text.npy", "text.safetensors", "a.csv"):
        with pytest.raises(DataError, match=f"calibration.*{name}"):
            list(read(name, tmp_path, X, "calibration"))


def test_a_truncated_archive_is_damaged(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=ones(300, 2))
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(data[: len(data) // 2])

    with pytest.raises(DataError, match=r"a.npz is damaged"):
        list(read("a.npz", tmp_path, X, "calibration"))


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object))

    with pytest.raises(DataError, match=r"a.npz is damaged or of another kind"):
        list(read("a.npz", tmp_path, X, "calibration"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('no disk')", r"raised ValueError: no disk \(.*data.py:2\)"),
        ("raise GeneratorExit", r"raised GeneratorExit.*data.py:2"),
        ("import numpy; yield numpy.ones((1, 2), 'f'); raise GeneratorExit", "raised GeneratorExit"),
        ("return {}", "lacks 'x'"),
        ("return iter(())", "holds no samples"),
        ("return 7", "returned int: return arrays by input name"),
    ],
)
def test_a_function_that_fails_is_blamed_with_its_line(tmp_path: Path, body: str, message: str) -> None:
    (tmp_path / "data.py").write_text(f"def get():\n    {body}\n")

    with pytest.raises(DataError, match=message):
        list(read("data:get", tmp_path, X, "calibration"))


def test_a_function_that_is_not_read_to_its_end_is_closed_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "import numpy\nclosed = []\n"
        "def get():\n"
        "    try:\n        while True: yield numpy.ones((1, 2), 'f')\n"
        "    finally: closed.append(1)\n"
        "def told(): return numpy.ones((len(closed), 2), 'f')\n"
    )
    found: Any = read("data:get", tmp_path, X, "calibration")
    next(found)

    found.close()

    assert len(next(read("data:told", tmp_path, X, "calibration"))["x"]) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere:get", "importing 'nowhere'"), ("data:put", "has no 'put'"), ("data:n", "not callable")],
)
def test_a_function_that_is_not_there_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "data.py").write_text("n = 1\ndef get():\n    pass\n")

    with pytest.raises(CaseError, match=message):
        list(read(name, tmp_path, X, "calibration"))


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_nonfinite_sample_is_named(odd: float) -> None:
    array = ones(4, 2)
    array[2, 1] = odd

    with pytest.raises(
        DataError, match=r"'x' has 1 NaN or infinite value\(s\), the first in sample 2 at its index \[1\]"
    ):
        finite({"x": array}, "calibration")


def test_a_fixed_batch_is_fed_run_by_run_and_joined_again() -> None:
    array = np.arange(16, dtype=np.float32).reshape(8, 2)

    parts = list(split({"x": array}, X4))

    assert [part["x"].shape for part in parts] == [(4, 2), (4, 2)]
    np.testing.assert_array_equal(join(parts)["x"], array)


def test_a_dynamic_batch_is_fed_at_once_or_in_the_batches_asked() -> None:
    assert len(list(split({"x": ones(5, 2)}, X))) == 1
    assert [len(part["x"]) for part in split({"x": ones(5, 2)}, X, 2)] == [2, 2, 1]


def test_an_array_of_one_run_is_shared_by_the_runs_of_the_others() -> None:
    specs = (*X4, TensorSpec("scale", F32, (3,)), TensorSpec("t", F32, ()))

    parts = list(split({"x": ones(8, 2), "scale": ones(3), "t": np.float32(1)}, specs))

    assert [(part["x"].shape, part["scale"].shape, np.shape(part["t"])) for part in parts] == [((4, 2), (3,), ())] * 2


def test_samples_that_are_no_whole_number_of_runs_are_refused() -> None:
    with pytest.raises(DataError, match="no whole number of runs"):
        fit({"x": ones(6, 2)}, X4, "inputs")


def test_an_axis_of_one_name_has_one_size() -> None:
    specs = (*X, TensorSpec("y", F32, ("N", 1)))

    with pytest.raises(DataError, match="axis 'N' is 3 in 'x' and 4 in 'y'"):
        fit({"x": ones(3, 2), "y": ones(4, 1)}, specs, "inputs")


def test_floats_stand_for_floats_and_integers_for_integers_that_hold_them() -> None:
    half = (TensorSpec("x", np.dtype("float16"), ("N", 2)),)
    narrow = (TensorSpec("x", np.dtype("int8"), ("N",)),)

    assert conform({"x": ones(1, 2)}, half, "g")["x"].dtype == np.float16
    assert conform({"x": np.array([100])}, narrow, "g")["x"].dtype == np.int8
    for wrong in (np.array([300]), np.array([1.0])):
        with pytest.raises(DataError, match="do not fit the engine's int8"):
            conform({"x": wrong}, narrow, "g")


def test_drawn_samples_are_seeded_and_of_the_inputs_shape() -> None:
    one, two = (generate(X4, {}, 3, seed, "case") for seed in (0, 1))

    assert one["x"].shape == (12, 2)
    np.testing.assert_array_equal(one["x"], generate(X4, {}, 3, 0, "case")["x"])
    assert not np.array_equal(one["x"], two["x"])


def test_integers_are_drawn_from_the_whole_range_that_is_told() -> None:
    specs = (TensorSpec("ids", I64, ("N", 50)),)

    found = generate(specs, {"ids": InputSpec(low=3, high=5)}, 10, 0, "case")["ids"]

    assert sorted(set(found.ravel().tolist())) == [3, 4, 5]


def test_integers_without_a_range_are_refused() -> None:
    with pytest.raises(CaseError, match=r"input.ids = \{ low = 0, high = ... \}"):
        generate((TensorSpec("ids", I64, ("N", 5)),), {}, 1, 0, "case")


def test_a_dynamic_axis_without_a_size_is_refused() -> None:
    with pytest.raises(CaseError, match=r"input.x = \{ shape = \[...\] \}"):
        generate((TensorSpec("x", F32, ("N", "T")),), {}, 1, 0, "case")


def test_labels_are_one_array(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.arange(3))
    np.savez(tmp_path / "two.npz", a=np.arange(3), b=np.arange(3))

    assert read_array("y.npy", tmp_path, "labels").tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="exactly one array"):
        read_array("two.npz", tmp_path, "labels")
