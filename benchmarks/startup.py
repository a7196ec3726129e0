"""Cost of being installed: ``pytest --co -q`` in an empty folder, with the plugin and with ``-p no:trt``.

``python benchmarks/startup.py`` prints the medians of 20 interleaved runs each, and exits with 1 if the plugin
costs more than 15 ms.
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


def once(folder: str, *arguments: str) -> float:
    """Milliseconds of one run of pytest."""
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pytest", "--co", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    return 1e3 * (time.perf_counter() - start)


def measure(runs: int) -> tuple[float, float]:
    """Median milliseconds with and without the plugin, interleaved."""
    with tempfile.TemporaryDirectory() as folder:
        once(folder), once(folder, "-p", "no:trt")  # the first runs compile
        times: dict[bool, list[float]] = {True: [], False: []}
        for number in range(2 * runs):
            with_it = number % 4 in (0, 3)  # ABBA, so that drift hits both alike
            times[with_it].append(once(folder, *(() if with_it else ("-p", "no:trt"))))
    return statistics.median(times[True]), statistics.median(times[False])


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    with_it, without = measure(parser.parse_args().runs)
    print(f"with {with_it:.1f} ms, without {without:.1f} ms: {with_it - without:+.1f} ms (limit {LIMIT_MS:g} ms)")
    return int(with_it - without > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
