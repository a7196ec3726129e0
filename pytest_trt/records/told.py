"""Told: two records' difference as rows of text, for the terminal, Markdown and HTML alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_trt.records.changes import Change, RunDifference, Two

__all__ = ["environment_of", "note_of", "summary_of", "table_of"]

_HEAD = (
    "case",
    "precision",
    "backend",
    "verdict",
    "error",
    "bound",
    "top-1",
    "layers",
    "findings",
    "p50 ms",
    "p99 ms",
    "gate",
)

_LATENCY = "Latencies are set side by side, and not judged: that takes samples of both (--trt-latency=gate)."


def table_of(found: RunDifference, *, everything: bool) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A head, and a row a case and precision, of those that changed or of all; columns without a word are left out."""
    rows = [_row(change) for change in found.changes if everything or change.moved]
    used = [place for place in range(len(_HEAD)) if any(row[place] for row in rows)]
    return tuple(_HEAD[place] for place in used), [tuple(row[place] for place in used) for row in rows]


def _row(change: Change) -> tuple[str, ...]:
    """One case as texts."""
    worst, latency = change.worst, change.latency
    return (
        change.case,
        change.precision,
        _arrow(change.backend),
        _verdict(change),
        _error(change),
        _numbers(worst.bound) if worst else "",
        _numbers(worst.top1, 4) if worst else "",
        _arrow(change.layers),
        _findings(change),
        _milliseconds(latency.p50, latency.ratio, latency.apart) if latency else "",
        _milliseconds(latency.p99) if latency else "",
        _arrow(latency.state) if latency else "",
    )


def note_of(found: RunDifference) -> str:
    """What to know of the latencies in the table; empty where there are none."""
    return _LATENCY if any(change.latency for change in found.changes) else ""


def environment_of(found: RunDifference) -> list[str]:
    """What changed around the cases, a line each: versions, GPUs, what models and engines were made from."""
    lines = [f"{key}: {_arrow(two)}" for key, two in found.environment.items()]
    for change in found.changes:
        told: Mapping[str, Two] = {**change.engine, **change.made_from}
        lines += [f"{change.case} at {change.precision}: {key} {_arrow(two)}" for key, two in told.items()]
    return lines


def summary_of(found: RunDifference) -> str:
    """How many changed, in a sentence."""
    both = [change for change in found.changes if not change.missing and not change.new]
    moved = sum(change.moved for change in both)
    gone, new = (sum(getattr(change, key) for change in found.changes) for key in ("missing", "new"))
    parts = [f"{len(both)} in both records, {moved} of them changed"]
    parts += [f"{gone} only in {found.before}"] if gone else []
    return "; ".join([*parts, *([f"{new} only in {found.after}"] if new else [])])


def _verdict(change: Change) -> str:
    before, after = change.verdict
    if before is None:
        return f"{after} (new)"
    return f"{before} (missing now)" if after is None else _arrow(change.verdict)


def _error(change: Change) -> str:
    worst = change.worst
    if worst is None:
        return ""
    name = f"{worst.output} " if len(change.outputs) > 1 else ""
    return f"{name}{_numbers(worst.error)}{worst.grown}"


def _findings(change: Change) -> str:
    signs = [f"+{code}{f' {about}' if about else ''}" for code, about, _ in change.appeared]
    return ", ".join([*signs, *(f"-{code}{f' {about}' if about else ''}" for code, about, _ in change.gone)])


def _milliseconds(two: Two, ratio: float | None = None, apart: str = "") -> str:
    told = _numbers((None if value is None else 1e3 * value for value in two), 4)
    grown = "" if ratio is None else f" ({100 * (ratio - 1):+.2g} %)"
    return f"{told}{grown}{f' ({apart})' if apart else ''}"


def _numbers(two: Any, digits: int = 3) -> str:
    return _arrow(tuple(None if value is None else f"{value:.{digits}g}" for value in two))


def _arrow(two: Any) -> str:
    before, after = two
    if before == after:
        return "" if after is None else str(after)
    return f"{'none' if before is None else before} -> {'none' if after is None else after}"
