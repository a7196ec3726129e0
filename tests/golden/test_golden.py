from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import networks
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from pytest_trt import Case, check
from pytest_trt.errors import (
    DamagedGolden,
    DataError,
    EmptyGolden,
    GoldenRefused,
    MissingGolden,
    ModelError,
    PytestTrtError,
)
from pytest_trt.golden.create import create, update
from pytest_trt.golden.golden import Golden, Run, movement, read, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx


@pytest.fixture
def case(tmp_path: Path) -> Case:
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    np.savez(tmp_path / "calibration.npz", x=networks.images(32, seed=2))
    return Case(
        onnx="net.onnx", calibration="calibration.npz", base=tmp_path, where="trt.toml", command='"trt.toml::net"'
    )


def change(path: Path, **changes: Any) -> None:
    """Write the golden again with other tensors or metadata; None drops one."""
    with safe_open(path, framework="np") as file:
        metadata, tensors = dict(file.metadata()), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for key, value in changes.items():
        target: dict[str, Any] = metadata if isinstance(value, str) else tensors
        target.pop(key.replace("__", "."), None)
        if value is not None:
            target[key.replace("__", ".")] = value
    save_file(tensors, path, metadata)


def kind(case: Case, tmp_path: Path, precision: str = "fp32") -> tuple[str, str]:
    verdict = check(case, precision, golden_dir=tmp_path / "golden")
    return verdict.kind or verdict.verdict, verdict.message


def remade(case: Case, tmp_path: Path) -> Path:
    update(case, tmp_path / "golden")
    return tmp_path / "golden" / "net.safetensors"


def test_a_golden_is_written_and_read_back_whole(tmp_path: Path) -> None:
    golden = Golden(
        runs=(Run({"x": networks.images()}, {"y": np.arange(8.0)}),),
        source="g",
        model_sha256="ab",
        origin="torch",
        envelope={"int8": {"y": {"error": 0.1, "bound": 0.3}}},
        refused={"bf16": "why"},
        evidence={"y": 0.5},
        onnx_outputs={"y": np.arange(8.0)},
        labels=np.arange(8),
        provenance={"seed": 3, "reason": "because"},
    )

    write(golden, tmp_path / "a" / "g.safetensors", "net")
    again = read(tmp_path / "a" / "g.safetensors", "mend")

    np.testing.assert_array_equal(again.inputs["x"], golden.inputs["x"])
    np.testing.assert_array_equal(again.outputs["y"], golden.outputs["y"])
    np.testing.assert_array_equal(again.onnx_outputs["y"], golden.onnx_outputs["y"])
    assert again.labels is not None
    np.testing.assert_array_equal(again.labels, np.arange(8))
    assert (again.envelope, again.refused, again.evidence) == (golden.envelope, golden.refused, golden.evidence)
    assert (again.model_sha256, again.origin, again.provenance) == ("ab", "torch", golden.provenance)
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a" / "g.safetensors"]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.int8, np.uint8, np.bool_, ml_dtypes.bfloat16])
def test_every_dtype_survives(tmp_path: Path, dtype: Any) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(dtype).T  # not contiguous either
    golden = Golden(runs=(Run({"x": array}, {"y": array, "s": np.array(1).astype(dtype)}),), source="g")

    write(golden, tmp_path / "g.safetensors", "net")
    again = read(tmp_path / "g.safetensors", "mend")

    assert again.outputs["y"].dtype == dtype
    np.testing.assert_array_equal(again.outputs["y"].astype(np.float32), array.astype(np.float32))
    assert again.outputs["s"].shape == ()


def test_a_made_golden_says_who_made_it_from_what(case: Case) -> None:
    golden = create(case, reason="first")

    assert golden.model_sha256 is not None
    assert golden.provenance["reason"] == "first"
    assert {"onnxruntime", "numpy", "onnx", "pytest-trt", "seed"} <= set(golden.provenance)
    assert set(golden.envelope) == {"fp32", "tf32", "fp16", "bf16", "int8", "fp8"}


def test_bounds_follow_from_the_simulated_error(case: Case) -> None:
    envelope = create(case).envelope

    exact = envelope["fp32"]["logits"]
    assert 0 < exact["error"] < 1e-6
    assert exact["bound"] == pytest.approx(2.5 * exact["error"] + 1e-5)
    entry = envelope["int8"]["logits"]
    own = 2.5 * entry["error"] + 0.5 / 127
    assert own <= entry["bound"] <= 3 * own + 1e-9  # of the worse half of the inputs as calibration data
    assert 1e-3 < entry["error"] < 3e-2


def test_a_made_golden_is_agreed_with_at_every_precision(case: Case, tmp_path: Path) -> None:
    remade(case, tmp_path)

    for precision in ("fp32", "tf32", "fp16", "bf16", "int8", "fp8"):
        assert kind(case, tmp_path, precision)[0] == "passed"


