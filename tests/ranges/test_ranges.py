from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_trt.errors import DataError, LoweringError
from pytest_trt.ranges.amax import Ranges, select
from pytest_trt.ranges.files import read_ranges

if TYPE_CHECKING:
    from pathlib import Path


def ranges_of(tmp_path: Path, text: str) -> Ranges:
    (tmp_path / "ranges.txt").write_text(text)
    return read_ranges(tmp_path / "ranges.txt", "trt.toml")


def test_a_line_is_split_at_its_last_colon_because_names_hold_colons(tmp_path: Path) -> None:
    found = ranges_of(tmp_path, "# made by hand\n\nx: 2.5\nonnx::Conv_193 : 0.1\n/a/b:0: 4\n")

    assert found.amax == {"x": 2.5, "onnx::Conv_193": 0.1, "/a/b:0": 4.0}


@pytest.mark.parametrize("entry", ["y", "y: ", "y: nan", "y: inf", "y: 0", "y: -1", "y: two", ": 3"])
def test_a_line_without_a_positive_finite_range_is_refused_by_number(tmp_path: Path, entry: str) -> None:
    with pytest.raises(DataError, match="line 2"):
        ranges_of(tmp_path, f"x: 1\n{entry}\n")


def test_a_tensor_that_stands_there_twice_is_refused_by_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 3: 'x' has a range already"):
        ranges_of(tmp_path, "x: 1\ny: 1\nx: 2\n")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no ranges"):
        ranges_of(tmp_path, "# nothing\n")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_ranges(tmp_path / "none.txt", "trt.toml")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ranges.txt").write_bytes(b"\xff\xfe\x00x")

    with pytest.raises(DataError, match="can't be read"):
        read_ranges(tmp_path / "ranges.txt", "trt.toml")


def test_a_tensor_without_a_range_and_a_range_without_a_tensor_are_told_together() -> None:
    with pytest.raises(LoweringError, match=r"1 tensors have no range: 'y'; 1 ranges are of tensors it has not: 'z'"):
        select(Ranges({"x": 1.0, "z": 1.0}), ["x", "y"], ["x", "y"])


def test_ranges_of_other_tensors_of_the_model_do_no_harm() -> None:
    assert select(Ranges({"x": 1.0, "y": 2.0}), ["x"], ["x", "y"]).amax == {"x": 1.0}
