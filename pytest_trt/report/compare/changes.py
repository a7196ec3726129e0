"""Changes: what is different between two records, case by case. Numbers are told, and none is judged here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["Change", "RunDifference", "Two", "differences"]

Result = dict[str, Any]

# what two results have in common, the closest first; the backend may be another, and that is what is asked then
_ALIKE: tuple[Callable[[Result], tuple[Any, ...]], ...] = (
    lambda result: (result.get("nodeid"), result["case"], result["precision"], result["backend"]),
    lambda result: (result["case"], result["precision"], result["backend"]),
    lambda result: (result["case"], result["precision"]),
)


@dataclass(frozen=True)
class Pair:
    """One case at one precision, before and after; None where that record has it not."""

    before: Result | None
    after: Result | None


def pairs_of(before: Iterable[Result], after: Iterable[Result]) -> list[Pair]:
    """Each result of both records in exactly one pair, in the order of ``after``, what is gone at the end."""
    left, right = list(before), list(after)
    found: dict[int, Result] = {}
    for alike in _ALIKE:
        for place, result in enumerate(right):
            if place not in found and (match := _first(left, alike, alike(result))) is not None:
                found[place] = left.pop(match)
    pairs = [Pair(found.get(place), result) for place, result in enumerate(right)]
    return [*pairs, *(Pair(result, None) for result in left)]


def _first(results: list[Result], alike: Callable[[Result], tuple[Any, ...]], wanted: tuple[Any, ...]) -> int | None:
    return next((place for place, result in enumerate(results) if alike(result) == wanted), None)


Two = tuple[Any, Any]
"""Before and after; None on a side that has it not."""

_STILL = 0.01  # figures that moved by less are not told as changes

_SEVERITIES = ("note", "warning", "error")

_ENGINE = ("tensorrt", "tensorrt_rtx", "gpu", "compute_capability", "cuda_driver", "cuda_runtime", "typing", "provider")
_MADE_FROM = ("model_sha256", "golden_model_sha256", "calibration", "calibration_method", "lowering", "keep", "ops")


@dataclass(frozen=True)
class OutputChange:
    """One output: its error (relative RMS, or the share of unequal elements), bound, top-1 agreement and accuracy."""

    output: str
    error: Two
    bound: Two
    top1: Two
    accuracy: Two

    @property
    def ratio(self) -> float | None:
        """How many times the error grew; None where it is not on both sides, infinite from zero, NaN from or to NaN."""
        before, after = self.error
        if before is None or after is None:
            return None
        if not before:
            return math.inf if after else 1.0
        return float(after / before)

    @property
    def grown(self) -> str:
        """How many times, as text after the figures; empty where it did not move, and from zero, NaN and infinity."""
        ratio = self.ratio
        return f" ({ratio:.3g} times)" if ratio is not None and math.isfinite(ratio) and _moved(ratio) else ""

    @property
    def moved(self) -> bool:
        """Whether anything of it is worth telling."""
        same = self.bound[0] == self.bound[1] and self.top1[0] == self.top1[1] and self.accuracy[0] == self.accuracy[1]
        return not same or _moved(self.ratio)


@dataclass(frozen=True)
class LatencyChange:
    """Medians and 99th percentiles in seconds, what the gate said, and whether both were measured alike.

    Attributes:
        p50, p99: seconds.
        state: the gate's word for each (slow, fast, same ...).
        apart: why the two can't be set against each other; empty if they can.
    """

    p50: Two
    p99: Two
    state: Two
    apart: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times the median grew; None where the two can't be compared."""
        before, after = self.p50
        return None if self.apart or not before or after is None else float(after / before)


@dataclass(frozen=True)
class Change:
    """One case at one precision in two records; what has no difference is the same on both sides."""

    case: str
    precision: str
    backend: Two
    verdict: Two
    outputs: tuple[OutputChange, ...]
    appeared: tuple[tuple[str, str, str], ...]
    gone: tuple[tuple[str, str, str], ...]
    layers: Two
    latency: LatencyChange | None
    made_from: Mapping[str, Two]
    engine: Mapping[str, Two]

    @property
    def missing(self) -> bool:
        """Whether only the record before has it."""
        return self.verdict[1] is None

    @property
    def new(self) -> bool:
        """Whether only the record after has it."""
        return self.verdict[0] is None

    @property
    def moved(self) -> bool:
        """Whether anything of it is worth telling."""
        plain = (self.backend, self.verdict, self.layers)
        figures = any(output.moved for output in self.outputs)
        states = self.latency is not None and (
            self.latency.state[0] != self.latency.state[1] or _moved(self.latency.ratio)
        )
        told = self.appeared or self.gone or self.made_from or self.engine
        return any(before != after for before, after in plain) or figures or states or bool(told)

    @property
    def worst(self) -> OutputChange | None:
        """The output whose error grew most; one that turned to NaN before all."""
        told = [output for output in self.outputs if output.ratio is not None]
        return max(told, key=_growth, default=self.outputs[0] if self.outputs else None)


@dataclass(frozen=True)
class RunDifference:
    """Two records.

    Attributes:
        before, after: what they are called.
        environment: what changed of Python, platform, packages, branch and GPUs.
        changes: every case at every precision of either.
    """

    before: str
    after: str
    environment: Mapping[str, Two]
    changes: tuple[Change, ...]


