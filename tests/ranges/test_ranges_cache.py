from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_trt.errors import DataError, LoweringError
from pytest_trt.ranges.amax import Ranges, select
from pytest_trt.ranges.files import read_ranges, write_ranges

REAL = Path(__file__).with_name("resnet18-entropy.cache")
HEADER = "TRT-8600-EntropyCalibration2\n"


def cache_of(tmp_path: Path, text: str) -> Ranges:
    (tmp_path / "net.cache").write_text(text)
    return read_ranges(tmp_path / "net.cache", "trt.toml")


def test_a_real_cache_of_tensorrt_is_read_with_its_header_ranges_and_zeros_apart() -> None:
    found = read_ranges(REAL, "trt.toml")

    assert found.made_by == "TRT-8600-EntropyCalibration2"
    assert found.amax["input"] == 127 * struct.unpack(">f", bytes.fromhex("3d1490b9"))[0]
    assert (len(found.amax), len(found.constants)) == (54, 20)
    assert "onnx::Conv_251" in found.constants
    assert "lists 8 tensors that TensorRT's parser added" in found.notes[0]
    assert found.source == "trt.toml (a TensorRT calibration cache)"


@pytest.mark.parametrize("way", [["a.cache"], ["a.txt", "b.cache"]])
def test_a_real_cache_comes_back_line_for_line_also_by_way_of_text(tmp_path: Path, way: list[str]) -> None:
    path = REAL
    for name in way:
        write_ranges(read_ranges(path, "x"), tmp_path / name)
        path = tmp_path / name

    first, wanted = path.read_text().splitlines(), REAL.read_text().splitlines()
    assert first[0] == wanted[0]
    assert sorted(first) == sorted(wanted)


def test_names_with_spaces_and_colons_are_split_at_the_last_colon(tmp_path: Path) -> None:
    found = cache_of(tmp_path, HEADER + "a b:0: 3f800000\nonnx::Conv_1: 40000000\n")

    assert found.amax == {"a b:0": 127.0, "onnx::Conv_1": 254.0}


@pytest.mark.parametrize(
    "header",
    [
        "TRT-7103-EntropyCalibration",
        "TRT-100300-MinMaxCalibration",
        "TRT-8XXX-EntropyCalibration2",
        "TRT-5105-LegacyCalibration",
    ],
)
def test_the_headers_of_all_releases_and_algorithms_are_kept(tmp_path: Path, header: str) -> None:
    assert cache_of(tmp_path, f"{header}\nx: 3f800000\n").made_by == header


@pytest.mark.parametrize("header", ["TRT-8600-EntropyCalibration3", "TRT-EntropyCalibration2", "TRT-8600-"])
def test_a_header_of_an_unknown_form_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError, match=rf"net.cache, line 1: '{header}' is not the header"):
        cache_of(tmp_path, f"{header}\nx: 3f800000\n")


def test_a_missing_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1: 'x: 3f800000' is not the header of a TensorRT calibration cache"):
        cache_of(tmp_path, "x: 3f800000\n")


@pytest.mark.parametrize(
    ("digits", "told"),
    [
        ("7fc00000", "is NaN"),
        ("7f800000", "is infinite"),
        ("ff800000", "is infinite"),
        ("bf800000", "is negative"),
        ("80000000", "is zero"),
        ("0000803f", "is subnormal"),
        ("3f80000g", "no `name: scale`"),
        ("3f8000000", "no `name: scale`"),
        ("0x3f8000", "no `name: scale`"),
        ("", "no `name: scale`"),
        ("1.5", "no `name: scale`"),
    ],
)
def test_a_scale_that_is_none_is_refused_by_line(tmp_path: Path, digits: str, told: str) -> None:
    with pytest.raises(DataError, match=rf"net.cache, line 3: .*{told}"):
        cache_of(tmp_path, f"{HEADER}x: 3f800000\ny: {digits}\nz: 3f800000\n")


@pytest.mark.parametrize("line", ["y", ": 3f800000", " : 3f800000"])
def test_a_line_without_a_name_or_scale_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"line 3: .* is no `name: scale`"):
        cache_of(tmp_path, f"{HEADER}x: 3f800000\n{line}\n")


