"""Runs: latencies of earlier runs, from the files that pytest-benchmark keeps, and where they stepped and stayed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import DataError
from pytest_trt.latency._spread import imported, tail, unusable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["LEAST_RUNS", "Change", "Entry", "History", "Key", "changes", "read_history"]

SCHEMA = 1
"""Of the table ``trt`` in a benchmark's ``extra_info``."""


@dataclass(frozen=True)
class Key:
    """What has to be the same for two latencies to be compared.

    Attributes:
        case: by its name.
        precision: by its name.
        backend: by its name.
        machine: 16 hexadecimal digits of what makes it another machine; empty where the run did not tell.
        metric: what a sample is, as canonical JSON.
    """

    case: str
    precision: str
    backend: str
    machine: str
    metric: str


@dataclass(frozen=True)
class Entry:
    """One case's latency in one run.

    Attributes:
        key: what it may be compared with.
        run: the run's file by its name without the suffix: ``0003_main``.
        when: the run was, with its time zone.
        file: that tells it.
        p50_s: median in seconds an inference.
        samples: how many it is of.
        state: that the run gave it ("slow"); empty where none was given.
        table: all that the plugin wrote: plan hash, machine, telemetry, accuracy.
    """

    key: Key
    run: str
    when: datetime
    file: Path
    p50_s: float
    samples: int
    state: str
    table: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def disturbances(self) -> tuple[str, ...]:
        """Why the run's latencies are not to be relied on; empty where it was quiet."""
        told = _table(_table(self.table).get("telemetry")).get("disturbances") or ()
        return tuple(str(one) for one in told) if isinstance(told, (list, tuple)) else (str(told),)

    @property
    def environment(self) -> Mapping[str, Any]:
        """What explains a change and forbids no comparison: releases, driver."""
        return _table(_table(self.table.get("machine")).get("soft"))


@dataclass(frozen=True)
class History:
    """Entries in order of time, and what could not be read, a sentence each."""

    entries: tuple[Entry, ...]
    complaints: tuple[str, ...] = ()

    def of(
        self,
        *,
        case: str | None = None,
        precision: str | None = None,
        backend: str | None = None,
        machine: str | None = None,
        metric: Mapping[str, Any] | None = None,
    ) -> tuple[Entry, ...]:
        """Those that agree with everything that is named."""
        wanted = {"case": case, "precision": precision, "backend": backend, "machine": machine}
        wanted["metric"] = None if metric is None else canonical(metric)
        named = {name: value for name, value in wanted.items() if value is not None}
        return tuple(one for one in self.entries if all(getattr(one.key, name) == named[name] for name in named))

    def series(self, entries: Iterable[Entry] | None = None) -> dict[Key, tuple[Entry, ...]]:
        """Entries by what may be compared, the key of the newest run last."""
        found: dict[Key, list[Entry]] = {}
        for entry in self.entries if entries is None else entries:
            found.setdefault(entry.key, []).append(entry)
        return {key: tuple(found[key]) for key in sorted(found, key=lambda key: found[key][-1].when)}


