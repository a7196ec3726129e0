"""torch itself, eager or compiled: the reference in its own precisions, and the speed to beat."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends._torch_timing import Inference, device_stopwatch, host_stopwatch
from pytest_trt.backends.backend import on_host_only
from pytest_trt.backends.cuda import require_no_override
from pytest_trt.errors import BackendError, LoweringError, PytestTrtError
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.model.feeds import conform, split
from pytest_trt.model.torch_export import values_of
from pytest_trt.precision import Precision
from pytest_trt.storage.entry_point import blame

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    from pytest_trt.backends.backend import Layer
    from pytest_trt.backends.recipe import Recipe
    from pytest_trt.backends.stopwatch import Stopwatch, Timing
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.torch_export import Network

__all__ = ["TorchEngine", "open_backend"]

_COMPILED = "torch-compile"

_DTYPES = {Precision.FP16: "float16", Precision.BF16: "bfloat16"}

_RUNS = (Precision.FP32, Precision.TF32, *_DTYPES)

_FIRST_TF32_GPU = (8, 0)


@dataclass(frozen=True)
class TorchEngine:
    """A module in its precision, on its device."""

    network: Network
    precision: Precision
    device: str
    batch: int | None
    backend: str
    simulated: bool
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def layers(self) -> tuple[Layer, ...]:
        """None: nothing was built."""
        return ()

    def run(self, inputs: Arrays, *, on_device: bool = False) -> Arrays:
        """See :meth:`pytest_trt.backends.backend.Engine.run`."""
        on_host_only(self.backend, on_device=on_device)
        fitting = conform(inputs, self.network.inputs, f"the torch module {self.network.source}")
        try:
            found = self._computed(fitting)
        except PytestTrtError:
            raise
        except Exception as error:  # the module is the user's
            raise BackendError(self._blamed(error)) from error
        wanted = {spec.name: spec.dtype for spec in self.network.outputs}
        return {name: np.asarray(array, wanted[name]) for name, array in found.items()}

    def _computed(self, inputs: Arrays) -> Arrays:
        import torch

        def after(tensor: Any) -> Any:
            return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor

        with self._modes():
            return self.network.run(inputs, self.batch, self._before, after)

    def stopwatch(self, inputs: Arrays, timing: Timing) -> Stopwatch:
        """See :meth:`pytest_trt.backends.stopwatch.Timed.stopwatch`: inputs on the device, in the precision."""
        fitting = conform(inputs, self.network.inputs, f"the torch module {self.network.source}")
        feeds = next(split(fitting, self.network.inputs, self.batch))
        what = f"the torch module {self.network.source} at {self.precision} on {self.device}"
        try:
            inference = self._inference(feeds)
            if self.simulated:
                return host_stopwatch(inference, feeds, what, self._modes)
            return device_stopwatch(inference, feeds, what, timing, self.device, self._modes)
        except Exception as error:  # the module is the user's
            raise BackendError(self._blamed(error)) from error

    def _inference(self, feeds: Arrays) -> Inference:
        import torch

        tensors = (self._before(torch.tensor(np.array(feeds[spec.name]))) for spec in self.network.inputs)
        return Inference(self.network.module, tuple(tensors), values_of)

    def _before(self, tensor: Any) -> Any:
        import torch

        narrow = tensor.is_floating_point() and self.precision in _DTYPES
        return tensor.to(self.device, getattr(torch, _DTYPES[self.precision]) if narrow else None)

    @contextmanager
    def _modes(self) -> Iterator[None]:
        import torch

        with torch.inference_mode(), _tf32(torch, self.precision is Precision.TF32), _quiet():
            yield

    def _blamed(self, error: Exception) -> str:
        what = f"the torch module {self.network.source} at {self.precision} on {self.device}"
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            return (
                f"torch.compile can't compile {what}: {blame(error)}. It needs a C++ compiler (g++ or clang++), on the"
                " GPU Triton: install it, or run uncompiled with --trt-backend=torch."
            )
        return f"{what} fails: {blame(error)}"


@dataclass(frozen=True)
class TorchBackend:
    """Runs the case's own torch module, on the GPU where torch finds one, else on the CPU."""

    name: str
    release: str
    cuda: bool
    builds_engines: bool = False

    @property
    def simulated(self) -> bool:
        """Whether it runs on the CPU."""
        return not self.cuda

    @property
    def version(self) -> str:
        """torch's release."""
        return f"torch {self.release}"

    def build(self, recipe: Recipe) -> TorchEngine:
        """See :meth:`pytest_trt.backends.backend.Backend.build`."""
        import torch

        precision = _runnable(recipe)
        device = self._device(torch, recipe.options.device, precision)
        network = self._network(recipe)
        dtype = getattr(torch, _DTYPES[precision]) if precision in _DTYPES else None
        try:
            with _quiet():
                module = network.module.to(device, dtype)
                module = torch.compile(module) if self._compiles else module
        except Exception as error:
            what = f"the torch module {network.source} for {precision} on {device}"
            raise BackendError(f"backend {self.name!r} can't prepare {what}: {blame(error)}") from error
        network = replace(network, module=module)
        return TorchEngine(
            network, precision, device, recipe.batch, self.name, self.simulated, self._facts(torch, device, network)
        )

    @property
    def _compiles(self) -> bool:
        return self.name == _COMPILED

    def _network(self, recipe: Recipe) -> Network:
        if recipe.plan is not None:
            raise BackendError(
                f"backend {self.name!r} can't load the engine {recipe.plan}: choose --trt-backend=tensorrt."
            )
        if recipe.lowering != "own":
            raise BackendError(
                f"backend {self.name!r} runs a torch module, and lowering = modelopt lowers an ONNX graph: leave it out"
                " (--trt-lowering=own)."
            )
        if recipe.module is None:
            raise BackendError(
                f"backend {self.name!r} runs a torch module, and the case of {recipe.model.source} names none: write"
                ' torch = "module:factory" in place of onnx, or reference = "module:factory" beside it.'
            )
        return recipe.module()

    def _device(self, torch: ModuleType, index: int, precision: Precision) -> str:
        count = torch.cuda.device_count() if self.cuda else 0
        if index >= max(count, 1):
            raise BackendError(
                f"backend {self.name!r}: GPU {index} was asked for, and torch finds {count}. Correct the build option"
                " device, or look at nvidia-smi and CUDA_VISIBLE_DEVICES."
            )
        device = f"cuda:{index}" if self.cuda else "cpu"
        if precision is Precision.TF32:
            require_no_override(precision, self.name)
            self._require_tf32(torch, device)
        return device

    def _require_tf32(self, torch: ModuleType, device: str) -> None:
        if not self.cuda:
            raise BackendError(f"backend {self.name!r} runs tf32 on a GPU only, and torch finds none here.")
        found = torch.cuda.get_device_capability(device)
        if tuple(found) < _FIRST_TF32_GPU:
            raise BackendError(
                f"{torch.cuda.get_device_name(device)} has no TF32: its compute capability is {found[0]}.{found[1]},"
                " and 8.0 is needed. Ask for fp32 or fp16."
            )

    def _facts(self, torch: ModuleType, device: str, network: Network) -> dict[str, Any]:
        return {
            "torch": self.release,
            "module": network.source,
            "device": torch.cuda.get_device_name(device) if self.cuda else "cpu",
            "mode": "compiled" if self._compiles else "eager",
        }