@pytest.mark.parametrize("again", ["3f800000", "0"])
def test_a_tensor_that_stands_there_twice_is_refused(tmp_path: Path, again: str) -> None:
    with pytest.raises(DataError, match="line 4: 'x' has a range already"):
        cache_of(tmp_path, f"{HEADER}x: 3f800000\ny: 0\nx: {again}\n")


@pytest.mark.parametrize("left", [1, 4, 7])
def test_a_cache_that_was_cut_within_its_last_scale_is_refused(tmp_path: Path, left: int) -> None:
    with pytest.raises(DataError, match=r"line 3: .* was cut short"):
        cache_of(tmp_path, f"{HEADER}x: 3f800000\ny: {'3f800000'[:left]}")


def test_a_last_line_without_its_end_is_whole(tmp_path: Path) -> None:
    assert cache_of(tmp_path, f"{HEADER}x: 3f800000\ny: 0").constants == ("y",)


@pytest.mark.parametrize("text", [HEADER, HEADER + "x: 0\n"])
def test_a_cache_without_ranges_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="holds no ranges, only a header"):
        cache_of(tmp_path, text)


def test_tensors_of_tensorrts_own_are_passed_over_where_a_model_is_chosen_for(tmp_path: Path) -> None:
    found = cache_of(tmp_path, HEADER + "x: 3f800000\n(Unnamed Layer* 5) [Constant]_output: 3f800000\n")

    assert "(Unnamed Layer* 5) [Constant]_output" in found.amax
    assert select(found, ["x"], ["x", "y"]).amax == {"x": 127.0}


def test_a_cache_of_another_network_is_told_as_such(tmp_path: Path) -> None:
    found = cache_of(tmp_path, HEADER + "".join(f"t{i}: 3f800000\n" for i in range(7)))

    with pytest.raises(
        LoweringError, match=r"another network: none of its 7 tensors \('t0' \(line 2\), .* 't4' \(line 6\) \.\.\.\)"
    ):
        select(found, ["x"], ["x", "y"])


def test_a_needed_tensor_with_scale_0_is_taken_for_always_0_and_that_is_said(tmp_path: Path) -> None:
    found = select(cache_of(tmp_path, HEADER + "x: 3f800000\ndead: 0\n"), ["x", "dead"], ["x", "dead"])

    assert found.amax == {"x": 127.0, "dead": 0.0}
    assert "of 1 tensor, taken for always 0, 'dead' (line 3)" in found.notes[-1]


def test_a_constant_that_nothing_needs_does_no_harm(tmp_path: Path) -> None:
    assert select(cache_of(tmp_path, HEADER + "x: 3f800000\nw: 0\n"), ["x"], ["x"]).amax == {"x": 127.0}


def test_ranges_of_elsewhere_get_the_header_of_tensorrt_8_6_or_the_one_that_is_told(tmp_path: Path) -> None:
    ranges = Ranges({"x": 127.0})

    write_ranges(ranges, tmp_path / "a.cache")
    write_ranges(replace(ranges, made_by="TRT-100300-MinMaxCalibration"), tmp_path / "b.cache")

    assert (tmp_path / "a.cache").read_text() == "TRT-8600-EntropyCalibration2\nx: 3f800000\n"
    assert (tmp_path / "b.cache").read_text() == "TRT-100300-MinMaxCalibration\nx: 3f800000\n"


@pytest.mark.parametrize(
    ("ranges", "told"),
    [
        (Ranges({"x": 1.0}, made_by="by hand"), "'by hand' is not the header"),
        (Ranges({"x": 1e-40}), "its scale would be subnormal"),
        (Ranges({"x": 1e-300}), "its scale would be zero"),
        (Ranges({"a\nb": 1.0}), "can't hold the tensor name"),
        (Ranges({"x": 1.0}, constants=("",)), "can't hold the tensor name"),
    ],
)
def test_a_cache_refuses_what_it_cannot_hold(tmp_path: Path, ranges: Ranges, told: str) -> None:
    with pytest.raises(DataError, match=told):
        write_ranges(ranges, tmp_path / "net.cache")

    assert not list(tmp_path.iterdir())
