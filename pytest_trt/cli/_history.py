"""``pytest-trt history``: latencies of earlier runs, and where they stepped."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_trt.cli._console import Line, as_json, say
from pytest_trt.errors import BackendError, DataError, unknown
from pytest_trt.latency.runs import LEAST_RUNS, changes, read_history

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_trt.cli._console import Part
    from pytest_trt.latency.baseline import Identity
    from pytest_trt.latency.runs import Change, Entry, History, Key

__all__ = ["command"]

_BARS = "▁▂▃▄▅▆▇█"
_LEAST_SPAN = 0.1  # a chart spans 10 % at the least, so that noise looks like noise
_STYLES = {"slow": "bad", "fast": "good", "ambiguous": "doubt", "vanished": "doubt"}


@dataclass(frozen=True)
class _Series:
    """Runs that may be compared, and what is said of them: steps, or why none were looked for; the promoted run."""

    key: Key
    runs: Sequence[Entry]
    steps: Sequence[Change]
    unsearched: str | None
    baseline: Entry | None

    @property
    def changed(self) -> list[float | None]:
        """Each p50 over the baseline's, or where there is none over that of the run before, less one."""
        if self.baseline is not None:
            return [run.p50_s / self.baseline.p50_s - 1 for run in self.runs]
        return [None, *(b.p50_s / a.p50_s - 1 for a, b in pairwise(self.runs))]


@click.command("history")
@click.argument("case", required=False)
@click.option("--precision", metavar="P", help="Of this precision only.")
@click.option(
    "--storage", default=".benchmarks", show_default=True, metavar="PLACE",
    help="Folder that pytest-benchmark saves runs to, or one file of it or of --benchmark-json.",
)  # fmt: skip
@click.option("--baseline", metavar="RUN", help="Compare with this run (0007), and not with the promoted one.")
@click.option(
    "--baseline-dir", "folder", type=click.Path(path_type=Path), default=Path("baseline"), show_default=True,
    help="Folder of the baselines; runs are compared each with the one before where none was promoted.",
)  # fmt: skip
@click.option(
    "--limit", type=click.IntRange(min=1), default=30, show_default=True, help="List the newest so many runs."
)
@as_json
def command(
    case: str | None,
    precision: str | None,
    storage: str,
    baseline: str | None,
    folder: Path,
    limit: int,
    as_json: bool,
) -> None:
    """List the latencies of CASE, or of all cases, run by run, and flag where they stepped up or down.

    What can't be compared - another machine, precision, backend or metric - is listed apart.
    """
    history = read_history(storage)
    for complaint in history.complaints:
        click.echo(f"pytest-trt: {complaint}", err=True)
    wanted = _wanted(history, case, precision, storage)
    named = _baselines(history, baseline, folder)
    found = [_searched(key, runs, named) for key, runs in history.series(wanted).items()]
    facts = {"series": [_facts(one, limit) for one in found], "complaints": list(history.complaints)}
    say(_lines(found, limit), facts, json_wanted=as_json)


def _wanted(history: History, case: str | None, precision: str | None, storage: str) -> Sequence[Entry]:
    """Entries of the case at the precision.

    Raises:
        DataError: no run of ours is there.
        SpecError: there are runs, and none of this case or precision.
    """
    if not history.entries:
        raise DataError(f"{storage} holds no latency of pytest-trt: runs with --trt-latency=record are kept there.")
    cases = {entry.key.case for entry in history.entries}
    if case is not None and case not in cases:
        raise unknown("case", case, sorted(cases))
    precisions = {entry.key.precision for entry in history.of(case=case)}
    if precision is not None and precision not in precisions:
        raise unknown("precision", precision, sorted(precisions))
    return history.of(case=case, precision=precision)


def _baselines(history: History, told: str | None, folder: Path) -> set[tuple[str, str, str, str, str]]:
    """Case, precision, backend, machine and run of each that is compared with: by the user's word, else as promoted.

    Raises:
        DataError: a baseline can't be read.
        SpecError: no run has the name that was told.
    """
    from pytest_trt.latency.baseline import read_baselines

    if told is None:
        promoted = read_baselines(folder)
        return {(*_what(one.identity), one.key, one.run) for one in promoted}
    named = [entry for entry in history.entries if told in (entry.run, entry.run.partition("_")[0])]
    if not named:
        raise unknown("run", told, sorted({entry.run for entry in history.entries}))
    return {(*_what(entry.key), entry.key.machine, entry.run) for entry in named}


def _searched(key: Key, runs: Sequence[Entry], named: set[tuple[str, str, str, str, str]]) -> _Series:
    marked = [run for run in runs if (*_what(key), key.machine, run.run) in named]
    baseline = marked[-1] if marked else None
    if len(runs) < LEAST_RUNS:
        count = f"{len(runs)} runs are" if len(runs) != 1 else "1 run is"
        return _Series(key, runs, [], f"{count} too few to look for steps ({LEAST_RUNS})", baseline)
    try:
        return _Series(key, runs, changes([run.p50_s for run in runs]), None, baseline)
    except BackendError as error:
        return _Series(key, runs, [], str(error), baseline)


