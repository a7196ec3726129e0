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
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.foreign.judging import ROOT
from benchmarks.foreign.measure import Asked, measured
from benchmarks.foreign.networks import NETWORKS
from benchmarks.foreign.table import ASKED, tables

QUICK = ("silero", "ppcls")


def main() -> None:
    """Measure, write the results, print the tables."""
    told = _told()
    if told.table:
        print(tables(json.loads(told.table.read_text())))
        return
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
        told.results.write_text(json.dumps(document, indent=1).replace(f"{folder}/", "") + "\n")
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
    for names, known in ((told.networks, (*NETWORKS,)), (told.precisions, ASKED)):
        if unknown := {*names} - {*known}:
            parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(known)}")
    if not told.folder and not told.table:
        parser.error("name the folder to work in")
    return told


def _all(networks: tuple[str, ...], asked: Asked) -> list[dict[str, list[Any]]]:
    """One network a process, as many at once as there are cores."""
    workers = min(len(networks), os.cpu_count() or 1)
    quiet = (logging.WARNING,)  # quantize_static's advice
    with ProcessPoolExecutor(workers, get_context("spawn"), logging.disable, quiet) as pool:
        return [part.result() for part in [pool.submit(measured, name, asked) for name in networks]]


if __name__ == "__main__":
    main()
