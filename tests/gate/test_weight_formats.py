"""Files whose weights are in few bits, judged as they are: by bounds of their own formats, and faults are found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import networks
import numpy as np
import onnx
import pytest
import weight_formats
from fakes.modelopt import FakeModelopt
from onnx import TensorProto, helper, numpy_helper
from weight_formats import FORMATS, WEIGHT, fp32

from pytest_trt import Case, Verdict, check
from pytest_trt.golden.create import update
from pytest_trt.lowering.modelopt import weights_by_modelopt
from pytest_trt.lowering.weight_only import int4_weights
from pytest_trt.model.graph import array_of
from pytest_trt.model.model import checked

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    networks.save(fp32(), folder / "net.onnx")
    np.savez(folder / "inputs.npz", x=weight_formats.inputs())
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CI", raising=False)
        update(Case(name="net", onnx="net.onnx", base=folder, inputs="inputs.npz"), folder / "golden")
    return folder


def judged(base: Path, proto: onnx.ModelProto, **told: Any) -> Verdict:
    networks.save(proto, base / "small.onnx")
    case = Case(name="net", onnx="small.onnx", reference="net.onnx", base=base, inputs="inputs.npz")
    return check(replace(case, **told), "model", golden_dir=base / "golden")


def changed(proto: onnx.ModelProto, name: str, change: Any) -> onnx.ModelProto:
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(array_of(tensor).copy())), name))
    return proto


@pytest.mark.parametrize("write", [one[0] for one in FORMATS.values()], ids=list(FORMATS))
def test_a_right_file_passes_within_three_times_its_own_rounding(base: Path, write: Any) -> None:
    verdict = judged(base, write())

    assert verdict.verdict == "passed", verdict.message or verdict.findings
    assert verdict.worst is not None
    assert verdict.worst.bound is not None
    assert verdict.worst.error <= verdict.worst.bound <= 4 * verdict.worst.error


@pytest.mark.parametrize("name", list(FORMATS))
def test_scales_eight_times_too_large_are_named(base: Path, name: str) -> None:
    scale = {"nvfp4": "w_g"}.get(name, "w_s")
    proto = changed(FORMATS[name][0](), scale, lambda array: (array.astype(np.float32) * 8).astype(array.dtype))

    verdict = judged(base, proto)

    assert verdict.verdict == "failed"
    assert "TRT110" in {finding.code for finding in verdict.findings}


@pytest.mark.parametrize("name", ["int4", "nvfp4", "mxfp8", "int8 by block"])
def test_channels_of_zeros_are_named(base: Path, name: str) -> None:
    def zeroed(array: np.ndarray) -> np.ndarray:
        array[:, :8] = 0
        return array

    verdict = judged(base, changed(FORMATS[name][0](), "w_q", zeroed))

    [finding] = [finding for finding in verdict.findings if finding.code == "TRT110"]
    assert (verdict.verdict, finding.evidence["zeroed"], finding.evidence["tensor"]) == ("failed", 8, "w_q")


def typed(kind: int) -> onnx.ModelProto:
    """int4 with scales and activations in fp16 or bf16, fp32 at both ends."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    proto = weight_formats.int4()
    for name in ("w_s", "head"):
        changed(proto, name, lambda array: array.astype(dtype))
    first, last = proto.graph.node[1], proto.graph.node[-1]
    first.input[0], last.output[0] = "x/low", "y/low"
    proto.graph.node.insert(0, helper.make_node("Cast", ["x"], ["x/low"], "down", to=kind))
    proto.graph.node.append(helper.make_node("Cast", ["y/low"], ["y"], "up", to=TensorProto.FLOAT))
    return proto


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16], ids=["fp16", "bf16"])
def test_activations_in_a_narrow_type_are_simulated_and_bounded_too(base: Path, kind: int) -> None:
    verdict = judged(base, typed(kind))

    assert verdict.verdict == "passed", verdict.message or verdict.findings
    assert verdict.coverage is not None
    assert verdict.coverage.precision == "int4"


def test_weights_that_have_no_counterpart_are_told_where_no_bound_is(base: Path) -> None:
    proto = weight_formats.network(
        [helper.make_node("DequantizeLinear", ["w_q", "w_s"], ["w"], "dq")],
        {"w_q": np.zeros((128, 48), ml_dtypes.int4), "w_s": np.float32(1)},
        21,
    )
    changed(proto, "head", lambda _: np.ones((48, 10), np.float32))

    verdict = judged(base, proto)

    assert verdict.verdict == "error"
    assert "has no envelope for it, because not all of its weights have a counterpart" in verdict.message


def test_a_file_that_quantises_activations_too_keeps_the_bounds_of_int8(base: Path) -> None:
    scale = np.float32(np.abs(WEIGHT).max() / 127)
    weights = {
        "w_q": np.rint(WEIGHT / scale).astype(np.int8),
        "w_s": scale,
        "x_s": np.float32(4 / 127),
        "z": np.int8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_s", "z"], ["x_q"], "q"),
        helper.make_node("DequantizeLinear", ["x_q", "x_s", "z"], ["x_d"], "dq_x"),
        helper.make_node("DequantizeLinear", ["w_q", "w_s"], ["w"], "dq"),
    ]
    proto = weight_formats.network(nodes, weights, 21, helper.make_node("MatMul", ["x_d", "w"], ["h"], "fc1"))

    verdict = judged(base, proto)

    assert verdict.verdict == "passed", verdict.message or verdict.findings
    assert verdict.worst is not None
    assert verdict.worst.bound == networks_bound(base)


def networks_bound(base: Path) -> float:
    from pytest_trt.golden.golden import read

    return float(read(base / "golden" / "net.safetensors", "").envelope["int8"]["y"]["bound"])


def test_a_file_that_we_lower_to_int4_passes_as_it_is(base: Path) -> None:
    proto = int4_weights(checked(fp32(), "net.onnx")).model.proto

    verdict = judged(base, proto)

    assert (verdict.verdict, verdict.held) == ("passed", "int4"), verdict.message or verdict.findings


@pytest.mark.parametrize(("precision", "held"), [("nvfp4", "fp4"), ("mxfp8", "fp8")])
def test_a_file_of_modelopts_levels_is_bounded_by_its_own_format(
    base: Path, precision: str, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeModelopt().install(monkeypatch)
    found = weights_by_modelopt(checked(fp32(), "net.onnx"), precision)

    verdict = judged(base, found.model.proto)

    assert (verdict.verdict, verdict.held) == ("passed", held), verdict.message or verdict.findings
    assert verdict.worst is not None
    assert verdict.worst.bound is not None
    assert verdict.worst.bound <= 4 * verdict.worst.error
