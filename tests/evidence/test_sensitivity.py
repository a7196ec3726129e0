from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from click.testing import CliRunner

from pytest_trt import Precision, Ranges
from pytest_trt.calibration.calibration import calibrate
from pytest_trt.cli.main import main
from pytest_trt.errors import LoweringError
from pytest_trt.evidence.sensitivity import _shortest, matrix_layers, sensitivity
from pytest_trt.model.graph import float_activations
from pytest_trt.model.model import Model, checked
from pytest_trt.ranges.files import write_ranges

if TYPE_CHECKING:
    from pathlib import Path

RUNS = [{"x": networks.images()}]


@pytest.fixture
def net() -> Model:
    return checked(networks.convolutional(), "net")


def spoiled(net: Model, **by: float) -> Ranges:
    amax = dict(calibrate(net, float_activations(net.proto), RUNS, "images").amax)
    return Ranges({name: value * by.get(name, 1) for name, value in amax.items()})


@pytest.mark.parametrize(("tensor", "layer"), [("x", "conv1"), ("f", "fc")])
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_the_one_bad_layer_is_found_first_and_is_all_that_is_kept(
    net: Model, tensor: str, layer: str, precision: str
) -> None:
    found = sensitivity(net, precision, RUNS, spoiled(net, **{tensor: 0.05}), bounds={"logits": 0.1})

    assert found.layers[0].node == layer
    assert found.keep == (layer,)
    assert found.error > 1
    assert found.kept_error is not None
    assert found.kept_error <= 1


def test_two_bad_layers_are_both_kept_and_no_third(net: Model) -> None:
    found = sensitivity(net, "int8", RUNS, spoiled(net, x=0.05, f=0.05), bounds={"logits": 0.1})

    assert sorted(found.keep or ()) == ["conv1", "fc"]


def test_bad_layers_that_hide_each_others_gain_are_found_by_what_each_does_alone() -> None:
    names = [f"m{place}" for place in range(12)]
    harm = {name: 4.0 if place % 2 else 0.01 for place, name in enumerate(names)}
    tried = []

    class Trial:
        precision = "int8"

        def error(self, keep: tuple[str, ...]) -> float:
            tried.append(keep)
            return max((harm[name] for name in names if name not in keep), default=0.0)

        def inside(self, keep: tuple[str, ...]) -> bool:
            return self.error(keep) <= 1

    found = _shortest(Trial(), names, lambda *_: None)  # type: ignore[arg-type]

    assert found == tuple(names[1::2])
    assert len(tried) < 60


class Trial:
    """Inside with five of its layers in fp32, or with two of them and a sixth that does less harm alone."""

    precision = Precision.INT8

    def error(self, keep: tuple[str, ...]) -> float:
        lowered = [layer for layer in "abcdefgh" if layer not in keep]
        harm = {"a": 7, "b": 6, "c": 5, "d": 4, "e": 3, "f": 2}
        return 10.0 * max(harm.get(layer, 1) for layer in lowered) if len(lowered) == 1 else 2.0

    def inside(self, keep: tuple[str, ...]) -> bool:
        return set("abcde") <= set(keep) or set("abf") <= set(keep)


def test_one_layer_takes_the_place_of_two_where_that_will_do() -> None:
    found = _shortest(Trial(), list("hgfedcba"), lambda _phase, _share: None)  # type: ignore[arg-type]

    assert set(found or ()) == set("abf")


def test_a_model_inside_its_bound_keeps_nothing(net: Model) -> None:
    found = sensitivity(net, "int8", RUNS, spoiled(net), bounds={"logits": 0.1})

    assert found.keep == ()
    assert found.kept_error == found.error < 1


def test_a_bound_that_only_fp32_meets_has_no_list(net: Model) -> None:
    assert sensitivity(net, "int8", RUNS, spoiled(net), bounds={"logits": 1e-9}).keep is None


def test_without_a_bound_layers_are_ranked_and_none_chosen(net: Model) -> None:
    found = sensitivity(net, "fp16", RUNS)

    assert (found.bounded, found.keep, found.kept_error) == (False, None, None)
    assert {gain.node for gain in found.layers} == {"conv1", "conv2", "fc"}
    assert [gain.gain for gain in found.layers] == sorted((gain.gain for gain in found.layers), reverse=True)


