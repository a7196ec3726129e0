"""ONNX test data: test_data_set_N beside a model is its golden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_test_data import write

from pytest_trt import Case, Verdict, check
from pytest_trt.golden.create import update

if TYPE_CHECKING:
    from pathlib import Path

FLOAT = networks.FLOAT


def judged(folder: Path, precision: str = "fp32", **keys: Any) -> Verdict:
    case = Case(onnx="model.onnx", base=folder, calibration="golden", **keys)
    return check(case, precision, golden_dir=folder / "golden")


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "int8"])
def test_a_folder_is_judged_without_making_a_golden(tmp_path: Path, precision: str) -> None:
    write(tmp_path / "net", networks.convolutional(), 0, [networks.images()])

    verdict = judged(tmp_path / "net", precision)

    assert (verdict.verdict, verdict.case) == ("passed", "net")
    assert not (tmp_path / "net" / "golden").exists()


def test_every_data_set_is_judged_whatever_its_size(tmp_path: Path) -> None:
    for number, samples in enumerate((1, 8, 3)):
        write(tmp_path / "net", networks.convolutional(), number, [networks.images(samples, seed=number)])
    broken = tmp_path / "net" / "test_data_set_2" / "output_0.pb"
    assert judged(tmp_path / "net").passed
    array = numpy_helper.to_array(onnx.TensorProto.FromString(broken.read_bytes()))
    broken.write_bytes(numpy_helper.from_array(array * 1.01).SerializeToString())

    verdict = judged(tmp_path / "net")

    assert verdict.verdict == "failed"
    assert [j.run for j in verdict.judgements] == ["test_data_set_2"]


def test_axis_0_need_not_be_samples(tmp_path: Path) -> None:
    proto = networks.model(
        [helper.make_node("MatMul", ["a", "b"], ["y"])],
        {"a": (FLOAT, [2, 3]), "b": (FLOAT, [3, 4])},
        {"y": (FLOAT, [2, 4])},
    )
    draw = np.random.default_rng(0)
    inputs = [draw.standard_normal(shape).astype(np.float32) for shape in ((2, 3), (3, 4))]
    write(tmp_path / "net", proto, 0, inputs)

    assert judged(tmp_path / "net", "int8").verdict == "passed"


def test_several_inputs_and_outputs_go_by_position(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 10, (8, 5))
    write(tmp_path / "net", networks.embedding(), 0, [ids, np.ones((8, 5), np.float32)])

    verdict = judged(tmp_path / "net", "fp16")

    assert verdict.verdict == "passed"
    assert [j.output for j in verdict.judgements] == ["scores", "best"]


def test_one_sample_that_the_output_ignores_is_no_evidence(tmp_path: Path) -> None:
    dead = networks.with_weight(networks.convolutional(), "w3", lambda w: w * 1e-7)
    write(tmp_path / "net", dead, 0, [networks.images(1)])

    assert judged(tmp_path / "net").kind == "EmptyGolden"


def test_a_missing_output_file_is_told(tmp_path: Path) -> None:
    (write(tmp_path / "net", networks.convolutional(), 0, [networks.images()]) / "output_0.pb").unlink()

    verdict = judged(tmp_path / "net")

    assert verdict.kind == "GoldenMismatch"
    assert "holds no output_*.pb, and the model has the outputs 'logits', which are output_0.pb" in verdict.message


def test_a_truncated_file_is_told(tmp_path: Path) -> None:
    file = write(tmp_path / "net", networks.convolutional(), 0, [networks.images()]) / "input_0.pb"
    file.write_bytes(file.read_bytes()[:100])

    verdict = judged(tmp_path / "net")

    assert verdict.kind == "DamagedGolden"
    assert "input_0.pb" in verdict.message


def test_data_sets_are_never_overwritten(tmp_path: Path) -> None:
    file = write(tmp_path / "net", networks.convolutional(), 0, [networks.images()]) / "output_0.pb"
    before = file.read_bytes()

    [line] = update(Case(onnx="model.onnx", base=tmp_path / "net"), tmp_path / "golden")

    assert "was left as it is" in line
    assert file.read_bytes() == before


def test_a_folder_of_data_can_be_named_for_any_model(tmp_path: Path) -> None:
    write(tmp_path / "net", networks.convolutional(), 0, [networks.images()])
    networks.save(networks.convolutional(), tmp_path / "elsewhere.onnx")
    case = Case(onnx="elsewhere.onnx", golden="net", base=tmp_path)

    assert check(case, "fp16", golden_dir=tmp_path / "golden").passed
