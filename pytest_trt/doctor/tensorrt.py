"""TensorRT's Python modules, imported in a process of their own: a broken one may end it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.doctor.libraries import copies_of
from pytest_trt.doctor.symptom import Symptom
from pytest_trt.doctor.told import MARK, answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.doctor.platform import Platform

__all__ = ["tensorrt", "tensorrt_rtx"]

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
