"""For this project's own tests and examples alone: pytester, and the ResNet-18 example where torch is there."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # the workers are as many as the cores: threads of numpy and torch beside them would only wait for each other
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

pytest_plugins = ["pytester"]

_kept: list[Any] = []


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "resnet18" in item.nodeid and (reason := _torchvision_missing()):
        pytest.skip(reason)


@functools.cache
def _torchvision_missing() -> str:
    """Why ResNet-18 can't run here; empty if it can."""
    absent = [name for name in ("torch", "torchvision") if importlib.util.find_spec(name) is None]
    if absent:
        return f"needs {' and '.join(absent)}: pip install -e '.[cpu,examples]'"
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        return _retry_without_operators()
    return ""


def _retry_without_operators() -> str:
    """A torchvision built for CUDA finds no operators beside a CPU torch; its networks need none of them."""
    import torch

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)  # the definitions last as long as this object
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        return f"torchvision can't be imported beside this torch: {error}"
    return ""
