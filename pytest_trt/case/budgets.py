"""Budgets: limits of a case's own on its latency, which need no baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_trt.backends.backend import known_backend
from pytest_trt.errors import CaseError, SpecError, unknown
from pytest_trt.precision import Precision

__all__ = ["Budgets", "Held", "SpeedUp", "held", "read_budgets"]

_PERCENTILES = {"p50_ms": "p50_s", "p90_ms": "p90_s", "p95_ms": "p95_s", "p99_ms": "p99_s", "mean_ms": "mean_s"}
_KEYS = (*_PERCENTILES, "throughput", "memory_mb", "speedup")


@dataclass(frozen=True)
class SpeedUp:
    """How many times as fast as another backend the engine must be.

    Attributes:
        over: the backend that it is measured against, in the same process, on the same inputs.
        precision: what that one runs in; the case's fp32 if not told.
        at_least: times, of the medians.
    """

    over: str
    at_least: float
    precision: str = "fp32"


@dataclass(frozen=True)
class Budget:
    """One limit.

    Attributes:
        name: as the user wrote it: p50_ms, throughput, memory_mb, speedup over torch, ...
        limit: in the name's unit.
        least: whether it is the least that is allowed, and not the most.
    """

    name: str
    limit: float
    least: bool = False


@dataclass(frozen=True)
class Budgets:
    """A case's limits at one precision."""

    limits: tuple[Budget, ...] = ()
    speedup: SpeedUp | None = None

    def __bool__(self) -> bool:
        return bool(self.limits or self.speedup)


@dataclass(frozen=True)
class Held:
    """A limit and what was measured.

    Attributes:
        budget: the limit.
        actual: in its unit; None where it could not be measured, which is no pass.
        why: why it could not.
    """

    budget: Budget
    actual: float | None
    why: str = ""

    @property
    def met(self) -> bool:
        """Whether it was measured and kept."""
        if self.actual is None or not math.isfinite(self.actual):
            return False
        return self.actual >= self.budget.limit if self.budget.least else self.actual <= self.budget.limit

    @property
    def sentence(self) -> str:
        """What is wrong with it."""
        if self.actual is None:
            return f"budget {self.budget.name} = {self.budget.limit:g} could not be measured: {self.why}"
        side = "under" if self.budget.least else "over"
        return f"{self.budget.name} {self.actual:.4g} is {side} the budget {self.budget.limit:g}"


def read_budgets(value: Any, where: str) -> dict[str, Budgets]:
    """A case's ``latency`` table: limits by precision, "" for those of every precision.

    Raises:
        SpecError: a key, a precision or a backend is not known.
        CaseError: a value is none of its key.
    """
    if not isinstance(value, Mapping) or not value:
        raise CaseError(f"{where} = {value!r} must be a table of limits: latency = {{ p50_ms = 0.3 }}.")
    if not all(isinstance(key, str) for key in value):
        raise CaseError(f"{where} = {value!r} must have texts for keys.")
    labels = [key for key, part in value.items() if key not in _KEYS and isinstance(part, Mapping)]
    found = {_precision(label, where): _budgets(value[label], f"{where}.{label}") for label in labels}
    common = {key: part for key, part in value.items() if key not in labels}
    return {**({"": _budgets(common, where)} if common else {}), **found}


def held(budgets: Budgets, figures: Mapping[str, float | None], speedup: float | None, why: str) -> tuple[Held, ...]:
    """Each limit beside what was measured.

    Args:
        budgets: of the case at this precision.
        figures: p50_s, p90_s, p95_s, p99_s, mean_s, throughput_per_s, memory_bytes; None where there is none.
        speedup: over the backend that the budget names, where it does.
        why: why there is no speed-up.
    """
    found = [_measured(budget, figures) for budget in budgets.limits]
    if budgets.speedup:
        told = budgets.speedup
        found.append(Held(Budget(f"speedup over {told.over}", told.at_least, least=True), speedup, why))
    return tuple(found)


def _measured(budget: Budget, figures: Mapping[str, float | None]) -> Held:
    if budget.name == "throughput":
        return Held(budget, figures.get("throughput_per_s"), "nothing was timed")
    if budget.name == "memory_mb":
        memory = figures.get("memory_bytes")
        return Held(budget, None if memory is None else memory / 2**20, "the backend does not tell its memory")
    seconds = figures.get(_PERCENTILES[budget.name])
    few = "too few samples: raise --trt-timing most_s and least (64 for p90, 130 for p95, 662 for p99)"
    return Held(budget, None if seconds is None else 1e3 * seconds, few)


def _precision(label: str, where: str) -> str:
    try:
        return Precision.parse(label).label
    except SpecError:
        raise unknown(f"key in {where}:", label, [*_KEYS, *(precision.label for precision in Precision)]) from None


def _budgets(table: Any, where: str) -> Budgets:
    if not isinstance(table, Mapping):
        raise CaseError(f"{where} = {table!r} must be a table of limits.")
    for key in table:
        if key not in _KEYS:
            raise unknown(f"key in {where}:", str(key), _KEYS)
    limits = tuple(
        Budget(str(key), _positive(limit, f"{where}.{key}"), least=key == "throughput")
        for key, limit in table.items()
        if key != "speedup"
    )
    return Budgets(limits, _speedup(table["speedup"], f"{where}.speedup") if "speedup" in table else None)


def _speedup(table: Any, where: str) -> SpeedUp:
    known = ("over", "at_least", "precision")
    if not isinstance(table, Mapping) or not {"over", "at_least"} <= set(table):
        raise CaseError(f'{where} = {table!r} must name over and at_least: {{ over = "torch", at_least = 2.0 }}.')
    for key in table:
        if key not in known:
            raise unknown(f"key in {where}:", str(key), known)
    try:
        over = known_backend(str(table["over"]))
        precision = Precision.parse(str(table.get("precision", "fp32"))).label
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error
    return SpeedUp(over, _positive(table["at_least"], f"{where}.at_least"), precision)


def _positive(value: Any, where: str) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value <= 0:
        raise CaseError(f"{where} = {value!r} must be a number above 0.")
    return float(value)
