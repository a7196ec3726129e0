"""Frameworks: onnxruntime, torch, cuda-python and pycuda, each imported in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.doctor._driver import cuda_of
from pytest_trt.doctor._packages import NVIDIA
from pytest_trt.doctor.platform import MARK, Symptom, answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.doctor.platform import Platform

__all__ = ["cuda_python", "onnxruntime", "pycuda", "torch"]

# loading a provider is what fails, and onnxruntime then takes the CPU with no more than a line on standard error
_ONNXRUNTIME = f"""
import json
import onnxruntime
from onnx import TensorProto, helper
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", ends[:1], ends[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
available, loaded = onnxruntime.get_available_providers(), []
for provider in available:
    if provider in ("CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"):
        try:
            chosen = onnxruntime.InferenceSession(model, providers=[provider]).get_providers()
        except Exception:
            chosen = []
        loaded += [provider] if chosen[:1] == [provider] else []
print({MARK!r} + json.dumps({{"version": onnxruntime.__version__, "available": available, "loaded": loaded}}))
"""

_TORCH = f"""
import json
import torch
found = {{"version": torch.__version__, "cuda": torch.version.cuda, "usable": torch.cuda.is_available()}}
found["architectures"] = torch.cuda.get_arch_list() if found["usable"] else []
found["capability"] = list(torch.cuda.get_device_capability(0)) if found["usable"] else []
print({MARK!r} + json.dumps(found))
"""

_CUDA_PYTHON = f"""
import json
from cuda.bindings import runtime
error, count = runtime.cudaGetDeviceCount()
_, number = runtime.cudaRuntimeGetVersion()
words = runtime.cudaGetErrorString(error)[1] if int(error) else b""
print({MARK!r} + json.dumps({{"error": int(error), "count": int(count or 0), "runtime": int(number),
    "words": words.decode() if isinstance(words, bytes) else str(words)}}))
"""

_PYCUDA = f"""
import json
import pycuda, pycuda.driver
print({MARK!r} + json.dumps({{"version": list(pycuda.VERSION), "cuda": list(pycuda.driver.get_version())}}))
"""

_PROVIDERS = {"onnxruntime-cuda": "CUDAExecutionProvider", "onnxruntime-tensorrt": "TensorrtExecutionProvider"}


def onnxruntime(platform: Platform) -> Iterator[Symptom]:
    """Whether onnxruntime imports and runs a graph, and which of its providers load."""
    if not platform.finds("onnxruntime"):
        return  # that it is not installed is said of the packages
    found, why = answer(platform, _ONNXRUNTIME)
    if found is None:
        remedy = 'pip install --force-reinstall "pytest-trt[cpu]"'
        remedy += (
            "; on Windows, install Microsoft's Visual C++ redistributable." if platform.system == "Windows" else "."
        )
        yield Symptom(
            "onnxruntime", "broken", f"onnxruntime can't be used: {why}", remedy, ("onnxruntime", *_PROVIDERS)
        )
        return
    short = ", ".join(name.removesuffix("ExecutionProvider") for name in found["loaded"])
    yield Symptom("onnxruntime", "good", f"onnxruntime {found['version']} runs a graph by {short or 'nothing'}")
    for backend, provider in _PROVIDERS.items():
        if provider in found["available"] and provider not in found["loaded"]:
            remedy = (
                "Its libraries (CUDA and cuDNN; for TensorRT, TensorRT's) must be those of the release that it was"
                " built for, and be found; a line on its standard error names the one that is missing."
            )
            yield Symptom("onnxruntime", "absent", f"its {provider} can't be loaded", remedy, (backend,))


def torch(platform: Platform) -> Iterator[Symptom]:
    """Whether torch imports, and whether it is built for this driver and this GPU."""
    if not platform.finds("torch"):
        return
    found, why = answer(platform, _TORCH)
    if found is None:
        remedy = 'pip install --force-reinstall "pytest-trt[torch]".'
        yield Symptom("torch", "broken", f"torch can't be imported: {why}", remedy, ("torch", "torch-compile"))
        return
    build = f"for CUDA {found['cuda']}" if found["cuda"] else "for the CPU alone"
    where = "on the GPU" if found["usable"] else "on the CPU"
    yield Symptom("torch", "good", f"torch {found['version']}, built {build}, runs {where}")
    cuda, _ = cuda_of(platform)
    if found["cuda"] and cuda and cuda["devices"] and not found["usable"]:
        has = ".".join(map(str, cuda["version"]))
        said = f"torch is built for CUDA {found['cuda']} and does not see the GPU; the driver has CUDA {has}"
        yield Symptom("torch", "doubt", said, "Update NVIDIA's driver, or install torch for that CUDA.")
    if found["usable"] and not _covers(found["architectures"], found["capability"]):
        said = f"torch has no kernels for compute capability {'.'.join(map(str, found['capability']))}"
        yield Symptom("torch", "doubt", said, "Install a torch that has: see its page of installation.")


def cuda_python(platform: Platform) -> Iterator[Symptom]:
    """Whether cuda-bindings, which device memory comes from, reaches the driver."""
    if platform.version("cuda-bindings") is None:
        return  # said of the packages
    found, why = answer(platform, _CUDA_PYTHON)
    version = platform.version("cuda-bindings")
    if found is None:
        remedy = "pip install --force-reinstall cuda-bindings."
        yield Symptom("cuda", "broken", f"cuda-bindings {version} can't be imported: {why}", remedy, NVIDIA[:2])
    elif found["error"]:
        said = f"cuda-bindings {version} reaches no GPU: {found['words']}"
        yield Symptom("cuda", "absent", said, "Mend the driver first; then take cuda-bindings of its CUDA.", NVIDIA[:2])
    else:
        number = found["runtime"]
        told = f"cuda-bindings {version}, CUDA runtime {number // 1000}.{number % 1000 // 10}, {found['count']} GPU"
        yield Symptom("cuda", "good", told)


def pycuda(platform: Platform) -> Iterator[Symptom]:
    """Whether pycuda imports, where it is installed."""
    if platform.version("pycuda") is None:
        return
    found, why = answer(platform, _PYCUDA)
    if found is None:
        remedy = "It is compiled for one CUDA: pip install --force-reinstall --no-binary pycuda pycuda."
        yield Symptom("cuda", "broken", f"pycuda can't be imported: {why}", remedy, ("pycuda",))
    else:
        built = ".".join(map(str, found["cuda"]))
        yield Symptom("cuda", "good", f"pycuda {'.'.join(map(str, found['version']))}, built for CUDA {built}")


def _covers(architectures: list[str], capability: list[int]) -> bool:
    """Whether a kernel runs: of the same major version and not later, or compiled from PTX (compute_NN)."""
    wanted = (capability[0], capability[1])
    for name in architectures:
        kind, _, digits = name.partition("_")
        digits = digits.rstrip("af")
        if not digits.isdigit():
            continue
        has = divmod(int(digits), 10)
        if has <= wanted and (kind == "compute" or has[0] == wanted[0]):
            return True
    return False
