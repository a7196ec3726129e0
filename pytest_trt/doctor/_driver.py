"""Driver: NVIDIA's driver, the GPUs that CUDA sees by it, and which packages it is too old for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.doctor._packages import NVIDIA
from pytest_trt.doctor.platform import MARK, Symptom, answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.doctor.platform import Platform

__all__ = ["cuda_of", "driver", "fits_driver", "gpus", "nvidia_smi"]

Cuda = dict[str, Any]
"""What the driver told: ``version`` as (13, 0), ``init`` (CUDA's error number) and ``devices``."""

_PROBE = f"""
import ctypes, json, sys
lib = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
number, devices = ctypes.c_int(0), []
lib.cuDriverGetVersion(ctypes.byref(number))
init = lib.cuInit(0)
count = ctypes.c_int(0)
if init == 0:
    lib.cuDeviceGetCount(ctypes.byref(count))
for index in range(count.value):
    device, name, size = ctypes.c_int(0), ctypes.create_string_buffer(256), ctypes.c_size_t(0)
    lib.cuDeviceGet(ctypes.byref(device), index)
    lib.cuDeviceGetName(name, 256, device)
    lib.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    numbers = []
    for attribute in (75, 76):
        found = ctypes.c_int(0)
        lib.cuDeviceGetAttribute(ctypes.byref(found), attribute, device)
        numbers.append(found.value)
    devices.append({{"name": name.value.decode(errors="replace"), "capability": numbers, "memory": size.value}})
version = [number.value // 1000, number.value % 1000 // 10]
print({MARK!r} + json.dumps({{"version": version, "init": init, "devices": devices}}))
"""

_ERRORS = {
    100: ("CUDA sees no GPU", "Look at nvidia-smi; in a container, start it with --gpus all."),
    101: ("CUDA finds no such GPU", "Look at CUDA_VISIBLE_DEVICES: it names a GPU that is not there."),
    802: ("the GPUs are not ready yet", "Start NVIDIA's fabric manager, in the driver's own version."),
    803: ("the driver's library and its kernel module are of different versions", "Restart the machine."),
    804: ("the CUDA compatibility package does not work on this GPU", "Remove cuda-compat, or update the driver."),
}

_OF_CUDA = {"cu11": 11, "cu12": 12, "cu13": 13}


def cuda_of(platform: Platform) -> tuple[Cuda | None, str]:
    """What CUDA's driver tells, asked in a process of its own; or why nothing."""
    return answer(platform, _PROBE)


def driver(platform: Platform) -> Iterator[Symptom]:
    """Whether CUDA's driver loads, starts and sees a GPU."""
    if platform.system == "Darwin":
        return
    found, why = cuda_of(platform)
    if found is None:
        yield Symptom("driver", "absent", f"no CUDA driver: {why}", _no_driver(platform), NVIDIA)
        return
    told = f"CUDA driver, up to CUDA {_dotted(found['version'])}"
    if found["init"]:
        said, remedy = _ERRORS.get(
            found["init"], ("CUDA does not start", "Look at nvidia-smi, and restart the machine.")
        )
        hidden = _hidden(platform)
        yield Symptom("driver", "broken", f"{told}: {said} (error {found['init']})", hidden or remedy, NVIDIA)
    elif not found["devices"]:
        yield Symptom("driver", "broken", f"{told}: it sees no GPU", _hidden(platform) or _ERRORS[100][1], NVIDIA)
    else:
        yield Symptom("driver", "good", told)


def nvidia_smi(platform: Platform) -> Iterator[Symptom]:
    """The driver's own version, where its program is there."""
    program = platform.which("nvidia-smi")
    if program is None:
        if cuda_of(platform)[0] is not None:
            yield Symptom("driver", "good", "nvidia-smi is not on PATH, and is not needed (a Jetson may have none)")
        return
    ran = platform.runs(program, "--query-gpu=driver_version,name", "--format=csv,noheader")
    if ran.code == 0 and ran.out.strip():
        versions = sorted({line.partition(",")[0].strip() for line in ran.out.splitlines() if line.strip()})
        yield Symptom("driver", "good", f"NVIDIA driver {', '.join(versions)}, by {program}")
    else:
        said = (ran.out.strip() or ran.err.strip() or f"exit code {ran.code}").splitlines()[0]
        yield Symptom(
            "driver", "doubt", f"nvidia-smi fails: {said}", "Restart the machine, or install the driver again."
        )


def gpus(platform: Platform) -> Iterator[Symptom]:
    """Each GPU, and the precisions that its hardware has."""
    found, _ = cuda_of(platform)
    for index, device in enumerate(found["devices"] if found else ()):
        capability = tuple(device["capability"])
        told = f"GPU {index}: {device['name']}, compute capability {_dotted(capability)}, {device['memory'] >> 20} MiB"
        yield Symptom("gpu", "good", f"{told}; {_precisions(capability)}")
        if capability < (7, 5) and _is_later(platform.version("tensorrt"), (10, 5)):
            said = f"GPU {index}: TensorRT {platform.version('tensorrt')} is for compute capability 7.5 and later"
            yield Symptom("gpu", "broken", said, "Install TensorRT 8.6 to 10.4, or take a newer GPU.", ("tensorrt",))


def fits_driver(platform: Platform) -> Iterator[Symptom]:
    """Packages that are for a later CUDA than the driver has; of one major version any will do."""
    found, _ = cuda_of(platform)
    if found is None:
        return
    has = found["version"][0]
    for name, wants, needed_by in _wanting(platform):
        if wants > has:
            said = (
                f"{name} {platform.version(name)} is for CUDA {wants}, and the driver has {_dotted(found['version'])}"
            )
            remedy = f"Update NVIDIA's driver to one for CUDA {wants}, or install what is for CUDA {has}."
            yield Symptom("driver", "broken", said, remedy, needed_by)


def _wanting(platform: Platform) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Installed packages, the major version of CUDA that they are for, and who needs them."""
    for family in ("tensorrt", "tensorrt-rtx"):
        for kind, major in _OF_CUDA.items():
            if platform.version(f"{family}-{kind}-bindings"):
                yield f"{family}-{kind}-bindings", major, (family,)
    bindings = platform.version("cuda-bindings")
    if bindings and bindings.partition(".")[0].isdigit():
        yield "cuda-bindings", int(bindings.partition(".")[0]), ("tensorrt", "tensorrt-rtx")


def _no_driver(platform: Platform) -> str:
    if platform.system == "Windows":
        return "Install NVIDIA's driver for Windows (nvcuda.dll comes with it), or simulate: --trt-backend=onnxruntime."
    if "microsoft" in platform.release.lower():
        return "Install NVIDIA's driver in Windows, none in WSL, and put /usr/lib/wsl/lib into LD_LIBRARY_PATH."
    if platform.which("nvidia-smi"):
        return (
            "nvidia-smi is there and libcuda.so.1 is not: in a container, set"
            " NVIDIA_DRIVER_CAPABILITIES=compute,utility; else install the driver's compute libraries"
            " (libnvidia-compute), and run ldconfig."
        )
    return (
        "Install NVIDIA's driver; in a container, start it with --gpus all. Without a GPU, simulate:"
        " --trt-backend=onnxruntime."
    )


def _hidden(platform: Platform) -> str:
    visible = platform.environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return ""
    return f"CUDA_VISIBLE_DEVICES is {visible!r}, which hides GPUs: unset it, or name one that nvidia-smi lists."


def _precisions(capability: tuple[int, ...]) -> str:
    """What tensor cores multiply, by compute capability (CUDA programming guide, arithmetic throughput)."""
    firsts = (("fp16", (7, 0)), ("int8", (7, 2)), ("bf16 and tf32", (8, 0)), ("fp8", (8, 9)))
    has = [name for name, first in firsts if capability >= first]
    lacks = [name for name, first in firsts if capability < first]
    told = f"tensor cores for {', '.join(has)}" if has else "no tensor cores"
    return f"{told}, not for {', '.join(lacks)}" if has and lacks else told


def _is_later(version: str | None, first: tuple[int, int]) -> bool:
    numbers = [int(word) for word in (version or "").split(".")[:2] if word.isdigit()]
    return len(numbers) == 2 and tuple(numbers) >= first


def _dotted(numbers: Any) -> str:
    return ".".join(map(str, numbers))
