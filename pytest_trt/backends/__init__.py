"""Backends: what builds an engine from a model at a precision, and runs it.

A backend is known by name. Its module is imported when it is chosen, and has ``open_backend() -> Backend``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pytest_trt.errors import unknown

if TYPE_CHECKING:
    from pytest_trt.feeds import Arrays
    from pytest_trt.model import Model
    from pytest_trt.precision import Precision
    from pytest_trt.ranges import Ranges

__all__ = ["DEFAULT", "Backend", "Engine", "choose", "known_backend"]

DEFAULT = "onnxruntime"

_MODULES = {"onnxruntime": "pytest_trt.backends.onnxruntime"}


@runtime_checkable
class Engine(Protocol):
    """A model at a precision, ready to run.

    Attributes:
        precision: what it was built for.
        backend: name of the backend that built it.
        simulated: whether the precision's rounding was written into the graph and run on the CPU.
    """

    @property
    def precision(self) -> Precision: ...  # noqa: D102 - told by the class

    @property
    def backend(self) -> str: ...  # noqa: D102

    @property
    def simulated(self) -> bool: ...  # noqa: D102

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name, in their own dtypes, samples along axis 0.

        Args:
            inputs: arrays by input name, samples along axis 0, as many as you like.

        Raises:
            DataError: the inputs do not fit.
            BackendError: running fails.
        """
        ...


@runtime_checkable
class Backend(Protocol):
    """Builds engines. It lowers the model itself, since each wants a precision in its own form.

    Attributes:
        name: on the command line.
        simulated: whether its engines are simulations.
        version: name and version of what runs the engine, for the record.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def simulated(self) -> bool: ...  # noqa: D102

    @property
    def version(self) -> str: ...  # noqa: D102

    def build(self, model: Model, precision: Precision, ranges: Ranges | None, batch: int | None) -> Engine:
        """An engine of the model at the precision.

        Args:
            model: fp32, or a file that holds the precision already.
            precision: what to build for; nothing else may be built under its name.
            ranges: of the activations, where the precision needs them.
            batch: the most samples at once where the first axis is dynamic.

        Raises:
            LoweringError: the model can't be expressed in the precision.
            ModelError, BackendError: the engine can't be built.
        """
        ...


def known_backend(name: str) -> str:
    """The name, if there is such a backend.

    Raises:
        SpecError: there is not; names the nearest.
    """
    if name not in _MODULES:
        raise unknown("backend", name, _MODULES)
    return name


def choose(name: str) -> Backend:
    """The backend of this name.

    Raises:
        SpecError: there is none.
        BackendError: it needs a package that is not installed.
    """
    backend: Backend = importlib.import_module(_MODULES[known_backend(name)]).open_backend()
    return backend
