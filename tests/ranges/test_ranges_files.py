"""Ranges from any format to any, and in a gate."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pytest_trt import Ranges, lower
from pytest_trt.errors import DataError, LoweringError, SpecError
from pytest_trt.ranges.amax import same_scale, select
from pytest_trt.ranges.files import is_ranges_file, read_ranges, write_ranges
from pytest_trt.ranges.qdq import ranges_of_graph

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = (".txt", ".cache", ".json", ".flatbuffers")
TENSORS = ("x", "r1", "f")


def scales() -> np.ndarray:
    """2000 float32 of all sizes, with the ends of the range."""
    least, most = np.finfo(np.float32).tiny.view(np.uint32), np.finfo(np.float32).max.view(np.uint32)
    drawn = np.random.default_rng(0).integers(least, most, 1990, np.uint32).view(np.float32)
    ends = np.array([1, 1 / 127, 127, 2 - 2**-23, 1 + 2**-23, 2**-126, 0.1, 1e-30, 1e30], np.float32)
    return np.array([*drawn, *ends, np.finfo(np.float32).max], np.float32)


def through(tmp_path: Path, ranges: Ranges, *suffixes: str) -> Ranges:
    for suffix in suffixes:
        write_ranges(ranges, tmp_path / f"ranges{suffix}")
        ranges = read_ranges(tmp_path / f"ranges{suffix}", "x")
    return ranges


@pytest.mark.parametrize("way", list(itertools.product(SUFFIXES, SUFFIXES)))
def test_every_int8_scale_survives_every_way_from_format_to_format(tmp_path: Path, way: tuple[str, str]) -> None:
    given = scales()
    ranges = Ranges({f"t{number}": 127 * float(scale) for number, scale in enumerate(given)})

    found = through(tmp_path, ranges, *way)

    assert found.amax == ranges.amax
    np.testing.assert_array_equal(np.array([found.amax[f"t{n}"] / 127 for n in range(len(given))], np.float32), given)


@pytest.mark.parametrize("suffix", [".txt", ".json", ".flatbuffers"])
def test_any_double_survives_the_decimal_formats(tmp_path: Path, suffix: str) -> None:
    ranges = Ranges({f"t{n}": float(v) for n, v in enumerate(np.exp(np.random.default_rng(0).uniform(-700, 90, 2000)))})

    assert through(tmp_path, ranges, suffix).amax == ranges.amax


def test_a_cache_rounds_the_ranges_of_samples_as_int8_rounds_them(tmp_path: Path) -> None:
    amax = {f"t{n}": float(v) for n, v in enumerate(np.random.default_rng(0).uniform(0.1, 50, 2000).astype(np.float32))}

    found = through(tmp_path, Ranges(amax), ".cache").amax

    assert [np.float32(found[name] / 127) for name in amax] == [np.float32(value / 127) for value in amax.values()]


def scales_of(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    quantise = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    return {node.input[0]: held[node.input[1]] for node in quantise}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_models_scales_come_back_bit_for_bit_by_way_of_any_file(tmp_path: Path, suffix: str) -> None:
    for trio in scales()[1800:].reshape(-1, 5)[:, :3]:
        drawn = dict(zip(TENSORS, map(float, trio), strict=True))
        first = lower(networks.convolutional(), "int8", Ranges({name: 127 * scale for name, scale in drawn.items()}))

        ranges = through(tmp_path, ranges_of_graph(first, "first"), suffix)
        second = lower(networks.convolutional(), "int8", ranges)

        assert scales_of(first) == scales_of(second) == {name: np.float32(scale) for name, scale in drawn.items()}


@pytest.mark.parametrize(
    ("name", "content", "label", "odd"),
    [
        ("a.cache", b"TRT-8600-EntropyCalibration2\nx: 3f800000\n", "a TensorRT calibration cache", False),
        ("a.txt", b"TRT-8600-EntropyCalibration2\nx: 3f800000\n", "a TensorRT calibration cache", True),
        ("a.cache", b"x: 127.0\n", "`tensor: range` lines", True),
        ("a.cache", b"x 127.0\n", "onnxruntime's calibration.cache", False),
        ("a.ranges", b"# by hand\nx: 127\n", "`tensor: range` lines", False),
        ("a.txt", b'{"x": [-127.0, 1.0]}', "onnxruntime's calibration.json", True),
    ],
)
def test_the_content_decides_the_format_and_a_suffix_of_another_is_said(
    tmp_path: Path, name: str, content: bytes, label: str, odd: bool
) -> None:
    (tmp_path / name).write_bytes(content)

    found = read_ranges(tmp_path / name, "trt.toml")

    assert found.amax == {"x": 127.0}
    assert found.source == f"trt.toml ({label})"
    assert any("whatever its suffix says" in note for note in found.notes) == odd


def test_a_suffix_decides_where_the_content_is_of_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("x: 127.0\n")

    with pytest.raises(DataError, match="line 1: this is no JSON"):
        read_ranges(tmp_path / "a.json", "trt.toml")


@pytest.mark.parametrize("content", [b"x: 1.0\r\ny: 2.0\r\n", b"TRT-8600-EntropyCalibration2\r\nx: 3f800000\r\n"])
def test_windows_line_ends_are_read_and_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)

    found = read_ranges(tmp_path / "a.txt", "trt.toml")

    assert "x" in found.amax
    assert any("has Windows line ends (2 of 2 lines)" in note for note in found.notes)


@pytest.mark.parametrize("content", [b"x: 1.0\n", b"TRT-8600-EntropyCalibration2\nx: 3f800000\n"])
def test_a_byte_order_mark_is_read_and_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + content)

    found = read_ranges(tmp_path / "a.txt", "trt.toml")

    assert list(found.amax) == ["x"]
    assert any("begins with a byte-order mark" in note for note in found.notes)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("x: 1.0\n".encode("utf-16"), "is text in UTF-16"),
        ("x: 1.0\n".encode("utf-16-le"), "holds zero bytes"),
        ("x: 1\né: 1.0\n".encode("latin-1"), r"line 2, can't be read: byte 0xe9 is not UTF-8"),
        (b"PK\x03\x04\x00\x00", "holds zero bytes"),
        (b"", "it is empty"),
        (b"\n \n", "it is empty"),
        (b"\x10\0\0\0\0\0\0\0", "in flatbuffers, or it was cut short"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:3f\n", "line 1"),
        (b"x: 3d1490b9\n", "looks like a TensorRT calibration cache without its first line"),
    ],
)
def test_other_bytes_are_refused_plainly(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)

    with pytest.raises(DataError, match=told):
        read_ranges(tmp_path / "a.txt", "trt.toml")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("amax", "told"),
    [
        ({}, "holds no ranges"),
        ({"x": 0.0}, "holds no ranges"),
        ({"x": 1.0, "y": float("nan")}, "'y' .* is NaN"),
        ({"x": 1.0, "y": float("inf")}, "'y' .* is infinite"),
        ({"x": 1.0, "y": -1.0}, "'y' .* is negative"),
        ({"x": 1.0, "y": 1e300}, "'y' .* is larger than 127 times"),
    ],
)
def test_what_is_no_range_is_not_written_and_an_old_file_stays(
    tmp_path: Path, suffix: str, amax: dict[str, float], told: str
) -> None:
    path = tmp_path / f"ranges{suffix}"
    path.write_text("old")

    with pytest.raises(DataError, match=told):
        write_ranges(Ranges(amax), path)

    assert path.read_text() == "old"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_tensor_that_was_always_zero_is_written_apart(tmp_path: Path, suffix: str) -> None:
    found = through(tmp_path, Ranges({"x": 1.0, "dead": 0.0}, constants=("w",)), suffix)

    assert set(found.constants) == {"dead", "w"}
    assert list(found.amax) == ["x"]


@pytest.mark.parametrize("name", ["a ", "#a", "a\nb", ""])
def test_text_refuses_a_name_that_would_be_read_as_another(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="can't hold the tensor name"):
        write_ranges(Ranges({name: 1.0}), tmp_path / "a.txt")


def test_a_range_written_by_hand_counts_more_than_a_constant_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x: 2\ndead: 1\n# constant: dead\n# constant: w\n")

    found = read_ranges(tmp_path / "a.txt", "trt.toml")

    assert (found.amax, found.constants) == ({"x": 2.0, "dead": 1.0}, ("w",))


def test_numpys_floats_are_written_as_floats(tmp_path: Path) -> None:
    write_ranges(Ranges({"x": np.float32(0.1)}), tmp_path / "a.txt")

    assert (tmp_path / "a.txt").read_text() == "x: 0.10000000149011612\n"


def test_the_format_may_be_told_where_the_suffix_says_none(tmp_path: Path) -> None:
    write_ranges(Ranges({"x": 127.0}), tmp_path / "calibration", "cache")

    assert (tmp_path / "calibration").read_text().endswith("x: 3f800000\n")
    with pytest.raises(SpecError, match="unknown format of ranges 'cach': did you mean 'cache'"):
        write_ranges(Ranges({"x": 1.0}), tmp_path / "a", "cach")
    with pytest.raises(DataError, match="the suffix says no format"):
        write_ranges(Ranges({"x": 1.0}), tmp_path / "a.yaml")
    with pytest.raises(DataError, match="To put them into a model, lower it"):
        write_ranges(Ranges({"x": 1.0}), tmp_path / "a.onnx")


def test_a_folder_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()

    with pytest.raises(DataError, match="can't be written"):
        write_ranges(Ranges({"x": 1.0}), tmp_path / "a.txt")
    with pytest.raises(DataError, match="can't be read"):
        read_ranges(tmp_path / "a.txt", "trt.toml")


def test_files_of_ranges_are_known_by_their_suffix() -> None:
    assert all(map(is_ranges_file, ["a.txt", "a.CACHE", "b/a.json", "a.flatbuffers", "a.onnx"]))
    assert not any(map(is_ranges_file, ["a.npz", "a.npy", "a.safetensors", "data", "module:txt", "golden"]))


def calibrated(project: Path, name: str) -> None:
    """Write the ranges of the project's own calibration data to a file that its case then names."""
    from pytest_trt.calibration.calibration import calibrate
    from pytest_trt.lowering.qdq import quantised_activations
    from pytest_trt.model.model import load

    model = load(project / "net.onnx")
    samples: Any = [{"x": networks.images(32, seed=2)}]
    ranges = calibrate(model, quantised_activations(model.proto), samples, "x")
    if name.endswith(".onnx"):
        onnx.save(lower(model, "int8", ranges).proto, project / name)
    else:
        write_ranges(ranges, project / name)
    (project / "trt.toml").write_text(f'[[model]]\nonnx = "net.onnx"\ncalibration = "{name}"\n')


