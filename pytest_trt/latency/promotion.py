"""Promotion: from a run that was recorded to baselines, by a person's word alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import DataError
from pytest_trt.latency.baseline import Baseline, Identity, file_of, read_baseline, require_sound, write_baseline
from pytest_trt.latency.history import read_history
from pytest_trt.latency.kept import promote_materials

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pytest_trt.latency.history import Entry

__all__ = ["Promoted", "entries_of_run", "promote"]

_DOUBTFUL = ("ambiguous",)
_WORSE = ("slow",)
_SLOWER = 1.05  # than the one that is replaced: what the gate tells of one run beside one
_ACCEPT = "If that is accepted, say so and why: --accept-slow --reason TEXT."


@dataclass(frozen=True)
class Promoted:
    """A baseline that was written.

    Attributes:
        baseline: what is compared with from now on.
        before_s: the median of the one that it replaced, in seconds; None where it is the first.
        path: its file.
        missing: why it can't be run side by side, where that is so.
    """

    baseline: Baseline
    before_s: float | None
    path: Path
    missing: str = ""


def entries_of_run(run: str, storage: str) -> tuple[Entry, ...]:
    """The latencies of one run.

    Args:
        run: a file of pytest-benchmark, or the number (``0007``) or name (``0007_trt``) of a saved run.
        storage: the folder that pytest-benchmark saves runs to.

    Raises:
        DataError: there is no such run, several, or it holds none of our latencies.
    """
    file = Path(run)
    found = read_history(file if file.is_file() else storage)
    entries = found.entries if file.is_file() else [e for e in found.entries if _is_called(e.run, run)]
    files = sorted({str(entry.file) for entry in entries})
    if len(files) > 1:
        raise DataError(f"{run} names {len(files)} runs of {storage}: {', '.join(files)}. Name one of these files.")
    if not entries:
        told = " ".join(found.complaints)
        known = sorted({entry.run for entry in found.entries})[-5:]
        newest = f" The newest saved runs: {', '.join(known)}." if known else " Record one: --trt-latency=record."
        raise DataError(f"{run} holds no latency of pytest-trt ({storage}).{newest} {told}".rstrip())
    return tuple(entries)


def promote(
    entries: Sequence[Entry],
    folder: Path,
    store: Path | None,
    *,
    reason: str,
    cases: Collection[str] = (),
    accept_slow: bool = False,
) -> tuple[Promoted, ...]:
    """Make a run's latencies the baselines of its cases; all of them, or none.

    Args:
        entries: of the run.
        folder: of the baselines.
        store: where plans and models were kept when the run was recorded.
        reason: why, kept in the baselines.
        cases: only these; all if there are none.
        accept_slow: whether latencies that the gate found slower may be promoted.

    Raises:
        DataError: a case is not in the run, was not right, was measured badly, or is slower than what it replaces.
    """
    chosen = [entry for entry in entries if not cases or entry.key.case in cases]
    absent = sorted(set(cases) - {entry.key.case for entry in entries})
    if absent:
        raise DataError(f"the run has no case {', '.join(map(repr, absent))}.")
    for entry in chosen:
        _require_sound(entry, reason, accept_slow=accept_slow)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    made = _one_each([_baseline_of(entry, reason, now) for entry in chosen])
    before = [_replaced(baseline, folder) for baseline in made]
    for baseline, old in zip(made, before, strict=True):
        require_sound(baseline, file_of(folder, baseline.identity, baseline.key))
        if not (accept_slow and reason):
            _require_no_slower(baseline, old)
    return tuple(_promoted(baseline, old, folder, store) for baseline, old in zip(made, before, strict=True))


def _is_called(name: str, run: str) -> bool:
    return name == run or (run.isdecimal() and name.partition("_")[0] == run.zfill(4))


def _require_sound(entry: Entry, reason: str, *, accept_slow: bool) -> None:
    key = entry.key
    what = f"{key.case} at {key.precision} on {key.backend} of run {entry.run}"
    verdict = entry.table.get("verdict")
    if verdict not in ("passed", "timed"):
        told = f"was not right ({verdict})" if verdict else "does not tell that it was right"
        raise DataError(f"{what} {told}: the speed of a wrong engine is none.")
    if entry.state in _DOUBTFUL or entry.disturbances:
        why = "; ".join(entry.disturbances) or "too noisy to tell"
        raise DataError(f"{what} was measured badly: {why}. Record it again on a quiet machine.")
    if entry.state in _WORSE and not (accept_slow and reason):
        raise DataError(f"{what} was found slower than its baseline. {_ACCEPT}")
    if not key.machine:
        raise DataError(f"{what} does not tell the machine that it was measured on: record it again.")


def _one_each(made: Sequence[Baseline]) -> tuple[Baseline, ...]:
    """What two tests of a run timed alike has one baseline: the faster, which is the harder to keep to."""
    found: dict[tuple[Identity, str], Baseline] = {}
    for baseline in made:
        other = found.setdefault((baseline.identity, baseline.key), baseline)
        if (baseline.metric, baseline.model_sha256) != (other.metric, other.model_sha256):
            raise DataError(
                f"the run holds {baseline.identity} twice, timed in two ways, and it can have one baseline: record it"
                " with one of its tests alone, or give the cases names of their own."
            )
        found[baseline.identity, baseline.key] = min(other, baseline, key=lambda one: one.p50_s)
    return tuple(found.values())


def _replaced(baseline: Baseline, folder: Path) -> Baseline | None:
    """The one before; None where there is none, or it is damaged, which to promote anew is the remedy."""
    path = file_of(folder, baseline.identity, baseline.key)
    try:
        return read_baseline(path) if path.is_file() else None
    except DataError:
        return None


def _require_no_slower(baseline: Baseline, old: Baseline | None) -> None:
    """A run that was only recorded was compared with nothing."""
    if old is None or baseline.metric != old.metric or baseline.p50_s <= _SLOWER * old.p50_s:
        return
    raise DataError(
        f"{baseline.identity} takes {1e3 * baseline.p50_s:.4g} ms in run {baseline.run}, and its baseline"
        f" {1e3 * old.p50_s:.4g} ms: {100 * (baseline.p50_s / old.p50_s - 1):.1f} % slower. {_ACCEPT}"
    )


def _baseline_of(entry: Entry, reason: str, now: str) -> Baseline:
    key, table = entry.key, entry.table
    told = table.get("kept")
    kept: Mapping[str, Any] = told if isinstance(told, dict) else {}
    return Baseline(
        identity=Identity(key.case, key.precision, key.backend),
        run=entry.run,
        recorded=entry.when.isoformat(),
        promoted=now,
        reason=reason,
        machine=table.get("machine") or {},
        metric=table.get("metric") or {},
        p50_s=entry.p50_s,
        model_sha256=table.get("model_sha256"),
        plan_sha256=table.get("plan_sha256"),
        kept={"plan": kept.get("plan"), "onnx": kept.get("onnx")},
        simulated=bool(table.get("simulated")),
    )


def _promoted(baseline: Baseline, old: Baseline | None, folder: Path, store: Path | None) -> Promoted:
    found = promote_materials(store, baseline.kept.get("plan"), baseline.kept.get("onnx"))
    missing = "" if found else "nothing was kept of it here: only its history can be compared with, on its machine"
    return Promoted(baseline, old.p50_s if old else None, write_baseline(folder, baseline), missing)
