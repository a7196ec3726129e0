"""Packages: Python, the operating system, and what is installed, missing, or does not fit one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.doctor.platform import ALWAYS, Symptom

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packaging.requirements import Requirement

    from pytest_trt.doctor.platform import Platform

__all__ = [
    "NVIDIA",
    "between",
    "long_paths",
    "numpy_of_tensorrt",
    "one_onnxruntime",
    "python",
    "required",
    "tensorrt_of_one_kind",
]

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


_OWN = "pytest-trt"

# what an extra is for; those of development, and those whose packages exclude each other, are left out
_EXTRAS = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt-rtx",),
    "torch": ("torch", "torch-compile"),
    "pycuda": ("pycuda",),
    "modelopt": ("modelopt",),
    "latency": ("latency",),
    "html": ("html",),
}
_BY_MODULE = ("tensorrt",)  # also installed from archives, of which package metadata know nothing

_ONNXRUNTIMES = (
    "onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn",
    "onnxruntime-rocm", "onnxruntime-training", "ort-nightly", "ort-nightly-gpu",
)  # fmt: skip
_WITH_CUDA = ("onnxruntime-gpu", "ort-nightly-gpu", "onnxruntime-training")

_KINDS = ("cu11", "cu12", "cu13")
_PARTS = ("", "-libs", "-bindings")

_LOOKED_AT = (
    "pytest-benchmark", "onnxruntime", "onnxruntime-gpu", "torch", "torchvision", "torch-tensorrt", "nvidia-modelopt",
    "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-cu12-bindings", "tensorrt-cu13-bindings", "polygraphy",
    "cuda-bindings", "cuda-core", "cuda-python", "pycuda", "onnx", "numpy", "ml-dtypes", "safetensors",
)  # fmt: skip


def required(platform: Platform) -> Iterator[Symptom]:
    """The packages that we say we need, those of an extra for what the extra is for."""
    lines = platform.requires(_OWN)
    if not lines:
        remedy = "Install it (pip install pytest-trt, or pip install -e . in its sources)."
        yield Symptom("packages", "broken", "pytest-trt is not installed as a package", remedy, (ALWAYS,))
        return
    fitting = []
    missing: dict[str, list[Requirement]] = {}
    for needed, extra in _needs(platform, lines):
        found = platform.version(needed.name)
        if found is None and needed.name not in _BY_MODULE:
            missing.setdefault(extra, []).append(needed)
        elif found is not None and needed.specifier.contains(found, prereleases=True):
            fitting.append(f"{needed.name} {found}")
        elif found is not None:
            yield _unfit(needed, found, extra)
    yield from (_missing(needed, extra) for extra, needed in missing.items())
    version = platform.version(_OWN) or "of this folder"
    yield Symptom("packages", "good", f"pytest-trt {version} with {', '.join(dict.fromkeys(fitting))}")


def one_onnxruntime(platform: Platform) -> Iterator[Symptom]:
    """Exactly one package of onnxruntime: they install the same files over each other."""
    found = {name: version for name in _ONNXRUNTIMES if (version := platform.version(name))}
    told = " and ".join(f"{name} {version}" for name, version in found.items())
    if not found:
        remedy = 'pip install "pytest-trt[cpu]", or "pytest-trt[gpu]" for its CUDA and TensorRT providers.'
        yield Symptom("onnxruntime", "absent", "onnxruntime is not installed", remedy, ("onnxruntime", *_PROVIDERS))
    elif len(found) > 1:
        kept = "gpu" if set(found) & set(_WITH_CUDA) else "cpu"
        remedy = f'pip uninstall -y {" ".join(found)}; then pip install "pytest-trt[{kept}]".'
        said = f"{told} are both installed: each wrote over files of the other"
        yield Symptom("onnxruntime", "broken", said, remedy, ("onnxruntime", *_PROVIDERS))
    elif not set(found) & set(_WITH_CUDA):
        remedy = f'pip uninstall -y {" ".join(found)}; then pip install "pytest-trt[gpu]".'
        yield Symptom("onnxruntime", "absent", f"{told} runs on the CPU alone", remedy, _PROVIDERS)
    else:
        yield Symptom("onnxruntime", "good", told)


_PROVIDERS = ("onnxruntime-cuda", "onnxruntime-tensorrt")


def tensorrt_of_one_kind(platform: Platform) -> Iterator[Symptom]:
    """TensorRT's packages are all for one CUDA, and all of one version."""
    for family in ("tensorrt", "tensorrt-rtx"):
        found = {name: version for name in _family(family) if (version := platform.version(name))}
        kinds = sorted({kind for kind in _KINDS if any(f"-{kind}-" in f"{name}-" for name in found)})
        told = ", ".join(f"{name} {version}" for name, version in found.items())
        again = f'pip uninstall -y {" ".join(found)}; then pip install "pytest-trt[{family}]".'
        if len(kinds) > 1:
            said = f"{told}: for {' and '.join(kinds)}, and both bring the same Python module"
            yield Symptom("packages", "broken", said, again, (family,))
        elif len({_stem(version) for version in found.values()}) > 1:
            yield Symptom("packages", "broken", f"{told}: they are not of one version", again, (family,))
        elif found:
            yield Symptom("packages", "good", told)