@pytest.mark.parametrize("name", ["r.txt", "r.cache", "r.json", "r.flatbuffers", "net.int8.onnx"])
@pytest.mark.usefixtures("golden")
def test_a_case_names_a_file_of_ranges_of_any_format(pytester: pytest.Pytester, name: str) -> None:
    calibrated(pytester.path, name)

    pytester.runpytest("--trt-precision=int8").assert_outcomes(passed=1)
    pytester.runpytest("--trt-precision=int8", f"--trt-calibration={name}").assert_outcomes(passed=1)


@pytest.mark.usefixtures("golden")
def test_a_cache_with_other_scales_fails_the_gate(pytester: pytest.Pytester) -> None:
    calibrated(pytester.path, "r.cache")
    ranges = read_ranges(pytester.path / "r.cache", "x")
    write_ranges(Ranges({name: value / 10 for name, value in ranges.amax.items()}), pytester.path / "r.cache")

    pytester.runpytest("--trt-precision=int8").assert_outcomes(failed=1)


@pytest.mark.usefixtures("golden")
def test_a_cache_of_another_network_is_an_error_of_the_gate(pytester: pytest.Pytester) -> None:
    calibrated(pytester.path, "r.cache")
    (pytester.path / "r.cache").write_text("TRT-8600-EntropyCalibration2\nother: 3f800000\n")

    result = pytester.runpytest("--trt-precision=int8")

    assert result.ret != 0
    result.stdout.fnmatch_lines(["*calibration 'r.cache' (a TensorRT calibration cache) is of another network*"])


