"""Fail on: which changes between two records are failures, by words, and which of them happened."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_trt.comparison.tolerance import floor
from pytest_trt.errors import SpecError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_trt.report.compare.changes import Change, RunDifference

__all__ = ["WORDS", "fired", "read_condition"]

WORDS = {
    "verdict": "a case that passed does no longer",
    "missing": "a case is only in the first record",
    "finding": "a finding appeared that is an error or a warning (finding:error: an error)",
    "layers": "fewer layers run in the precision that was asked",
    "error": "error:1.5x - an output's error grew more than 1.5 times",
    "top1": "top1:0.01 - top-1 agreement fell by more than 0.01",
    "latency": "latency:5% - a median latency grew by more than 5 %; one number against another, no statistics",
}

_LEAST = floor(0.0, whole=False)  # correct fp32 implementations differ by less: growth below it says nothing
_GOOD = ("passed", "built")
_JUDGED = ("passed", "failed")
_ARGUMENTS = {
    "finding": re.compile(r"(?:error)?"),
    "error": re.compile(r"\d+(?:\.\d+)?x"),
    "top1": re.compile(r"0?\.\d+"),
    "latency": re.compile(r"\d+(?:\.\d+)?%"),
}


@dataclass(frozen=True)
class Condition:
    """One word of ``--fail-on``.

    Attributes:
        kind: one of :data:`WORDS`.
        limit: 1.5 for ``error:1.5x``, 0.05 for ``latency:5%``, 0.01 for ``top1:0.01``; 0 for others.
        severity: "error" for ``finding:error``.
    """

    kind: str
    limit: float = 0.0
    severity: str = ""


@dataclass(frozen=True)
class Sight:
    """What a condition looks at in a case.

    Attributes:
        what: its name.
        before: whether the first record tells of it.
        both: whether the two can be set against each other.
        why: why not, after a colon; empty where that is plain.
    """

    what: str
    before: bool
    both: bool
    why: str = ""

    @property
    def lost(self) -> str:
        """That it can't be looked at any more."""
        return f"{self.what} told before, and nothing now that can be set against it{self.why}"


def read_condition(word: str) -> Condition:
    """A condition as it is written.

    Raises:
        SpecError: there is no such word, or its number is not written as it must be; says how.
    """
    kind, colon, argument = word.partition(":")
    if kind not in WORDS:
        raise unknown("--fail-on word", kind, WORDS)
    pattern = _ARGUMENTS.get(kind)
    if (pattern is None and colon) or (pattern is not None and not pattern.fullmatch(argument)):
        raise SpecError(f"--fail-on {word}: write it as in: {kind}: {WORDS[kind]}.")
    if kind == "finding":
        return Condition(kind, severity=argument)
    number = float(argument.rstrip("x%")) if argument else 0.0
    return Condition(kind, number / 100 if kind == "latency" else number)


def fired(found: RunDifference, conditions: list[Condition]) -> list[str]:
    """Why the comparison fails, a sentence each; what can't be looked at fails too."""
    return [reason for condition in conditions for reason in _fired(found, condition)]


def _fired(found: RunDifference, condition: Condition) -> Iterator[str]:
    if condition.kind == "missing":
        yield from (f"{_name(one)} is only in {found.before}" for one in found.changes if one.missing)
        if all(one.new for one in found.changes):
            yield _nothing(condition)
        return
    both = [one for one in found.changes if not one.missing and not one.new]
    looks, sights = _LOOKS[condition.kind]
    seen = [(one, sight) for one in both for sight in sights(one)]
    if not any(sight.both for _, sight in seen):
        yield _nothing(condition)
        return
    yield from (f"{_name(one)}: {sight.lost}" for one, sight in seen if sight.before and not sight.both)
    for one in both:
        yield from (f"{_name(one)}: {reason}" for reason in looks(one, condition))


def _nothing(condition: Condition) -> str:
    return f"{condition.kind} was to be looked at, and the two records have nothing in common that tells of it"


def _verdict(change: Change, condition: Condition) -> Iterator[str]:  # noqa: ARG001 - each has the same arguments
    before, after = change.verdict
    if before in _GOOD and after not in (before, "passed"):
        yield f"{before} before, and {after} now"


def _finding(change: Change, condition: Condition) -> Iterator[str]:
    severities = ("error",) if condition.severity else ("error", "warning")
    for code, about, severity in change.appeared:
        if severity in severities:
            yield f"{severity} {code} appeared{f' ({about})' if about else ''}"


def _layers(change: Change, condition: Condition) -> Iterator[str]:  # noqa: ARG001
    before, after = (_share(text) for text in change.layers)
    if before is not None and after is not None and after < before:
        yield f"{change.layers[0]} compute layers before, {change.layers[1]} now"


def _error(change: Change, condition: Condition) -> Iterator[str]:
    for output in change.outputs:
        before, after, ratio = *output.error, output.ratio
        if ratio is None or after is None:
            continue
        worse = math.isnan(after) or (after > _LEAST and ratio > condition.limit)
        if worse and not (math.isnan(before) and math.isnan(after)):
            yield f"the error of {output.output!r} grew from {before:.3g} to {after:.3g}{output.grown}"


def _top1(change: Change, condition: Condition) -> Iterator[str]:
    for output in change.outputs:
        before, after = output.top1
        if before is not None and after is not None and not before - after <= condition.limit:  # NaN is no pass
            yield f"top-1 agreement of {output.output!r} fell from {before:.4g} to {after:.4g}"


def _latency(change: Change, condition: Condition) -> Iterator[str]:
    latency = change.latency
    if latency is not None and latency.ratio is not None and not latency.ratio - 1 <= condition.limit:
        before, after = (1e3 * seconds for seconds in latency.p50)
        yield f"the median latency grew from {before:.4g} to {after:.4g} ms ({100 * (latency.ratio - 1):.2g} %)"


def _of_verdicts(change: Change) -> Iterator[Sight]:
    yield Sight("verdict", change.verdict[0] is not None, change.verdict[1] is not None)


def _of_findings(change: Change) -> Iterator[Sight]:
    before, after = (verdict in _JUDGED for verdict in change.verdict)
    yield Sight("findings", before, before and after, f": {change.verdict[1]}")


def _of_layers(change: Change) -> Iterator[Sight]:
    yield Sight("layers", change.layers[0] is not None, None not in change.layers)


def _of_errors(change: Change) -> Iterator[Sight]:
    for output in change.outputs:
        yield Sight(f"the error of {output.output!r}", output.error[0] is not None, output.ratio is not None)


def _of_top1(change: Change) -> Iterator[Sight]:
    for output in change.outputs:
        yield Sight(f"top-1 agreement of {output.output!r}", output.top1[0] is not None, None not in output.top1)


def _of_latencies(change: Change) -> Iterator[Sight]:
    if change.latency is not None:
        found = change.latency
        yield Sight("latency", found.p50[0] is not None, found.ratio is not None, found.apart and f": {found.apart}")


_LOOKS: dict[str, tuple[Callable[[Change, Condition], Iterator[str]], Callable[[Change], Iterator[Sight]]]] = {
    "verdict": (_verdict, _of_verdicts),
    "finding": (_finding, _of_findings),
    "layers": (_layers, _of_layers),
    "error": (_error, _of_errors),
    "top1": (_top1, _of_top1),
    "latency": (_latency, _of_latencies),
}


def _share(text: str | None) -> float | None:
    if text is None:
        return None
    honoured, _, compute = text.partition(" ")[0].partition("/")
    return int(honoured) / max(int(compute), 1)


def _name(change: Change) -> str:
    return f"{change.case} at {change.precision} on {change.backend[1]}"