def test_errors_are_those_of_the_right_outputs_where_they_are_given(net: Model) -> None:
    wrong = [{"logits": np.zeros((8, 3), np.float32) + 1e3}]

    assert sensitivity(net, "fp16", RUNS, exact=wrong).error > 0.9


def test_layers_of_one_name_go_by_what_they_compute(net: Model) -> None:
    for node in net.proto.graph.node:
        node.name = "same"

    assert list(matrix_layers(net)) == ["c1", "c2", "logits"]


def test_a_model_of_one_layer_has_nothing_to_choose(net: Model) -> None:
    with pytest.raises(LoweringError, match="fewer than two layers"):
        sensitivity(checked(networks.embedding(), "embedding"), "fp16", [])


def test_progress_names_each_layer_and_leaves_nothing_behind(net: Model) -> None:
    told: list[tuple[str, float | None]] = []
    sensitivity(net, "fp16", RUNS, progress=lambda *what: told.append(what))

    assert ("fp16: conv2 in fp32", 1 / 3) in told
    assert told[-1] == ("", None)


@pytest.fixture
def folder(net: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """net.onnx, inputs.npz, and ranges of which conv1's are bad."""
    monkeypatch.chdir(tmp_path)
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    np.savez(tmp_path / "inputs.npz", x=RUNS[0]["x"])
    write_ranges(spoiled(net, x=0.05), tmp_path / "bad.txt")
    return tmp_path


def run(*words: str) -> Any:
    return CliRunner().invoke(main, ["sensitivity", "net.onnx", *words])


@pytest.mark.usefixtures("folder")
def test_the_command_prints_the_ranking_and_the_words_for_the_case() -> None:
    found = run("--precision", "int8", "--ranges", "bad.txt", "--inputs", "inputs.npz", "--bound", "0.1")

    assert found.exit_code == 0, found.output
    assert found.output.splitlines()[1].endswith("Conv conv1")
    assert 'keep = ["conv1"]' in found.output


def test_the_command_writes_the_layers_a_line_each(folder: Path) -> None:
    words = ["--ranges", "bad.txt", "--inputs", "inputs.npz", "--bound", "0.1", "-o", "keep.txt", "--json"]
    found = run("--precision", "int8", *words)

    assert (folder / "keep.txt").read_text() == "conv1\n"
    assert json.loads(found.output)["keep"] == ["conv1"]


@pytest.mark.usefixtures("folder")
def test_data_calibrates_and_a_bound_out_of_reach_is_told_with_exit_code_1() -> None:
    found = run("--precision", "int8", "--data", "inputs.npz", "--inputs", "inputs.npz", "--bound", "1e-9")

    assert found.exit_code == 1
    assert "no list short of all layers" in found.output


def test_the_goldens_bound_is_kept_and_anothers_golden_refused(
    golden: Path, net: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(golden.parents[1])
    write_ranges(spoiled(net, x=0.02), golden.parents[1] / "bad.txt")
    words = ("--precision", "int8", "--ranges", "bad.txt", "--golden", str(golden))

    assert 'keep = ["conv1"]' in run(*words).output

    networks.save(networks.convolutional(seed=1), golden.parents[1] / "net.onnx")
    assert "is of another model" in run(*words).output


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--precision int8 --inputs inputs.npz", "int8 needs ranges"),
        ("--precision int8 --ranges bad.txt --data inputs.npz --inputs inputs.npz", "one of them"),
        ("--precision fp16 --ranges bad.txt --inputs inputs.npz", "takes no ranges"),
        ("--precision fp16", "what to judge on"),
        ("--precision fp16 --inputs inputs.npz -o keep.txt", "for which bound"),
        ("--precision fp16 --inputs none.npz", "none.npz"),
    ],
)
def test_words_that_do_not_fit_are_refused(words: str, told: str) -> None:
    found = run(*words.split())

    assert found.exit_code == 2
    assert told in found.output


@pytest.mark.usefixtures("folder")
def test_an_interrupt_writes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pytest_trt.evidence.sensitivity.compare", interrupted)
    found = run("--precision", "fp16", "--inputs", "inputs.npz", "--bound", "0.1", "-o", "keep.txt")

    assert found.exit_code == 130
    assert not (folder / "keep.txt").exists()
