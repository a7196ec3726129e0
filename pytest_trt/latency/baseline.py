"""Baseline: the latency that a case is compared with, promoted by a person from a run that was recorded.

A file a case, precision and backend, in a folder a machine: ``baseline/<machine>/<case>.<precision>.<backend>.json``.
Nothing but ``pytest-trt baseline`` writes it, so that a slow run never becomes what the next one is measured by.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from pytest_trt.atomic import write_whole
from pytest_trt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["SCHEMA", "Baseline", "Identity", "file_of", "read_baseline", "read_baselines", "write_baseline"]

SCHEMA = 1


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
    remedy = "Promote a run again: pytest-trt baseline promote RUN."
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
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
    _require_sound(found, path, remedy)
    return found


def read_baselines(folder: Path) -> tuple[Baseline, ...]:
    """All baselines of a folder, of every machine; none where there is no folder.

    Raises:
        DataError: one of them can't be read.
    """
    return tuple(read_baseline(path) for path in sorted(folder.glob("*/*.json")))


def of_machine(baselines: Iterable[Baseline], key: str) -> dict[Identity, Baseline]:
    """Those of one machine, by what they are of."""
    return {baseline.identity: baseline for baseline in baselines if baseline.key == key}


def _shallow(baseline: Baseline) -> dict[str, Any]:
    return {f.name: getattr(baseline, f.name) for f in fields(baseline)}


def _require_sound(baseline: Baseline, path: Path, remedy: str) -> None:
    p50, machine = baseline.p50_s, baseline.machine
    if isinstance(p50, bool) or not isinstance(p50, (int, float)) or not 0 < p50 < float("inf"):
        raise DataError(f"the baseline {path} holds the latency {p50!r}, which is none. {remedy}")
    if (
        not isinstance(machine, dict)
        or not isinstance(machine.get("hard"), dict)
        or machine.get("key") != path.parent.name
    ):
        raise DataError(f"the baseline {path} does not tell the machine of its folder {path.parent.name}. {remedy}")
