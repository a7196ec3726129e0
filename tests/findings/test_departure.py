"""A whole case on an engine that computes something else: the gate says at which tensor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networks
import pytest
from fakes.tensorrt import install

from pytest_trt import Case, Verdict, check
from pytest_trt.backends.tensorrt import _plan as plan
from pytest_trt.backends.tensorrt._network import graph_for
from pytest_trt.errors import BackendError
from pytest_trt.evidence.finding import Scrutiny
from pytest_trt.model.model import Model

if TYPE_CHECKING:
    from types import ModuleType

    from pytest_trt.backends.recipe import Recipe

RELEASES = ["8.6", "10.16", "11.4"]


def on_engine(case: Case, precision: str = "fp16", **options: Any) -> Verdict:
    return check(case, precision, backend="tensorrt", golden_dir=case.base / "golden", **options)


def installed(monkeypatch: pytest.MonkeyPatch, release: str, instead: str = "Relu") -> ModuleType:
    """TensorRT, whose builder takes the last Relu for another operator."""
    trt, _ = install(monkeypatch, release)

    def spoiled(recipe: Recipe, typing: str) -> Model:
        graph = graph_for(recipe, typing)
        proto = type(graph.proto).FromString(graph.proto.SerializeToString())
        [node] = [node for node in proto.graph.node if node.name == "relu2"]
        node.op_type = instead
        return Model(proto, graph.source)

    monkeypatch.setattr(plan, "graph_for", spoiled)
    return trt


@pytest.mark.parametrize("release", RELEASES)
def test_a_failed_engine_is_told_by_the_tensor_where_it_leaves_its_simulation(
    release: str, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, release, "Neg")

    verdict = on_engine(case)

    [finding] = [finding for finding in verdict.findings if finding.code == "TRT302"]
    assert verdict.verdict == "failed"
    assert finding.evidence["hop"] == "simulated -> engine"
    assert finding.evidence["departure"]["tensor"] == "r2"
    assert finding.evidence["departure"]["shown"] is (release != "8.6")
    assert "first leaves its simulation at tensor 'r2' of Relu 'relu2'" in finding.message


@pytest.mark.parametrize("release", RELEASES)
def test_the_first_nan_of_an_engine_is_traced(release: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, release, "Log")

    verdict = on_engine(case, "fp32")

    assert (verdict.findings[0].code, verdict.findings[0].evidence["tensor"]) == ("TRT301", "r2")


@pytest.mark.parametrize("release", RELEASES)
def test_a_healthy_engine_is_built_once_and_with_localise_found_to_leave_nowhere(
    release: str, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = installed(monkeypatch, release)

    verdict = on_engine(case)
    assert (verdict.verdict, len(trt._world.plans)) == ("passed", 1)

    verdict = on_engine(case, scrutiny=Scrutiny(localise=True))
    assert (verdict.verdict, verdict.warnings) == ("passed", ())
    assert len(trt._world.plans) > 2


def test_rebuilds_that_can_not_be_had_are_an_error_and_no_pass(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "8.6")
    calls = iter([False, True, True])

    def refused(recipe: Recipe, typing: str) -> Model:
        if next(calls):
            raise BackendError("out of memory")
        return graph_for(recipe, typing)

    monkeypatch.setattr(plan, "graph_for", refused)
    verdict = on_engine(case, scrutiny=Scrutiny(rebuilds=1))

    assert (verdict.verdict, verdict.message) == ("error", "out of memory")


def test_a_model_that_differs_in_fp32_is_not_looked_for_in_the_engine(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = installed(monkeypatch, "8.6")
    changed = networks.with_weight(networks.convolutional(), "w1", lambda w: w * 1.1)
    networks.save(changed, case.base / "deployed.onnx")

    verdict = on_engine(replace(case, name="net", onnx="deployed.onnx", reference="net.onnx"))

    assert verdict.verdict == "failed"
    assert len(trt._world.plans) == 1
