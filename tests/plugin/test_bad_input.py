"""Bad input through the pytest face: one paragraph that names file and field, other cases run, nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
import pytest
from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def model_of(change: Callable[[onnx.ModelProto], object]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        proto = networks.convolutional()
        change(proto)
        networks.save(proto, folder / "bad.onnx")

    return write


def external(location: str, keep: bool) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        proto = networks.convolutional()
        onnx.save_model(proto, folder / "bad.onnx", save_as_external_data=True, location="bad.bin", size_threshold=0)
        proto = onnx.load_model(folder / "bad.onnx", load_external_data=False)
        for tensor in proto.graph.initializer:
            tensor.external_data[0].value = location
        networks.save(proto, folder / "bad.onnx")
        if not keep:
            (folder / "bad.bin").unlink()

    return write


def only_integers(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("ArgMax", ["logits"], ["best"], axis=1))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("best", onnx.TensorProto.INT64, ["N", 1]))


def calibration_of(**arrays: Any) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        networks.save(networks.convolutional(), folder / "bad.onnx")
        np.savez(folder / "bad.npz", **arrays)

    return write


def text_as(name: str, content: bytes) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        networks.save(networks.convolutional(), folder / "bad.onnx")
        (folder / name).write_bytes(content)

    return write


X = networks.images(16, seed=2)
NAN = X.copy()
NAN[7, 1, 2, 3] = np.nan

BAD_MODELS: list[tuple[str, Callable[[Path], object], list[str]]] = [
    ("no ONNX file", text_as("bad.onnx", b"hello, world"), ["bad.onnx"]),
    ("empty", text_as("bad.onnx", b""), ["bad.onnx is empty"]),
    ("truncated", lambda f: networks.save(networks.convolutional(), f / "bad.onnx").write_bytes(
        networks.convolutional().SerializeToString()[:300]), ["bad.onnx"]),
    ("missing", lambda _: None, ["bad.onnx can't be read: No such file"]),
    ("external data missing", external("bad.bin", keep=False), ["bad.onnx", "'bad.bin' of weight 'w1' is missing"]),
    ("external data outside", external("../bad.bin", keep=True), ["bad.onnx", "'../bad.bin', outside"]),
    ("unknown operator", model_of(lambda p: setattr(p.graph.node[1], "op_type", "Reloo")), ["bad.onnx", "Reloo"]),
    ("unknown domain", model_of(lambda p: setattr(p.graph.node[1], "domain", "com.me")), ["bad.onnx", "com.me"]),
    ("no float output", model_of(only_integers), ["bad.onnx has no float output", "'best'"]),
]  # fmt: skip

BAD_CALIBRATIONS: list[tuple[str, Callable[[Path], object], list[str]]] = [
    ("lacks an input", calibration_of(y=X), ["calibration 'bad.npz' lacks 'x' and holds 'y'"]),
    ("wrong shape", calibration_of(x=X[:, :1]), ["calibration 'bad.npz'", "'x' has shape [16, 1, 6, 6]"]),
    ("wrong dtype", calibration_of(x=X.astype(np.float64)), ["calibration 'bad.npz'", "'x' is float64"]),
    ("NaN", calibration_of(x=NAN), ["'bad.npz'", "'x' has 1 NaN or infinite value(s), the first in sample 7"]),
    ("no samples", calibration_of(x=X[:0]), ["calibration 'bad.npz'", "'x' holds no samples"]),
    ("no arrays", calibration_of(), ["calibration 'bad.npz' lacks 'x'"]),
    ("no archive", text_as("bad.npz", b"hello"), ["calibration", "bad.npz is damaged or of another kind"]),
]


def judged(pytester: pytest.Pytester, arguments: list[str], said: list[str]) -> None:
    """The bad case fails with what is to be said and no traceback of ours; the good one passes; goldens stay."""
    before = {path: path.read_bytes() for path in (pytester.path / "golden").iterdir()}

    result = pytester.runpytest(*arguments)

    told = result.stdout.str()
    result.assert_outcomes(passed=1, failed=1)
    for part in said:
        assert part in told
    assert "Traceback" not in told
    assert "pytest_trt/" not in told
    assert "INTERNALERROR" not in told
    assert {path: path.read_bytes() for path in (pytester.path / "golden").iterdir()} == before


@pytest.mark.parametrize(("write", "said"), [bad[1:] for bad in BAD_MODELS], ids=[bad[0] for bad in BAD_MODELS])
@pytest.mark.parametrize("update", [False, True])
def test_a_bad_model(
    pytester: pytest.Pytester, golden: Path, write: Callable[[Path], object], said: list[str], update: bool
) -> None:
    (golden.parent / "bad.safetensors").write_bytes(golden.read_bytes())
    write(pytester.path)
    with (pytester.path / "trt.toml").open("a") as file:
        file.write('[[model]]\nonnx = "bad.onnx"\n')

    judged(pytester, ["--trt-update-golden"] if update else [], said)


@pytest.mark.parametrize(
    ("write", "said"), [bad[1:] for bad in BAD_CALIBRATIONS], ids=[bad[0] for bad in BAD_CALIBRATIONS]
)
def test_bad_calibration(
    pytester: pytest.Pytester, golden: Path, write: Callable[[Path], object], said: list[str]
) -> None:
    write(pytester.path)
    (golden.parent / "bad.safetensors").write_bytes(golden.read_bytes())
    with (pytester.path / "trt.toml").open("a") as file:
        file.write('[[model]]\nonnx = "bad.onnx"\ncalibration = "bad.npz"\n')

    judged(pytester, ["--trt-precision=int8"], said)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[[model]\nonnx = 1", ["more.trt.toml can't be read as TOML", "line 1"]),
        ('[[model]]\nonnx = "net.onnx', ["more.trt.toml can't be read as TOML"]),
        ("", ["more.trt.toml holds no case"]),
        ('model = "net.onnx"', ["more.trt.toml: write [[model]]"]),
        ("[[model]]\nonnx = 3", ["more.trt.toml: model number 1: onnx = 3 must be a text"]),
        ('[[model]]\nname = "b"', ["more.trt.toml: model 'b': name the model with exactly one of `onnx` and `torch`"]),
        ('[[model]]\nname = "b"\ntorch = "none:none"', ["torch = 'none:none'"]),
    ],
)
def test_a_bad_trt_toml(pytester: pytest.Pytester, golden: Path, toml: str, said: list[str]) -> None:
    (pytester.path / "more.trt.toml").write_text(toml)

    judged(pytester, [], said)


def test_two_cases_of_one_name_in_a_file(pytester: pytest.Pytester, golden: Path) -> None:
    before = golden.read_bytes()
    networks.save(networks.convolutional(seed=3), pytester.path / "b.onnx")
    with (pytester.path / "trt.toml").open("a") as file:
        file.write('[[model]]\nname = "net"\nonnx = "b.onnx"\n[[model]]\nname = "other"\nonnx = "net.onnx"\n')

    result = pytester.runpytest("--trt-update-golden")

    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["*another model of this file is called 'net' too*"])
    assert golden.read_bytes() == before


def test_the_marker_says_bad_things_too(pytester: pytest.Pytester, golden: Path) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.trt(onnx='bad.onnx')\ndef test_bad(trt_check): trt_check()\n")

    judged(pytester, [], ["bad.onnx can't be read"])


def test_without_onnxruntime_the_extras_are_named(
    pytester: pytest.Pytester, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    result = pytester.runpytest("--trt-precision=int8")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(['*pip install "pytest-trt[[]cpu]"*"pytest-trt[[]gpu]"*'])