def differences(before: Mapping[str, Any], after: Mapping[str, Any], names: tuple[str, str]) -> RunDifference:
    """What two records differ in.

    Args:
        before, after: documents as :func:`~pytest_trt.report.record_file.read_record` gives them.
        names: what to call them.
    """
    environment = _changed(_flat(before.get("environment", {})), _flat(after.get("environment", {})))
    pairs = pairs_of(before["results"], after["results"])
    return RunDifference(*names, environment, tuple(_change(pair) for pair in pairs))


def _change(pair: Pair) -> Change:
    first, second = pair.before or {}, pair.after or {}
    told = pair.after or pair.before or {}
    both = bool(first and second)
    old, new = _findings(first), _findings(second)
    return Change(
        case=told["case"],
        precision=told["precision"],
        backend=(_backend(first), _backend(second)) if both else (_backend(told),) * 2,
        verdict=(first.get("verdict"), second.get("verdict")),
        outputs=tuple(_outputs(first.get("outputs", {}), second.get("outputs", {}))),
        appeared=tuple(one for one in new if _rank(one) > max(_same(one, old), default=-1)),
        gone=tuple(one for one in old if not _same(one, new)),
        layers=(_layers(first), _layers(second)),
        latency=_latency(first.get("latency"), second.get("latency")),
        made_from=_changed(_picked(first, _MADE_FROM), _picked(second, _MADE_FROM)) if both else {},
        engine=_changed(_engine(first), _engine(second)) if both else {},
    )


def _outputs(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[OutputChange]:
    for name in dict.fromkeys([*after, *before]):
        sides = (before.get(name, {}), after.get(name, {}))
        accuracies = (sides[0].get("accuracy") or {}, sides[1].get("accuracy") or {})
        error, bound, top1 = [_figures(sides, key) for key in ("error", "bound", "top1")]
        yield OutputChange(name, error, bound, top1, _figures(accuracies, "actual"))


def _findings(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Code, what it is about, and severity, each once."""
    found = []
    for finding in result.get("findings", ()):
        evidence = finding.get("evidence") or {}
        about = next((str(evidence[key]) for key in ("tensor", "output", "layer", "input") if evidence.get(key)), "")
        found.append((str(finding["code"]), about, str(finding.get("severity", ""))))
    return list(dict.fromkeys(found))


def _same(finding: tuple[str, str, str], others: list[tuple[str, str, str]]) -> list[int]:
    """How severe others are that say the same of the same; one that became worse is another."""
    return [_rank(other) for other in others if other[:2] == finding[:2]]


def _rank(finding: tuple[str, str, str]) -> int:
    return _SEVERITIES.index(finding[2]) if finding[2] in _SEVERITIES else 0


def _layers(result: Mapping[str, Any]) -> str | None:
    layers = result.get("layers") or {}
    return f"{layers['honoured']}/{layers['compute']} {layers['asked']}" if "honoured" in layers else None


def _latency(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> LatencyChange | None:
    if not before and not after:
        return None
    sides = (before or {}, after or {})
    states = (sides[0].get("state"), sides[1].get("state"))
    return LatencyChange(_figures(sides, "p50_s"), _figures(sides, "p99_s"), states, _apart(*sides))


def _apart(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Why two latencies can't be set against each other."""
    if not before or not after:
        return "only one was timed"
    if (before.get("machine") or {}).get("key") != (after.get("machine") or {}).get("key"):
        return "on another machine"
    same = before.get("metric") == after.get("metric") and before.get("batch") == after.get("batch")
    return "" if same else "measured in another way"


def _backend(result: Mapping[str, Any]) -> str:
    return f"{result['backend']} (simulated)" if result.get("simulated") else str(result["backend"])


def _engine(result: Mapping[str, Any]) -> dict[str, Any]:
    engine = (result.get("provenance") or {}).get("engine") or {}
    return {key: engine[key] for key in _ENGINE if engine.get(key) is not None}


def _picked(result: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    provenance = result.get("provenance") or {}
    return {key: provenance[key] for key in keys if provenance.get(key) is not None}


def _flat(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What of an environment tells two runs apart; times and options of the command line do not."""
    source = environment.get("source") or {}
    gpus = [gpu.get("gpu") for gpu in environment.get("gpus") or () if isinstance(gpu, dict)]
    plain = {key: environment.get(key) for key in ("python", "platform", "machine")}
    plain |= {"branch": source.get("branch"), "commit": source.get("commit"), "gpus": ", ".join(map(str, gpus)) or None}
    return {**plain, **(environment.get("packages") or {})}


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Two]:
    keys = dict.fromkeys([*before, *after])
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def _figures(sides: tuple[Mapping[str, Any], Mapping[str, Any]], key: str) -> Two:
    return _number(sides[0].get(key)), _number(sides[1].get(key))


def _number(value: Any) -> float | None:
    """A figure of a record, in which NaN and infinity are texts."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _moved(ratio: float | None) -> bool:
    return ratio is not None and not abs(ratio - 1) <= _STILL


def _growth(output: OutputChange) -> float:
    ratio = output.ratio
    return math.inf if ratio is None or math.isnan(ratio) else ratio
