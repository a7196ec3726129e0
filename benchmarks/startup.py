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
    """Median milliseconds with and without the plugin, runs interleaved so that drift hits both."""
    with tempfile.TemporaryDirectory() as folder:
        once(folder), once(folder, "-p", "no:trt")  # the first runs compile
        pairs = [(once(folder), once(folder, "-p", "no:trt")) for _ in range(runs)]
    return statistics.median(with_it for with_it, _ in pairs), statistics.median(without for _, without in pairs)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    with_it, without = measure(parser.parse_args().runs)
    print(f"with {with_it:.1f} ms, without {without:.1f} ms: {with_it - without:+.1f} ms (limit {LIMIT_MS:g} ms)")
    return int(with_it - without > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
