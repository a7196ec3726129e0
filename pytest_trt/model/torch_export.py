"""Torch export: a torch module as a model, exported to ONNX once a process, and run as its own reference.

torch is imported here and nowhere else, when a case names a torch module.
"""

from __future__ import annotations

import copy
import inspect
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from pytest_trt.errors import CaseError, ModelError
from pytest_trt.model.feeds import Arrays, TensorSpec, join, split
from pytest_trt.model.model import Model, checked
from pytest_trt.model.samples import InputSpec, generate
from pytest_trt.storage.entry_point import blame, locate

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Network", "TorchModel", "TorchSource", "export", "values_of"]


@dataclass(frozen=True)
class Network:
    """A torch module, and what its inputs and outputs are called in the ONNX model that it was exported to.

    Attributes:
        module: in eval mode.
        inputs: by position.
        outputs: by position; dtypes are those of the module in fp32.
        source: what messages call it.
    """

    module: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    source: str

    def copy(self) -> Network:
        """Another of the same weights, which may be changed.

        Raises:
            ModelError: the module can't be copied.
        """
        try:
            return replace(self, module=copy.deepcopy(self.module))
        except Exception as error:
            raise ModelError(f"the torch module {self.source} can't be copied: {blame(error)}") from error

    def run(
        self, inputs: Arrays, batch: int | None, before: Callable[[Any], Any], after: Callable[[Any], Any]
    ) -> Arrays:
        """Outputs by name, samples along axis 0; gradients are the caller's to switch off.

        Args:
            inputs: arrays by input name.
            batch: the most samples at once where the first axis is dynamic.
            before: what is done to each input tensor, a copy of its array.
            after: what is done to each output tensor, before it becomes an array.
        """
        import torch

        names = [spec.name for spec in self.outputs]
        parts = []
        for feeds in split(inputs, self.inputs, batch):
            # copies: a module may work in place
            found = self.module(*(before(torch.tensor(np.array(feeds[spec.name]))) for spec in self.inputs))
            arrays = [after(value.detach()).cpu().numpy().copy() for value in values_of(found)]
            parts.append(dict(zip(names, arrays, strict=True)))
        return join(parts)


@dataclass(frozen=True)
class TorchModel:
    """A torch module beside the ONNX model that it was exported to.

    Attributes:
        model: the fp32 ONNX model.
        run: from arrays by input name (samples along axis 0) to outputs by name, on the CPU in fp32.
        network: the module itself, shared: copy it before it is changed.
    """

    model: Model
    run: Callable[[Arrays], Arrays]
    network: Network


@dataclass(frozen=True)
class TorchSource:
    """Where a torch module comes from, and how it is exported.

    Attributes:
        factory: ``module:factory``; called without arguments.
        field: the case's key that names the factory, for messages.
        base: folder that the module is looked for in.
        where: what messages call the place that says all this.
        input: shape and dtype by input name; one nameless entry has the key "".
        output_names: in place of the module's own.
        opset: of the ONNX model.
        seed: of the example input.
        batch: the most samples at once where the first axis is dynamic.
    """

    factory: str
    field: str
    base: Path
    where: str
    input: Mapping[str, InputSpec]
    output_names: tuple[str, ...]
    opset: int
    seed: int
    batch: int | None


_exported: dict[str, TorchModel] = {}


def export(source: TorchSource) -> TorchModel:
    """Export the module that the factory returns, in eval mode, by torch's TorchScript exporter.

    Raises:
        CaseError: torch is not installed, the factory fails, or no input shape is told.
        ModelError: the exporter fails.
    """
    key = repr((source.factory, str(source.base.resolve()), dict(source.input), source.opset, source.output_names))
    if key not in _exported:
        _exported[key] = _export(source)
    return _exported[key]


def _export(source: TorchSource) -> TorchModel:
    torch = _torch(source)
    module = _build(torch, source)
    specs = _specs(source)
    told = dict(zip((spec.name for spec in specs), source.input.values(), strict=True))
    example = generate(specs, told, 2, source.seed, source.where)
    tensors = tuple(torch.tensor(feeds) for feeds in next(split(example, specs)).values())
    names = _output_names(torch, module, tensors, source)
    proto = _to_onnx(torch, module, tensors, specs, names, source)
    model = checked(proto, source.factory)

    outputs = tuple(replace(spec, name=name) for spec, name in zip(model.outputs, names, strict=True))
    network = Network(module, specs, outputs, source.factory)

    def run(inputs: Arrays) -> Arrays:
        with torch.no_grad():
            return network.run(inputs, source.batch, _same, _same)

    return TorchModel(model, run, network)


