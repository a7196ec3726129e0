"""Folders that pages of the documentation begin in; some also give names to the Python of their pages."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import networks
import numpy as np
import onnx
from click.testing import CliRunner
from onnx import numpy_helper
from places import DIGITS, ROOT

from pytest_trt import lower
from pytest_trt.case.case import Case
from pytest_trt.cli.main import main
from pytest_trt.golden.create import update
from pytest_trt.model.model import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def empty(folder: Path) -> None:
    """Nothing."""


def net(folder: Path) -> None:
    """A small network of ours, 32 calibration samples and 16 inputs."""
    networks.save(networks.convolutional(), folder / "net.onnx")
    np.savez(folder / "calibration.npz", x=networks.images(32, seed=2))
    np.savez(folder / "test.npz", x=networks.images(16, seed=3))


def models(folder: Path) -> dict[str, Any]:
    """A small network here and in models/, and samples of its input."""
    net(folder)
    networks.save(networks.convolutional(), folder / "models" / "net.onnx")
    return {"samples": {"x": networks.images()}}


def pair(folder: Path) -> dict[str, Any]:
    """A small network, the same at fp16, and two runs' inputs."""
    net(folder)
    reference = load(folder / "net.onnx")
    runs = [{"x": networks.images(4, seed)} for seed in (1, 2)]
    return {"reference": reference, "lowered": lower(reference, "fp16"), "runs": runs}


def digits(folder: Path) -> None:
    """The files of the example digits but its trt.toml."""
    for name in ("digits.onnx", "test.npz", "labels.npy", "calibration.npz"):
        shutil.copy(DIGITS / name, folder)


def retrained(folder: Path) -> None:
    """The example digits, and retrained.onnx, which answers a little differently."""
    digits(folder)
    model = onnx.load(folder / "digits.onnx")
    for stored in model.graph.initializer:
        stored.CopyFrom(numpy_helper.from_array(1.01 * numpy_helper.to_array(stored), stored.name))
    onnx.save(model, folder / "retrained.onnx")


def tutorial(folder: Path) -> None:
    """What somebody with a model of their own has: it is digits here, by another name."""
    digits(folder)
    (folder / "digits.onnx").rename(folder / "net.onnx")


def project(folder: Path) -> None:
    """The example digits as a project of its own, its golden made."""
    digits(folder)
    shutil.copy(DIGITS / "trt.toml", folder)
    (folder / "golden").mkdir()
    shutil.copy(ROOT / "golden" / "digits.safetensors", folder / "golden")
    (folder / "pytest.ini").write_text("[pytest]\n")


def dim(folder: Path) -> None:
    """The same, with calibration data that are a tenth of what they should be."""
    project(folder)
    np.savez(folder / "calibration.npz", image=0.1 * np.load(DIGITS / "calibration.npz")["image"])


def one_bad_range(folder: Path) -> None:
    """The project, and bad.txt: ranges of digits, that of one tensor a tenth of what it should be."""
    project(folder)
    bad = "/5/layers/layers.2/Relu_output_0"
    lines = [line.rpartition(": ") for line in _ranges(".txt", folder).decode().splitlines()]
    made = [f"{name}: {float(amax) * (0.1 if name == bad else 1.0)!r}\n" for name, _, amax in lines]
    (folder / "bad.txt").write_text("".join(made))


def net_with_golden(folder: Path) -> None:
    """A small network of ours and the golden of its case."""
    net(folder)
    update(Case(onnx="net.onnx", calibration="calibration.npz", base=folder, where="trt.toml"), folder / "golden")


def deployment(folder: Path) -> None:
    """A network that is deployed at int8 with TensorRT 10: its cache, its ranges, and what fed its calibrator."""
    shutil.copy(DIGITS / "digits.onnx", folder / "net.onnx")
    shutil.copy(DIGITS / "test.npz", folder)
    shutil.copy(DIGITS / "calibration.npz", folder)
    (folder / "calib.cache").write_bytes(_ranges(".cache", folder))
    (folder / "ranges.txt").write_bytes(_ranges(".txt", folder))
    (folder / "calibration").mkdir()
    for number, batch in enumerate(np.split(np.load(DIGITS / "calibration.npz")["image"], 4)):
        np.save(folder / "calibration" / f"{number}.npy", batch)


_made: dict[str, bytes] = {}


def _ranges(suffix: str, folder: Path) -> bytes:
    if suffix not in _made:
        file = folder / f"made{suffix}"
        words = ["calibrate", str(DIGITS / "digits.onnx"), str(DIGITS / "calibration.npz"), "-o", str(file)]
        CliRunner().invoke(main, words, catch_exceptions=False)
        _made[suffix] = file.read_bytes()
        file.unlink()
    return _made[suffix]


_NETS = (empty, net, net_with_golden, models, pair)
_DIGITS = (digits, retrained, tutorial, project, dim, one_bad_range, deployment)
FOLDERS: dict[str, Callable[[Path], dict[str, Any] | None]] = {
    made.__name__.replace("_", "-"): made for made in (*_NETS, *_DIGITS)
}
