"""Findings that only an engine can give: what is the same again, and where it leaves its simulation.

They run on the fake, and on a real GPU where there is one. Faults are planted in the graph that TensorRT is given to
parse, behind the back of everything that looks at the engine.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from gpu import FAST, WORDS, backend, machine, on_both, on_gpu, small
from places import DIGITS

from pytest_trt.backends.build_options import merged, read_build_options
from pytest_trt.backends.recipe import Recipe
from pytest_trt.backends.tensorrt import _plan as plan
from pytest_trt.backends.tensorrt._config import configure
from pytest_trt.backends.tensorrt._network import graph_for
from pytest_trt.case.build_settings import How
from pytest_trt.case.case import Case
from pytest_trt.evidence.finding import Scrutiny
from pytest_trt.gate import check
from pytest_trt.golden.create import update
from pytest_trt.model.model import Model, load
from pytest_trt.precision import Precision
from pytest_trt.storage import engine_store as store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_trt import Verdict

__all__ = ["machine", "small"]

RELU, AFTER = "/3/Relu", "/3/Relu_output_0"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Path]:
    folder = tmp_path_factory.mktemp("golden")
    case = Case(name="digits", onnx="digits.onnx", inputs="test.npz", calibration="calibration.npz", base=DIGITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CI", raising=False)
        update(case, folder)
    return case, folder


def judged(digits: tuple[Case, Path], precision: str, kept: Path | None = None, **scrutiny: Any) -> Verdict:
    case, folder = digits
    how = How(merged(FAST, read_build_options({"honoured": 0}, "build")), store=kept)
    asked = Scrutiny(**scrutiny)
    return check(case, precision, backend="tensorrt", golden_dir=folder, how=how, scrutiny=asked)


def codes(verdict: Verdict) -> list[str]:
    return [finding.code for finding in verdict.findings]


def planted(monkeypatch: pytest.MonkeyPatch, instead: str, where: Callable[[int], bool] = lambda _: True) -> None:
    """TensorRT parses another operator than the second Relu, in those builds that ``where`` takes by their number."""
    calls = iter(range(1000))

    def fault_for(recipe: Recipe, typing: str) -> Model:
        graph = graph_for(recipe, typing)
        return spoiled(graph, instead) if where(next(calls)) else graph

    monkeypatch.setattr(plan, "graph_for", fault_for)


def spoiled(graph: Model, instead: str) -> Model:
    proto = type(graph.proto).FromString(graph.proto.SerializeToString())
    [node] = [node for node in proto.graph.node if node.name == RELU]
    node.op_type = instead
    return Model(proto, graph.source)


@on_both
def test_rerun_and_reload_are_the_same_and_rebuilds_stay_inside(digits: tuple[Case, Path], tmp_path: Path) -> None:
    verdict = judged(digits, "fp16", tmp_path, rebuilds=2)

    assert verdict.passed, verdict.findings
    assert not {"TRT401", "TRT402", "TRT403"}.intersection(codes(verdict))


@on_both
def test_a_rebuild_outside_its_tolerance_is_told_with_its_tactics(
    digits: tuple[Case, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, "Neg", lambda number: number >= 2)  # the first build, its reload, then the rebuild

    verdict = judged(digits, "fp16", tmp_path, rebuilds=1)

    assert not verdict.passed
    assert codes(verdict)[0] == "TRT403"
    assert verdict.findings[0].evidence["builds"] == 1


@on_both
def test_a_plan_that_computes_otherwise_when_it_is_loaded_again_is_told(
    digits: tuple[Case, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(DIGITS / "digits.onnx")
    options = merged(FAST, read_build_options({"honoured": 0}, "build"))
    with np.load(DIGITS / "test.npz") as file:
        feeds = (dict(file),)
    other = backend().plan(Recipe(spoiled(model, "Neg"), Precision.FP16, feeds=feeds, options=options))
    real = store.load

    def loaded(*told: Any) -> Any:
        kept = real(*told)
        return kept and replace(kept, data=other.data)

    monkeypatch.setattr(store, "load", loaded)
    verdict = judged(digits, "fp16", tmp_path, rebuilds=1)

    assert not verdict.passed
    assert codes(verdict)[0] == "TRT402"


@on_both
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_failed_engine_is_told_by_the_tensor_where_it_leaves_its_simulation(
    digits: tuple[Case, Path], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, "Neg")

    verdict = judged(digits, precision)

    [finding] = [finding for finding in verdict.findings if finding.code == "TRT302"]
    found = finding.evidence["departure"]
    print(finding.message)
    assert finding.evidence["hop"].endswith("-> engine")
    assert (found["tensor"], found["node"]) == (AFTER, RELU)
    assert found["builds"] <= 6


@on_both
def test_the_first_nan_of_an_engine_is_traced_to_its_tensor(
    digits: tuple[Case, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, "Log")

    verdict = judged(digits, "fp32")

    print(verdict.findings[0].message)
    assert codes(verdict)[0] == "TRT301"
    assert verdict.findings[0].evidence["tensor"] == AFTER


@on_both
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_healthy_engine_leaves_its_simulation_nowhere(digits: tuple[Case, Path], precision: str) -> None:
    verdict = judged(digits, precision, localise=True)

    assert verdict.passed, verdict.findings
    assert not [warning for warning in verdict.warnings if "the engine" in warning], verdict.warnings
    assert not [warning for warning in verdict.warnings if "no evidence" in warning], verdict.warnings


@on_gpu
@pytest.mark.parametrize("honest", [True, False])
def test_tf32_in_an_fp32_engine_is_told_by_the_size_of_its_error(
    digits: tuple[Case, Path], monkeypatch: pytest.MonkeyPatch, *, honest: bool
) -> None:
    if not honest:

        def with_tf32(trt: Any, builder: Any, *told: Any) -> Any:
            config = configure(trt, builder, *told)
            config.set_flag(trt.BuilderFlag.TF32)
            return config

        monkeypatch.setattr(plan, "configure", with_tf32)
    monkeypatch.setattr("pytest_trt.findings._precision._layers", lambda _: [])

    verdict = judged(digits, "fp32")

    print([finding.message for finding in verdict.findings])
    if not honest and verdict.layers["by_precision"].get("tf32", 0) < verdict.layers["compute"]:
        pytest.skip(f"the builder chose no TF32 kernel for some layers: {verdict.layers['by_precision']}")
    assert ("TRT204" in codes(verdict)) is not honest


@on_both
def test_rebuilds_and_localise_are_asked_on_the_command_line(small: Path, pytester: pytest.Pytester) -> None:
    assert small.exists()
    found = pytester.runpytest(
        *WORDS, "--trt-store=plans", "--trt-precision=fp16", "--trt-rebuilds=1", "--trt-localise"
    )

    assert found.ret == 0
