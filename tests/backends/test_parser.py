"""What TensorRT's parser refuses: the table of its releases, and TensorRT-RTX's own parser where it is installed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import networks
import numpy as np
import onnx
import pytest
import weight_formats
from onnx import TensorProto, helper
from weight_formats import FORMATS, dq, fp32, in_blocks

from pytest_trt import Case, Severity, Verdict, check
from pytest_trt.backends.tensorrt import parser
from pytest_trt.backends.tensorrt.parser import RELEASES, ParserAnswer, answer_of_rtx, unparsed
from pytest_trt.errors import BackendError
from pytest_trt.findings import diagnosis
from pytest_trt.golden.create import update
from pytest_trt.model.model import Model

if TYPE_CHECKING:
    from pathlib import Path

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
NEW = ("11", "RTX 1.7")


def of(nodes: list[onnx.NodeProto], *names: str, kind: int = FLOAT, shape: Any = (1, 2, 4, 8)) -> onnx.ModelProto:
    """Inputs of one type and shape."""
    return networks.model(nodes, dict.fromkeys(names, (kind, shape)), {"y": (kind, None)}, opset=23)


def told(proto: onnx.ModelProto) -> list[tuple[str, tuple[str, ...]]]:
    return [(fault.what, fault.releases) for fault in unparsed(proto)]


def zeros() -> onnx.ModelProto:
    levels, scale = in_blocks(7, 32, ml_dtypes.int4)
    return dq(levels, scale, 21, np.ones(scale.shape, ml_dtypes.int4), axis=0, block_size=32)


PAST = ["q", "k", "v", "", "pk", "pv"]
GRAPHS: dict[str, tuple[onnx.ModelProto, Any]] = {
    "an operator of none": (of([helper.make_node("Det", ["x"], ["y"])], "x"), [("operator", RELEASES)]),
    "one that 8.6 lacks": (of([helper.make_node("Gelu", ["x"], ["y"])], "x"), [("operator", ("8.6",))]),
    "dynamic quantising": (
        of([helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])], "x"),
        [("operator", RELEASES)],
    ),
    "NonZero": (of([helper.make_node("NonZero", ["x"], ["y"])], "x"), [("operator", ("RTX 1.7",))]),
    "attention with a cache": (
        of([helper.make_node("Attention", PAST, ["y", "ok", "ov"])], "q", "k", "v", "pk", "pv"),
        [("operator", ("8.6", "10.1")), ("cache", RELEASES)],
    ),
    "a contrib operator": (
        of([helper.make_node("BiasGelu", ["x", "x"], ["y"], domain="com.microsoft")], "x"),
        [("operator", RELEASES)],
    ),
    "packed, fp32": (weight_formats.packed(), [("activations", RELEASES)]),
    "uint4": (weight_formats.uint4(), [("type", RELEASES)]),
    "int4 with zero points": (zeros(), [("type", ("8.6",)), ("asymmetric", RELEASES)]),
    "int4": (weight_formats.int4(), [("type", ("8.6",))]),
    "fp8": (weight_formats.fp8(), [("type", ("8.6",))]),
    "nvfp4": (weight_formats.nvfp4(), [("type", ("8.6",)), ("type", ("8.6", "10.1"))]),
    "mxfp8": (weight_formats.mxfp8(), [("scales", RELEASES)]),
    "int8": (weight_formats.int8_channels(), []),
    "plain": (fp32(), []),
}


@pytest.mark.parametrize(("proto", "faults"), GRAPHS.values(), ids=list(GRAPHS))
def test_the_table_tells_what_each_release_refuses(proto: onnx.ModelProto, faults: Any) -> None:
    assert told(proto) == faults


def test_fp16_activations_are_what_packed_weights_want() -> None:
    node = helper.make_node("MatMulNBits", ["x", "b", "s"], ["y"], domain="com.microsoft", K=32, N=8, block_size=32)
    proto = of([node], "x", kind=TensorProto.FLOAT16, shape=(2, 32))
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))

    assert told(proto) == [("operator", ("8.6", "10.1"))]


@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "NonZero"])
def test_the_table_is_what_the_real_parser_says(name: str) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs TensorRT-RTX")
    proto, faults = GRAPHS[name]

    answer = answer_of_rtx(Model(proto, "file.onnx"))

    assert answer is not None
    assert bool(answer.refuses) == any("RTX 1.7" in releases for _, releases in faults), answer


def test_nobody_answers_where_no_parser_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "open_release", absent)

    assert answer_of_rtx(Model(fp32(), "file.onnx")) is None


def absent(_name: str) -> None:
    raise BackendError("none here")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parsed")
    networks.save(fp32(), folder / "net.onnx")
    np.savez(folder / "inputs.npz", x=weight_formats.inputs())
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CI", raising=False)
        update(Case(name="net", onnx="net.onnx", base=folder, inputs="inputs.npz"), folder / "golden")
    return folder


def judged(base: Path, name: str = "uint4", answer: ParserAnswer | None = None, **options: Any) -> Verdict:
    networks.save(FORMATS[name][0](), base / "small.onnx")
    case = Case(name="net", onnx="small.onnx", reference="net.onnx", base=base, inputs="inputs.npz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagnosis, "answer_of_rtx", lambda _model: answer)
        return check(replace(case), "model", golden_dir=base / "golden", **options)


def refused(verdict: Verdict) -> list[tuple[Severity, str]]:
    return [(finding.severity, finding.message) for finding in verdict.findings if finding.code == "TRT109"]


def test_a_simulated_run_warns_of_what_the_parser_refuses(base: Path) -> None:
    verdict = judged(base)

    [(severity, message)] = refused(verdict)
    assert (verdict.verdict, severity) == ("passed", Severity.WARNING)
    assert message == "TensorRT (8.6, 10.1, 11 and RTX 1.7) refuses this file: dq of 'w_q' reads weights of uint4."


def test_where_an_engine_is_required_it_is_an_error(base: Path) -> None:
    verdict = judged(base, require_engine=True)

    assert verdict.verdict == "error"
    assert [severity for severity, _ in refused(verdict)] == [Severity.ERROR]


def test_of_past_releases_alone_it_is_a_note(base: Path) -> None:
    assert [severity for severity, _ in refused(judged(base, "int4"))] == [Severity.NOTE]


def test_a_parser_that_takes_the_file_is_believed(base: Path) -> None:
    [(severity, message)] = refused(judged(base, answer=ParserAnswer("TensorRT-RTX 9", "")))

    assert severity is Severity.NOTE
    assert message.endswith("TensorRT-RTX 9's parser was asked here, and takes it.")


def test_a_parser_that_refuses_what_the_table_takes_is_heard(base: Path) -> None:
    [(severity, message)] = refused(judged(base, "int8 by channel", ParserAnswer("TensorRT-RTX 9", "node 'fc1': no")))

    assert severity is Severity.WARNING
    assert "TensorRT-RTX 9's parser was asked here, and refuses it: node 'fc1': no" in message
