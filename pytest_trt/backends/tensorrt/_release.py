"""Release: the TensorRT that is installed, and what it can be asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import BackendError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["label", "member", "open_release", "require", "typing_of"]

_MODULES = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_INSTALL = {"tensorrt": 'pip install "pytest-trt[tensorrt]"', "tensorrt-rtx": 'pip install "pytest-trt[tensorrt-rtx]"'}


def open_release(backend: str) -> ModuleType:
    """The Python module of TensorRT, or of TensorRT-RTX.

    Raises:
        BackendError: it is not installed, or its libraries can't be loaded.
    """
    problems = []
    for name in _MODULES[backend]:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            problems.append(f"{name}: {error}")
    raise BackendError(
        f"backend {backend!r} can't be used, because its Python module can't be imported ({'; '.join(problems)})."
        f" {_INSTALL[backend]}; where it is installed, pytest-trt doctor --for {backend} tells which of its libraries"
        " are found, and what to do."
    )


def label(trt: ModuleType) -> str:
    """Name and version, for people: "TensorRT 8.6.0"."""
    return f"{'TensorRT-RTX' if 'rtx' in trt.__name__ else 'TensorRT'} {trt.__version__}"


def member(enum: Any, name: str) -> Any | None:
    """The enum's member of this name, where the release has it."""
    return getattr(enum, name, None)


def require(found: Any | None, what: str, trt: ModuleType, instead: str) -> Any:
    """What was looked up, if the release has it.

    Raises:
        BackendError: it has not; says what would.
    """
    if found is None:
        raise BackendError(f"{label(trt)} has no {what}: {instead}.")
    return found


def typing_of(trt: ModuleType, asked: str, *, for_dla: bool = False) -> str:
    """How the precision is told: "strong" by the model, "weak" by builder flags, which DLA goes by.

    Raises:
        BackendError: weak was asked of a release without builder flags.
    """
    weak = member(trt.BuilderFlag, "FP16") is not None
    if asked == "weak" and not weak:
        raise BackendError(
            f"{label(trt)} has only strongly typed networks: the builder flags that typing=weak stands for are gone."
            " Take typing=strong or auto, which write the precision into the model, or TensorRT 8.6 to 10."
        )
    if asked != "auto":
        return asked
    strong = member(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") is not None
    return "strong" if strong and not (for_dla and weak) else "weak"
