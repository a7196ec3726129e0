"""TensorRT: its shared libraries, where they are found, and its modules, each imported in a process of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from pytest_trt.doctor.platform import MARK, Symptom, answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.doctor.platform import Platform

__all__ = ["copies_of", "cuda_runtime", "libraries", "tensorrt", "tensorrt_rtx"]

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


_PROBE = """
import importlib, json
errors = []
for name in {names!r}:
    try:
        trt = importlib.import_module(name)
        break
    except Exception as error:
        errors.append(f"{{type(error).__name__}}: {{error}}")
else:
    print({mark!r} + json.dumps({{"error": errors[0]}}))
    raise SystemExit(0)
found = {{"version": getattr(trt, "__version__", "?"), "file": getattr(trt, "__file__", "") or ""}}
flags = getattr(trt, "BuilderFlag", None)
creation = getattr(trt, "NetworkDefinitionCreationFlag", None)
found["weak"] = hasattr(flags, "FP16")
found["strong"] = hasattr(creation, "STRONGLY_TYPED")
print({mark!r} + json.dumps(found), flush=True)
builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
if hasattr(builder, "num_DLA_cores"):
    found["dla"] = int(builder.num_DLA_cores)
print({mark!r} + json.dumps(found), flush=True)
"""


def tensorrt(platform: Platform) -> Iterator[Symptom]:
    """TensorRT: its release, how it is told a precision, and the DLA cores that it sees."""
    yield from _module(platform, "tensorrt", ("tensorrt",), "TensorRT")


def tensorrt_rtx(platform: Platform) -> Iterator[Symptom]:
    """TensorRT-RTX, likewise."""
    yield from _module(platform, "tensorrt-rtx", ("tensorrt_rtx", "tensorrt_rtx_bindings"), "TensorRT-RTX")


def _module(platform: Platform, backend: str, names: tuple[str, ...], label: str) -> Iterator[Symptom]:
    present = tuple(name for name in names if platform.finds(name))
    if not present:
        yield Symptom("tensorrt", "absent", f"{label} is not installed", _install(platform, backend), (backend,))
        return
    found, why = answer(platform, _PROBE.format(names=present, mark=MARK))
    error = why if found is None else found.get("error", "")
    if found is None or error:
        remedy = _remedy(platform, backend, error)
        yield Symptom("tensorrt", "broken", f"{label} can't be imported: {error}", remedy, (backend,))
        return
    typing = "strongly typed networks only" if not found["weak"] else "weak typing only"
    typing = "strong and weak typing" if found["weak"] and found["strong"] else typing
    yield Symptom("tensorrt", "good", f"{label} {found['version']} from {found['file']}: {typing}")
    if found.get("dla"):
        yield Symptom("gpu", "good", f"{found['dla']} DLA cores: --trt-build dla_core=0")
    elif backend == "tensorrt" and "dla" in found:
        yield Symptom("gpu", "good", "no DLA cores")


def _install(platform: Platform, backend: str) -> str:
    if backend == "tensorrt" and platform.system == "Linux" and _is_jetson(platform):
        return (
            "JetPack brings it for the system's Python: sudo apt-get install python3-libnvinfer, and make the"
            " environment with python3 -m venv --system-site-packages."
        )
    return f'pip install "pytest-trt[{backend}]", which brings its libraries too; no archive has to be unpacked.'


def _remedy(platform: Platform, backend: str, error: str) -> str:
    """What mends an import, by what it said."""
    lowered = error.lower()
    if (
        "missing" in lowered
        or "could not find" in lowered
        or "cannot open shared object" in lowered
        or "dll" in lowered
    ):
        variable = "PATH" if platform.system == "Windows" else "LD_LIBRARY_PATH"
        copies = copies_of(platform)
        seen = f" Found are: {', '.join(copy.path for copy in copies)}." if copies else ""
        return (
            f"Its module and its libraries must be of one version, and the libraries' folder on {variable} before"
            f' Python starts.{seen} Or install both anew: pip install --force-reinstall "pytest-trt[{backend}]".'
        )
    if "numpy" in lowered:
        return 'pip install "numpy<2", or a TensorRT of this year.'
    return f'pip install --force-reinstall "pytest-trt[{backend}]", in an environment of its own.'


def _is_jetson(platform: Platform) -> bool:
    return platform.machine == "aarch64" and bool(platform.files("/etc", "nv_tegra_release"))
