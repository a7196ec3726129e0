"""A golden knows which inputs and labels it answers, and another question makes it stale."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest
from onnx import helper

from pytest_trt import Case, check
from pytest_trt.golden.create import create, update
from pytest_trt.golden.diff import golden_difference
from pytest_trt.golden.golden import read, write
from pytest_trt.golden.load import verify
from pytest_trt.model.samples import InputSpec

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_trt.findings.verdict import Verdict

FUNCTION = "import networks\ndef inputs():\n    return networks.images({samples}, seed=3)\n"


@pytest.fixture
def case(tmp_path: Path) -> Case:
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    np.savez(tmp_path / "test.npz", x=networks.images(6, seed=3))
    np.save(tmp_path / "labels.npy", np.arange(6) % 3)
    return asking(tmp_path, inputs="test.npz", labels="labels.npy")


def asking(base: Path, **told: Any) -> Case:
    return Case(onnx="net.onnx", base=base, where="trt.toml", command='"trt.toml::net"', **told)


def judged(case: Case) -> Verdict:
    return check(case, "fp32", golden_dir=case.base / "golden")


def made(case: Case) -> Case:
    update(case, case.base / "golden")
    assert judged(case).passed
    return case


def function(case: Case, samples: int = 6) -> Case:
    (case.base / "samples.py").write_text(FUNCTION.format(samples=samples))
    return replace(case, inputs="samples:inputs")


def drawn(case: Case) -> Case:
    return replace(case, inputs=None, labels=None, input={"x": InputSpec(low=-1.0, high=1.0)})


def stale(case: Case, key: str) -> str:
    verdict = judged(case)
    assert (verdict.kind, [finding.code for finding in verdict.findings]) == ("StaleGolden", ["TRT502"]), verdict
    assert f"by `{key}`" in verdict.message
    assert 'pytest "trt.toml::net" --trt-update-golden' in verdict.message
    return verdict.message


def test_other_inputs_in_the_same_file_make_it_stale(case: Case) -> None:
    made(case)
    np.savez(case.base / "test.npz", x=networks.images(6, seed=4))

    assert "'test.npz' holds other arrays" in stale(case, "inputs")


def test_another_file_of_other_inputs_makes_it_stale(case: Case) -> None:
    made(case)
    np.savez(case.base / "more.npz", x=networks.images(6, seed=4))

    assert "which were those of 'test.npz'" in stale(replace(case, inputs="more.npz"), "inputs")


def test_another_number_of_inputs_makes_it_stale(case: Case) -> None:
    made(case)
    np.savez(case.base / "test.npz", x=networks.images(6, seed=3)[:5])

    stale(case, "inputs")


def test_inputs_saved_again_or_elsewhere_are_the_same_question(case: Case) -> None:
    made(case)
    np.savez_compressed(case.base / "test.npz", x=networks.images(6, seed=3))
    np.save(case.base / "test.npy", networks.images(6, seed=3))

    assert judged(case).passed
    assert judged(replace(case, inputs="test.npy")).passed


def test_inputs_of_the_same_bytes_are_not_read(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    made(case)
    monkeypatch.setattr("pytest_trt.golden._question.inputs_of", lambda *_: pytest.fail("read"))
    monkeypatch.setattr("pytest_trt.golden._question.labels_of", lambda *_: pytest.fail("read"))

    assert judged(case).passed


def test_other_labels_make_it_stale(case: Case) -> None:
    made(case)
    np.save(case.base / "labels.npy", (np.arange(6) + 1) % 3)

    stale(case, "labels")


def test_labels_of_another_whole_type_are_the_same_question(case: Case) -> None:
    made(case)
    np.save(case.base / "labels.npy", (np.arange(6) % 3).astype(np.uint8))

    assert judged(case).passed


def test_labels_that_are_named_only_afterwards_make_it_stale(case: Case) -> None:
    made(replace(case, labels=None))

    assert "there were none" in stale(case, "labels")


def test_a_case_without_labels_may_take_a_golden_with_them(case: Case) -> None:
    made(case)

    assert judged(replace(case, labels=None)).passed


def test_inputs_that_are_named_only_afterwards_make_a_drawn_golden_stale(case: Case) -> None:
    made(drawn(case))

    assert "which were drawn" in stale(replace(case, labels=None), "inputs")


def test_inputs_that_are_named_no_more_make_it_stale(case: Case) -> None:
    made(replace(case, labels=None))

    assert "they are drawn now" in stale(replace(case, inputs=None, labels=None), "inputs")


def test_what_is_drawn_is_named_by_the_key_that_changed(case: Case) -> None:
    plain = made(drawn(case))

    assert "it is 9 now, and was 8" in stale(replace(plain, samples=9), "samples")
    stale(replace(plain, seed=1), "seed")
    assert "it is 2.0 now, and was 1.0" in stale(
        replace(plain, input={"x": InputSpec(low=-1.0, high=2.0)}), "input.x.high"
    )
    stale(replace(plain, input={}), "input.x.low")


def test_the_only_input_may_be_named_or_not(case: Case) -> None:
    plain = made(drawn(case))

    assert judged(replace(plain, input={"": InputSpec(low=-1.0, high=1.0)})).passed


def test_the_shape_that_is_drawn_is_part_of_the_question(tmp_path: Path) -> None:
    spec = (networks.FLOAT, ["N", "L"])
    proto = networks.model([helper.make_node("Relu", ["x"], ["y"])], {"x": spec}, {"y": spec})
    networks.save(proto, tmp_path / "net.onnx")
    wide = made(asking(tmp_path, input={"x": InputSpec(shape=("N", 4))}))

    stale(replace(wide, input={"x": InputSpec(shape=("N", 5))}), "input.x.shape")


@pytest.mark.parametrize("key", ["inputs", "labels"])
def test_a_missing_file_is_an_error_that_names_it(case: Case, key: str) -> None:
    made(case)
    (case.base / getattr(case, key)).unlink()

    verdict = judged(case)

    assert (verdict.verdict, verdict.kind) == ("error", "DataError")
    assert f"{key} = '{getattr(case, key)}': there is no file" in verdict.message


def test_a_function_that_gives_the_same_is_the_same_question(case: Case) -> None:
    made(function(case))

    assert judged(case).passed  # the file holds what the function gives


def test_a_function_that_gives_something_else_makes_it_stale(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = made(function(replace(case, labels=None)))
    monkeypatch.setattr(networks, "images", lambda samples, seed: np.full((samples, 2, 6, 6), seed, np.float32))

    assert "a function must give the same arrays each time" in stale(asked, "inputs")


def test_a_function_that_can_t_be_called_is_an_error_that_says_so(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = made(function(case))
    monkeypatch.delattr(networks, "images")

    verdict = judged(asked)

    assert (verdict.verdict, verdict.kind) == ("error", "DataError")
    assert "inputs 'samples:inputs' raised AttributeError" in verdict.message


def test_a_golden_that_is_named_by_its_file_is_taken_as_it_is(case: Case) -> None:
    made(case)
    other = Case(onnx="net.onnx", name="other", golden="golden/net.safetensors", base=case.base, where="trt.toml")

    assert judged(other).passed
    assert judged(replace(other, seed=1)).kind == "StaleGolden"


def test_a_model_on_the_command_line_can_t_ask_and_takes_its_golden_as_it_is(case: Case) -> None:
    made(case)

    assert judged(Case(onnx="net.onnx", base=case.base, command="--trt-model=net.onnx")).passed


def test_an_older_golden_is_judged_as_before_and_says_that_it_is_older(case: Case) -> None:
    made(case)
    path = case.base / "golden" / "net.safetensors"
    golden = read(path, "")
    older = {key: value for key, value in golden.provenance.items() if key != "question"}
    write(replace(golden, provenance=older), path, "net")
    np.savez(case.base / "test.npz", x=networks.images(6, seed=4))

    verdict = judged(case)

    assert verdict.passed
    [told] = [finding for finding in verdict.findings if finding.code == "TRT507"]
    assert "does not know its question" in told.message
    assert 'pytest "trt.toml::net" --trt-update-golden' in told.remedy


def test_verifying_tells_another_question(case: Case) -> None:
    made(case)
    assert verify(case, case.base / "golden").holds
    np.savez(case.base / "test.npz", x=networks.images(6, seed=4))

    assert "StaleGolden" in verify(case, case.base / "golden").fault


def test_a_difference_of_goldens_names_the_part_of_the_question(case: Case) -> None:
    plain = drawn(case)

    told = golden_difference(create(plain), create(replace(plain, seed=1))).provenance

    assert told["question.inputs.drawn.seed"] == (0, 1)
