"""A torch module as the model: exported once, and its own outputs are the golden."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pytest_trt import Case, check
from pytest_trt.case.reference import model_of
from pytest_trt.errors import CaseError, GoldenRefused, ModelError
from pytest_trt.golden.create import create, update

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch", reason="needs torch: pip install -e '.[cpu,examples]'")

MODULE = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()
    def forward(self, a, b):
        return {"sum": self.net(a + b), "best": self.net(a).argmax(1)}

class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()
    def forward(self, x):
        x.mul_(2.0)
        return self.net(x)

class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()
    def forward(self, x):
        return nn.functional.dropout(self.net(x), 0.5, training=True)

class Nested(nn.Module):
    def forward(self, x):
        return x, (x, x)

def dropping():
    return nn.Sequential(net(), nn.Dropout(0.5))

def unseeded():
    return nn.Linear(6, 3)

def nothing():
    return 3

def failing():
    raise RuntimeError("no weights here")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(MODULE)
    return tmp_path


def case(folder: Path, factory: str = "net", **keys: Any) -> Case:
    table = {"torch": f"nets:{factory}", "input": {"shape": ["N", 6]}, **keys}
    return Case.from_table(table, folder, "trt.toml")


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "int8"])
def test_a_torch_module_is_judged_against_its_own_outputs(folder: Path, precision: str) -> None:
    made = case(folder, calibration="golden")
    update(made, folder / "golden")

    verdict = check(made, precision, golden_dir=folder / "golden")

    assert verdict.verdict == "passed"
    assert verdict.hops[0].start == "torch"


def test_the_golden_keeps_both_outputs_and_says_that_they_are_pytorchs(folder: Path) -> None:
    golden = create(case(folder))

    assert golden.origin == "torch"
    assert "torch" in golden.provenance
    np.testing.assert_allclose(golden.onnx_outputs["output"], golden.outputs["output"], rtol=1e-4, atol=1e-6)


def test_several_inputs_and_named_outputs(folder: Path) -> None:
    shapes = {"a": {"shape": ["N", 6]}, "b": {"shape": ["N", 6]}}
    made = case(folder, "Two", input=shapes)
    update(made, folder / "golden")

    verdict = check(made, "fp16", golden_dir=folder / "golden")

    assert verdict.verdict == "passed"
    assert [j.output for j in verdict.judgements] == ["sum", "best"]


def test_a_module_that_works_in_place_leaves_the_golden_alone(folder: Path) -> None:
    inputs = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
    np.savez(folder / "in.npz", input=inputs)

    golden = create(case(folder, "InPlace", inputs="in.npz"))

    np.testing.assert_array_equal(golden.inputs["input"], inputs)


def test_dropout_is_switched_off_by_eval(folder: Path) -> None:
    assert create(case(folder, "dropping")).origin == "torch"


def test_random_outputs_do_not_survive_the_hop_to_onnx(folder: Path) -> None:
    with pytest.raises(GoldenRefused, match="PyTorch and ONNX disagree before any precision is lowered"):
        create(case(folder, "Noisy"))


def test_other_weights_make_the_golden_stale_and_the_seed_is_hinted_at(folder: Path) -> None:
    update(case(folder), folder / "golden")
    # a compiled file is known by its length and its second
    (folder / "nets.py").write_text(MODULE.replace("manual_seed(0)", "manual_seed(12)"))

    done = in_another_process(folder)

    assert "StaleGolden" in done
    assert "a torch factory must seed its random weights" in done


def in_another_process(folder: Path) -> str:
    script = (
        "from pytest_trt import Case, check; from pathlib import Path\n"
        f"table = {{'torch': 'nets:net', 'input': {{'shape': ['N', 6]}}}}\n"
        f"case = Case.from_table(table, Path({str(folder)!r}), 'trt.toml')\n"
        f"verdict = check(case, 'fp32', golden_dir={str(folder / 'golden')!r})\n"
        "print(verdict.verdict, verdict.kind, verdict.message)\n"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def test_the_same_module_exported_otherwise_is_not_stale(folder: Path) -> None:
    update(case(folder), folder / "golden")
    other = case(folder, opset=16)

    assert check(other, "fp32", golden_dir=folder / "golden").verdict == "passed"


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        ("nothing", CaseError, "returned int, no torch.nn.Module"),
        ("failing", CaseError, r"raised RuntimeError: no weights here \(.*nets.py:\d+\)"),
        ("absent", CaseError, "has no 'absent'"),
        ("Nested", ModelError, "returns tuple where a tensor is needed"),
    ],
)
def test_a_factory_that_can_not_be_used_is_named(folder: Path, factory: str, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        create(case(folder, factory))


def test_inputs_must_have_shapes(folder: Path) -> None:
    with pytest.raises(CaseError, match="needs the shape of its inputs to be exported"):
        create(Case(torch="nets:net", base=folder, where="trt.toml"))


def test_a_torch_reference_judges_a_file_of_another_tool(folder: Path) -> None:
    from networks import save

    from pytest_trt.lowering._strong_typing import fp16_typed

    made = case(folder)
    save(fp16_typed(model_of(made).proto), folder / "half.onnx")
    table = {"onnx": "half.onnx", "reference": "nets:net", "input": {"shape": ["N", 6]}, "name": "half"}
    half = Case.from_table(table, folder, "trt.toml")
    update(half, folder / "golden")

    verdict = check(half, "model", golden_dir=folder / "golden")

    assert (verdict.verdict, verdict.held) == ("passed", "fp16")
