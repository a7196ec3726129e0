"""torch as a backend: the module itself in its own precisions, on the CPU here."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest

from pytest_trt import Case, check
from pytest_trt.backends.backend import Backend, Engine, choose
from pytest_trt.backends.torch import open_backend
from pytest_trt.case.build_settings import How, how_of, recipe_of
from pytest_trt.case.reference import model_of, reference_of, subject_of
from pytest_trt.errors import BackendError, LoweringError, ModelError
from pytest_trt.golden.create import update
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from pytest_trt.backends.recipe import Recipe
    from pytest_trt.findings.verdict import Verdict

torch = pytest.importorskip("torch", reason="needs torch: pip install -e '.[cpu,examples]'")

MODULE = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

def unseeded():
    return nn.Linear(6, 3)

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()
    def forward(self, a, count):
        return {"sum": self.net(a) + count.sum(), "best": self.net(a).argmax(1)}

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()
    def forward(self, x):
        return self.net(x * 1e5) * 1e-5

class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()
    def forward(self, x):
        return self.net(x) @ torch.eye(3)

class Single(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()
    def forward(self, x):
        return self.net(x)
    def __deepcopy__(self, memo):
        raise RuntimeError("there is but one")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(MODULE)
    return tmp_path


def case(folder: Path, factory: str = "net", **keys: Any) -> Case:
    table = {"torch": f"nets:{factory}", "input": {"shape": ["N", 6]}, **keys}
    return Case.from_table(table, folder, "trt.toml")


def recipe(case: Case, precision: Precision = Precision.FP32, how: How | None = None) -> Recipe:
    return recipe_of(subject_of(case, precision), (), how or how_of(case))


def judged(case: Case, precision: str, backend: str = "torch", **keys: Any) -> Verdict:
    return check(case, precision, backend=backend, golden_dir=case.base / "golden", **keys)


def inputs(samples: int = 5) -> dict[str, np.ndarray]:
    return {"input": np.random.default_rng(0).standard_normal((samples, 6)).astype(np.float32)}


def on_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> Backend:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    return choose("torch")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "model"])
def test_the_module_is_within_the_envelope_at_each_precision_that_torch_runs(folder: Path, precision: str) -> None:
    made = case(folder)
    update(made, folder / "golden")

    verdict = judged(made, precision)

    assert (verdict.verdict, verdict.simulated, verdict.backend) == ("passed", True, "torch")
    assert verdict.provenance["engine"] == {
        "torch": torch.__version__,
        "module": "nets:net",
        "device": "cpu",
        "mode": "eager",
    }


def test_the_backend_and_its_engine_are_what_the_protocols_say(folder: Path) -> None:
    backend = choose("torch")
    engine = backend.build(recipe(case(folder)))

    assert isinstance(backend, Backend)
    assert isinstance(engine, Engine)
    assert (backend.version, backend.builds_engines, engine.layers()) == (f"torch {torch.__version__}", False, ())


def test_fp16_computes_in_fp16_and_overflows_where_fp16_does(folder: Path) -> None:
    made = case(folder, "Wide")
    update(made, folder / "golden")

    assert judged(made, "bf16").verdict == "passed"
    assert judged(made, "fp16").verdict != "passed"


def test_outputs_come_back_in_the_models_dtype_and_are_rounded_to_fp16(folder: Path) -> None:
    found = choose("torch").build(recipe(case(folder), Precision.FP16)).run(inputs())["output"]

    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, found.astype(np.float16).astype(np.float32))


def eager(made: Case) -> np.ndarray:
    """What the module itself computes."""
    run = reference_of(made).run
    assert run is not None
    return run(inputs())["output"]


def test_an_fp16_run_leaves_the_shared_module_alone(folder: Path) -> None:
    made = case(folder)
    before = eager(made)

    choose("torch").build(recipe(made, Precision.FP16)).run(inputs())

    np.testing.assert_array_equal(eager(made), before)


def test_a_factory_that_does_not_seed_is_not_called_again(folder: Path) -> None:
    made = case(folder, "unseeded")
    expected = eager(made)

    found = choose("torch").build(recipe(made)).run(inputs())["output"]

    np.testing.assert_array_equal(found, expected)


def test_integers_go_in_and_out_as_they_are_beside_fp16(folder: Path) -> None:
    told = {"a": {"shape": ["N", 6]}, "count": {"shape": ["N"], "dtype": "int64", "low": 0, "high": 3}}
    engine = choose("torch").build(recipe(case(folder, "Two", input=told), Precision.FP16))

    found = engine.run({"count": np.array([1, 2]), "a": inputs(2)["input"]})

    assert {name: array.dtype for name, array in found.items()} == {"sum": np.float32, "best": np.int64}


def test_batches_are_cut_as_the_case_says(folder: Path) -> None:
    whole = choose("torch").build(recipe(case(folder))).run(inputs())["output"]
    cut = choose("torch").build(recipe(case(folder, batch=2))).run(inputs())["output"]

    np.testing.assert_allclose(cut, whole, rtol=1e-6, atol=1e-7)


def test_a_torch_reference_stands_for_the_onnx_file_beside_it(folder: Path) -> None:

    networks.save(model_of(case(folder)).proto, folder / "net.onnx")
    table = {"onnx": "net.onnx", "reference": "nets:net", "input": {"shape": ["N", 6]}}
    made = Case.from_table(table, folder, "trt.toml")
    update(made, folder / "golden")

    assert judged(made, "bf16").verdict == "passed"


def test_a_case_of_onnx_alone_is_told_what_torch_needs(folder: Path) -> None:
    networks.save(networks.convolutional(), folder / "net.onnx")
    made = Case(onnx="net.onnx", base=folder)
    update(made, folder / "golden")

    verdict = judged(made, "fp32")

    assert (verdict.verdict, verdict.kind) == ("error", "BackendError")
    assert 'torch = "module:factory"' in verdict.message
    assert 'reference = "module:factory"' in verdict.message


def test_int8_is_refused_with_what_torch_runs(folder: Path) -> None:
    made = case(folder, calibration="golden")
    update(made, folder / "golden")

    verdict = judged(made, "int8")

    assert (verdict.verdict, verdict.kind) == ("error", "LoweringError")
    assert "in int8: it runs fp32, tf32, fp16, bf16" in verdict.message


def test_a_file_that_holds_fp16_is_not_judged_by_its_fp32_module(folder: Path) -> None:
    from pytest_trt.lowering._strong_typing import fp16_typed
    from pytest_trt.model.model import Model

    asked = recipe(case(folder), Precision.MODEL)
    half = replace(asked, model=Model(fp16_typed(asked.model.proto), "half.onnx"))

    with pytest.raises(LoweringError, match=r"the fp16 that half\.onnx holds"):
        choose("torch").build(half)


def test_a_prebuilt_engine_is_refused(folder: Path) -> None:
    with pytest.raises(BackendError, match=r"can't load the engine net\.plan"):
        choose("torch").build(replace(recipe(case(folder)), plan=Path("net.plan")))


def test_a_module_that_fails_in_fp16_is_named_with_its_line(folder: Path) -> None:
    made = case(folder, "Mixed")
    update(made, folder / "golden")

    verdict = judged(made, "fp16")

    assert (verdict.verdict, verdict.kind) == ("error", "BackendError")
    assert "the torch module nets:Mixed at fp16 on cpu fails: RuntimeError" in verdict.message
    assert "nets.py" in verdict.message


def test_a_module_that_can_not_be_copied_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"nets:Single can't be copied: RuntimeError: there is but one"):
        choose("torch").build(recipe(case(folder, "Single")))


def test_tf32_needs_a_gpu(folder: Path) -> None:
    with pytest.raises(BackendError, match="runs tf32 on a GPU only"):
        choose("torch").build(recipe(case(folder), Precision.TF32))


def test_tf32_needs_a_gpu_that_has_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = on_gpu(monkeypatch, (7, 5))

    with pytest.raises(BackendError, match=r"a GPU has no TF32: its compute capability is 7\.5"):
        backend.build(recipe(case(folder), Precision.TF32))


def test_tf32_is_refused_where_the_environment_forbids_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    backend = on_gpu(monkeypatch, (9, 0))

    with pytest.raises(BackendError, match="NVIDIA_TF32_OVERRIDE=0 forbids it"):
        backend.build(recipe(case(folder), Precision.TF32))


def test_a_gpu_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(BackendError, match="GPU 1 was asked for, and torch finds 0"):
        choose("torch").build(recipe(case(folder, build={"device": 1})))


@pytest.mark.parametrize(("precision", "word"), [(Precision.FP32, "ieee"), (Precision.TF32, "tf32")])
def test_tf32_is_on_for_tf32_alone_and_left_as_it_was(folder: Path, precision: Precision, word: str) -> None:
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
    before = [switch.fp32_precision for switch in switches]
    seen: list[list[str]] = []
    engine = open_backend().build(recipe(case(folder)))
    engine.network.module.register_forward_hook(lambda *_: seen.append([switch.fp32_precision for switch in switches]))

    replace(engine, precision=precision).run(inputs())

    assert seen == [[word] * 3]
    assert [switch.fp32_precision for switch in switches] == before


def test_tf32_is_left_as_it_was_by_a_run_that_fails(folder: Path) -> None:
    before = torch.backends.cuda.matmul.fp32_precision
    engine = choose("torch").build(recipe(case(folder, "Mixed"), Precision.FP16))

    with pytest.raises(BackendError):
        engine.run(inputs())

    assert torch.backends.cuda.matmul.fp32_precision == before


def test_a_required_engine_is_not_torch(folder: Path) -> None:
    verdict = judged(case(folder), "fp32", require_engine=True)

    assert (verdict.verdict, verdict.kind) == ("error", "BackendError")
    assert "an engine is required" in verdict.message
    assert "'torch' only simulates the precision on the CPU" in verdict.message


def test_a_required_engine_is_not_torch_on_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch, (9, 0))

    verdict = judged(case(folder), "fp32", require_engine=True)

    assert (verdict.verdict, verdict.kind) == ("error", "BackendError")
    assert "'torch' builds no TensorRT engine" in verdict.message


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)

    with pytest.raises(BackendError, match=r'pip install "pytest-trt\[torch\]"'):
        choose("torch-compile")


def test_a_missing_compiler_is_told_in_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class InvalidCxxCompiler(RuntimeError):
        __module__ = "torch._inductor.exc"

    def compiled(module: Any) -> Any:
        def forward(*tensors: Any) -> Any:
            raise InvalidCxxCompiler("No working C++ compiler found")

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    engine = choose("torch-compile").build(recipe(case(folder)))

    with pytest.raises(
        BackendError, match=r"can't compile .* No working C\+\+ compiler found.* install it, or run uncom"
    ):
        engine.run(inputs())


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_the_compiled_module_computes_what_the_eager_one_does(folder: Path) -> None:
    made = case(folder)
    engine = open_backend("torch-compile").build(recipe(made))

    found = engine.run(inputs())["output"]

    assert engine.facts["mode"] == "compiled"
    assert type(engine.network.module).__name__ == "OptimizedModule"
    np.testing.assert_allclose(found, eager(made), rtol=1e-5, atol=1e-6)


def test_from_the_command_line_and_named_in_the_header(pytester: pytest.Pytester) -> None:
    (pytester.path / "nets.py").write_text(MODULE)
    (pytester.path / "trt.toml").write_text('[[model]]\ntorch = "nets:net"\ninput = { shape = ["N", 6] }\n')
    assert pytester.runpytest("--trt-update-golden").ret == 0

    result = pytester.runpytest("--trt-backend=torch", "--trt-precision=fp32,fp16")

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines([f"trt: precision fp32, fp16; backend torch {torch.__version__};*"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs torch with CUDA and a GPU")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
@pytest.mark.parametrize("backend", ["torch", "torch-compile"])
def test_torch_on_a_gpu_keeps_the_envelope_and_is_not_simulated(folder: Path, precision: str, backend: str) -> None:
    update(case(folder), folder / "golden")

    verdict = judged(case(folder), precision, backend)

    assert (verdict.verdict, verdict.message) == ("passed", "")
    assert not verdict.simulated
    assert torch.cuda.get_device_name() in str(verdict.provenance["engine"])
