"""Libraries: TensorRT's shared libraries, every place where they are found, and in which order they are taken.

Linux asks the wheel's folder ``tensorrt_libs`` (its Python module opens what is in it), then LD_LIBRARY_PATH, then what
ldconfig knows. On Windows the Python module takes the wheel's folder too, and without that wheel looks along PATH by
itself for ``nvinfer_10.dll`` (``nvinfer.dll`` up to 8): os.add_dll_directory is not asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from pytest_trt.doctor.symptom import Symptom

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.doctor.platform import Platform

__all__ = ["Copy", "copies_of", "cuda_runtime", "libraries"]

_USUAL = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/local/TensorRT/lib",
    "/opt/tensorrt/lib",
)
_NUMBERS = re.compile(r"libnvinfer\.so\.(\d+(?:\.\d+)*)$|nvinfer_(\d+)\.dll$", re.IGNORECASE)
_TOOLKIT = re.compile(r"NVIDIA GPU Computing Toolkit", re.IGNORECASE)


@dataclass(frozen=True)
class Copy:
    """One copy of TensorRT's core library.

    Attributes:
        how: what makes it be found: "wheel", "LD_LIBRARY_PATH", "PATH", "ldconfig" or "folder" (known by nobody).
        path: of the file.
        version: as far as its name tells, as "10" or "10.3.0"; empty where it does not (nvinfer.dll is 8 or older).
    """

    how: str
    path: str
    version: str

    @property
    def loaded(self) -> bool:
        """Whether anything looks there."""
        return self.how != "folder"


def copies_of(platform: Platform) -> list[Copy]:
    """Every copy of TensorRT's core library, those that are taken first at the front."""
    found = list(_windows(platform) if platform.system == "Windows" else _linux(platform))
    return list({copy.path: copy for copy in reversed(found)}.values())[::-1]


def libraries(platform: Platform) -> Iterator[Symptom]:
    """Where TensorRT's libraries are found, and whether that is one version."""
    copies = copies_of(platform)
    loaded = [copy for copy in copies if copy.loaded]
    for copy in copies:
        name = f"TensorRT {copy.version}" if copy.version else "TensorRT 8 or older"
        told = f"{name}, by {copy.how}: {copy.path}"
        if copy.loaded:
            yield Symptom("tensorrt", "good", told)
        elif not loaded:
            yield Symptom("tensorrt", "doubt", f"{told}: no search path has its folder", _on_path(platform, copy.path))
    majors = list(dict.fromkeys(copy.version.partition(".")[0] for copy in loaded))
    if len(majors) > 1:
        said = f"TensorRT is found in {len(majors)} major versions; the first is taken: {loaded[0].path}"
        yield Symptom("tensorrt", "doubt", said, f"Take the others off {_variable(platform)}, or out of their folders.")
    for copy in copies:
        if platform.system == "Windows" and _TOOLKIT.search(copy.path):
            said = f"{copy.path} was copied into CUDA's own folder, where a later TensorRT or CUDA is mixed with it"
            remedy = "Delete the copies, keep TensorRT in a folder of its own, and put that on PATH; or take the wheel."
            yield Symptom("tensorrt", "doubt", said, remedy)


def cuda_runtime(platform: Platform) -> Iterator[Symptom]:
    """CUDA's runtime libraries: those of wheels, and the toolkits that are installed."""
    found = [*_runtime_wheels(platform), *_toolkits(platform)]
    if found:
        yield Symptom("cuda", "good", f"CUDA runtime: {'; '.join(found)}")
    path = platform.environment.get("CUDA_PATH") if platform.system == "Windows" else None
    if path and not platform.files(_join(platform, path, "bin"), "cudart64*.dll"):
        said = f"CUDA_PATH is {path!r}, and its bin has no cudart64_*.dll"
        yield Symptom("cuda", "doubt", said, "Install that CUDA toolkit again, or unset CUDA_PATH.")


def _linux(platform: Platform) -> Iterator[Copy]:
    for folder in platform.site:
        yield from _in(platform, "wheel", _join(platform, folder, "tensorrt_libs"), "libnvinfer.so*")
    for folder in _folders(platform, "LD_LIBRARY_PATH", ":"):
        yield from _in(platform, "LD_LIBRARY_PATH", folder, "libnvinfer.so*")
    yield from _ldconfig(platform)
    for folder in _USUAL:
        yield from _in(platform, "folder", folder, "libnvinfer.so*")


def _windows(platform: Platform) -> Iterator[Copy]:
    for folder in platform.site:
        for name in ("tensorrt_libs", "tensorrt.libs"):
            yield from _in(platform, "wheel", _join(platform, folder, name), "nvinfer*.dll")
    for folder in _folders(platform, "PATH", ";"):
        yield from _in(platform, "PATH", folder, "nvinfer*.dll")


def _in(platform: Platform, how: str, folder: str, pattern: str) -> Iterator[Copy]:
    for name in platform.files(folder, pattern):
        numbers = _NUMBERS.search(name)
        if numbers:
            yield Copy(how, _join(platform, folder, name), numbers[1] or numbers[2])
        elif name.lower() == "nvinfer.dll":
            yield Copy(how, _join(platform, folder, name), "")


def _ldconfig(platform: Platform) -> Iterator[Copy]:
    """What the loader's cache knows, a line each: ``libnvinfer.so.10 (libc6,x86-64) => /usr/lib/...``."""
    program = platform.which("ldconfig") or "/sbin/ldconfig"
    for line in platform.runs(program, "-p").out.splitlines():
        name, _, path = line.strip().partition(" => ")
        numbers = _NUMBERS.search(name.split(" ")[0])
        if path and numbers:
            yield Copy("ldconfig", path, numbers[1])


def _folders(platform: Platform, variable: str, separator: str) -> list[str]:
    # Windows writes it Path, and its variables know no case
    names = {key.upper(): value for key, value in platform.environment.items()}
    return [folder.strip('"') for folder in names.get(variable, "").split(separator) if folder.strip('" ')]


def _runtime_wheels(platform: Platform) -> Iterator[str]:
    for kind in (
        "nvidia-cuda-runtime",
        "nvidia-cuda-runtime-cu13",
        "nvidia-cuda-runtime-cu12",
        "nvidia-cuda-runtime-cu11",
    ):
        if version := platform.version(kind):
            yield f"{version} by the wheel {kind}"


def _toolkits(platform: Platform) -> Iterator[str]:
    if platform.system == "Windows":
        found = {key: path for key, path in platform.environment.items() if key.upper().startswith("CUDA_PATH_V")}
        yield from (f"toolkit {path}" for _, path in sorted(found.items()))
    else:
        yield from (f"toolkit /usr/local/{name}" for name in platform.files("/usr/local", "cuda-[0-9]*.*"))
    if program := platform.which("nvcc"):
        yield f"nvcc {program}"


def _on_path(platform: Platform, path: str) -> str:
    pure = PureWindowsPath(path) if platform.system == "Windows" else PurePosixPath(path)
    return f"Put {pure.parent} on {_variable(platform)} before Python starts."


def _variable(platform: Platform) -> str:
    return "PATH" if platform.system == "Windows" else "LD_LIBRARY_PATH"


def _join(platform: Platform, folder: str, name: str) -> str:
    pure = PureWindowsPath(folder) if platform.system == "Windows" else PurePosixPath(folder)
    return str(pure / name)
