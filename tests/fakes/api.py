"""What every class of the fake tensorrt has in common: a release's list of names, pybind11's manners, the logger."""

from __future__ import annotations

import functools
import json
import random
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType

LISTS = Path(__file__).parent / "tensorrt_api"
_KNOWN_VALUES = {
    ("8.6", "NetworkDefinitionCreationFlag"): {"EXPLICIT_BATCH": 0, "EXPLICIT_PRECISION": 1},
    ("10.16", "NetworkDefinitionCreationFlag"): {
        "EXPLICIT_BATCH": 0,
        "STRONGLY_TYPED": 1,
        "PREFER_JIT_PYTHON_PLUGINS": 2,
        "PREFER_AOT_PYTHON_PLUGINS": 3,
    },
    ("11.4", "NetworkDefinitionCreationFlag"): {
        "STRONGLY_TYPED": 0,
        "PREFER_JIT_PYTHON_PLUGINS": 1,
        "PREFER_AOT_PYTHON_PLUGINS": 2,
    },
    ("rtx-1.7", "NetworkDefinitionCreationFlag"): {"STRONGLY_TYPED": 0},
}


@dataclass(frozen=True)
class Faults:
    """What shall go wrong; ``gpu`` and ``compute_capability`` say which device the fake sees."""

    parser_errors: tuple[Mapping[str, Any], ...] = ()
    build_error: str | None = None
    build_warning: str | None = None
    dla_cores: int = 0
    fast: tuple[str, ...] = ("fp16", "int8", "tf32")
    gpu: str = "FAKE GPU"
    compute_capability: tuple[int, int] = (8, 9)
    no_context: bool = False
    achieved: Mapping[str, int] = field(default_factory=dict)
    data_dependent: frozenset[str] = frozenset()
    execute_fails: bool = False
    no_capture: bool = False


@dataclass
class World:
    """One fake release: its module, its lists, its CUDA, its faults, the headers of the plans it has built."""

    release: str
    version: str
    classes: Mapping[str, list[str]]
    trt: ModuleType
    cuda: ModuleType
    faults: Faults
    plans: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rtx(self) -> bool:
        return self.release.startswith("rtx")

    @property
    def always_strong(self) -> bool:
        return self.rtx or self.release.startswith("11")

    def log(self, logger: Any, severity: str, text: str) -> None:
        call(logger.log, None, getattr(self.trt.ILogger.Severity, severity), text)

    def fail(self, logger: Any, where: str, text: str) -> None:
        self.log(logger, "ERROR", f"{where}: Error Code 4: API Usage Error ({text})")


def read_list(release: str) -> dict[str, Any]:
    return json.loads((LISTS / f"{release}.json").read_text())


def call(function: Callable[..., Any], otherwise: Any, *arguments: Any) -> Any:
    """Calls back into Python as the bindings do: an exception is printed and lost."""
    try:
        return function(*arguments)
    except BaseException as error:
        print(f"[ERROR] Exception caught in {function.__name__}(): {error!r}", file=sys.stderr)
        return otherwise


def deprecated(release: str, instead: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def warned(self: Any, *arguments: Any, **named: Any) -> Any:
            warn(self, release, instead)
            return function(self, *arguments, **named)

        return warned

    return decorate


def warn(self: Any, release: str, instead: str) -> None:
    if self._world.release == release:
        warnings.warn(f"Use {instead} instead.", DeprecationWarning, stacklevel=3)


def absent(owner: Any, name: str) -> Exception:
    world, listed = owner._world, owner._listed
    if name in listed:
        return NotImplementedError(f"{world.version}: the fake {owner.__name__} has no {name} yet, the real one has")
    return AttributeError(f"TensorRT {world.release}: {owner.__name__} has no attribute {name!r}")


def check(self: Any, value: Any, kind: str, where: str) -> None:
    """Raises TypeError, as pybind11 does for an argument of another type."""
    plain: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "str": str}
    wanted = plain.get(kind) or getattr(self._world.trt, kind)
    if not isinstance(value, wanted) or (kind == "int" and isinstance(value, bool)):
        raise TypeError(f"{where}(): incompatible function arguments. Expected {kind}, invoked with: {value!r}")


