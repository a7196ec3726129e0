"""Baseline: the latency that a case is compared with, promoted by a person from a run that was recorded."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.case.case import wrong_name
from pytest_trt.errors import DataError
from pytest_trt.latency._artifacts import promote_materials
from pytest_trt.latency.runs import read_history
from pytest_trt.storage.atomic_write import write_whole

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from pytest_trt.latency.runs import Entry

__all__ = [
    "Baseline",
    "Identity",
    "entries_of_run",
    "file_of",
    "promote",
    "read_baseline",
    "read_baselines",
    "write_baseline",
]

SCHEMA = 1

_REMEDY = "Promote a run again: pytest-trt baseline promote RUN."
_MOST_INFERENCES = 1 << 20
_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, order=True)
class Identity:
    """What a latency is of: a case at a precision on a backend."""

    case: str
    precision: str
    backend: str

    def __str__(self) -> str:
        return f"{self.case} at {self.precision} on {self.backend}"


@dataclass(frozen=True)
class Baseline:
    """What a case is compared with.

    Attributes:
        identity: what it is of.
        run: the run that it was promoted from.
        recorded: when that ran, ISO 8601 in UTC.
        promoted: when it was promoted.
        reason: why, in the words of who did.
        machine: keys hard, soft and record of what it was measured on, and the key of the hard ones.
        metric: what one sample is, plain.
        p50_s: median latency in seconds.
        model_sha256: of the model under test.
        plan_sha256: of its plan, where it has one.
        kept: hashes of the plan and the model in the store of the machine that measured, where they were kept.
        simulated: whether no engine was built.
    """

    identity: Identity
    run: str
    recorded: str
    promoted: str
    reason: str
    machine: Mapping[str, Any]
    metric: Mapping[str, Any]
    p50_s: float
    model_sha256: str | None = None
    plan_sha256: str | None = None
    kept: Mapping[str, str | None] = field(default_factory=dict)
    simulated: bool = False

    @property
    def key(self) -> str:
        """Of the machine."""
        return str(self.machine.get("key", ""))


def file_of(folder: Path, identity: Identity, key: str) -> Path:
    """Where a baseline is kept."""
    return folder / key / f"{identity.case}.{identity.precision}.{identity.backend}.json"


def write_baseline(folder: Path, baseline: Baseline) -> Path:
    """Write it whole or not at all; the one before is replaced.

    Raises:
        DataError: it can't be written there.
    """
    path = file_of(folder, baseline.identity, baseline.key)
    text = json.dumps({"schema": SCHEMA, **asdict(baseline)}, indent=1, allow_nan=False) + "\n"
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise DataError(f"the baseline {path} can't be written: {error.strerror or error}.") from error
    return path


def read_baseline(path: Path) -> Baseline:
    """The baseline of a file.

    Raises:
        DataError: it is damaged, foreign or of a newer schema; tells which, and what to do.
    """
    remedy = _REMEDY
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"the baseline {path} can't be read: {error}. {remedy}") from error
    if not isinstance(told, dict) or told.get("schema") != SCHEMA:
        schema = told.get("schema") if isinstance(told, dict) else None
        raise DataError(f"the baseline {path} has schema {schema!r}, and this version reads {SCHEMA}. {remedy}")
    try:
        known = {f.name for f in fields(Baseline)}
        found = Baseline(**{key: value for key, value in told.items() if key in known})
        found = Baseline(**{**_shallow(found), "identity": Identity(**told["identity"])})
    except (TypeError, KeyError) as error:
        raise DataError(f"the baseline {path} is not whole ({error}). {remedy}") from error
    require_sound(found, path)
    return found


def read_baselines(folder: Path) -> tuple[Baseline, ...]:
    """All baselines of a folder, of every machine; none where there is no folder.

    Raises:
        DataError: one of them can't be read.
    """
    return tuple(read_baseline(path) for path in sorted(folder.glob("*/*.json")))


def _shallow(baseline: Baseline) -> dict[str, Any]:
    return {f.name: getattr(baseline, f.name) for f in fields(baseline)}


def require_sound(baseline: Baseline, path: Path) -> None:
    """Refuse what a latency can't be compared with, wherever it was read.

    Args:
        baseline: as it was read, its values of whatever type.
        path: of its file.

    Raises:
        DataError: a value is none of its key, or the file is not the one that such a baseline has.
    """
    wrong = next(_wrong(baseline, path), None)
    if wrong:
        raise DataError(f"the baseline {path} {wrong}. {_REMEDY}")


def _wrong(baseline: Baseline, path: Path) -> Iterator[str]:
    if not _is_number(baseline.p50_s) or not 0 < baseline.p50_s < float("inf"):
        yield f"holds the latency {baseline.p50_s!r}, which is none"
    machine, of = baseline.machine, baseline.identity
    whole = isinstance(machine, dict) and all(isinstance(machine.get(key, {}), dict) for key in ("hard", "soft"))
    if (
        not whole
        or "hard" not in machine
        or machine.get("key") != path.parent.name
        or not _KEY.fullmatch(machine["key"])
    ):
        yield f"does not tell the machine of its folder {path.parent.name}"
    if not all(isinstance(part, str) and part for part in (of.case, of.precision, of.backend)):
        yield f"does not tell what it is of, but {of}"
    elif path.name != file_of(path.parent.parent, of, path.parent.name).name or wrong_name(path.stem):
        yield f"is of {of}, which its file is not called by"
    texts = {name: getattr(baseline, name) for name in ("run", "recorded", "promoted", "reason")}
    yield from (
        f"has {name} {value!r}, which is no text" for name, value in texts.items() if not isinstance(value, str)
    )
    if not _is_moment(baseline.recorded):
        yield f"was recorded at {baseline.recorded!r}, which is no time with its zone"
    if not _is_metric(baseline.metric):
        yield f"has the metric {baseline.metric!r}, which is none"
    hashes = [*(baseline.kept.values() if isinstance(baseline.kept, dict) else [0])]
    hashes += [baseline.model_sha256, baseline.plan_sha256]
    if not all(value is None or isinstance(value, str) for value in hashes):
        yield "does not tell what was kept of it by its hashes"


def _is_metric(metric: object) -> bool:
    """Whether it tells how many inferences a sample has, and of which shapes."""
    if not isinstance(metric, dict) or not isinstance(metric.get("clock"), str):
        return False
    inferences, shapes = metric.get("inferences"), metric.get("shapes", {})
    counted = isinstance(inferences, int) and not isinstance(inferences, bool) and 1 <= inferences <= _MOST_INFERENCES
    return counted and isinstance(shapes, dict) and all(isinstance(shape, (list, tuple)) for shape in shapes.values())


def _is_moment(text: object) -> bool:
    try:
        return datetime.fromisoformat(str(text)).tzinfo is not None
    except ValueError:
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


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
