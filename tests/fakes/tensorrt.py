"""A fake ``tensorrt`` of one release: what its list of names lacks is an AttributeError, what it refuses is refused."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fakes import builder as fake_builder
from fakes import cuda as fake_cuda
from fakes import engine as fake_engine
from fakes import network as fake_network
from fakes import values as fake_values
from fakes.api import Faults, Object, Severity, World, absent, bind, bind_enum, check, read_list, values_of

if TYPE_CHECKING:
    import pytest

RELEASES = ("8.6", "10.16", "11.4", "rtx-1.7")
_SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")


class IPluginRegistry(Object):
    @property
    def plugin_creator_list(self) -> list[Any]:
        return []

    @property
    def all_creators(self) -> list[Any]:
        return []


_MODULES = (fake_values, fake_network, fake_builder, fake_engine)
_CLASSES = {
    name: found
    for holder in _MODULES
    for name, found in vars(holder).items()
    if isinstance(found, type) and issubclass(found, Object) and found.__module__ == holder.__name__
} | {"IPluginRegistry": IPluginRegistry}


def module(release: str, cuda: ModuleType | None = None, **faults: Any) -> Any:
    """The module ``tensorrt`` (``tensorrt_rtx``) of a release, one of RELEASES; ``faults`` are fields of Faults."""
    listed = read_list(release)
    made: Any = ModuleType("tensorrt_rtx" if release.startswith("rtx") else "tensorrt")
    cuda = cuda or fake_cuda.runtime()
    world = World(release, listed["version"], listed["classes"], made, cuda, Faults(**faults))
    for name, names in listed["classes"].items():
        if {"name", "value"} <= set(names) and name not in _CLASSES:
            setattr(made, name, bind_enum(world, name, names, values_of(release, name, names)))
    for name, behaviour in _CLASSES.items():
        if name in listed["classes"]:
            parent = behaviour.__mro__[1]
            bound = vars(made).get(parent.__name__)
            bases = () if parent is Object else (bound or parent,)
            names = {*listed["classes"][name], *(bound._listed if bound else ())}
            setattr(made, name, bind(world, behaviour, names, bases))
    _finish(made, world, set(listed["functions"]))
    return made


def _finish(made: Any, world: World, functions: set[str]) -> None:
    made.Dims = fake_values.Dims
    severity = bind_enum(
        world,
        "Severity",
        [*_SEVERITIES, "name", "value"],
        {name: number for number, name in enumerate(_SEVERITIES)},
        Severity,
    )
    made._Severity = severity
    for logger in (made.ILogger, made.Logger):
        logger.Severity = severity
        for name in _SEVERITIES:
            setattr(logger, name, getattr(severity, name))
    for name, function in _functions(world).items():
        if name in functions:
            setattr(made, name, function)
    made.__version__, made._world = world.version, world
    made.__getattr__ = lambda name: _missing(world, functions, name)


def _functions(world: World) -> dict[str, Any]:
    trt = world.trt
    types = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "FP8": "fp8", "FP4": "fp4", "E8M0": "e8m0"}
    known = trt.DataType._members
    aliases = {types.get(name, name.lower()): member for name, member in known.items()}

    def init_libnvinfer_plugins(logger: Any, namespace: str) -> bool:
        check(trt.IPluginRegistry._make(), logger, "ILogger", "init_libnvinfer_plugins")
        return True

    def get_plugin_registry() -> Any:
        return trt.IPluginRegistry._make()

    def volume(iterable: Any) -> int:
        return int(np.prod(list(iterable), dtype=np.int64)) if len(iterable) else 1

    def nptype(trt_type: Any) -> Any:
        if world.release == "8.6" and trt_type.name == "BOOL":
            raise AttributeError("module 'numpy' has no attribute 'bool'")
        if trt_type.name not in fake_values.NUMPY:
            raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
        return fake_values.NUMPY[trt_type.name]

    own = (init_libnvinfer_plugins, get_plugin_registry, volume, nptype)
    return aliases | {function.__name__: function for function in own}


def _missing(world: World, functions: set[str], name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    stand_in = type(world.trt.__name__, (), {"_world": world, "_listed": functions | set(world.classes)})
    raise absent(stand_in, name)


def install(
    monkeypatch: pytest.MonkeyPatch, release: str, cuda_faults: dict[str, Any] | None = None, **faults: Any
) -> tuple[Any, Any]:
    """Makes ``import tensorrt`` (``tensorrt_rtx``) and ``cuda.bindings.runtime`` the fakes; ``(trt, cuda)``."""
    found = Faults(**faults)
    device = {"name": found.gpu, "compute_capability": found.compute_capability} | (cuda_faults or {})
    cuda = fake_cuda.runtime(**device)
    trt = module(release, cuda, **faults)
    other = "tensorrt" if trt.__name__ == "tensorrt_rtx" else "tensorrt_rtx"
    package: Any = ModuleType("cuda")
    bindings: Any = ModuleType("cuda.bindings")
    package.__path__, bindings.__path__ = [], []
    package.bindings, bindings.runtime = bindings, cuda
    fakes = {trt.__name__: trt, other: None, "cuda": package, "cuda.bindings": bindings, "cuda.bindings.runtime": cuda}
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, name, fake)
    return trt, cuda
