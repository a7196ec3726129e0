"""Backends: what builds an engine from a model at a precision, and runs it.

A backend is known by name. Its module is imported when it is chosen, and has ``open_backend(name) -> Backend``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pytest_trt.errors import BackendError, unknown

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pytest_trt.backends.recipe import Recipe
    from pytest_trt.errors import PrecisionNotHonoured
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.precision import Precision

__all__ = [
    "DEFAULT",
    "Backend",
    "Built",
    "Engine",
    "Layer",
    "Planner",
    "Ran",
    "Shower",
    "Showing",
    "all_packages",
    "choose",
    "known_backend",
    "on_host_only",
    "packages_of",
]

DEFAULT = "onnxruntime"

_MODULES = {
    "onnxruntime": "pytest_trt.backends.onnxruntime",
    "onnxruntime-cuda": "pytest_trt.backends.onnxruntime_gpu",
    "onnxruntime-tensorrt": "pytest_trt.backends.onnxruntime_gpu",
    "tensorrt": "pytest_trt.backends.tensorrt.backend",
    "tensorrt-rtx": "pytest_trt.backends.tensorrt.backend",
    "torch": "pytest_trt.backends.torch",
    "torch-compile": "pytest_trt.backends.torch",
}

_PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "onnxruntime-cuda": ("onnxruntime-gpu",),
    "onnxruntime-tensorrt": ("onnxruntime-gpu",),
    "torch-compile": ("torch",),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings"),
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings"),
}


@dataclass(frozen=True)
class Layer:
    """One layer of an engine, as its inspector tells it.

    Attributes:
        name: of the layer; fused layers are joined by the builder.
        type: the builder's word for its kind.
        inputs: dtypes of the tensors it reads, as "fp32", "fp16", "int8".
        outputs: dtypes of those it writes.
        weights: dtype of its weights; None where it has none, or the release does not tell.
        tactic: name of the kernel that was chosen; empty where the release does not tell.
        onnx_nodes: names of the ONNX nodes in it.
        precision: what it multiplies in: the dtype of its first input, tf32 where the kernel's name says so, unknown
            where many operators were fused into one layer that does not tell.
        computes: whether it multiplies matrices (convolution, deconvolution, matrix product, RNN), where precision
            decides speed and error.
        kept: whether all that it multiplies was to stay in fp32.
    """

    name: str
    type: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    weights: str | None = None
    tactic: str = ""
    onnx_nodes: tuple[str, ...] = ()
    precision: str = "unknown"
    computes: bool = False
    kept: bool = False


class Ran(Protocol):
    """What computed outputs: an engine, or the user's own code.

    Attributes:
        backend: name of the backend that built it.
        simulated: whether the precision's rounding was written into the graph and run on the CPU.
        facts: what it is and what built it, for the record: versions, GPU, hash of its plan.
        warnings: what the builder warned of, word by word.
    """

    @property
    def backend(self) -> str: ...  # noqa: D102 - told by the class

    @property
    def simulated(self) -> bool: ...  # noqa: D102

    @property
    def facts(self) -> Mapping[str, Any]: ...  # noqa: D102

    @property
    def warnings(self) -> tuple[str, ...]: ...  # noqa: D102

    def layers(self) -> tuple[Layer, ...]:
        """Its layers, as its inspector tells them; none where nothing was built or nothing can be told."""
        ...


@runtime_checkable
class Engine(Ran, Protocol):
    """A model at a precision, ready to run.

    Attributes:
        precision: what it was built for.
    """

    @property
    def precision(self) -> Precision: ...  # noqa: D102 - told by the class

    def run(self, inputs: Arrays, *, on_device: bool = False) -> Any:
        """Outputs by name, in their own dtypes, samples along axis 0.

        Args:
            inputs: arrays by input name, samples along axis 0, as many as you like.
            on_device: whether outputs stay on the GPU, which TensorRT's engines alone can do.

        Raises:
            DataError: the inputs do not fit.
            BackendError: running fails, or outputs can't stay on the GPU.
        """
        ...


@runtime_checkable
class Backend(Protocol):
    """Builds engines. It lowers the model itself, since each wants a precision in its own form.

    Attributes:
        name: on the command line.
        simulated: whether its engines are simulations.
        builds_engines: whether it builds TensorRT engines, and not only runs the model some other way.
        version: name and version of what runs the engine, for the record.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def simulated(self) -> bool: ...  # noqa: D102

    @property
    def builds_engines(self) -> bool: ...  # noqa: D102

    @property
    def version(self) -> str: ...  # noqa: D102

    def build(self, recipe: Recipe) -> Engine:
        """The engine of a recipe.

        Raises:
            LoweringError: the model can't be expressed in the precision.
            ModelError, BackendError: the engine can't be built.
        """
        ...


@runtime_checkable
class Showing(Protocol):
    """An engine that can show inner tensors, where its recipe asked for it."""

    def inner(self, inputs: Arrays, names: Collection[str]) -> Arrays:
        """The tensors of these names that there are, in float32; fusions swallow some.

        Raises:
            DataError: the inputs do not fit.
            BackendError: running fails.
        """
        ...


@runtime_checkable
class Shower(Protocol):
    """A backend that may build engines which show inner tensors, and are no other engines for it.

    Attributes:
        shows: whether it does: TensorRT's releases before 10.11 do not.
    """

    @property
    def shows(self) -> bool: ...  # noqa: D102


class Plan(Protocol):
    """A built engine as TensorRT serializes it."""

    @property
    def data(self) -> bytes: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...


@runtime_checkable
class Planner(Protocol):
    """A backend that can build on a machine which can't run."""

    def plan(self, recipe: Recipe) -> Plan:
        """The plan of a recipe; nothing is run.

        Raises:
            LoweringError, ModelError, BackendError: as :meth:`Backend.build`.
        """
        ...


def on_host_only(backend: str, *, on_device: bool) -> None:
    """Refuse to leave outputs on the GPU.

    Raises:
        BackendError: that was asked.
    """
    if on_device:
        raise BackendError(
            f"backend {backend!r} hands its outputs out in numpy alone: run without on_device, or with"
            " --trt-backend=tensorrt."
        )


@dataclass(frozen=True)
class Built:
    """An engine, with what it was built from and by.

    Attributes:
        engine: ready to run.
        recipe: what it was built from.
        backend: what built it.
        unhonoured: that its layers run in another precision than was asked; None where they run in it.
    """

    engine: Engine
    recipe: Recipe
    backend: Backend
    unhonoured: PrecisionNotHonoured | None = None


def known_backend(name: str) -> str:
    """The name, if there is such a backend.

    Raises:
        SpecError: there is not; names the nearest.
    """
    if name not in _MODULES:
        raise unknown("backend", name, _MODULES)
    return name


def packages_of(name: str) -> tuple[str, ...]:
    """The packages that bring the backend, any one of them."""
    return _PACKAGES.get(name, (name,))


def all_packages() -> tuple[str, ...]:
    """The packages of all backends, each once."""
    return tuple(dict.fromkeys(package for name in _MODULES for package in packages_of(name)))


def choose(name: str) -> Backend:
    """The backend of this name.

    Raises:
        SpecError: there is none.
        BackendError: it needs a package that is not installed.
    """
    backend: Backend = importlib.import_module(_MODULES[known_backend(name)]).open_backend(name)
    return backend
