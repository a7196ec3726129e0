"""Network: one healthy network of the zoo on disk, with its golden inputs and calibration samples."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from pytest_trt.case.case import Case
from pytest_trt.golden.create import update

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["CHOSEN", "MEAN", "REPORTED", "SPREAD", "Network", "example"]

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
MEAN = np.array([0.62, 0.46, 0.25], np.float32).reshape(3, 1, 1)
"""Of the three colours, which the networks of coloured images take normalised."""
SPREAD = np.array([0.24, 0.22, 0.16], np.float32).reshape(3, 1, 1)

CHOSEN = ("digits", "resnet18", "mobilenet_v2")
"""Thresholds may be chosen by looking at these."""

REPORTED = ("encoder", "segmentation", "detection")
"""These are only reported on."""


@dataclass(frozen=True)
class Network:
    """Files NAME.onnx, NAME.inputs.npz, NAME.calibration.npz and NAME.safetensors (the golden) in a folder."""

    name: str
    folder: Path

    @property
    def onnx(self) -> Path:
        """The healthy fp32 file."""
        return self.folder / f"{self.name}.onnx"

    @property
    def golden(self) -> Path:
        """What the healthy file computes."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def case(self) -> Case:
        """The healthy deployment."""
        return Case(
            name=self.name,
            onnx=str(self.onnx),
            inputs=str(self.folder / f"{self.name}.inputs.npz"),
            calibration=str(self.folder / f"{self.name}.calibration.npz"),
            golden=str(self.golden),
            where="zoo",
        )

    def deployed(self, proto: onnx.ModelProto, folder: Path, **told: Any) -> Case:
        """A deployment of another file, judged by what the healthy one computes."""
        path = folder / "deployed.onnx"
        onnx.save(proto, path)
        return replace(self.case, onnx=str(path), reference=str(self.onnx), **told)

    def proto(self) -> onnx.ModelProto:
        """The healthy graph, to be changed at will."""
        return onnx.load(self.onnx)

    def samples(self) -> dict[str, NDArray[Any]]:
        """The calibration samples by input name."""
        with np.load(self.folder / f"{self.name}.calibration.npz") as file:
            return dict(file)

    def batches(self) -> Iterator[dict[str, NDArray[Any]]]:
        """The calibration samples, in parts that a tool can hold all inner tensors of."""
        yield self.samples()


def example(folder: Path) -> Network:
    """The example digits as a network of the zoo: it needs no torch."""
    network = Network("digits", folder)
    shutil.copy(DIGITS / "digits.onnx", network.onnx)
    shutil.copy(DIGITS / "test.npz", folder / "digits.inputs.npz")
    shutil.copy(DIGITS / "calibration.npz", folder / "digits.calibration.npz")
    update(network.case, folder)
    return network
