"""Train the network of this example and write its files: ``python examples/digits/train.py``.

A residual network with BatchNorm on scikit-learn's bundled digits (1797 images of 8 x 8 pixels), seeded: the
last 360 images are the test set, 256 of the others calibrate. Writes digits.onnx, calibration.npz and test.npz
beside this file; needs torch and scikit-learn. The committed files were made with torch 2.13.0 on the CPU.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

HERE = Path(__file__).parent
TEST = 360


class Block(nn.Module):
    """Two 3 x 3 convolutions with BatchNorm, and the input added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float images (N, channels, H, W) to the same shape."""
        return torch.relu(x + self.layers(x))


def network(channels: int = 32) -> nn.Module:
    """Images (N, 1, 8, 8) in 0..1 to logits (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        Block(channels),
        nn.MaxPool2d(2),
        Block(channels),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 10),
    )


def main() -> None:
    """Train, write, and print the test accuracy."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images.reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
    y = torch.tensor(labels)
    train_x, train_y, test_x, test_y = x[:-TEST], y[:-TEST], x[-TEST:], y[-TEST:]
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-4)
    for _ in range(30):
        model.train()
        for batch in torch.randperm(len(train_x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(train_x[batch]), train_y[batch]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(test_x).argmax(1) == test_y).float().mean().item()
    print(f"test accuracy {accuracy:.4f} on {TEST} images")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model, (test_x[:2],), str(HERE / "digits.onnx"), input_names=["image"], output_names=["logits"],
            dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}}, opset_version=17, dynamo=False,
        )  # fmt: skip
    np.savez_compressed(HERE / "calibration.npz", image=train_x[:256].numpy())
    np.savez_compressed(HERE / "test.npz", image=test_x.numpy())
    np.save(HERE / "labels.npy", test_y.numpy())


if __name__ == "__main__":
    main()
