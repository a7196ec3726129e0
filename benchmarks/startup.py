"""Cost of being installed: ``pytest --co -q`` in an empty folder, with the plugin and with ``-p no:trt``.

``python benchmarks/startup.py`` prints medians and minima of 20 interleaved runs each, of the wall clock and of
processor time, and exits with 1 if the plugin costs more than 15 ms by every one of them: on a busy machine single ones
scatter by tens of milliseconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

LIMIT_MS = 15.0


def once(folder: str, *arguments: str) -> tuple[float, float]:
    """Milliseconds of one run of pytest, by the wall clock and of processor time."""
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}
    # where no bytecode is kept, every run compiles all of pytest anew, and the plugin with it
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start, spent = time.perf_counter(), os.times()
    subprocess.run(
        [sys.executable, "-m", "pytest", "--co", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    now = os.times()
    processor = now.children_user + now.children_system - spent.children_user - spent.children_system
    return 1e3 * (time.perf_counter() - start), 1e3 * processor


def measure(runs: int) -> dict[bool, list[tuple[float, float]]]:
    """Runs with (True) and without (False) the plugin, ABBA, so that drift hits both alike."""
    times: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        once(folder), once(folder, "-p", "no:trt")  # the first runs compile
        for number in range(2 * runs):
            with_it = number % 4 in (0, 3)
            times[with_it].append(once(folder, *(() if with_it else ("-p", "no:trt"))))
    return times


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    times = measure(parser.parse_args().runs)
    costs = []
    for column, clock in enumerate(("wall clock", "processor")):
        for figure, of in (("median", statistics.median), ("least", min)):
            with_it, without = (of([run[column] for run in times[kind]]) for kind in (True, False))
            costs.append(with_it - without)
            print(f"{clock}, {figure}: with {with_it:.1f} ms, without {without:.1f} ms: {costs[-1]:+.1f} ms")
    print(f"limit {LIMIT_MS:g} ms")
    return int(min(costs) > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
