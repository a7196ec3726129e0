"""TensorRT and TensorRT-RTX: a plan is built or loaded, found to fit the model, and run on the GPU."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends._cuda_events import EVENTS, DeviceStopwatch, Events, Graph
from pytest_trt.backends.cuda import (
    DeviceArray,
    Stream,
    device_view,
    download,
    is_on_device,
    open_gpu,
    require_no_override,
    using,
)
from pytest_trt.backends.stopwatch import batch_of, shapes_of
from pytest_trt.backends.tensorrt._bound_buffers import Copies, bind, captured, memory_of
from pytest_trt.backends.tensorrt._execution import as_dtype, execute, grown_outputs, tensors_of
from pytest_trt.backends.tensorrt._inspector import can_show, layers_of, showing
from pytest_trt.backends.tensorrt._plan import plan_for
from pytest_trt.backends.tensorrt._release import label, open_release
from pytest_trt.backends.tensorrt.runtime import load_engine, plan_of_file, read_plan, require_ends
from pytest_trt.backends.tensorrt.weak_typing import kept_nodes
from pytest_trt.errors import BackendError, DataError
from pytest_trt.model.feeds import conform, join, split
from pytest_trt.model.graph import matrix_nodes

if TYPE_CHECKING:
    from types import ModuleType

    import tensorrt
    from numpy.typing import NDArray

    from pytest_trt.backends.backend import Layer
    from pytest_trt.backends.recipe import Recipe
    from pytest_trt.backends.stopwatch import Timing
    from pytest_trt.backends.tensorrt._execution import Grown, Tensor
    from pytest_trt.backends.tensorrt._plan import TensorrtPlan
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model
    from pytest_trt.precision import Precision

__all__ = ["open_backend"]


@dataclass(frozen=True, eq=False)
class TensorrtEngine:
    """An engine on the GPU, with one execution context."""

    trt: ModuleType
    backend: str
    model: Model
    precision: Precision
    engine: tensorrt.ICudaEngine
    context: tensorrt.IExecutionContext
    device: int
    stream: Stream
    tensors: tuple[Tensor, ...]
    grown: Mapping[str, tuple[Grown, Any]]
    computing: frozenset[str]
    kept: frozenset[str]
    batch: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    simulated: bool = False

    def layers(self) -> tuple[Layer, ...]:
        """See :meth:`pytest_trt.backends.backend.Engine.layers`."""
        inspector = self.engine.create_engine_inspector()
        inspector.execution_context = self.context
        text = inspector.get_engine_information(self.trt.LayerInformationFormat.JSON)
        return layers_of(text, self.computing, self.kept)

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
        if not isinstance(inputs, Mapping):
            raise DataError(f"{type(inputs).__name__} is no mapping: give arrays by input name.")
        given = {name: value if is_on_device(value) else _in_numpy(value) for name, value in inputs.items()}
        with using(self.device):
            if any(is_on_device(value) for value in given.values()):
                outputs = self._run_once(self._views(given))
                return outputs if on_device else self._on_host(outputs)
            fitting = conform(given, self.model.inputs, self.model.source)
            runs = list(split(fitting, self.model.inputs, self.batch))
            if on_device and len(runs) > 1:
                raise DataError(f"{self.model.source}: these inputs are {len(runs)} runs, and on_device takes one.")
            found = [self._run_once(feeds) for feeds in runs]
            return found[0] if on_device else join([self._on_host(outputs) for outputs in found])

    def stopwatch(self, inputs: Arrays, timing: Timing) -> DeviceStopwatch:
        """See :meth:`pytest_trt.backends.stopwatch.Timed.stopwatch`: in a context of its own, by events of the GPU."""
        fitting = conform(inputs, self.model.inputs, self.model.source)
        feeds = next(split(fitting, self.model.inputs, self.batch))
        source = self.model.source
        with using(self.device):
            bound = bind(self.trt, self.engine, self.tensors, feeds, self.stream, source)
            graph = captured(self.trt, bound) if timing.graph else None
            copies = Copies(bound, feeds) if timing.transfers else None
            events = Events(EVENTS, self.stream, spin=timing.spin)
        return DeviceStopwatch(
            infer=graph.launch if isinstance(graph, Graph) else bound.enqueue,
            events=events,
            what=f"the engine of {source} at {self.precision}",
            batch=batch_of(feeds),
            shapes=shapes_of(feeds),
            graph=isinstance(graph, Graph),
            spin=timing.spin,
            copies=(copies.go_in, copies.go_out) if copies else None,
            memory=memory_of(self.engine, self.facts.get("plan_bytes")),
            notes=(f"no CUDA graph is replayed: {graph}.",) if isinstance(graph, str) else (),
            around=partial(using, self.device),
            keeps=(self, bound, graph, copies),
        )

    def inner(self, inputs: Mapping[str, Any], names: Collection[str]) -> Arrays:
        """See :meth:`pytest_trt.backends.backend.Showing.inner`."""
        with using(self.device):
            fitting = conform(dict(inputs), self.model.inputs, self.model.source)
            found = []
            for feeds in split(fitting, self.model.inputs, self.batch):
                with showing(self.trt, self.context, names) as shown:
                    self._run_once(feeds)
                found.append(shown)
            return join(found)

    def _run_once(self, feeds: Mapping[str, NDArray[Any] | DeviceArray]) -> dict[str, Any]:
        where = self.trt, self.engine, self.context, self.tensors, self.grown
        return execute(*where, feeds, self.stream.handle, self.model.source)

    def _views(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any] | DeviceArray]:
        """Inputs of one run, those on the GPU where they lie."""
        specs = {spec.name: spec for spec in self.model.inputs}
        if set(specs) != set(inputs):
            raise DataError(f"{self.model.source}: inputs {sorted(inputs)} were given, and {sorted(specs)} are taken.")
        views = {
            name: device_view(value, f"input {name!r}") if is_on_device(value) else value
            for name, value in inputs.items()
        }
        for name, view in views.items():
            axes = specs[name].shape
            fits = axes is None or (
                len(axes) == len(view.shape)
                and all(a == b for a, b in zip(axes, view.shape, strict=True) if isinstance(a, int))
            )
            if not fits:
                raise DataError(
                    f"{self.model.source}: input {name!r} has shape {tuple(view.shape)}, and one run takes"
                    f" {specs[name]}: with an array on the GPU, pass one run at a time."
                )
        return views

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

    @property
    def shows(self) -> bool:
        """See :attr:`pytest_trt.backends.backend.Shower.shows`."""
        return can_show(self.trt)

    def build(self, recipe: Recipe) -> TensorrtEngine:
        """See :class:`pytest_trt.backends.backend.Backend`; a plan that the recipe names is loaded, not built."""
        require_no_override(recipe.precision, self.name)
        data = None if recipe.plan is None else read_plan(recipe.plan)
        gpu = open_gpu(recipe.options.device)
        with using(gpu.index):
            plan = plan_for(self.trt, recipe, gpu) if data is None else plan_of_file(self.trt, recipe, data, gpu)
            return self._opened(recipe, plan)

    def plan(self, recipe: Recipe) -> TensorrtPlan:
        """See :class:`pytest_trt.backends.backend.Planner`; no GPU is needed where the recipe names capabilities."""
        require_no_override(recipe.precision, self.name)
        if recipe.options.compute_capabilities and recipe.options.device:
            raise BackendError("compute_capabilities builds for other GPUs, and device names one here: leave one out.")
        if recipe.options.compute_capabilities:
            return plan_for(self.trt, recipe, None)
        gpu = open_gpu(recipe.options.device)
        with using(gpu.index):
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
            device=recipe.options.device,
            stream=Stream(),
            tensors=tensors,
            grown=grown_outputs(self.trt, context, tensors),
            computing=matrix_nodes(recipe.model.proto),
            kept=kept_nodes(recipe),
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
    if isinstance(value, DeviceArray):
        return download(value)
    try:
        return np.asarray(value)
    except Exception as error:  # whatever the object's own conversion raises
        raise DataError(f"{type(value).__name__} is no array: {error}.") from error
