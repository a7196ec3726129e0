"""Python and the operating system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.doctor.symptom import ALWAYS, Symptom

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.doctor.platform import Platform

__all__ = ["NVIDIA", "long_paths", "python"]

NVIDIA = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-tensorrt")
"""The backends that run on an NVIDIA GPU and on nothing else."""

_OLDEST = (3, 10)


def python(platform: Platform) -> Iterator[Symptom]:
    """Version and width of Python, and whether the system can have a GPU of NVIDIA's."""
    version = ".".join(map(str, platform.python))
    said = f"Python {version}, {platform.bits} bit, on {platform.system} {platform.machine}"
    if platform.python[:2] < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        yield Symptom(
            "python",
            "broken",
            f"{said}: too old",
            f"Install Python {oldest} or newer, and a new environment.",
            (ALWAYS,),
        )
    elif platform.bits != 64:
        remedy = "Install the 64 bit Python: onnxruntime, torch and TensorRT have no wheels for 32 bit."
        yield Symptom("python", "broken", said, remedy, (ALWAYS,))
    else:
        yield Symptom("python", "good", said)
    if platform.system == "Darwin":
        remedy = "Simulate here (--trt-backend=onnxruntime), and judge engines on Linux or Windows."
        yield Symptom("python", "absent", "macOS has no CUDA: no TensorRT engine runs here", remedy, NVIDIA)
    if "microsoft" in platform.release.lower():
        yield Symptom("python", "good", "WSL: the driver is that of Windows, and /usr/lib/wsl/lib has its libraries")


def long_paths(platform: Platform) -> Iterator[Symptom]:
    """Whether Windows takes paths of more than 260 characters, which goldens in deep folders may have."""
    if platform.system != "Windows":
        return
    key = r"HKLM\SYSTEM\CurrentControlSet\Control\FileSystem"
    ran = platform.runs("reg", "query", key, "/v", "LongPathsEnabled")
    if ran.code == 0 and ran.out.split()[-1:] == ["0x1"]:
        yield Symptom("python", "good", "paths of more than 260 characters are on")
    else:
        remedy = f"As administrator: reg add {key} /v LongPathsEnabled /t REG_DWORD /d 1 /f; or keep folders short."
        yield Symptom("python", "doubt", "paths of more than 260 characters are off, or it can't be told", remedy)
