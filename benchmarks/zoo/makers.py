"""Make the healthy networks: small, seeded, trained for seconds on scikit-learn's digits, exported by torch.

ResNet-18 and MobileNet-v2 are torchvision's, on warm-coloured digits of 3 x 32 x 32, whose channels differ as those of
photographs do; the encoder reads the digits' 16 patches; the segmentation network finds their strokes in noise; the
detector gives box, scores and label of one digit in a larger scene. digits is the example of this project.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from benchmarks.zoo.network import CHOSEN, MEAN, REPORTED, SPREAD, Network, example
from pytest_trt.golden.create import update

__all__ = ["export", "make", "module_of", "with_batch_statistics"]

GOLDEN, CALIBRATION = 32, 64

if TYPE_CHECKING:
    from pathlib import Path

_kept: list[Any] = []


class Encoder(nn.Module):
    """Patches (N, 16, 4) to logits (N, 10): two layers of attention, 64 wide."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 64)
        self.place = nn.Parameter(0.1 * torch.randn(1, 16, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, activation="gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 10)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embed(patches) + self.place).mean(1))


def _stage(inner: int, outer: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(),
        nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(),
    )  # fmt: skip


class Segmentation(nn.Module):
    """Images (N, 1, 16, 16) to logits of stroke and ground (N, 2, 16, 16): a U-Net of two levels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.bottom = _stage(1, 16), _stage(16, 32), _stage(32, 48)
        self.up_second, self.up_first = nn.ConvTranspose2d(48, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.join_second, self.join_first = _stage(64, 32), _stage(32, 16)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = self.first(image)
        second = self.second(functional.max_pool2d(first, 2))
        bottom = self.bottom(functional.max_pool2d(second, 2))
        joined = self.join_second(torch.cat([self.up_second(bottom), second], 1))
        return self.head(self.join_first(torch.cat([self.up_first(joined), first], 1)))


class Detection(nn.Module):
    """Scenes (N, 3, 24, 24) to one box (N, 4), scores (N, 10) and the best label (N)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(_stage(3, 16), _stage(16, 32, 2), _stage(32, 48, 2))
        self.neck = nn.Linear(48 * 36, 64)
        self.box, self.score = nn.Linear(64, 4), nn.Linear(64, 10)

    def forward(self, scene: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = torch.relu(self.neck(torch.flatten(self.trunk(scene), 1)))
        scores = torch.softmax(self.score(found), 1)
        return torch.sigmoid(self.box(found)), scores, scores.argmax(1)


def coloured(gray: torch.Tensor, seed: int) -> torch.Tensor:
    """Images (N, 1, H, W) in 0..1 as warm-coloured, normalised ones (N, 3, H, W)."""
    draw = torch.Generator().manual_seed(seed)
    ink = torch.rand(len(gray), 3, 1, 1, generator=draw) * torch.tensor([0.3, 0.4, 0.5]).view(1, 3, 1, 1)
    paper = torch.tensor([0.8, 0.6, 0.3]).view(1, 3, 1, 1) + 0.15 * torch.rand(len(gray), 3, 1, 1, generator=draw)
    image = paper + gray * (ink - paper) + 0.03 * torch.randn(len(gray), 3, *gray.shape[2:], generator=draw)
    return (image.clamp(0, 1) - torch.tensor(MEAN)) / torch.tensor(SPREAD)


class BatchStatistics(nn.Module):
    """What a BatchNorm computes in training mode, in operators that every runtime has."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean((0, 2, 3), keepdim=True)
        spread = torch.sqrt((centred * centred).mean((0, 2, 3), keepdim=True) + self.norm.eps)
        return centred / spread * self.norm.weight.view(1, -1, 1, 1) + self.norm.bias.view(1, -1, 1, 1)


def with_batch_statistics(module: nn.Module) -> nn.Module:
    """The module with every BatchNorm in training mode; its argument, changed."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, BatchStatistics(child))
        else:
            with_batch_statistics(child)
    return module


def _digits() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images.reshape(-1, 1, 8, 8) / 16, dtype=torch.float32), torch.tensor(labels)


def _photographs() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    gray, labels = _digits()
    return coloured(functional.interpolate(gray, 32, mode="bilinear"), 1), (labels,)


def _patches() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    gray, labels = _digits()
    return functional.unfold(gray - 0.3, 2, stride=2).transpose(1, 2).contiguous(), (labels,)


def _strokes() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    gray = functional.interpolate(_digits()[0], 16, mode="bilinear")
    noise = torch.randn(gray.shape, generator=torch.Generator().manual_seed(2))
    return 0.7 * gray + 0.15 * noise, ((gray[:, 0] > 0.5).long(),)


def _scenes() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    gray, labels = _digits()
    corner = torch.randint(0, 13, (len(gray), 2), generator=torch.Generator().manual_seed(3))
    scene = torch.zeros(len(gray), 1, 24, 24)
    for canvas, image, (row, column) in zip(scene, gray, corner.tolist(), strict=True):
        canvas[0, row : row + 12, column : column + 12] = functional.interpolate(image[None], 12, mode="bilinear")[0, 0]
    low = corner / 24
    return coloured(scene, 4), (torch.cat([low, low + 0.5], 1).float(), labels)


def _class_loss(logits: Any, targets: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return functional.cross_entropy(logits, targets[0])


def _box_loss(found: Any, targets: tuple[torch.Tensor, ...]) -> torch.Tensor:
    box, scores, _ = found
    return 20 * functional.mse_loss(box, targets[0]) + functional.nll_loss(torch.log(scores + 1e-6), targets[1])


def _vision(name: str, **told: Any) -> nn.Module:
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # built for CUDA, beside a CPU torch: its networks need none of its operators
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
    module: nn.Module = getattr(importlib.import_module("torchvision.models"), name)(num_classes=10, **told)
    return module


_MAKERS: dict[str, Any] = {
    # network, data, loss, steps of 32 samples, names of inputs and outputs
    "resnet18": (lambda: _vision("resnet18"), _photographs, _class_loss, 40, "image", ["logits"]),
    "mobilenet_v2": (
        lambda: _vision("mobilenet_v2", width_mult=0.5, dropout=0.0),
        _photographs,
        _class_loss,
        250,
        "image",
        ["logits"],
    ),
    "encoder": (Encoder, _patches, _class_loss, 400, "patches", ["logits"]),
    "segmentation": (Segmentation, _strokes, _class_loss, 60, "image", ["mask"]),
    "detection": (Detection, _scenes, _box_loss, 200, "scene", ["box", "scores", "label"]),
}


def _trained(module: nn.Module, x: torch.Tensor, targets: tuple[torch.Tensor, ...], loss: Any, steps: int) -> nn.Module:
    torch.set_num_threads(1)  # the same sums on every machine
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    module.train()
    for step in range(steps):
        chosen = torch.randint(0, len(x), (32,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss(module(x[chosen]), tuple(target[chosen] for target in targets)).backward()
        optimizer.step()
    return module.eval()


def export(module: nn.Module, x: torch.Tensor, path: Path, name: str, opset: int = 17, **told: Any) -> None:
    """Write a network's ONNX file, its first axis dynamic."""
    _, _, _, _, given, found = _MAKERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (x[:2],), str(path), input_names=[given], output_names=found, opset_version=opset,
            dynamic_axes={tensor: {0: "N"} for tensor in (given, *found)}, dynamo=False, **told,
        )  # fmt: skip


def module_of(network: Network) -> tuple[nn.Module, torch.Tensor]:
    """The trained torch module of a network, and some inputs of its."""
    module = _MAKERS[network.name][0]().eval()
    module.load_state_dict(torch.load(network.folder / f"{network.name}.pt", weights_only=True))
    with np.load(network.folder / f"{network.name}.inputs.npz") as file:
        return module, torch.tensor(file[_MAKERS[network.name][4]])


def _write(network: Network) -> None:
    torch.manual_seed(0)
    maker, data, loss, steps, given, _ = _MAKERS[network.name]
    x, targets = data()
    training = tuple(target[:-GOLDEN] for target in targets)
    module = _trained(maker(), x[:-GOLDEN], training, loss, steps)
    torch.save(module.state_dict(), network.folder / f"{network.name}.pt")
    export(module, x, network.onnx, network.name)
    np.savez(network.folder / f"{network.name}.inputs.npz", **{given: x[-GOLDEN:].numpy()})
    np.savez(network.folder / f"{network.name}.calibration.npz", **{given: x[:CALIBRATION].numpy()})


def make(folder: Path, names: tuple[str, ...] = (*CHOSEN, *REPORTED)) -> list[Network]:
    """The networks with their goldens; what the folder has is not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    networks = [Network(name, folder) for name in names]
    for network in networks:
        if network.golden.exists():
            continue
        if network.name == "digits":
            example(folder)
        else:
            _write(network)
            update(network.case, folder)
    return networks
