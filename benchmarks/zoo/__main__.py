"""Measure the zoo: ``python -m benchmarks.zoo FOLDER --results FILE.json``, from the project's root.

FOLDER keeps the networks, which are made by torch, torchvision and scikit-learn where it lacks them. ``--only WORD``
takes specimens with the word in network or name. ``--table FILE.json`` prints the tables of earlier results.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

from benchmarks.zoo.table import tables


def main() -> None:
    """Measure, write the results, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--table", type=Path)
    told = parser.parse_args()
    if told.table:
        print(tables(json.loads(told.table.read_text())))
        return
    logging.disable(logging.WARNING)  # quantize_static's advice
    os.environ.pop("CI", None)  # these goldens are no project's
    from benchmarks.calibration import machine
    from benchmarks.zoo.defects import DEFECTS
    from benchmarks.zoo.makers import make
    from benchmarks.zoo.measure import measure
    from benchmarks.zoo.peers import asked_themselves
    from benchmarks.zoo.twins import TWINS

    make(told.folder)
    specimens = [one for one in (*DEFECTS, *TWINS) if told.only in f"{one.network} {one.name}"]
    start, rows = time.perf_counter(), []
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for row in pool.map(measure, specimens, repeat(told.folder)):
            print(
                row["network"], row["precision"], row["name"], row["expected"], row["verdict"], row["codes"], flush=True
            )
            rows.append(row)
    document = {
        "environment": {**machine(), "peers": asked_themselves()},
        "seconds": round(time.perf_counter() - start),
        "rows": rows,
    }
    if told.results:
        told.results.write_text(json.dumps(document, indent=1) + "\n")
    print(tables(document))


if __name__ == "__main__":
    main()