def numpy_of_tensorrt(platform: Platform) -> Iterator[Symptom]:
    """TensorRT 8's Python module is from before NumPy 2, and its 8.6.0 stumbles over NumPy 1.24 to 1.26."""
    tensorrt, numpy = platform.version("tensorrt"), platform.version("numpy")
    if not tensorrt or not numpy or _numbers(tensorrt)[0] != 8:
        return
    said = f"TensorRT {tensorrt} with numpy {numpy}"
    if _numbers(numpy) >= (2, 0):
        what = f"{said}: its Python module was compiled before NumPy 2"
        yield Symptom("packages", "doubt", what, 'pip install "numpy<2", which it was measured with.', ())
    elif _numbers(numpy) >= (1, 24):
        what = f"{said}: tensorrt.nptype(tensorrt.bool) may fail, for which pytest-trt has its own table"
        yield Symptom("packages", "good", what)


def between(platform: Platform) -> Iterator[Symptom]:
    """What installed packages say of each other's versions, and is not so."""
    for name in _LOOKED_AT:
        found = platform.version(name)
        if found is None:
            continue
        for needed, extra in _needs(platform, platform.requires(name)):
            other = platform.version(needed.name)
            if (
                not extra
                and other
                and needed.name in _LOOKED_AT
                and not needed.specifier.contains(other, prereleases=True)
            ):
                said = f"{name} {found} wants {needed.name}{needed.specifier}, and {other} is installed"
                yield Symptom(
                    "packages", "doubt", said, f'pip install "{needed.name}{needed.specifier}", or another {name}.'
                )


def _needs(platform: Platform, lines: list[str]) -> Iterator[tuple[Requirement, str]]:
    """What lines of metadata need on this platform, with the extra that it is for (empty for none)."""
    from packaging.requirements import InvalidRequirement, Requirement

    for line in lines:
        try:
            needed = Requirement(line)
        except InvalidRequirement:
            continue  # another package's metadata; pip says what is wrong with them
        for extra in ("", *_EXTRAS):
            holds = needed.marker is None or needed.marker.evaluate({**_environment(platform), "extra": extra})
            if holds:
                yield needed, extra
                break


def _environment(platform: Platform) -> dict[str, str]:
    names = {"Windows": "win32", "Linux": "linux", "Darwin": "darwin"}
    return {
        "python_version": ".".join(map(str, platform.python[:2])),
        "python_full_version": ".".join(map(str, platform.python)),
        "platform_system": platform.system,
        "platform_machine": platform.machine,
        "sys_platform": names.get(platform.system, platform.system.lower()),
        "os_name": "nt" if platform.system == "Windows" else "posix",
    }


def _unfit(needed: Requirement, found: str, extra: str) -> Symptom:
    said = f"{needed.name} {found} does not fit: pytest-trt needs {needed.specifier}"
    remedy = f'pip install "{needed.name}{needed.specifier}".'
    return Symptom("packages", "broken", said, remedy, _EXTRAS.get(extra, (ALWAYS,)))


def _missing(needed: list[Requirement], extra: str) -> Symptom:
    said = f"not installed: {', '.join(one.name for one in needed)}"
    if not extra:
        words = " ".join(f'"{one.name}{one.specifier}"' for one in needed)
        return Symptom("packages", "broken", said, f"pip install {words}.", (ALWAYS,))
    return Symptom("packages", "absent", said, f'pip install "pytest-trt[{extra}]".', _EXTRAS[extra])


def _family(family: str) -> list[str]:
    kinds = ("", *(f"-{kind}" for kind in _KINDS))
    return [f"{family}{kind}{part}" for kind in kinds for part in _PARTS]


def _stem(version: str) -> str:
    return version.partition(".post")[0]


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, which may have other words behind."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version).release
    except InvalidVersion:
        return (0,)