def _lines(found: Sequence[_Series], limit: int) -> list[Part]:
    lines: list[Part] = []
    for one in found:
        others = len({other.key.machine for other in found if _what(other.key) == _what(one.key)})
        lines += [*_head(one, others, limit), *_runs(one, limit), *_steps(one), ""]
    return lines[:-1]


def _what(key: Key | Identity) -> tuple[str, str, str]:
    return key.case, key.precision, key.backend


def _head(one: _Series, machines: int, limit: int) -> list[Part]:
    key = one.key
    where = f"machine {key.machine}" if key.machine else "an unknown machine"
    title = f"{key.case} at {key.precision} on {key.backend}, {where}"
    lines: list[Part] = [Line(title, "head")]
    if machines > 1:
        lines.append(f"  measured on {machines} machines, which can't be compared: each is listed apart")
    lines.append(f"  {_metric(key)}")
    shown = one.runs[-limit:]
    if _is_drawn() and len(shown) > 1:
        lines.append(f"  {_sparkline([run.p50_s for run in shown])}")
    return lines


def _metric(key: Key) -> str:
    metric: dict[str, Any] = json.loads(key.metric)
    words = [str(metric.get("clock", "an unknown clock"))]
    words += [word for word in ("graph", "spin", "transfers") if metric.get(word)]
    words += [f"{word} {metric[word]}" for word in ("batch", "inferences") if metric.get(word)]
    return ", ".join(words)


def _runs(one: _Series, limit: int) -> list[Part]:
    changed, steps = one.changed, {step.index: step for step in one.steps}
    width = max(len(run.run) for run in one.runs)
    column = "change" if one.baseline is None else "to base"
    lines: list[Part] = [f"  {'when (UTC)':16}  {'run':{width}}  {'p50 ms':>9}  {column:>8}  state"]
    for at in range(max(len(one.runs) - limit, 0), len(one.runs)):
        run, change = one.runs[at], changed[at]
        if at:
            lines += _environment(one.runs[at - 1], run)
        if at in steps:
            lines.append(_step(steps[at]))
        share = "" if change is None else f"{100 * change:+.1f} %"
        row = f"  {_when(run)}  {run.run:{width}}  {1e3 * run.p50_s:9.4f}  {share:>8}  {_state(run, one.baseline)}"
        lines.append(Line(row.rstrip(), _STYLES.get(run.state, "")))
    return lines


def _when(run: Entry) -> str:
    from datetime import timezone

    return run.when.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M")


def _state(run: Entry, baseline: Entry | None) -> str:
    words = [run.state] if run.state else []
    words += ["baseline"] if run is baseline else []
    words += [f"disturbed: {' '.join(run.disturbances)}"] if run.disturbances else []
    return ", ".join(words)


def _environment(before: Entry, run: Entry) -> list[str]:
    """What else changed from one run to the next."""
    old, new = before.environment, run.environment
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    told = ", ".join(f"{name} {old.get(name)} -> {new.get(name)}" for name in names)
    return [f"  -- environment changed: {told}"] if told else []


def _step(step: Change) -> Line:
    share = f"{100 * abs(step.ratio - 1):.1f} % {'slower' if step.ratio > 1 else 'faster'}"
    return Line(f"  >> a step: {share} from here on (p = {step.p:.1g})", "bad" if step.ratio > 1 else "good")


def _steps(one: _Series) -> list[str]:
    if one.unsearched:
        return [f"  {one.unsearched}"]
    if not one.steps:
        return ["  no step found"]
    told = [f"{one.runs[step.index].run} ({100 * (step.ratio - 1):+.1f} %)" for step in one.steps]
    return [f"  steps: {', '.join(told)}"]


def _sparkline(values: Sequence[float]) -> str:
    """One character a value, low to high, over 10 % at the least."""
    middle = (min(values) + max(values)) / 2
    span = max(max(values) - min(values), _LEAST_SPAN * middle)
    low, high = middle - span / 2, middle + span / 2
    bars = (_BARS[min(int((value - low) / span * len(_BARS)), len(_BARS) - 1)] for value in values)
    return f"{''.join(bars)}  {1e3 * low:.4g} to {1e3 * high:.4g} ms"


def _is_drawn() -> bool:
    """Whether a terminal shows the chart that can, and was not told to show plain text."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout.isatty() and (sys.stdout.encoding or "").lower().startswith("utf")


def _facts(one: _Series, limit: int) -> dict[str, Any]:
    runs = [_run_facts(run, change, one.baseline) for run, change in zip(one.runs, one.changed, strict=True)]
    steps = [{"run": one.runs[step.index].run, "ratio": step.ratio, "p": step.p} for step in one.steps]
    key = one.key
    return {
        "case": key.case, "precision": key.precision, "backend": key.backend, "machine": key.machine,
        "metric": json.loads(key.metric), "runs": runs[-limit:], "steps": steps, "unsearched": one.unsearched,
    }  # fmt: skip


def _run_facts(run: Entry, change: float | None, baseline: Entry | None) -> dict[str, Any]:
    return {
        "run": run.run, "when": run.when.isoformat(), "p50_s": run.p50_s, "samples": run.samples, "change": change,
        "state": run.state or None, "baseline": run is baseline, "disturbances": list(run.disturbances),
        "environment": dict(run.environment), "file": str(run.file),
    }  # fmt: skip