def open_backend(name: str = "torch") -> TorchBackend:
    """The backend, if torch is installed.

    Raises:
        BackendError: it is not.
    """
    try:
        import torch
    except ImportError as error:
        raise BackendError(
            f'backend {name!r} needs torch, which can\'t be imported ({error}): pip install "pytest-trt[torch]".'
        ) from error
    return TorchBackend(name, torch.__version__, torch.cuda.is_available())


def _runnable(recipe: Recipe) -> Precision:
    """The precision that the module is run in.

    Raises:
        LoweringError: torch runs no module in it.
    """
    if (recipe.keep or recipe.ops) and recipe.precision not in (Precision.FP32, Precision.MODEL):
        raise LoweringError("torch runs its module whole: keep and ops are for backends that lower its ONNX graph.")
    if recipe.precision in _RUNS:
        return recipe.precision
    held = held_precision(recipe.model.proto)
    if recipe.precision is Precision.MODEL and held == "fp32":
        return Precision.FP32
    what = f"the {held} that {recipe.model.source} holds" if recipe.precision is Precision.MODEL else recipe.precision
    raise LoweringError(f"torch can't run its module in {what}: it runs {', '.join(map(str, _RUNS))}.")


@contextmanager
def _tf32(torch: ModuleType, allowed: bool) -> Iterator[None]:
    """TF32 on or off in cuBLAS and cuDNN, as it was before afterwards."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    # newer releases refuse to read the old switches once somebody has used the new ones
    new = hasattr(cuda.matmul, "fp32_precision")
    switches = (cuda.matmul, cudnn.conv, cudnn.rnn) if new else (cuda.matmul, cudnn)
    name = "fp32_precision" if new else "allow_tf32"
    value = ("tf32" if allowed else "ieee") if new else allowed
    before = [getattr(switch, name) for switch in switches]
    try:
        for switch in switches:
            setattr(switch, name, value)
        yield
    finally:
        for switch, was in zip(switches, before, strict=True):
            setattr(switch, name, was)


@contextmanager
def _quiet() -> Iterator[None]:
    """What torch deprecates of itself while it compiles is no warning of the user's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
