"""Examination: all checks on one machine, and what it is fit for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_trt.doctor import _driver as driver
from pytest_trt.doctor import _frameworks as frameworks
from pytest_trt.doctor import _packages as packages
from pytest_trt.doctor import _tensorrt as tensorrt
from pytest_trt.doctor._packages import NVIDIA
from pytest_trt.doctor.platform import ALWAYS, Symptom, broken_of, counting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_trt.doctor.platform import Platform

__all__ = ["BACKENDS", "CHECKS", "OTHERS", "Check", "Examination", "examine"]

BACKENDS = (
    "onnxruntime", "tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-tensorrt", "torch", "torch-compile",
)  # fmt: skip
"""What can be asked for: each backend of the project."""

OTHERS = ("pycuda", "modelopt", "latency", "html")
"""What can be asked for besides."""

_NEEDED = ("onnxruntime",)  # goldens are made by it, and every engine is compared with its simulation


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        about: what its symptoms are about, for one that fails.
        looks: the function.
        needed_by: the backends that can't be said to work where it fails.
    """

    about: str
    looks: Callable[[Platform], Iterator[Symptom]]
    needed_by: tuple[str, ...] = ()


CHECKS = (
    Check("python", packages.python, (ALWAYS,)),
    Check("python", packages.long_paths),
    Check("packages", packages.required, (ALWAYS,)),
    Check("packages", packages.one_onnxruntime, ("onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt")),
    Check("packages", packages.tensorrt_of_one_kind, NVIDIA[:2]),
    Check("packages", packages.numpy_of_tensorrt),
    Check("packages", packages.between),
    Check("driver", driver.driver, NVIDIA),
    Check("driver", driver.nvidia_smi),
    Check("driver", driver.fits_driver, NVIDIA[:2]),
    Check("gpu", driver.gpus, NVIDIA),
    Check("cuda", tensorrt.cuda_runtime),
    Check("cuda", frameworks.cuda_python, NVIDIA[:2]),
    Check("cuda", frameworks.pycuda, ("pycuda",)),
    Check("tensorrt", tensorrt.libraries),
    Check("tensorrt", tensorrt.tensorrt, ("tensorrt",)),
    Check("tensorrt", tensorrt.tensorrt_rtx, ("tensorrt-rtx",)),
    Check("onnxruntime", frameworks.onnxruntime, ("onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt")),
    Check("torch", frameworks.torch, ("torch", "torch-compile")),
)


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        symptoms: all of them, in the order of the checks.
        asked: what the machine is to be fit for.
    """

    symptoms: tuple[Symptom, ...]
    asked: tuple[str, ...]

    @property
    def against(self) -> list[Symptom]:
        """What keeps it from being fit for what was asked."""
        return counting(self.symptoms, (*self.asked, *_NEEDED))

    @property
    def fit_for(self) -> dict[str, bool]:
        """Which backends it is fit for."""
        return {backend: not broken_of(self.symptoms, backend) for backend in BACKENDS}


def examine(
    platform: Platform,
    asked: tuple[str, ...] = (),
    checks: tuple[Check, ...] = CHECKS,
    progress: Callable[[str, float | None], None] | None = None,
) -> Examination:
    """Make all checks; one that fails is a symptom, of a machine that can't be said to be fit."""
    found: list[Symptom] = []
    for number, check in enumerate(checks):
        if progress:
            progress(f"looking at {check.about}", number / len(checks))
        found += _looked(check, platform)
    if progress:
        progress("", None)
    return Examination(tuple(found), asked)


def _looked(check: Check, platform: Platform) -> list[Symptom]:
    try:
        return list(check.looks(platform))
    except Exception as error:  # a machine that nobody foresaw is what this is for
        said = f"the check {check.looks.__name__} failed: {type(error).__name__}: {error}"
        return [Symptom(check.about, "broken", said, "Report it, with this line.", check.needed_by)]
