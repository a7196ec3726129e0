"""Weights that fp16 spoils count only where fp16 is asked of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import pytest

from pytest_trt import Case, check
from pytest_trt.golden.create import update

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("told", "expected"),
    [({}, ["fc"]), ({"ops": ["Conv"]}, []), ({"ops": ["Gemm"]}, ["fc"]), ({"keep": ["fc"]}, [])],
    ids=["all", "Conv alone", "Gemm alone", "without fc"],
)
def test_weights_of_operators_that_are_not_lowered_do_not_count(
    told: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    proto = networks.with_weight(networks.convolutional(), "w3", lambda w: (1e-8 * w).astype(np.float32))
    networks.save(networks.with_weight(proto, "b3", lambda b: (1e-8 * b).astype(np.float32)), tmp_path / "net.onnx")
    np.savez(tmp_path / "inputs.npz", x=networks.images(12))
    case = Case(onnx="net.onnx", inputs="inputs.npz", base=tmp_path, name="net", **told)
    update(case, tmp_path / "golden")

    verdict = check(case, "fp16", golden_dir=tmp_path / "golden")

    codes = [finding.code for finding in verdict.findings if finding.code in ("TRT203", "TRT204")]
    assert bool(codes) == bool(expected)