def test_making_it_twice_gives_the_same_bytes(case: Case, tmp_path: Path) -> None:
    first = remade(case, tmp_path).read_bytes()

    assert remade(case, tmp_path).read_bytes() == first


def test_a_missing_golden_names_the_command_that_makes_it(case: Case, tmp_path: Path) -> None:
    found, message = kind(case, tmp_path)

    assert found == "MissingGolden"
    assert 'pytest "trt.toml::net" --trt-update-golden' in message


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_golden_is_damaged(case: Case, tmp_path: Path, share: float) -> None:
    path = remade(case, tmp_path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    found, message = kind(case, tmp_path)

    assert found == "DamagedGolden"
    assert 'pytest "trt.toml::net" --trt-update-golden' in message


@pytest.mark.parametrize("change_to", [{"schema": "99"}, {"envelope": "{"}, {"model_sha256": None}])
def test_metadata_of_another_make_are_damaged(case: Case, tmp_path: Path, change_to: dict[str, Any]) -> None:
    path = remade(case, tmp_path)
    if change_to == {"model_sha256": None}:
        save_file({"input.x": networks.images()}, path)
    else:
        change(path, **change_to)

    assert kind(case, tmp_path)[0] == "DamagedGolden"


def test_a_changed_model_makes_the_golden_stale(case: Case, tmp_path: Path) -> None:
    remade(case, tmp_path)
    networks.save(networks.with_weight(networks.convolutional(), "b3", lambda b: b + 1e-6), tmp_path / "net.onnx")

    found, message = kind(case, tmp_path)

    assert found == "StaleGolden"
    assert 'pytest "trt.toml::net" --trt-update-golden' in message


@pytest.mark.parametrize(
    "changes",
    [
        {"input__x": networks.images()[:, :1]},
        {"input__x": networks.images().astype(np.float64)},
        {"input__x": networks.images().astype(np.int64)},
        {"output__logits": np.zeros((8, 4), np.float32)},
        {"output__logits": np.zeros(8, np.float32)},
        {"output__logits": np.zeros((8, 3), np.int64)},
        {"output__logits": np.zeros((8, 3), bool)},
        {"output__more": np.zeros((8, 3), np.float32)},
        {"input__more": np.zeros((8, 3), np.float32)},
    ],
)
def test_a_golden_of_other_names_shapes_or_dtypes_is_refused(
    case: Case, tmp_path: Path, changes: dict[str, Any]
) -> None:
    change(remade(case, tmp_path), **changes)

    found, message = kind(case, tmp_path)

    assert found == "GoldenMismatch"
    assert 'pytest "trt.toml::net" --trt-update-golden' in message


def test_a_golden_with_nan_is_refused(case: Case, tmp_path: Path) -> None:
    change(remade(case, tmp_path), output__logits=np.full((8, 3), np.nan, np.float32))

    found, message = kind(case, tmp_path)

    assert found == "GoldenMismatch"
    assert "'logits' holds NaN" in message


def test_a_golden_of_other_lengths_is_not_compared(case: Case, tmp_path: Path) -> None:
    change(remade(case, tmp_path), output__logits=np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32))

    assert kind(case, tmp_path)[0] in ("DataError", "EmptyGolden", "GoldenMismatch")


def test_a_golden_whose_outputs_stand_still_is_refused(case: Case, tmp_path: Path) -> None:
    change(remade(case, tmp_path), output__logits=np.ones((8, 3), np.float32))

    found, message = kind(case, tmp_path)

    assert found == "EmptyGolden"
    assert "'logits' moves by 0.0e+00 of its size" in message


def dead(proto: onnx.ModelProto) -> onnx.ModelProto:
    return networks.with_weight(proto, "w3", lambda w: w * 1e-7)


def test_a_network_whose_outputs_stand_still_gets_no_golden(case: Case, tmp_path: Path) -> None:
    networks.save(dead(networks.convolutional()), tmp_path / "net.onnx")

    with pytest.raises(EmptyGolden, match="even a broken engine would agree"):
        update(case, tmp_path / "golden")

    assert not (tmp_path / "golden").exists()


def test_an_output_that_may_stand_still_is_listed(case: Case, tmp_path: Path) -> None:
    networks.save(dead(networks.convolutional()), tmp_path / "net.onnx")

    assert create(replace(case, constant_outputs=("logits",))).evidence["logits"] < 1e-3


def test_a_single_sample_is_held_against_zeros(case: Case, tmp_path: Path) -> None:
    one = replace(case, samples=1)
    path = remade(one, tmp_path)

    assert read(path, "").evidence["logits"] > 1e-3
    assert kind(one, tmp_path)[0] == "passed"
    networks.save(dead(networks.convolutional()), tmp_path / "net.onnx")
    with pytest.raises(EmptyGolden):
        create(one)


