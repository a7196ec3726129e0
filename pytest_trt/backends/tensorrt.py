"""TensorRT and TensorRT-RTX: a plan is built or loaded, found to fit the model, and run on the GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.cuda import DeviceArray, device_view, download, is_on_device, open_gpu, open_stream
from pytest_trt.backends.tf32 import require_no_override
from pytest_trt.errors import DataError
from pytest_trt.feeds import conform, join, split
from pytest_trt.lowering.graph import matrix_nodes
from pytest_trt.trt.deserialize import load_engine, plan_of_file, require_ends
from pytest_trt.trt.dtypes import as_dtype
from pytest_trt.trt.execution import execute, grown_outputs, tensors_of
from pytest_trt.trt.layers import layers_of
from pytest_trt.trt.plan import plan_for
from pytest_trt.trt.release import label, open_release

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    import tensorrt
    from numpy.typing import NDArray

    from pytest_trt.feeds import Arrays
    from pytest_trt.layer import Layer
    from pytest_trt.model import Model
    from pytest_trt.precision import Precision
    from pytest_trt.recipe import Recipe
    from pytest_trt.trt.execution import Grown, Tensor
    from pytest_trt.trt.plan import TensorrtPlan

__all__ = ["TensorrtBackend", "TensorrtEngine", "open_backend"]


@dataclass(frozen=True, eq=False)
class TensorrtEngine:
    """An engine on the GPU, with one execution context."""

    trt: ModuleType
    backend: str
    model: Model
    precision: Precision
    engine: tensorrt.ICudaEngine
    context: tensorrt.IExecutionContext
    stream: int
    tensors: tuple[Tensor, ...]
    grown: Mapping[str, tuple[Grown, Any]]
    computing: frozenset[str]
    batch: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    simulated: bool = False

    def layers(self) -> tuple[Layer, ...]:
        """See :meth:`pytest_trt.backends.Engine.layers`."""
        inspector = self.engine.create_engine_inspector()
        inspector.execution_context = self.context
        text = inspector.get_engine_information(self.trt.LayerInformationFormat.JSON)
        return layers_of(text, self.computing)

    def run(self, inputs: Mapping[str, Any], *, on_device: bool = False) -> dict[str, Any]:
        """Outputs by name, in the model's dtypes, samples along axis 0.

        Args:
            inputs: by name: numpy arrays of as many samples as you like, or arrays on the GPU - anything with
                ``__cuda_array_interface__`` or DLPack, C-contiguous, in the engine's dtype - of one run, which are
                read where they are.
            on_device: whether outputs stay on the GPU, as :class:`DeviceArray` in the engine's dtypes; one run only.

        Raises:
            DataError: the inputs do not fit.
            BackendError: running fails.
        """
        if on_device or any(is_on_device(value) for value in inputs.values()):
            outputs = self._run_once(self._views(inputs))
            return outputs if on_device else self._on_host(outputs)
        fitting = conform(dict(inputs), self.model.inputs, self.model.source)
        runs = split(fitting, self.model.inputs, self.batch)
        return join([self._on_host(self._run_once(feeds)) for feeds in runs])

    def _run_once(self, feeds: Mapping[str, NDArray[Any] | DeviceArray]) -> dict[str, Any]:
        where = self.trt, self.engine, self.context, self.tensors, self.grown
        return execute(*where, feeds, self.stream, self.model.source)

    def _views(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any] | DeviceArray]:
        names = [tensor.name for tensor in self.tensors if tensor.is_input]
        if set(names) != set(inputs):
            raise DataError(f"{self.model.source}: inputs {sorted(inputs)} were given, and {sorted(names)} are taken.")
        return {
            name: device_view(value, f"input {name!r}") if is_on_device(value) else value
            for name, value in inputs.items()
        }

    def _on_host(self, outputs: Mapping[str, Any]) -> Arrays:
        return {
            spec.name: as_dtype(_in_numpy(outputs[spec.name]), spec.dtype, f"output {spec.name!r}")
            for spec in self.model.outputs
        }


@dataclass(frozen=True)
class TensorrtBackend:
    """Builds real engines, and runs them on the GPU."""

    trt: ModuleType
    name: str
    simulated: bool = False
    builds_engines: bool = True

    @property
    def version(self) -> str:
        """Name and version of the release."""
        return label(self.trt)

    def build(self, recipe: Recipe) -> TensorrtEngine:
        """See :meth:`pytest_trt.backends.Backend.build`; a recipe that names a plan has it loaded in place of built."""
        require_no_override(recipe.precision, self.name)
        gpu = open_gpu(recipe.options.device)
        plan = plan_for(self.trt, recipe, gpu) if recipe.plan is None else plan_of_file(self.trt, recipe, gpu)
        return self._opened(recipe, plan)

    def plan(self, recipe: Recipe) -> TensorrtPlan:
        """See :meth:`pytest_trt.backends.Planner.plan`; needs no GPU where the recipe names compute capabilities."""
        require_no_override(recipe.precision, self.name)
        gpu = None if recipe.options.compute_capabilities else open_gpu(recipe.options.device)
        return plan_for(self.trt, recipe, gpu)

    def _opened(self, recipe: Recipe, plan: TensorrtPlan) -> TensorrtEngine:
        engine, context, said = load_engine(self.trt, plan, recipe)
        tensors = tensors_of(self.trt, engine)
        require_ends(tensors, recipe.model, plan)
        return TensorrtEngine(
            trt=self.trt,
            backend=self.name,
            model=recipe.model,
            precision=recipe.precision,
            engine=engine,
            context=context,
            stream=open_stream(),
            tensors=tensors,
            grown=grown_outputs(self.trt, context, tensors),
            computing=matrix_nodes(recipe.model.proto),
            batch=recipe.batch,
            facts=plan.facts,
            warnings=tuple(dict.fromkeys([*plan.warnings, *said])),
        )


def open_backend(name: str = "tensorrt") -> TensorrtBackend:
    """The backend, if the release's Python module can be imported; no GPU is touched.

    Raises:
        BackendError: it can't.
    """
    return TensorrtBackend(open_release(name), name)


def _in_numpy(value: Any) -> NDArray[Any]:
    return download(value) if isinstance(value, DeviceArray) else np.asarray(value)
