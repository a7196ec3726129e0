"""ResNet-18 with a five-way head and seeded random weights, and its inputs, as the project first measured them."""

from __future__ import annotations

import functools

import torch
from torchvision.models import resnet18


@functools.cache
def _made() -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = resnet18(weights=None)
    model.fc = torch.nn.Linear(512, 5)
    return model.eval(), torch.randn(64, 3, 224, 224)


def factory() -> torch.nn.Module:
    """The module, in eval mode."""
    return _made()[0]


def inputs() -> torch.Tensor:
    """Four golden inputs, white noise (4, 3, 224, 224); the first is the one that was measured on a GPU."""
    return _made()[1][:4]


def calibration() -> torch.Tensor:
    """Thirty-two others."""
    return _made()[1][32:]
