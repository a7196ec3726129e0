"""The benchmark on networks of other people, on one of our own: nothing is fetched."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from places import ROOT

from benchmarks.foreign import files, networks
from benchmarks.foreign.draws import Foreign, drawn
from benchmarks.foreign.graphs import outputs_of, values_of
from benchmarks.foreign.insides import swallowed
from benchmarks.foreign.judging import Judging
from benchmarks.foreign.measure import Asked, healthy_of, measured, planted_of
from benchmarks.foreign.networks import CHOSEN, NETWORKS, REPORTED, Source
from benchmarks.foreign.outputs import best, still_slice
from benchmarks.foreign.specimen import NoPlace, Specimen
from benchmarks.foreign.specimens import DEFECTS, TWINS
from benchmarks.foreign.table import is_found, is_placed, is_right, tables
from benchmarks.foreign.truth import is_worse, truth_of
from benchmarks.zoo.weights import zeroed

if TYPE_CHECKING:
    from pathlib import Path

DIGITS = ROOT / "examples" / "digits"


def scans(_: np.random.Generator, count: int, __: Path, ___: Path) -> tuple[dict[str, Any], Any]:
    with np.load(DIGITS / "test.npz") as file:
        arrays = {name: array[:count] for name, array in file.items()}
    return arrays, np.load(DIGITS / "labels.npy")[:count]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("foreign")
    (place / "digits").mkdir()
    shutil.copy(DIGITS / "digits.onnx", place / "digits" / "digits.onnx")
    return place


@pytest.fixture(scope="module")
def network(folder: Path) -> Foreign:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.NETWORKS, "digits", Source("none==0", "digits.onnx", scans, 32, 32, "digits"))
        return drawn("digits", folder, folder, 0)


@pytest.fixture(scope="module")
def judging(folder: Path) -> Judging:
    return Judging(folder / "judging")


@pytest.fixture(scope="module")
def healthy(network: Foreign, judging: Judging) -> list[dict[str, Any]]:
    rows, seconds = healthy_of(network, 0, ("fp16", "int8"), judging)
    assert seconds["golden"] > 0 < seconds["gate"]
    return rows


def asked(name: str, precision: str) -> Specimen:
    return next(one for one in (*TWINS, *DEFECTS) if (one.name, one.precision) == (name, precision))


def test_each_network_is_in_one_half() -> None:
    assert {*CHOSEN, *REPORTED} == {*NETWORKS}
    assert not {*CHOSEN} & {*REPORTED}


def test_two_draws_of_calibration_have_no_sample_in_common(network: Foreign) -> None:
    own, other = network.samples(), dict(np.load(network.other))

    [name] = own
    assert not {sample.tobytes() for sample in own[name]} & {sample.tobytes() for sample in other[name]}


def test_healthy_deployments_pass_by_both_sets_of_calibration_samples(healthy: list[dict[str, Any]]) -> None:
    assert [(row["precision"], row["verdict"]) for row in healthy] == [
        ("fp16", "passed"),
        ("int8", "passed"),
        ("int8", "passed"),
    ]


@pytest.mark.usefixtures("healthy")
def test_planted_defects_are_found_placed_and_what_is_said_of_them_mends_them(
    network: Foreign, judging: Judging
) -> None:
    names = ["fp16 file", "few samples overflow", "a slice stands still", "other inputs", "labels are missing"]
    chosen = [asked(names[0], "model"), *(asked(name, "fp16") for name in names[1:])]

    rows, _ = planted_of(network, judging, [*chosen, asked("a quarter of a weight zeroed, fp16 file", "model")])

    twin, *defects, kept = rows
    assert twin["verdict"] == "passed"
    assert [(is_found(row), is_right(row), bool(row["tensors"]) <= is_placed(row)) for row in defects] == [
        (True, True, True)
    ] * 5
    assert (kept["name"], kept["verdict"]) == ("few samples overflow, kept as told", "passed")


def test_a_weight_of_a_constant_node_is_found_to_be_changed(network: Foreign, tmp_path: Path) -> None:
    constants = replace(network, folder=tmp_path)
    proto = onnx.load(network.onnx)
    for tensor in list(proto.graph.initializer):
        node = onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        proto.graph.initializer.remove(tensor)
        proto.graph.node.insert(0, node)
    onnx.save(proto, constants.onnx)

    planted = files.weights(zeroed, "fp16", constants, tmp_path)

    weights = {node.attribute[0].t.name for node in proto.graph.node if node.op_type == "Constant"}
    assert len(weights & planted.tensors) == 1


def test_a_tool_that_is_not_there_or_a_place_that_is_not_is_told_apart(network: Foreign, tmp_path: Path) -> None:
    def broken(_: Foreign, __: Path) -> Any:
        raise ValueError("of another tool")

    def nowhere(_: Foreign, __: Path) -> Any:
        raise NoPlace("none")

    rows, _ = planted_of(
        network, Judging(tmp_path), [Specimen("broken", "fp16", broken), Specimen("nowhere", "fp16", nowhere)]
    )

    assert [(row["verdict"], row["first"]) for row in rows] == [("not planted", "ValueError: of another tool")]


def test_an_infinity_is_planted_only_where_an_output_moves(network: Foreign, tmp_path: Path) -> None:
    with pytest.raises(NoPlace):
        swallowed(network, tmp_path)


def test_a_slice_is_planted_that_moves_in_the_golden(network: Foreign, tmp_path: Path) -> None:
    planted = still_slice(network, tmp_path)

    [name] = planted.tensors
    before = values_of(network, [name])[name]
    after = outputs_of(onnx.load(str(planted.case.onnx)), network.inputs)[name]
    assert (np.ptp(after, 0) == 0).sum() == 1
    assert (np.ptp(before, 0) > 0).all()


def test_the_best_are_off_by_one_in_the_deployed_file_only(network: Foreign, tmp_path: Path) -> None:
    case = best(1, network, tmp_path).case

    healthy, deployed = (outputs_of(onnx.load(str(path)), network.inputs) for path in (case.reference, case.onnx))
    assert (deployed["best/index"] == healthy["best/index"] + 1).all()
    assert (deployed["best"] == healthy["best"]).all()


def test_truth_is_float64_and_plain_onnxruntime(
    network: Foreign, healthy: list[dict[str, Any]], tmp_path: Path
) -> None:
    case = files.from_onnxruntime(network, tmp_path).case
    twin = {"name": "onnxruntime's Q/DQ file", "precision": "model", "seed": 0, "verdict": "passed"}

    [row] = truth_of(network, {"onnxruntime's Q/DQ file": case.onnx}, [*healthy, twin])  # type: ignore[dict-item]

    assert row["golden against float64"] < 1e-5
    assert 1e-3 < row["file in onnxruntime"] < 0.2
    assert row["ours, simulated"] < row["our bound"]


def test_a_file_of_another_tool_is_no_healthy_one_where_it_errs_twice_as_much_as_ours() -> None:
    row = {"file in onnxruntime": 0.21, "our file in onnxruntime": 0.1}

    assert is_worse([row])
    assert not is_worse([{**row, "our file in onnxruntime": 0.11}, {**row, "our file in onnxruntime": None}])


def test_keys_that_a_checkout_does_not_know_are_left_out(network: Foreign, tmp_path: Path) -> None:
    old = tmp_path / "old" / "pytest_trt"
    old.mkdir(parents=True)
    (old / "__init__.py").write_text(
        "import dataclasses\n@dataclasses.dataclass\nclass Case:\n    name: str = ''\n    onnx: str = ''\n"
    )
    judging = Judging(tmp_path / "judging", old.parent)

    judging("old", [(network.case, ["fp16"])])

    text = (tmp_path / "judging" / "trt.toml").read_text()
    assert "onnx = " in text
    assert "labels" not in text


def test_a_network_that_can_not_be_had_is_skipped_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "ERROR: no network")

    monkeypatch.setattr(subprocess, "run", offline)

    found = measured("ppcls", Asked(tmp_path, tmp_path / "wheels", ROOT, ("fp16",), 1, planted=False))

    assert found["rows"] == []
    assert found["skipped"][0]["reason"].endswith("ERROR: no network")


def test_the_tables_tell_a_miss_and_a_false_alarm(tmp_path: Path) -> None:
    row = {"network": "ppcls", "name": "x", "precision": "fp16", "seed": 0, "tensors": [], "warns": False, "first": ""}
    missed = {**row, "expected": ["TRT202"], "verdict": "passed", "codes": []}
    alarm = {**row, "name": "y", "expected": [], "verdict": "failed", "codes": ["TRT302"]}
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"rows": [missed, alarm], "seconds": [], "truth": [], "skipped": []}))

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.foreign", "--table", results], capture_output=True, text=True, cwd=ROOT
    )

    assert "not found: x" in done.stdout
    assert "false alarm: y" in done.stdout
    assert done.stdout.strip() == tables(json.loads(results.read_text())).strip()


@pytest.mark.parametrize("words", [["work", "--networks", "resnet"], ["work", "--precisions", "fp99"], []])
def test_what_is_not_there_to_be_asked_is_refused(words: list[str]) -> None:
    command = [sys.executable, "-m", "benchmarks.foreign", *words]

    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
