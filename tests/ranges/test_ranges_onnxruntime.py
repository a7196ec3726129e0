"""onnxruntime's calibration tables, against files that its own functions write and read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.CalTableFlatBuffers.TrtTable import TrtTable
from onnxruntime.quantization.quant_utils import write_calibration_table

from pytest_trt.errors import DataError
from pytest_trt.ranges.amax import Ranges
from pytest_trt.ranges.files import read_ranges, write_ranges

if TYPE_CHECKING:
    from pathlib import Path

ENDS = {"x": (-4.0, 0.5), "a b:0": (0.0, 0.1), "dead": (0.0, 0.0), "é": (-1.0, 3e38)}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder with the three files of onnxruntime."""
    data = {name: tuple(np.array(end, np.float32) for end in ends) for name, ends in ENDS.items()}
    write_calibration_table(TensorsData(CalibrationMethod.MinMax, data), str(tmp_path))
    return tmp_path


def test_json_gives_the_larger_absolute_value_of_both_ends(written: Path) -> None:
    found = read_ranges(written / "calibration.json", "trt.toml")

    assert found.amax == {"x": 4.0, "a b:0": float(np.float32(0.1)), "é": float(np.float32(3e38))}
    assert found.constants == ("dead",)
    assert found.notes == ()


@pytest.mark.parametrize("name", ["calibration.flatbuffers", "calibration.cache"])
def test_the_one_sided_files_are_read_and_said_to_be(written: Path, name: str) -> None:
    found = read_ranges(written / name, "trt.toml")

    assert found.amax == {"x": 0.5, "a b:0": float(np.float32(0.1)), "é": float(np.float32(3e38))}
    assert found.constants == ("dead",)
    assert "negative side is the larger one has too small a range" in found.notes[0]


def test_a_tensor_that_is_never_positive_is_refused_in_a_one_sided_file(tmp_path: Path) -> None:
    data = {"x": (np.array(-4, np.float32), np.array(-1, np.float32))}
    write_calibration_table(TensorsData(CalibrationMethod.MinMax, data), str(tmp_path))

    with pytest.raises(DataError, match="the range of 'x' is negative"):
        read_ranges(tmp_path / "calibration.flatbuffers", "trt.toml")
    assert read_ranges(tmp_path / "calibration.json", "trt.toml").amax == {"x": 4.0}


def test_the_json_of_older_releases_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": [-1.5, 1.0], "y": {"lowest": 0.0, "highest": 2.0, "CLS": "TensorData"}}')

    assert read_ranges(tmp_path / "a.json", "trt.toml").amax == {"x": 1.5, "y": 2.0}


@pytest.mark.skipif(not hasattr(TensorsData, "from_dict"), reason="this onnxruntime reads no calibration.json")
def test_onnxruntime_reads_our_json(tmp_path: Path) -> None:
    write_ranges(Ranges({"x": 4.0, "a b:0": 0.1}, constants=("dead",)), tmp_path / "calibration.json")

    data = TensorsData.from_dict(json.loads((tmp_path / "calibration.json").read_text())).data

    assert isinstance(data["x"], TensorData)
    assert {name: tuple(map(float, entry.range_value)) for name, entry in data.items()} == {
        "x": (-4.0, 4.0),
        "a b:0": (-float(np.float32(0.1)), float(np.float32(0.1))),
        "dead": (0.0, 0.0),
    }


def test_onnxruntimes_classes_read_our_flatbuffers(tmp_path: Path) -> None:
    write_ranges(Ranges({"x": 4.0, "a b:0": 0.1}, constants=("dead",)), tmp_path / "calibration.flatbuffers")

    table = TrtTable.GetRootAs((tmp_path / "calibration.flatbuffers").read_bytes())
    entries = [table.Dict(number) for number in range(table.DictLength())]

    assert [(entry.Key(), entry.Value()) for entry in entries] == [
        (b"a b:0", b"0.1"),
        (b"dead", b"0.0"),
        (b"x", b"4.0"),
    ]


def test_our_flatbuffers_come_back_without_a_doubt(tmp_path: Path) -> None:
    ranges = Ranges({"x": 4.0, "é": 0.1}, constants=("dead",))
    write_ranges(ranges, tmp_path / "a.flatbuffers")

    found = read_ranges(tmp_path / "a.flatbuffers", "trt.toml")

    assert (found.amax, found.constants, found.notes) == (ranges.amax, ("dead",), ())


def test_flatbuffers_that_were_cut_or_changed_are_refused_or_read_whole(written: Path) -> None:
    path = written / "calibration.flatbuffers"
    data, whole = path.read_bytes(), read_ranges(path, "x").amax
    refused = 0
    for end in range(4, len(data)):
        path.write_bytes(data[:end])
        try:
            assert read_ranges(path, "x").amax == whole
        except DataError:
            refused += 1
    assert refused > 0.9 * len(data) - 4

    draw = np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(data)
        damaged[4 + draw.integers(len(data) - 4)] = draw.integers(256)
        path.write_bytes(damaged)
        try:
            assert read_ranges(path, "x").amax
        except DataError:
            refused += 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"x": [-1.0,\n', "line 2: this is no JSON"),
        ('{"x": 3.0}', "'x' has no lowest and highest"),
        ('{"x": {"lowest": 1.0}}', "'x' has no lowest and highest"),
        ('{"x": [[1.0, 2.0], [1.0, 2.0]]}', "'x' has no lowest and highest, one number each"),
        ('{"x": ["a", true]}', "'x' has no lowest and highest"),
        ('{"x": [NaN, 1.0]}', "the range of 'x' is NaN"),
        ('{"x": [1.0, NaN]}', "the range of 'x' is NaN"),
        ('{"x": [-Infinity, 1.0]}', "the range of 'x' is infinite"),
        ('{"x": [-1.0, 1.0], "x": [-2.0, 2.0]}', "'x' stands there twice"),
        ('{"x": [0.0, 0.0]}', "holds no ranges, only zeros"),
        ("{}", "holds no ranges"),
        ('{"CLS": "TensorsData"}', "is no calibration table of onnxruntime"),
        ('{"x": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_json_that_holds_no_ranges_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.json").write_text(text)

    with pytest.raises(DataError, match=told):
        read_ranges(tmp_path / "a.json", "trt.toml")


@pytest.mark.parametrize("line", ["y", "y two", "y nan", "y inf", "y -1.0", "x 2.0"])
def test_a_line_of_the_plain_table_that_is_none_is_refused_by_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "calibration.cache").write_text(f"x 1.0\n{line}\n")

    with pytest.raises(DataError, match=r"calibration\.cache, line 2"):
        read_ranges(tmp_path / "calibration.cache", "trt.toml")
