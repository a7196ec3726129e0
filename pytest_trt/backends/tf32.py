"""TF32: NVIDIA's libraries obey one variable of the environment, whatever a program asks of them."""

from __future__ import annotations

import os

from pytest_trt.errors import BackendError
from pytest_trt.precision import Precision

__all__ = ["OVERRIDE", "require_no_override", "require_tf32_off"]

OVERRIDE = "NVIDIA_TF32_OVERRIDE"


def require_no_override(precision: Precision, backend: str) -> None:
    """Refuse tf32 where the environment forbids it, and the libraries would compute in fp32 without a word.

    Raises:
        BackendError: it does.
    """
    if precision is Precision.TF32 and os.environ.get(OVERRIDE) == "0":
        raise BackendError(f"backend {backend!r} can't run tf32 while {OVERRIDE}=0 forbids it: unset the variable.")


def require_tf32_off(precision: Precision, backend: str) -> None:
    """Refuse fp32 where only the environment could switch TF32 off, and it does not.

    The libraries read the variable once a process, so it is not ours to set.

    Raises:
        BackendError: an engine under the name of fp32 might compute in TF32.
    """
    if precision is Precision.FP32 and os.environ.get(OVERRIDE) != "0":
        raise BackendError(
            f"backend {backend!r} computes fp32 in TF32 where the GPU has it, and has no option against it. Set"
            f" {OVERRIDE}=0 in the environment before pytest starts, or ask for --trt-precision=tf32."
        )
