from __future__ import annotations

import tracemalloc
import zipfile
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from onnx import numpy_helper
from safetensors.numpy import save_file

from pytest_trt.errors import DataError
from pytest_trt.model.feeds import TensorSpec
from pytest_trt.model.sample_stream import pieces

if TYPE_CHECKING:
    from pathlib import Path

F32 = np.dtype("float32")
X = (TensorSpec("x", F32, ("N", 2)),)
X4 = (TensorSpec("x", F32, (4, 2)), TensorSpec("scale", F32, (3,)), TensorSpec("t", F32, ()))
DATA = np.arange(40, dtype=np.float32).reshape(20, 2)


def read(name: str, folder: Path, most: int | None = None, specs: tuple[TensorSpec, ...] = X) -> list[dict[str, Any]]:
    return list(pieces(name, folder, specs, "calibration", most))


def together(found: list[dict[str, Any]]) -> np.ndarray:
    return np.concatenate([part["x"] for part in found])


def write(path: Path, array: np.ndarray) -> None:
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, x=array)
    else:
        save_file({"x": np.ascontiguousarray(array)}, path)


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.safetensors"])
def test_a_file_is_read_in_pieces_of_what_is_wanted(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, DATA)

    assert [len(part["x"]) for part in read(name, tmp_path, 8)] == [8, 8, 4]
    np.testing.assert_array_equal(together(read(name, tmp_path, 8)), DATA)
    assert len(read(name, tmp_path)) == 1


def test_compressed_members_are_read_side_by_side(tmp_path: Path) -> None:
    specs = (*X, TensorSpec("y", F32, ("N", 1)))
    np.savez_compressed(tmp_path / "a.npz", y=DATA[:, :1], x=DATA)

    found = read("a.npz", tmp_path, 8, specs)

    np.testing.assert_array_equal(together(found), DATA)
    assert all((part["y"] == part["x"][:, :1]).all() for part in found)


def test_an_array_in_fortrans_order_is_read_too(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(DATA))

    np.testing.assert_array_equal(together(read("a.npy", tmp_path, 8)), DATA)


def test_a_fixed_first_axis_is_read_run_by_run_and_what_all_runs_share_goes_into_each(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=DATA, scale=DATA[:3, 0], t=np.float32(5))

    found = read("a.npz", tmp_path, 100, X4)

    assert [part["x"].shape for part in found] == [(4, 2)] * 5
    assert all(part["scale"].tolist() == [0, 2, 4] and part["t"] == 5 for part in found)


def test_inputs_of_their_own_lengths_come_whole(tmp_path: Path) -> None:
    specs = (*X, TensorSpec("k", F32, ("M",)))
    np.savez(tmp_path / "a.npz", x=DATA, k=DATA[:7, 0])

    [found] = read("a.npz", tmp_path, 8, specs)

    assert (found["x"].shape, found["k"].shape) == ((20, 2), (7,))


def test_a_folder_is_its_files_one_after_the_other_by_name(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number, name in enumerate(("c.npy", "a.npz", "b.safetensors")):
        write(tmp_path / "data" / name, DATA[:3] + 100 * number)
    (tmp_path / "data" / "README").write_text("what this is")

    assert together(read("data", tmp_path))[:, 0].tolist() == [100, 102, 104, 200, 202, 204, 0, 2, 4]


@pytest.mark.parametrize("name", ["A.NPZ", "a.Npy", "a.SAFETENSORS"])
def test_the_case_of_a_suffix_does_not_count(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    for path in (tmp_path / name, tmp_path / "data" / name):
        with path.open("wb") as file:
            plain = tmp_path / f"plain{path.suffix.lower()}"
            write(plain, DATA)
            file.write(plain.read_bytes())

    np.testing.assert_array_equal(together(read(name, tmp_path, 8)), DATA)
    np.testing.assert_array_equal(together(read("data", tmp_path, 8)), DATA)


@pytest.mark.parametrize("other", ["b.npz.part", "labels.csv", "b.pt", "input_0.pb", "test_data_set_0/", "more/"])
def test_a_folder_is_never_read_in_part(tmp_path: Path, other: str) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "a.npz", DATA)
    beside = tmp_path / "data" / other
    beside.mkdir() if other.endswith("/") else beside.touch()

    with pytest.raises(
        DataError, match=f"'data' would be read in part: beside 1 files .* it holds '{other.strip('/')}'"
    ):
        next(pieces("data", tmp_path, X, "calibration"))


@pytest.mark.parametrize("about", ["README.md", "readme", "LICENSE.txt", ".DS_Store", ".cache/"])
def test_hidden_files_and_what_is_written_about_the_data_are_passed_over(tmp_path: Path, about: str) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "a.npz", DATA)
    beside = tmp_path / "data" / about
    beside.mkdir() if about.endswith("/") else beside.touch()

    np.testing.assert_array_equal(together(read("data", tmp_path)), DATA)


