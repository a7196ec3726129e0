"""Write the networks that are measured: torchvision's, with a five-way head and seeded weights, as ONNX with inputs.

    python benchmarks/models.py FOLDER [NAME ...]

Needs torch and torchvision. ResNet-18 is as it was first measured: random weights, white noise. The others would
answer a constant that way: their BatchNorm statistics are taken from 32 seeded images, and images are 1/f-like.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import models

MAKERS: dict[str, Any] = {
    "resnet18": models.resnet18,
    "resnet50": models.resnet50,
    "mobilenet_v2": models.mobilenet_v2,
    "vgg19": models.vgg19,
}


def pink(count: int, seed: int) -> torch.Tensor:
    """Images (count, 3, 224, 224) with a 1/f spectrum, each channel of mean 0 and deviation 1."""
    noise = np.random.default_rng(seed).standard_normal((count, 3, 224, 224))
    rows, columns = np.fft.fftfreq(224)[:, None], np.fft.rfftfreq(224)[None, :]
    radius = np.maximum(np.hypot(rows, columns), 1 / 224)
    images = np.fft.irfft2(np.fft.rfft2(noise) / radius, s=(224, 224))
    images -= images.mean(axis=(2, 3), keepdims=True)
    images /= images.std(axis=(2, 3), keepdims=True)
    return torch.tensor(images.astype(np.float32))


def five_way(name: str) -> torch.nn.Module:
    """The network with its last layer replaced by one of five outputs."""
    torch.manual_seed(0)
    module: torch.nn.Module = MAKERS[name](weights=None)
    if hasattr(module, "fc"):
        module.fc = torch.nn.Linear(module.fc.in_features, 5)
    else:
        module.classifier[-1] = torch.nn.Linear(module.classifier[-1].in_features, 5)
    return module.eval()


def with_statistics(module: torch.nn.Module) -> torch.nn.Module:
    """BatchNorm statistics taken from 32 images, in one pass."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    module.train()
    with torch.no_grad():
        module(pink(32, seed=1))
    return module.eval()


def write(name: str, folder: Path) -> None:
    """NAME.onnx, NAME.inputs.npz (8 samples) and NAME.calibration.npz (32)."""
    module = five_way(name)
    if name == "resnet18":
        drawn = torch.randn(64, 3, 224, 224)
        inputs, calibration = drawn[:8], drawn[32:]
    else:
        module = with_statistics(module)
        inputs, calibration = pink(8, seed=2), pink(32, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (inputs[:1],), str(folder / f"{name}.onnx"), input_names=["input"], output_names=["output"],
            opset_version=17, dynamo=False,
        )  # fmt: skip
    np.savez(folder / f"{name}.inputs.npz", input=inputs.numpy())
    np.savez(folder / f"{name}.calibration.npz", input=calibration.numpy())


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for chosen in sys.argv[2:] or MAKERS:
        write(chosen, target)
        print(f"{chosen} written to {target}")
