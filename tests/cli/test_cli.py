from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import networks
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from places import ROOT

from pytest_trt.cli.main import main
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.ranges.files import read_ranges

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with net.onnx and calibration.npz, and that is the current one."""
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    np.savez(tmp_path / "calibration.npz", x=networks.images(32, seed=2))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def calibrated(*words: str, output: str = "ranges.txt") -> Result:
    return ran("calibrate", "net.onnx", "calibration.npz", "-o", output, *words)


def lowered(precision: str, *words: str, output: str = "low.onnx") -> Result:
    return ran("lower", "net.onnx", "--precision", precision, "-o", output, *words)


def test_the_script_and_the_module_are_the_same_command_line() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "pytest_trt.cli", "--help"], capture_output=True, text=True, check=True
    )

    assert found.stdout.startswith("Usage: pytest-trt [OPTIONS] COMMAND")
    assert ran("--help").exit_code == 0
    assert all(name in found.stdout for name in ("calibrate", "lower", "ranges"))


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pytest_trt.cli.main import main\n"
        "try: main(['lower', '--help'])\n"
        "except SystemExit: print(sorted({'numpy', 'onnx', 'onnxruntime', 'torch'} & set(sys.modules)))"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.splitlines()[-1] == "[]"


def test_calibrate_writes_a_range_for_every_float_tensor(folder: Path) -> None:
    found = calibrated()

    assert found.exit_code == 0, found.output
    assert "wrote ranges.txt" in found.output
    assert set(read_ranges(folder / "ranges.txt", "here").amax) > {"x"}


@pytest.mark.parametrize("suffix", ["txt", "cache", "json", "flatbuffers"])
def test_a_model_lowered_by_ranges_of_any_format_has_their_very_scales(suffix: str) -> None:
    assert calibrated(output=f"ranges.{suffix}").exit_code == 0
    assert lowered("int8", "--ranges", f"ranges.{suffix}").exit_code == 0

    found = ran("ranges", "diff", f"ranges.{suffix}", "low.onnx")

    assert found.exit_code == 0, found.output
    assert "have the scale that they have in" in found.output


def test_a_scale_that_moved_is_a_difference(folder: Path) -> None:
    calibrated()
    lowered("int8", "--ranges", "ranges.txt")
    name, amax = next(iter(read_ranges(folder / "low.onnx", "here").amax.items()))
    (folder / "other.txt").write_text(
        "".join(
            f"{key}: {value * (1 + 1e-6 * (key == name))!r}\n"
            for key, value in read_ranges(folder / "ranges.txt", "here").amax.items()
        )
    )

    found = ran("ranges", "diff", "other.txt", "low.onnx", "--json")

    assert found.exit_code == 1
    assert list(json.loads(found.output)["different"]) == [name]
    assert amax > 0


def test_a_tensor_that_the_source_lacks_is_a_difference(folder: Path) -> None:
    calibrated()
    lowered("int8", "--ranges", "ranges.txt")
    first = (folder / "ranges.txt").read_text().splitlines()[0]
    (folder / "one.txt").write_text(f"{first}\n")

    found = ran("ranges", "diff", "one.txt", "low.onnx")

    assert found.exit_code == 1
    assert "not in one.txt" in found.output


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_every_lowered_file_is_valid_and_holds_its_precision(folder: Path, precision: str) -> None:
    calibrated("--precision", "fp8" if precision == "fp8" else "int8")
    words = ["--ranges", "ranges.txt"] if precision in ("int8", "fp8") else []

    found = lowered(precision, *words)

    assert found.exit_code == 0, found.output
    model = onnx.load(folder / "low.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert held_precision(model) == precision


def test_fp16_is_typed_for_engines_or_a_sandwich_for_simulation(folder: Path) -> None:
    lowered("fp16", output="typed.onnx")
    lowered("fp16", "--sandwich", output="sandwich.onnx")

    half = onnx.TensorProto.FLOAT16
    typed, sandwich = (onnx.load(folder / name) for name in ("typed.onnx", "sandwich.onnx"))
    assert any(tensor.data_type == half for tensor in typed.graph.initializer)
    assert not any(tensor.data_type == half for tensor in sandwich.graph.initializer)
    assert sum(node.op_type == "Cast" for node in sandwich.graph.node) > 4


def test_kept_nodes_and_unnamed_kinds_get_no_qdq(folder: Path) -> None:
    calibrated()
    whole = json.loads(lowered("int8", "--ranges", "ranges.txt", "--json").output)
    conv = next(node.name for node in onnx.load(folder / "net.onnx").graph.node if node.op_type == "Conv")

    kept = json.loads(lowered("int8", "--ranges", "ranges.txt", "--keep", conv, "--json").output)
    gemm = json.loads(lowered("int8", "--ranges", "ranges.txt", "--ops", "Gemm", "--json").output)

    counts = [told["nodes"]["DequantizeLinear"] for told in (whole, kept, gemm)]
    assert counts[0] > counts[1] > counts[2]
    assert kept["keep"] == [conv]


@pytest.mark.parametrize(("words", "told"), [
    (("lower", "net.onnx", "--precision", "int8", "-o", "x.onnx"), "int8 needs ranges"),
    (("lower", "net.onnx", "--precision", "fp16", "--ranges", "ranges.txt", "-o", "x.onnx"), "takes no ranges"),
    (("lower", "net.onnx", "--precision", "int8", "--ranges", "ranges.txt", "--typed", "-o", "x.onnx"), "one form"),
    (("lower", "net.onnx", "--precision", "fp16", "--keep", "conv9", "-o", "x.onnx"), "conv9"),
    (("lower", "none.onnx", "--precision", "fp16", "-o", "x.onnx"), "none.onnx"),
    (("lower", "low.onnx", "--precision", "int8", "--ranges", "ranges.txt", "-o", "x.onnx"), "already holds int8"),
    (("lower", "net.onnx", "--precision", "int8", "--ranges", "other.txt", "-o", "x.onnx"), "of another network"),
    (("calibrate", "low.onnx", "calibration.npz", "-o", "x.txt"), "already holds int8"),
    (("calibrate", "net.onnx", "none.npz", "-o", "x.txt"), "none.npz"),
    (("calibrate", "net.onnx", "nan.npz", "-o", "x.txt"), "in sample 3"),
    (("calibrate", "net.onnx", "calibration.npz", "--method", "entrpy", "-o", "x.txt"), "did you mean 'entropy'"),
    (("calibrate", "net.onnx", "calibration.npz", "-o", "x.csv"), ".csv"),
    (("calibrate", "net.onnx", "calibration.npz", "-o", "net.onnx/x.txt"), "net.onnx"),
    (("ranges", "show", "net.onnx"), "Q/DQ"),
    (("ranges", "convert", "ranges.txt", "-o", "x.cache", "--header", "mine"), "header"),
])  # fmt: skip
def test_bad_input_is_a_message_and_writes_nothing(folder: Path, words: tuple[str, ...], told: str) -> None:
    calibrated()
    lowered("int8", "--ranges", "ranges.txt")
    (folder / "other.txt").write_text("a: 1.0\nb: 2.0\n")
    images = networks.images(8)
    images[3, 0, 0, 0] = np.nan
    np.savez(folder / "nan.npz", x=images)

    found = ran(*words)

    assert found.exit_code == 2, found.output
    assert told in found.output
    assert "Traceback" not in found.output
    assert not list(folder.glob("x.*"))
    assert not list(folder.glob(".*.tmp"))


@pytest.mark.parametrize(("output", "told"), [
    ("x.csv", ".csv"),
    ("x", "the suffix says no format"),
    ("net.onnx/x.txt", "net.onnx is a file"),
    ("net.onnx/more/x.txt", "net.onnx is a file"),
    ("folder.txt", "it is a folder"),
])  # fmt: skip
def test_what_cant_be_written_is_told_before_samples_are_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, output: str, told: str
) -> None:
    (folder / "folder.txt").mkdir()
    monkeypatch.setattr("pytest_trt.calibration._inner_tensors.run", lambda *_: pytest.fail("samples were run"))

    found = calibrated(output=output)

    assert found.exit_code == 2, found.output
    assert told in found.output


def test_a_folder_that_is_closed_is_told_before_samples_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda _, mode, **__: not mode & os.W_OK)
    monkeypatch.setattr("pytest_trt.calibration._inner_tensors.run", lambda *_: pytest.fail("samples were run"))

    found = calibrated()

    assert found.exit_code == 2, found.output
    assert "nothing may be written into" in found.output


def masked(folder: Path, between: str) -> None:
    """net.onnx, where m says no, puts -inf before an operator of this kind, which a MatMul reads."""
    first = onnx.helper.make_node("Where", ["m", "x", "mask"], ["s"])
    between_them = onnx.helper.make_node(between, ["s"], ["p"])
    last = onnx.helper.make_node("MatMul", ["p", "w"], ["y"])
    networks.save(
        networks.model(
            [first, between_them, last],
            {"x": (networks.FLOAT, ["N", 4]), "m": (onnx.TensorProto.BOOL, ["N", 4])},
            {"y": (networks.FLOAT, ["N", 4])},
            {"mask": np.float32(-np.inf), "w": np.eye(4, dtype=np.float32)},
        ),
        folder / "net.onnx",
    )
    draw = np.random.default_rng(0)
    m = draw.random((16, 4)) > 0.3
    m[:, 0] = True
    np.savez(folder / "calibration.npz", x=draw.standard_normal((16, 4)).astype(np.float32), m=m)


@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_a_mask_of_minus_infinity_that_nothing_quantised_reads_is_left_out_and_noted(folder: Path, method: str) -> None:
    masked(folder, "Softmax")

    found = calibrated("--method", method)

    assert found.exit_code == 0, found.output
    assert "1 tensor is NaN or infinite in fp32" in found.output
    assert ": 's'." in found.output
    assert set(read_ranges(folder / "ranges.txt", "here").amax) == {"x", "p", "y"}
    assert lowered("int8", "--ranges", "ranges.txt").exit_code == 0


def test_an_infinity_that_something_quantised_reads_is_an_error(folder: Path) -> None:
    masked(folder, "Abs")

    found = calibrated()

    assert found.exit_code == 2
    assert "is NaN or infinite in fp32" in found.output
    assert not (folder / "ranges.txt").exists()


@pytest.mark.parametrize("suffix", ["txt", "cache"])
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_a_tensor_too_small_for_a_scale_that_nothing_needs_is_left_out_and_noted(
    folder: Path, suffix: str, precision: str
) -> None:
    nodes = [
        onnx.helper.make_node("Mul", ["x", "e"], ["t"]),
        onnx.helper.make_node("MatMul", ["x", "w"], ["h"]),
        onnx.helper.make_node("Sub", ["h", "t"], ["y"]),
    ]
    ends = {"x": (networks.FLOAT, ["N", 4])}, {"y": (networks.FLOAT, ["N", 4])}
    weights = {"e": np.float32(1e-38), "w": np.eye(4, dtype=np.float32)}
    networks.save(networks.model(nodes, *ends, weights), folder / "net.onnx")
    np.savez(folder / "calibration.npz", x=np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32))

    found = calibrated("--precision", precision, output=f"ranges.{suffix}")

    assert found.exit_code == 0, found.output
    assert "1 tensor is so small" in found.output
    assert "left out: 't'." in found.output
    assert set(read_ranges(folder / f"ranges.{suffix}", "here").amax) == {"x", "h", "y"}


def test_ctrl_c_writes_nothing_and_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pytest_trt.calibration._inner_tensors.run", interrupted)

    found = calibrated()

    assert found.exit_code == 130
    assert "interrupted, nothing was left half-written" in found.output
    assert not (folder / "ranges.txt").exists()


def test_notes_reach_the_person_and_the_program(folder: Path) -> None:
    np.savez(folder / "calibration.npz", x=networks.images(1))

    assert "one sample" in calibrated().output
    assert any("one sample" in note for note in json.loads(calibrated("--json").output)["notes"])


def test_a_cache_of_another_release_gets_the_header_that_it_needs(folder: Path) -> None:
    calibrated()

    ran("ranges", "convert", "ranges.txt", "-o", "c.cache", "--header", "TRT-100300-EntropyCalibration2")

    assert (folder / "c.cache").read_text().startswith("TRT-100300-EntropyCalibration2\n")
    assert ran("ranges", "diff", "ranges.txt", "c.cache").exit_code == 0


def test_a_calibration_cache_is_written_over_only_by_force() -> None:
    assert calibrated(output="c.cache").exit_code == 0

    assert "may be TensorRT's own" in calibrated(output="c.cache").output
    assert calibrated("--force", output="c.cache").exit_code == 0
    assert "is what is read" in ran("ranges", "convert", "c.cache", "-o", "c.cache", "--force").output


def test_a_range_of_an_unknown_tensor_is_told_with_its_line(folder: Path) -> None:
    calibrated()
    count = len((folder / "ranges.txt").read_text().splitlines())
    with (folder / "ranges.txt").open("a") as file:
        file.write("ghost: 1.0\n")

    assert f"'ghost' (line {count + 1})" in lowered("int8", "--ranges", "ranges.txt").output


@pytest.mark.parametrize(("words", "told"), [
    (("lower", "net.onnx", "--precision", "fp16", "-o", "net.onnx"), "net.onnx is what is read"),
    (("lower", "net.onnx", "--precision", "int8", "--ranges", "ranges.txt", "--ops", " ,", "-o", "x.onnx"), "names no"),
    (("lower", "net.onnx", "--precision", "fp16", "-o", "folder"), "folder can't be written: Is a directory"),
    (("ranges", "convert", "ranges.txt", "-o", "x.json", "--header", "FOO"), "x.json is none"),
])  # fmt: skip
def test_an_output_that_would_lose_something_is_refused(folder: Path, words: tuple[str, ...], told: str) -> None:
    calibrated()
    (folder / "folder").mkdir()
    before = (folder / "net.onnx").read_bytes()

    found = ran(*words)

    assert found.exit_code == 2
    assert told in " ".join(found.output.split())
    assert (folder / "net.onnx").read_bytes() == before


def test_nodes_to_keep_and_kinds_come_as_comma_lists_or_repeated(folder: Path) -> None:
    calibrated()
    first, second = (node.name for node in onnx.load(folder / "net.onnx").graph.node if node.op_type == "Conv")
    words = ("int8", "--ranges", "ranges.txt", "--json")

    listed = json.loads(lowered(*words, "--keep", f"{first},{second}", "--ops", "Conv,Gemm").output)
    repeated = json.loads(lowered(*words, "--keep", first, "--keep", second, "--ops", "Conv", "--ops", "Gemm").output)

    assert listed == repeated
    assert listed["keep"] == [first, second]


def test_a_node_whose_name_holds_a_comma_is_kept_by_its_whole_name(folder: Path) -> None:
    model = onnx.load(folder / "net.onnx")
    next(node for node in model.graph.node if node.op_type == "Conv").name = "block,conv"
    onnx.save(model, folder / "net.onnx")
    calibrated()

    found = json.loads(lowered("int8", "--ranges", "ranges.txt", "--keep", "block,conv", "--json").output)

    assert found["keep"] == ["block,conv"]


def test_calibration_tells_the_share_of_the_samples_that_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float | None]] = []
    monkeypatch.setattr("pytest_trt.cli._calibrate.watched", lambda: lambda *phase: told.append(phase))

    calibrated("--method", "percentile")

    phases = {phase for phase, _ in told if phase}
    shares = {phase: [-1.0 if share is None else share for name, share in told if name == phase] for phase in phases}
    assert len(shares) == 2
    assert all(of[0] == 0.0 and of == sorted(of) and 0.5 < of[-1] < 1 for of in shares.values())
    assert told[-1] == ("", None)


def test_the_page_on_the_command_line_names_every_command() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")

    for name in main.list_commands(click.Context(main)):
        assert f"`{name}" in page, name
        assert f"`pytest-trt {name}" in reference, name


def test_every_command_prints_json_where_that_is_asked() -> None:
    for name in main.list_commands(click.Context(main)):
        command = main.get_command(click.Context(main), name)
        below = command.commands.values() if isinstance(command, click.Group) else [command]
        for one in below:
            assert one is not None
            assert name == "completion" or any(option.name == "as_json" for option in one.params), one.name


def test_lower_writes_weights_in_int4_and_says_which_last_block_is_shorter(folder: Path) -> None:
    found = ran("lower", "net.onnx", "--precision", "int4", "-o", "int4.onnx")

    assert "1 weight in int4, blocks of 128" in found.stdout
    assert "128 does not divide the axis of 'w3': its last block is shorter" in found.stdout
    assert held_precision(onnx.load(folder / "int4.onnx")) == "int4"


def test_lower_to_int4_takes_no_ranges_and_no_kinds() -> None:
    for words, told in ((("--ops", "MatMul"), "leave out --ops"), (("--ranges", "r.txt"), "takes no ranges")):
        assert told in ran("lower", "net.onnx", "--precision", "int4", "-o", "int4.onnx", *words).stderr