class Bound(type):
    """The class of a release's classes: constructed as pybind11 does, absent names named."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise absent(cls, name)

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        if not getattr(cls, "_constructible", False):
            raise TypeError(f"tensorrt.{cls.__name__}: No constructor defined!")
        made = cls._make(*arguments, **named)
        if "_constructed" not in vars(made):
            raise TypeError(f"{cls.__mro__[1].__name__}.__init__() must be called when overriding __init__")
        return made

    def _make(cls, *arguments: Any, **named: Any) -> Any:
        return type.__call__(cls, *arguments, **named)


class Object:
    """An instance: reading or setting a name outside its release's list is an AttributeError."""

    _world: World
    _listed: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._constructed = True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise absent(type(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in self._listed and "_bound" in vars(type(self)):
            raise absent(type(self), name)
        object.__setattr__(self, name, value)


class Option:
    """A property that keeps what it is given, if it is of its kind; a member's name as default is that member."""

    def __init__(self, kind: str, default: Any = None, until: tuple[str, str] | None = None) -> None:
        self.kind, self.default, self.until = kind, default, until

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if self.until:
            warn(instance, *self.until)
        default = self.default
        if isinstance(default, str) and self.kind != "str":
            default = getattr(getattr(instance._world.trt, self.kind), default)
        return vars(instance).get(f"_{self.name}", default)

    def __set__(self, instance: Any, value: Any) -> None:
        if self.until:
            warn(instance, *self.until)
        if value is not None or self.default is not None:
            check(instance, value, self.kind, self.name)
        vars(instance)[f"_{self.name}"] = value


class Enum(Object):
    """A pybind11 enum: int() and hash() work, == only with its own kind, no arithmetic."""

    _constructible = True
    _members: dict[str, Enum]

    def __init__(self, value: int) -> None:
        self._value, self._constructed = int(value), True

    @property
    def name(self) -> str:
        return next((name for name, member in self._members.items() if member._value == self._value), "???")

    @property
    def value(self) -> int:
        return self._value

    @property
    def itemsize(self) -> float:
        eight = {"FLOAT": 4, "INT32": 4, "HALF": 2, "BF16": 2, "INT64": 8, "INT4": 0.5, "FP4": 0.5}
        return eight.get(self.name, 1)

    def __int__(self) -> int:
        return self._value

    __index__ = __int__

    def __hash__(self) -> int:
        return hash(self._value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._value == self._value

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def __repr__(self) -> str:
        return f"<{self}: {self._value}>"


class Severity(Enum):
    """The one arithmetic enum that a logger compares."""

    def __le__(self, other: Severity) -> bool:
        return self._value <= int(other)

    def __lt__(self, other: Severity) -> bool:
        return self._value < int(other)

    def __ge__(self, other: Severity) -> bool:
        return self._value >= int(other)

    def __gt__(self, other: Severity) -> bool:
        return self._value > int(other)


def bind_enum(world: World, name: str, listed: list[str], values: Mapping[str, int], base: type = Enum) -> Any:
    bound: Any = bind(world, base, listed, (), name)
    bound._members = {member: bound(value) for member, value in values.items()}
    bound.__members__ = dict(bound._members)
    for member, instance in bound._members.items():
        setattr(bound, member, instance)
    return bound


def values_of(release: str, name: str, listed: list[str]) -> Mapping[str, int]:
    """Known integers where a fact is known, else shuffled ones, so that a hard-coded integer is caught."""
    members = [member for member in listed if member.isupper() or member[0].isupper()]
    if known := _KNOWN_VALUES.get((release, name)):
        return known
    numbers = list(range(len(members)))
    random.Random(f"{release} {name}").shuffle(numbers)
    return dict(zip(members, numbers, strict=True))


def bind(world: World, behaviour: type, listed: Iterable[str], bases: tuple[type, ...], name: str = "") -> type:
    """The behaviour with only the names that the release lists."""
    space: dict[str, Any] = {}
    for owner in reversed(behaviour.__mro__):
        if issubclass(owner, Object):
            space.update(vars(owner))
    space = {key: value for key, value in space.items() if key.startswith("_") or key in listed}
    for key in ("__dict__", "__weakref__", "__annotations__"):
        space.pop(key, None)
    space |= {"_world": world, "_listed": frozenset(listed), "_bound": True, "__module__": world.trt.__name__}
    return Bound(name or behaviour.__name__, bases or (), space)
