"""BatchNormalization behind a convolution is folded into its weights in fp32 before they are rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from onnx import helper

from pytest_trt import Case, check
from pytest_trt.golden.create import create, update
from pytest_trt.lowering._strong_typing import bf16_typed, fp16_typed
from pytest_trt.lowering.batch_normalization import fold_batch_normalization
from pytest_trt.lowering.casts import as_sandwich, bf16_sandwich, fp16_sandwich
from pytest_trt.model.onnx_session import open_session

if TYPE_CHECKING:
    from pathlib import Path

DRAW = np.random.default_rng(0)
FLOAT = networks.FLOAT
X = DRAW.standard_normal((4, 4, 9, 9)).astype(np.float32)


def drawn(*shape: int) -> np.ndarray:
    return DRAW.standard_normal(shape).astype(np.float32)


def network(op: str = "Conv", group: int = 1, bias: bool = True, variance: float = 1.0, **attributes: Any) -> Any:
    """A convolution of 4 to 6 channels, its normalisation and a Relu."""
    shape = (6, 4 // group, 3, 3) if op == "Conv" else (4, 6 // group, 3, 3)
    held = {"w": drawn(*shape), "s": drawn(6), "t": drawn(6), "m": drawn(6)}
    held["s"] *= np.float32(variance**0.5)
    held |= {"v": np.full(6, variance, np.float32) * (1 + 0.1 * np.abs(drawn(6)))}
    held |= {"b": drawn(6)} if bias else {}
    nodes = [
        helper.make_node(op, ["x", "w", *(["b"] if bias else [])], ["c"], "conv", group=group),
        helper.make_node("BatchNormalization", ["c", "s", "t", "m", "v"], ["n"], "bn", **attributes),
        helper.make_node("Relu", ["n"], ["y"], "relu"),
    ]
    return networks.model(nodes, {"x": (FLOAT, ["N", 4, 9, 9])}, {"y": (FLOAT, ["N", 6, "H", "W"])}, held)


def run(proto: onnx.ModelProto) -> np.ndarray:
    found: np.ndarray = open_session(proto, "net").run(None, {"x": X})[0]
    return found


def operators(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


@pytest.mark.parametrize(("op", "group"), [("Conv", 1), ("Conv", 2), ("ConvTranspose", 1), ("ConvTranspose", 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_what_is_folded_computes_the_same(op: str, group: int, bias: bool) -> None:
    proto = network(op, group, bias, epsilon=1e-3)
    before = run(proto)

    fold_batch_normalization(proto, frozenset())

    assert operators(proto) == [op, "Relu"]
    np.testing.assert_allclose(run(proto), before, rtol=1e-4, atol=1e-5)
    onnx.checker.check_model(proto, full_check=True)


def test_the_weight_keeps_its_name() -> None:
    proto = network()

    fold_batch_normalization(proto, frozenset())

    assert {tensor.name for tensor in proto.graph.initializer} == {"w", "b"}


@pytest.mark.parametrize("kept", ["c", "n"])
def test_a_pair_of_which_one_stays_in_fp32_is_left(kept: str) -> None:
    proto = network()

    fold_batch_normalization(proto, frozenset({kept}))

    assert operators(proto) == ["Conv", "BatchNormalization", "Relu"]


def test_a_convolution_that_is_read_elsewhere_is_left() -> None:
    proto = network()
    proto.graph.output.append(helper.make_tensor_value_info("c", FLOAT, None))

    fold_batch_normalization(proto, frozenset())

    assert operators(proto) == ["Conv", "BatchNormalization", "Relu"]


@pytest.mark.parametrize("lowering", [fp16_sandwich, bf16_sandwich, fp16_typed, bf16_typed])
def test_a_variance_beyond_fp16_harms_nothing(lowering: Any) -> None:
    proto = network(variance=2e7)
    exact = run(proto)

    found = run(as_sandwich(lowering(proto)))

    assert np.linalg.norm(found - exact) < 0.02 * np.linalg.norm(exact)


def test_such_a_network_passes_at_fp16_without_a_finding_of_its_variance(tmp_path: Path) -> None:
    networks.save(network(variance=2e7), tmp_path / "net.onnx")
    np.savez(tmp_path / "in.npz", x=X)
    case = Case(onnx="net.onnx", inputs="in.npz", base=tmp_path)
    update(case, tmp_path / "golden")

    verdict = check(case, "fp16", golden_dir=tmp_path / "golden")

    assert verdict.verdict == "passed"
    assert [finding.code for finding in verdict.findings] == ["TRT205"]
    assert create(case).envelope["fp16"]["y"]["bound"] < 0.01