@pytest.mark.usefixtures("golden")
def test_what_is_odd_about_a_file_is_a_warning_of_the_gate(pytester: pytest.Pytester) -> None:
    calibrated(pytester.path, "r.txt")
    path = pytester.path / "r.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    result = pytester.runpytest("--trt-precision=int8", "--trt-report=report.json")

    result.assert_outcomes(passed=1)
    assert "has Windows line ends" in (pytester.path / "report.json").read_text()


@pytest.mark.parametrize("name", ["TRT-1", "{b", "a: 1\r"])
def test_a_name_that_would_be_read_as_something_else_is_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        write_ranges(Ranges({name: 1.0}), tmp_path / "r.txt")

    assert not (tmp_path / "r.txt").exists()


def test_a_number_of_hundreds_of_digits_is_infinite(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(f'{{"a": [-1{"0" * 400}, 2]}}')

    with pytest.raises(DataError, match="the range of 'a' is infinite"):
        read_ranges(tmp_path / "r.json", "here")


def test_lines_that_end_in_carriage_returns_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_bytes(b"a: 1\rb: 2\r")

    with pytest.raises(DataError, match="line 1, holds a carriage return"):
        read_ranges(tmp_path / "r.txt", "here")


def test_a_cache_cut_inside_a_name_with_a_colon_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.cache").write_text("TRT-8600-EntropyCalibration2\ninput: 3c010a14\nfeatures/conv:0")

    with pytest.raises(DataError, match="line 3: 'features/conv:0' was cut short"):
        read_ranges(tmp_path / "r.cache", "here")


def test_two_int8_scales_are_different_though_fp8_would_make_them_the_same() -> None:
    assert not same_scale(1.0698263809108741, 1.069826445100457)


def test_a_range_and_its_own_fp8_scale_are_the_same() -> None:
    assert same_scale(0.1, 448 * float(np.float32(0.1 / 448)))
    assert not same_scale(0.1000001, 448 * float(np.float32(0.1 / 448)))


def test_ranges_of_which_few_fit_are_of_another_network() -> None:
    with pytest.raises(LoweringError, match="is of another network: only 1 of its 3 tensors"):
        select(Ranges({"x": 1.0, "a": 1.0, "b": 1.0}), TENSORS, TENSORS)
