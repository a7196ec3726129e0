"""Baseline: the latency that a case is compared with, promoted by a person from a run that was recorded.

A file a case, precision and backend, in a folder a machine: ``baseline/<machine>/<case>.<precision>.<backend>.json``.
Nothing but ``pytest-trt baseline`` writes it, so that a slow run never becomes what the next one is measured by.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pytest_trt.atomic import write_whole
from pytest_trt.case import wrong_name
from pytest_trt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = [
    "SCHEMA",
    "Baseline",
    "Identity",
    "file_of",
    "read_baseline",
    "read_baselines",
    "require_sound",
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