def test_a_member_that_is_no_array_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.npz", DATA)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("notes.txt", "hello")

    with pytest.raises(DataError, match=r"a\.npz is damaged .*: its member 'notes\.txt' is no array of samples"):
        read("a.npz", tmp_path, 8)


def test_a_nan_in_an_input_of_one_value_a_sample_has_no_index_within_it(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([0, 1, np.nan], np.float32))

    with pytest.raises(DataError, match=r"the first in sample 2\. Repair"):
        read("a.npy", tmp_path, 8, (TensorSpec("x", F32, ("N",)),))


def test_onnx_test_data_needs_no_outputs(tmp_path: Path) -> None:
    for number in (10, 9):
        folder = tmp_path / "data" / f"test_data_set_{number}"
        folder.mkdir(parents=True)
        (folder / "input_0.pb").write_bytes(numpy_helper.from_array(DATA[:1] + number, "x").SerializeToString())

    assert together(read("data", tmp_path))[:, 0].tolist() == [9, 10]
    assert len(read("data/test_data_set_10", tmp_path)) == 1


def test_a_function_is_called_once_a_pass_and_comes_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "import numpy as np\ncalls = []\n"
        "def get():\n    calls.append(1)\n    yield {'x': np.full((20, 2), len(calls), np.float32)}\n"
    )

    assert [read("data:get", tmp_path, 8)[0]["x"][0, 0] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("name", ["data.npz", "data.npy", "data.safetensors"])
def test_reading_takes_the_memory_of_a_piece(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, np.zeros((4000, 2, 500), np.float32))
    specs = (TensorSpec("x", F32, ("N", 2, 500)),)
    tracemalloc.start()

    count = sum(len(part["x"]) for part in pieces(name, tmp_path, specs, "calibration", 8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert count == 4000
    assert peak < 1_000_000  # of 16 MB


def test_a_nan_is_named_by_file_and_by_its_number_among_the_samples_of_that_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "a.npz", DATA)
    spoiled = DATA.copy()
    spoiled[13, 1] = np.nan
    write(tmp_path / "data" / "b.npy", spoiled)

    with pytest.raises(DataError, match=r"'data', b\.npy: 'x' has 1 NaN .* the first in sample 13 at its index \[1\]"):
        read("data", tmp_path, 8)


@pytest.mark.parametrize("kind", ["nothing", "text", "pb"])
def test_a_folder_without_samples_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "data").mkdir()
    if kind != "nothing":
        (tmp_path / "data" / ("input_0.pb" if kind == "pb" else "a.txt")).write_text("hello")

    with pytest.raises(DataError, match="calibration 'data'"):
        read("data", tmp_path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_member_that_is_damaged_in_its_middle_is_named_before_its_end(tmp_path: Path, compressed: bool) -> None:
    noise = np.random.default_rng(0).standard_normal((2000, 2)).astype(np.float32)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", x=noise)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(data)

    with pytest.raises(DataError, match=r"a\.npz is damaged or of another kind"):
        read("a.npz", tmp_path, 8)


def test_a_file_that_is_cut_short_is_refused_before_its_first_sample(tmp_path: Path) -> None:
    for name in ("a.npy", "a.safetensors"):
        write(tmp_path / name, DATA)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:-8])

        with pytest.raises(DataError, match=rf"{name} is damaged"):
            next(pieces(name, tmp_path, X, "calibration", 8))


def test_a_member_with_less_than_its_header_says_is_damaged(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", DATA)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", (tmp_path / "x.npy").read_bytes()[:-12])

    with pytest.raises(DataError, match="it ends in sample 18 of 20"):
        read("a.npz", tmp_path, 8)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object))

    with pytest.raises(DataError, match="Python objects, which are never loaded"):
        read("a.npz", tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": DATA}, "lacks 'x' and holds 'y'"),
        ({"x": DATA.astype(np.float64)}, "'x' is float64"),
        ({"x": DATA[:, :1]}, r"'x' has shape \[20, 1\]"),
        ({"x": DATA[:0]}, "holds no samples"),
        ({}, "lacks 'x'"),
    ],
)
def test_data_of_another_model_is_told_by_its_headers(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)

    with pytest.raises(DataError, match=message):
        next(pieces("a.npz", tmp_path, X, "calibration", 8))


def test_a_nameless_array_for_a_model_of_two_inputs_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", networks.images(2))

    with pytest.raises(DataError, match="one array without a name"):
        read("a.npy", tmp_path, 8, X4)


@pytest.mark.parametrize("name", ["none.npz", "none.npy", "none.safetensors"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name} can't be read"):
        read(name, tmp_path)
