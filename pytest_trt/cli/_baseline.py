"""``pytest-trt baseline``: what latencies are compared with, and the only way to a new one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_trt.cli._console import as_json, say
from pytest_trt.errors import DataError
from pytest_trt.storage.engine_store import default_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_trt.latency.baseline import Baseline

__all__ = ["command"]

_PATH = click.Path(path_type=Path)

_folder = click.option(
    "--baseline-dir", "folder", type=_PATH, default=Path("baseline"), show_default=True, help="Folder of the baselines."
)
_store = click.option(
    "--store", type=_PATH, help="Where plans and models are kept (default: pytest-trt in the user's cache folder)."
)


@click.group(name="baseline")
def command() -> None:
    """Promote a recorded run to the baseline of the latency gate; list, rename and remove baselines."""


@command.command()
@click.argument("run")
@click.option("--case", "cases", multiple=True, help="Only this case; repeatable (default: all of the run).")
@click.option("--reason", default="", help="Why; kept in the baselines.")
@click.option("--accept-slow", is_flag=True, help="Promote what the gate found slower; needs --reason.")
@click.option("--storage", default=".benchmarks", show_default=True, help="Folder that pytest-benchmark saves runs to.")
@_store
@_folder
@as_json
def promote(
    run: str,
    cases: Sequence[str],
    reason: str,
    accept_slow: bool,
    storage: str,
    store: Path | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Make the latencies of RUN what later runs are compared with.

    RUN is a number or name of a saved run (0007), or a file that pytest-benchmark wrote.
    """
    from pytest_trt.latency.baseline import entries_of_run
    from pytest_trt.latency.baseline import promote as promoted_from

    entries = entries_of_run(run, storage)
    done = promoted_from(
        entries, folder, store or default_folder(), reason=reason, cases=cases, accept_slow=accept_slow
    )
    lines = []
    for one in done:
        before = f", before {1e3 * one.before_s:.4g} ms" if one.before_s else ""
        lines.append(f"{one.baseline.identity}: {1e3 * one.baseline.p50_s:.4g} ms{before} -> {one.path}")
        lines += [f"  note: {one.missing}"] if one.missing else []
    facts = [{**_facts(one.baseline), "before_s": one.before_s, "path": str(one.path)} for one in done]
    say([*lines, f"{len(done)} promoted; commit {folder}"], {"promoted": facts}, json_wanted=as_json)


@command.command(name="list")
@_folder
@as_json
def list_(folder: Path, as_json: bool) -> None:
    """Print the baselines, machine by machine."""
    from pytest_trt.latency.baseline import read_baselines

    found = read_baselines(folder)
    lines: list[str] = []
    for machine in dict.fromkeys(baseline.key for baseline in found):
        own = [baseline for baseline in found if baseline.key == machine]
        hard = own[0].machine["hard"]
        lines.append(f"{machine}: {', '.join(f'{key} {value}' for key, value in hard.items())}")
        lines += [f"  {_line(baseline)}" for baseline in own]
    say(lines or [f"{folder} holds no baseline"], {"baselines": [_facts(b) for b in found]}, json_wanted=as_json)


@command.command()
@click.argument("case")
@click.argument("new")
@_folder
@as_json
def rename(case: str, new: str, folder: Path, as_json: bool) -> None:
    """Give the baselines of CASE the name NEW, on every machine."""
    from dataclasses import replace

    from pytest_trt.case.case import wrong_name
    from pytest_trt.latency.baseline import file_of, read_baselines, write_baseline

    wrong = wrong_name(new)
    if wrong:
        raise DataError(wrong)
    found = [baseline for baseline in read_baselines(folder) if baseline.identity.case == case]
    renamed = [replace(baseline, identity=replace(baseline.identity, case=new)) for baseline in found]
    if not found:
        raise DataError(f"{folder} holds no baseline of {case!r}.")
    taken = [str(path) for b in renamed if (path := file_of(folder, b.identity, b.key)).exists()]
    if taken:
        raise DataError(f"{new!r} has a baseline already: {', '.join(taken)}. Remove it first.")
    for old, baseline in zip(found, renamed, strict=True):
        write_baseline(folder, baseline)
        file_of(folder, old.identity, old.key).unlink()
    lines = [f"{len(found)} baselines of {case} are now of {new}"]
    say(lines, {"renamed": [_facts(baseline) for baseline in renamed]}, json_wanted=as_json)


@command.command()
@click.argument("case")
@click.option("--precision", help="Only of this precision (default: all).")
@_folder
@as_json
def remove(case: str, precision: str | None, folder: Path, as_json: bool) -> None:
    """Remove the baselines of CASE, on every machine."""
    from pytest_trt.latency.baseline import file_of, read_baselines

    found = [
        baseline
        for baseline in read_baselines(folder)
        if baseline.identity.case == case and precision in (None, baseline.identity.precision)
    ]
    if not found:
        raise DataError(f"{folder} holds no baseline of {case!r}{f' at {precision}' if precision else ''}.")
    for baseline in found:
        file_of(folder, baseline.identity, baseline.key).unlink()
    say([f"removed: {_line(b)}" for b in found], {"removed": [_facts(b) for b in found]}, json_wanted=as_json)


def _line(baseline: Baseline) -> str:
    side = [name for name in ("plan", "onnx") if baseline.kept.get(name)]
    kept = f"kept {' and '.join(side)}" if side else "history only"
    simulated = " (simulated)" if baseline.simulated else ""
    reason = f": {baseline.reason}" if baseline.reason else ""
    return (
        f"{baseline.identity}{simulated}  {1e3 * baseline.p50_s:.4g} ms  {kept}  run {baseline.run} of"
        f" {baseline.recorded[:10]}{reason}"
    )


def _facts(baseline: Baseline) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(baseline)
