"""Envelopes that the tests of one process share: most of them make the golden of one of a few networks."""

from __future__ import annotations

import hashlib
import sys
from copy import deepcopy
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

import pytest_trt.golden.create
import pytest_trt.golden.load  # noqa: F401 - with it comes all that measures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["shared"]

_ROOMS = ("backends", "calibration", "comparison", "golden", "lowering", "model", "precision", "ranges")
_MEASURING = [
    sys.modules[name] for name in sorted(sys.modules) if name.startswith(tuple(f"pytest_trt.{r}" for r in _ROOMS))
]
_seen: dict[int, object] = {}


@dataclass(frozen=True)
class _Measured:
    """What was measured, which file messages name, and what was told meanwhile."""

    found: Any
    source: str
    told: list[tuple[str, float | None]]


_kept: dict[tuple[str, tuple[int, ...]], _Measured] = {}


def shared(measure: Callable[..., Any]) -> Callable[..., Any]:
    """Measure what was measured before by the same code no second time; a copy of what was found then."""

    @wraps(measure)
    def measured(*args: Any, **words: Any) -> Any:
        given = signature(measure).bind(*args, **words)
        given.apply_defaults()
        told = given.arguments.pop("progress")
        source = given.arguments["reference"].source
        key = _key(given.arguments)
        before = _kept.get(key)
        if before is None or (before.source != source and before.source in repr(before.found)):
            said: list[tuple[str, float | None]] = []
            found = measure(**given.arguments, progress=lambda text, share: said.append((text, share)))
            before = _kept[key] = _Measured(deepcopy(found), source, said)
        for text, share in before.told if told else ():
            told(text.replace(before.source, source), share)
        return deepcopy(before.found)

    return measured


def _key(given: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    digest = hashlib.sha256(given["reference"].proto.SerializeToString(deterministic=True))
    for arrays in (*given["inputs"], *(given["computed"] or ())):
        for name, array in arrays.items():
            digest.update(repr((name, array.dtype, array.shape)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    options = {name: given[name] for name in given if name not in ("reference", "inputs", "computed")}
    digest.update(repr((options, given["computed"] is None, len(given["inputs"]))).encode())
    return digest.hexdigest(), tuple(_identity(value) for value in _code())


def _code() -> Iterator[object]:
    """Every function and constant that measures: what a test puts in its place is another one."""
    for module in _MEASURING:
        for value in vars(module).values():
            yield value
            if isinstance(value, type) and value.__module__ == module.__name__:
                yield from vars(value).values()
    yield onnxruntime.InferenceSession


def _identity(value: object) -> int:
    _seen[id(value)] = value  # while it lives, nothing else has its number
    return id(value)
