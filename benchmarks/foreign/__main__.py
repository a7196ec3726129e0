"""Ask the gate about networks of other people: ``python -m benchmarks.foreign WORKDIR --results FILE.json``.

WORKDIR keeps wheels, networks, draws and plants. ``--quick`` takes two small networks and one draw.
``--checkout FOLDER`` lets another checkout of this project judge. ``--table FILE.json`` prints earlier results.
Run from the project's root; it needs Pillow, tokenizers, onnxconverter-common and espeak-ng, or skips what wants them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.foreign.judging import ROOT
from benchmarks.foreign.networks import NETWORKS
from benchmarks.foreign.table import ASKED, tables

QUICK = ("silero", "ppcls")


@dataclass(frozen=True)
class Asked:
    """What is run."""

    folder: Path
    wheels: Path
    checkout: Path
    precisions: tuple[str, ...]
    seeds: int
    planted: bool


def main() -> None:
    """Measure, write the results, print the tables."""
    told = _told()
    if told.table:
        print(tables(json.loads(told.table.read_text())))
        return
    logging.disable(logging.WARNING)  # quantize_static's advice
    from benchmarks.calibration import machine

    folder = told.folder.resolve()
    wheels = (told.wheels or folder / "wheels").resolve()
    asked = Asked(folder, wheels, told.checkout.resolve(), told.precisions, told.seeds, told.planted)
    start = time.perf_counter()
    parts = _all(told.networks, asked)
    document: dict[str, Any] = {"environment": machine(), "wall": round(time.perf_counter() - start)}
    for key in ("rows", "seconds", "truth", "skipped"):
        document[key] = [row for part in parts for row in part[key]]
    if told.results:
        told.results.write_text(json.dumps(document, indent=1) + "\n")
    print(tables(document))


def _told() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.foreign")
    parser.add_argument("folder", type=Path, nargs="?", metavar="WORKDIR")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--networks", type=lambda text: tuple(text.split(",")), default=tuple(NETWORKS))
    parser.add_argument("--precisions", type=lambda text: tuple(text.split(",")), default=ASKED)
    parser.add_argument("--seeds", type=int, default=5, help="how many draws")
    parser.add_argument("--healthy", dest="planted", action="store_false", help="plant nothing")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--checkout", type=Path, default=ROOT)
    parser.add_argument("--wheels", type=Path, help="where wheels are kept, in place of WORKDIR/wheels")
    parser.add_argument("--table", type=Path)
    told = parser.parse_args()
    if told.quick:
        told.networks, told.seeds = QUICK, 1
    if not told.folder and not told.table:
        parser.error("name the folder to work in")
    return told


def _all(networks: tuple[str, ...], asked: Asked) -> list[dict[str, list[Any]]]:
    """One network a process, as many at once as there are cores."""
    workers = min(len(networks), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, get_context("spawn"), max_tasks_per_child=1) as pool:
        return [part.result() for part in [pool.submit(one, name, asked) for name in networks]]


def one(name: str, asked: Asked) -> dict[str, list[Any]]:
    """All that is asked of one network; what can't be had is skipped with its reason."""
    from benchmarks.foreign.truth import truth_of

    from benchmarks.foreign.draws import drawn
    from benchmarks.foreign.judging import Judging
    from benchmarks.foreign.measure import healthy_of, planted_of
    from benchmarks.foreign.wheels import Unavailable

    logging.disable(logging.WARNING)
    found: dict[str, list[Any]] = {"rows": [], "seconds": [], "truth": [], "skipped": []}
    judging = Judging(asked.folder / name / "judging", asked.checkout)
    try:
        for seed in range(asked.seeds):
            network = drawn(name, asked.folder, asked.wheels, seed)
            rows, seconds = healthy_of(network, seed, asked.precisions, judging)
            found["rows"] += rows
            found["seconds"].append(seconds)
            print(name, seed, *(f"{row['precision']} {row['verdict']}" for row in rows), flush=True)
        if asked.planted:
            network = drawn(name, asked.folder, asked.wheels, 0)
            found["rows"] += planted_of(network, judging)
            found["truth"] = truth_of(network, found["rows"])
    except Unavailable as reason:
        print(f"{name} is skipped: {reason}", flush=True)
        found["skipped"].append({"network": name, "reason": str(reason)})
    return found


if __name__ == "__main__":
    main()