def canonical(value: Mapping[str, Any]) -> str:
    """JSON that is the same for equal values; a tuple is a list."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def read_history(place: Path | str) -> History:
    """Read a folder of pytest-benchmark's storage, or one file of it or of ``--benchmark-json``.

    A file that is damaged or no benchmark's, and a table that is not understood, is a complaint and no error;
    benchmarks of other tests are passed over. A run that is told by two files counts once.

    Raises:
        DataError: there is nothing at this place.
    """
    path = Path(str(place).removeprefix("file://"))
    if not path.exists():
        raise DataError(f"{path} is not there: it is the folder that pytest-benchmark saves runs to, or a file of it.")
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    entries: dict[tuple[Key, datetime, float], Entry] = {}
    complaints: list[str] = []
    for file in files:
        try:
            for entry in _entries(file, complaints):
                entries.setdefault((entry.key, entry.when, entry.p50_s), entry)
        except (OSError, ValueError, RecursionError) as error:
            complaints.append(f"{file}: skipped, {_why(error)}.")
    return History(tuple(sorted(entries.values(), key=lambda one: (one.when, one.run))), tuple(complaints))


def _why(error: Exception) -> str:
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError, RecursionError)):
        return "it is no JSON, or was cut off"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


def _entries(file: Path, complaints: list[str]) -> Iterator[Entry]:
    document = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or not isinstance(document.get("benchmarks"), list):
        raise ValueError("it is no file of pytest-benchmark")
    when = _when(document.get("datetime"))
    for benchmark in document["benchmarks"]:
        table = _table(_table(benchmark).get("extra_info")).get("trt")
        if table is None:
            continue
        try:
            yield _entry(benchmark, _table(table), file, when)
        except ValueError as error:
            complaints.append(f"{file}: {_table(benchmark).get('fullname', 'a benchmark')}: skipped, {error}.")


def _when(text: object) -> datetime:
    try:
        when = datetime.fromisoformat(str(text).replace("Z", "+00:00"))  # Python 3.10 knows no Z
    except ValueError:
        raise ValueError("it does not tell when the run was") from None
    return when if when.tzinfo else when.replace(tzinfo=timezone.utc)


def _entry(benchmark: Mapping[str, Any], table: Mapping[str, Any], file: Path, when: datetime) -> Entry:
    if table.get("schema") != SCHEMA:
        raise ValueError(f"its table has schema {table.get('schema')!r}, and this release reads {SCHEMA}")
    stats = _table(benchmark.get("stats"))
    return Entry(
        key=_key(table),
        run=file.stem,
        when=when,
        file=file,
        p50_s=_seconds(stats.get("median")),
        samples=int(stats["rounds"]) if isinstance(stats.get("rounds"), int) else 0,
        state=str(table.get("state") or ""),
        table=table,
    )


def _key(table: Mapping[str, Any]) -> Key:
    names = {name: table.get(name) for name in ("case", "precision", "backend")}
    missing = [name for name, value in names.items() if not isinstance(value, str) or not value]
    if missing:
        raise ValueError(f"its table does not tell {' and '.join(missing)}")
    case, precision, backend = (str(value) for value in names.values())
    machine = str(_table(table.get("machine")).get("key") or "")
    return Key(case, precision, backend, machine, canonical(_table(table.get("metric"))))


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"its median of {value!r} s is no time")
    return float(value)


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


LEAST_RUNS = 8
"""Fewer runs than this are not searched."""

_SEGMENT = 3  # runs on each side of a step: one bad run, or two, is no change
_PENALTY = 4.0
_P = 0.001
_BAD = 4.0  # standard deviations that a run alone is away from the runs before it and from those behind it
_LEAST_NOISE = 1e-3


@dataclass(frozen=True)
class Change:
    """A step.

    Attributes:
        index: of the first run behind it.
        ratio: level behind it over the level before it.
        p: of the two levels being one, by a t test of the runs on both sides.
    """

    index: int
    ratio: float
    p: float


def changes(values: ArrayLike, threshold: float = 0.025) -> list[Change]:
    """Find the steps of a history, in order of time.

    The logarithms are cut into levels by PELT (squared error, penalty 4 ln(n) s^2; Killick et al. 2012), runs that
    stand alone left out; a step counts if both its levels hold three runs, a t test tells them apart and they differ by
    more than the threshold. The newest runs can't be judged so: that is the gate's work.

    Args:
        values: p50 of each run in seconds, float64[n], in order of time.
        threshold: share that levels differ by.

    Raises:
        BackendError: ruptures or scipy is not installed.
    """
    import numpy as np

    times = np.atleast_1d(np.asarray(values, dtype=np.float64)).ravel()
    if times.size < LEAST_RUNS or unusable(times):
        return []
    logs = np.log(times)
    noise = _noise(logs)
    kept = np.flatnonzero(~_alone(logs, noise))
    if kept.size < LEAST_RUNS:
        return []
    cuts = _told_apart(logs[kept], _pelt(logs[kept], noise), math.log1p(threshold))
    return [Change(int(kept[at]), math.exp(step), p) for at, step, p in cuts]


def _noise(logs: NDArray[np.float64]) -> float:
    """Standard deviation from one run to the next, which no step and few bad runs change much."""
    import numpy as np

    return max(1.4826 * float(np.median(np.abs(np.diff(logs)))) / math.sqrt(2), _LEAST_NOISE)


def _alone(logs: NDArray[np.float64], noise: float) -> NDArray[np.bool_]:
    """Which runs are far from those before and from those behind: a bad run, and not the first behind a step."""
    import numpy as np

    def near(at: int) -> float:
        sides = [logs[max(at - _SEGMENT, 0) : at], logs[at + 1 : at + 1 + _SEGMENT]]
        return min(abs(float(logs[at] - np.median(side))) for side in sides if side.size)

    return np.asarray([near(at) > _BAD * noise for at in range(logs.size)])


def _pelt(logs: NDArray[np.float64], noise: float) -> list[int]:
    pelt = imported("ruptures", "Looking for changes").KernelCPD(kernel="linear", min_size=_SEGMENT)
    found = pelt.fit(logs).predict(pen=_PENALTY * math.log(logs.size) * noise**2)
    return [int(cut) for cut in found[:-1]]


def _told_apart(logs: NDArray[np.float64], cuts: list[int], least: float) -> list[tuple[int, float, float]]:
    """Steps that count: the weakest is taken back, and its two levels are one, until all others do."""
    while cuts:
        edges = [0, *cuts, logs.size]
        steps = [_step(logs[edges[i] : cut], logs[cut : edges[i + 2]]) for i, cut in enumerate(cuts)]
        weak = [i for i, (step, p) in enumerate(steps) if p > _P or abs(step) <= least]
        if not weak:
            return [(cut, *step) for cut, step in zip(cuts, steps, strict=True)]
        del cuts[min(weak, key=lambda i: abs(steps[i][0]))]
    return []


def _step(before: NDArray[np.float64], behind: NDArray[np.float64]) -> tuple[float, float]:
    """The difference of both means, and the two-sided p of Student's t test with one variance for both."""
    step, freedom = float(behind.mean() - before.mean()), before.size + behind.size - 2
    squares = float(((before - before.mean()) ** 2).sum() + ((behind - behind.mean()) ** 2).sum())
    error = math.sqrt(max(squares / freedom, _LEAST_NOISE**2) * (1 / before.size + 1 / behind.size))
    return step, 2 * tail(abs(step) / error, freedom)