@pytest.mark.parametrize(("output", "samples", "moved"), [(np.ones((4, 2)), 4, 0.0), (np.zeros((4, 2)), 4, 0.0)])
def test_movement_is_std_over_samples_to_rms(output: np.ndarray, samples: int, moved: float) -> None:
    assert movement(output, samples) == moved
    assert movement(np.array([[1.0], [3.0]]), 2) == pytest.approx(1 / np.sqrt(5))
    assert movement(output, 1) is None


def broken(name: str, break_weight: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    return networks.with_weight(networks.convolutional(), name, break_weight)


@pytest.mark.parametrize(
    ("proto", "error"),
    [
        (broken("b3", lambda b: b * np.nan), PytestTrtError),
        (broken("w1", lambda w: np.where(w == w.max(), np.nan, w).astype("f")), PytestTrtError),
    ],
)
def test_a_network_that_computes_nan_gets_no_golden(
    case: Case, tmp_path: Path, proto: onnx.ModelProto, error: type
) -> None:
    before = remade(case, tmp_path).read_bytes()
    networks.save(proto, tmp_path / "net.onnx")

    with pytest.raises(error, match="NaN"):
        update(case, tmp_path / "golden")

    assert (tmp_path / "golden" / "net.safetensors").read_bytes() == before


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_a_golden_is_never_written_in_ci(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("CI", value)

    with pytest.raises(GoldenRefused, match="where CI is set"):
        update(case, tmp_path / "golden")

    assert not (tmp_path / "golden").exists()


def test_a_golden_is_made_from_fp32_alone(case: Case, tmp_path: Path) -> None:
    from pytest_trt.lowering._strong_typing import fp16_typed

    networks.save(fp16_typed(networks.convolutional()), tmp_path / "net.onnx")

    with pytest.raises(GoldenRefused, match="holds fp16, and a golden is made from fp32"):
        create(case)


def test_a_network_without_float_output_gets_no_golden(tmp_path: Path) -> None:
    proto = networks.embedding()
    del proto.graph.output[0]
    networks.save(proto, tmp_path / "net.onnx")

    with pytest.raises(ModelError, match=r"no float output \('best' int64\[N\]\)"):
        create(Case(onnx="net.onnx", base=tmp_path))


def test_an_update_tells_what_changed(case: Case, tmp_path: Path) -> None:
    assert update(case, tmp_path / "golden")[0].startswith("net: new golden")
    networks.save(networks.with_weight(networks.convolutional(), "b3", lambda b: b + 1), tmp_path / "net.onnx")

    lines = "\n".join(update(replace(case, samples=8), tmp_path / "golden"))

    assert "input 'x': unchanged" in lines
    assert "output 'logits': changed by a relative RMS of" in lines
    assert "bound" in lines


def test_a_damaged_golden_is_replaced_and_said_to_have_been_unreadable(case: Case, tmp_path: Path) -> None:
    path = remade(case, tmp_path)
    path.write_bytes(b"")

    [line] = update(case, tmp_path / "golden")

    assert "replaces a golden that could not be read" in line
    assert kind(case, tmp_path)[0] == "passed"


def test_an_integer_output_is_bounded_by_the_share_that_differs(tmp_path: Path) -> None:
    networks.save(networks.embedding(), tmp_path / "net.onnx")
    table = {"onnx": "net.onnx", "input": {"ids": {"low": 0, "high": 9}}, "samples": 64}
    case = Case.from_table(table, tmp_path, "trt.toml")

    envelope = create(case).envelope

    assert envelope["fp32"]["best"]["error"] == 0.0
    assert envelope["fp32"]["best"]["bound"] == 0.0
    assert envelope["fp16"]["best"]["bound"] >= 0.01


def test_labels_must_be_one_class_a_sample(case: Case, tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.zeros(7, np.int64))

    with pytest.raises(PytestTrtError, match=r"labels 'labels.npy' are int64\[7\]: one whole number for each of the 8"):
        create(replace(case, labels="labels.npy"))


def test_golden_inputs_must_fit(case: Case, tmp_path: Path) -> None:
    np.savez(tmp_path / "inputs.npz", y=networks.images())

    with pytest.raises(DataError, match=r"inputs 'inputs.npz' lacks 'x' and holds 'y'"):
        create(replace(case, inputs="inputs.npz"))


def test_reading_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(MissingGolden, match=r"no golden .*none.safetensors"):
        read(tmp_path / "none.safetensors", "mend")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(DamagedGolden, match=r"text.safetensors can't be read"):
        read(tmp_path / "text.safetensors", "mend")


def test_metadata_are_plain_to_read(case: Case, tmp_path: Path) -> None:
    with safe_open(remade(case, tmp_path), framework="np") as file:
        metadata = file.metadata()

    assert (metadata["schema"], metadata["case"], metadata["origin"]) == ("2", "net", "onnx")
    assert json.loads(metadata["envelope"])["fp16"]["logits"]["bound"] > 0
