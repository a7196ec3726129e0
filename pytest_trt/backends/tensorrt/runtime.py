"""Runtime: from a plan to an engine and its context, found to be of the model under test, or looked at alone."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.cuda import open_gpu, using
from pytest_trt.backends.tensorrt._config import load_plugins
from pytest_trt.backends.tensorrt._execution import tensors_of
from pytest_trt.backends.tensorrt._inspector import layers_of
from pytest_trt.backends.tensorrt._log import heard, logger_of
from pytest_trt.backends.tensorrt._plan import TensorrtPlan, capability_of, facts_of
from pytest_trt.backends.tensorrt._release import label, open_release
from pytest_trt.errors import BackendError, ForeignPlan
from pytest_trt.model.feeds import is_float

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    import tensorrt

    from pytest_trt.backends.cuda import Gpu
    from pytest_trt.backends.recipe import Recipe
    from pytest_trt.backends.tensorrt._execution import Tensor
    from pytest_trt.model.feeds import TensorSpec
    from pytest_trt.model.model import Model

__all__ = ["load_engine", "look_into", "plan_of_file", "read_plan", "require_ends"]


def read_plan(path: Path) -> bytes:
    """What a plan file holds.

    Raises:
        BackendError: it can't be read, or is empty.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BackendError(f"the plan {path} can't be read: {reason}.") from error
    if not data:
        raise BackendError(f"the plan {path} is empty (0 bytes): build or copy it again.")
    return data


def plan_of_file(trt: ModuleType, recipe: Recipe, data: bytes, gpu: Gpu) -> TensorrtPlan:
    """A plan that was built elsewhere, with what is known of it."""
    load_plugins(trt, recipe.options.plugins)
    return TensorrtPlan(data, {**facts_of(trt, gpu, capability_of(gpu), data), "plan": str(recipe.plan)})


def load_engine(
    trt: ModuleType, plan: TensorrtPlan, recipe: Recipe
) -> tuple[tensorrt.ICudaEngine, tensorrt.IExecutionContext, list[str]]:
    """The engine, a context to run it in, and what TensorRT warned of.

    Raises:
        ForeignPlan: the plan is damaged, or of another GPU, release or platform.
        BackendError: memory does not suffice.
    """
    what = f"the plan {recipe.plan}" if recipe.plan else f"the engine of {recipe.model.source} at {recipe.precision}"
    with heard(trt) as said:
        runtime = trt.Runtime(logger_of(trt))
        runtime.engine_host_code_allowed = recipe.options.version_compatible
        if recipe.options.dla_core is not None:
            runtime.DLA_core = recipe.options.dla_core
        engine = runtime.deserialize_cuda_engine(plan.data)
        if engine is None:
            raise ForeignPlan(
                said.told(
                    f"{what} can't be loaded by {label(trt)} on {plan.facts.get('gpu')}: it is damaged, or was built"
                    " with another release or for another GPU. Build it here"
                ),
                {"plan": str(recipe.plan), "release": label(trt), "gpu": plan.facts.get("gpu")},
            )
        context = engine.create_execution_context()
        if context is None:
            raise BackendError(said.told(f"{what} can't be run: no execution context can be made, mostly for memory"))
    return engine, context, said.warnings


def require_ends(tensors: tuple[Tensor, ...], model: Model, plan: TensorrtPlan) -> None:
    """Refuse an engine whose inputs and outputs are not the model's.

    Raises:
        BackendError: a name, a rank, a fixed size or the kind of a dtype differs.
    """
    wanted = {(spec.name, True): spec for spec in model.inputs} | {(spec.name, False): spec for spec in model.outputs}
    found = {(tensor.name, tensor.is_input): tensor for tensor in tensors}
    problems = [f"has no {_end(key)}" for key in wanted if key not in found]
    problems += [f"has the {_end(key)}, which the model has not" for key in found if key not in wanted]
    problems += [
        f"has {_end(key)} {found[key].dtype}{list(found[key].shape)} for the model's {spec}"
        for key, spec in wanted.items()
        if key in found and not _fits(found[key], spec)
    ]
    if problems:
        raise BackendError(
            f"the engine is not one of {model.source}: it {'; '.join(problems)}."
            f" ({plan.facts.get('plan', 'built here')})"
        )


def _end(key: tuple[str, bool]) -> str:
    return f"{'input' if key[1] else 'output'} {key[0]!r}"


def _fits(tensor: Tensor, spec: TensorSpec) -> bool:
    if is_float(tensor.dtype) != is_float(spec.dtype):
        return False
    if spec.shape is None:
        return True
    fixed = [(a, b) for a, b in zip(tensor.shape, spec.shape, strict=False) if a >= 0 and isinstance(b, int)]
    return len(tensor.shape) == len(spec.shape) and all(a == b for a, b in fixed)


def look_into(path: Path, backend: str = "tensorrt", device: int = 0) -> dict[str, Any]:
    """What TensorRT tells of a plan, plain as JSON is.

    Args:
        path: the plan.
        backend: tensorrt or tensorrt-rtx.
        device: index of the GPU.

    Raises:
        BackendError: TensorRT or a GPU is missing, or the file can't be read.
        ForeignPlan: TensorRT can't load it here.
    """
    trt, data = open_release(backend), read_plan(path)
    gpu = open_gpu(device)
    with using(gpu.index):
        engine = _engine(trt, data, path, gpu.name)
        text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        ends = [
            f"{'input' if one.is_input else 'output'} {one.name!r} {one.dtype}{list(one.shape)}"
            for one in tensors_of(trt, engine)
        ]
    return {"release": label(trt), "gpu": gpu.name, "ends": ends, "layers": [asdict(one) for one in layers_of(text)]}


def _engine(trt: ModuleType, data: bytes, path: Path, gpu: str) -> Any:
    with heard(trt) as said:
        engine = trt.Runtime(logger_of(trt)).deserialize_cuda_engine(data)
        if engine is None:
            raise ForeignPlan(
                said.told(
                    f"the plan {path} can't be loaded by {label(trt)} on {gpu}: it is damaged, or was built with"
                    " another release or for another GPU"
                ),
                {"plan": str(path), "release": label(trt), "gpu": gpu},
            )
    return engine