def _same(tensor: Any) -> Any:
    return tensor


def _torch(source: TorchSource) -> Any:
    try:
        import torch
    except ImportError as error:
        raise CaseError(
            f"{source.where}: {source.field} = {source.factory!r} needs torch, which can't be imported ({error}):"
            ' pip install "pytest-trt[torch]".'
        ) from error
    return torch


def _build(torch: Any, source: TorchSource) -> Any:
    make = locate(source.factory, source.base, f"{source.where}: {source.field}")
    try:
        module = make()
    except (Exception, SystemExit) as error:
        raise CaseError(f"{source.where}: {source.field} = {source.factory!r} raised {blame(error)}") from error
    if not isinstance(module, torch.nn.Module):
        raise CaseError(
            f"{source.where}: {source.field} = {source.factory!r} returned {type(module).__name__}, no torch.nn.Module."
        )
    return module.cpu().eval()


def _specs(source: TorchSource) -> tuple[TensorSpec, ...]:
    if not source.input:
        raise CaseError(
            f"{source.where}: {source.field} needs the shape of its inputs to be exported: write"
            " input = { shape = [1, 3, 224, 224] }, or input.<name> = {{ shape = ... }} for each, in order."
        )
    return tuple(_input_spec(name or "input", told, source.where) for name, told in source.input.items())


def _input_spec(name: str, told: InputSpec, where: str) -> TensorSpec:
    if told.shape is None:
        raise CaseError(f"{where}: input {name!r} has no shape: write input.{name} = {{ shape = [...] }}.")
    if any(isinstance(axis, str) for axis in told.shape[1:]):
        raise CaseError(f"{where}: input.{name}: only the first axis of a torch module's input can be dynamic.")
    try:
        dtype = np.dtype(told.dtype or "float32")
    except TypeError as error:
        raise CaseError(f"{where}: input.{name}.dtype = {told.dtype!r} is no numpy dtype.") from error
    return TensorSpec(name, dtype, told.shape)


def _output_names(torch: Any, module: Any, tensors: tuple[Any, ...], source: TorchSource) -> list[str]:
    with torch.no_grad():
        try:
            found = module(*tensors)
        except Exception as error:
            raise ModelError(f"{source.where}: the torch module fails on its example input: {blame(error)}") from error
    strange = [type(value).__name__ for value in values_of(found) if not isinstance(value, torch.Tensor)]
    if strange:
        raise ModelError(f"{source.where}: the torch module returns {strange[0]} where a tensor is needed: flatten it.")
    count = len(values_of(found))
    if source.output_names and len(source.output_names) != count:
        raise CaseError(f"{source.where}: output_names has {len(source.output_names)} names for {count} outputs.")
    if source.output_names:
        return list(source.output_names)
    if isinstance(found, Mapping):
        return [str(name) for name in found]
    return ["output"] if count == 1 else [f"output_{number}" for number in range(count)]


def values_of(found: Any) -> list[Any]:
    """What a module returned, by position."""
    if isinstance(found, Mapping):
        return list(found.values())
    return list(found) if isinstance(found, (tuple, list)) else [found]


def _to_onnx(
    torch: Any, module: Any, tensors: tuple[Any, ...], specs: tuple[TensorSpec, ...], names: list[str],
    source: TorchSource,
) -> onnx.ModelProto:  # fmt: skip
    buffer = io.BytesIO()
    dynamic = {
        spec.name: {axis: size for axis, size in enumerate(spec.shape or ()) if isinstance(size, str)} for spec in specs
    }
    # newer releases export by tracing to another graph by default, with other tensor names
    legacy = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, tensors, buffer, input_names=[spec.name for spec in specs], output_names=names,
                dynamic_axes={name: axes for name, axes in dynamic.items() if axes},
                opset_version=source.opset, **legacy,
            )  # fmt: skip
    except Exception as error:
        raise ModelError(
            f"{source.where}: {source.field} {source.factory!r} can't be exported to ONNX: {blame(error)}"
        ) from error
    return onnx.load_model_from_string(buffer.getvalue())
