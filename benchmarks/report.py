"""Cost of the HTML report: 200 synthetic results of 100 tensors each, rendered, and opened by a headless Chromium.

``python -m benchmarks.report`` prints seconds to render, megabytes, and seconds until the page has loaded (median of
five), by the clock and of the browser's main thread; it exits with 1 where the page is over 15 MB, or takes over 2 s
to open by the clock. The record is made by seeded code (``benchmarks/records.py``): no model, engine or GPU is in it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.records import document
from pytest_trt.report.html import render

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MOST_BYTES, MOST_SECONDS = 15e6, 2.0


@dataclass(frozen=True)
class Opened:
    """One opening of a page.

    Attributes:
        first_paint_s: until something is seen.
        loaded_s: until all of it is there, by the clock.
        processor_s: how long the browser's main thread worked for that.
        nodes: size of the document.
    """

    first_paint_s: float
    loaded_s: float
    processor_s: float
    nodes: int


def opened(context: BrowserContext, path: Path) -> Opened:
    """Open a page anew, and see what it cost."""
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(path.as_uri())
    told = session.send("Performance.getMetrics")["metrics"]
    metrics = {metric["name"]: metric["value"] for metric in told}
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN")
    page.close()
    return Opened(paint / 1e3, loaded / 1e3, metrics["TaskDuration"], int(metrics["Nodes"]))


def openings(path: Path, number: int) -> list[Opened]:
    """So many openings by the Chromium that is installed; none where there is none."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        return []
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        found = [opened(context, path) for _ in range(number)]
        browser.close()
    return found


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--tensors", type=int, default=100)
    parser.add_argument("--openings", type=int, default=5)
    asked = parser.parse_args()
    record = document(asked.cases, asked.tensors)
    start, spent = time.perf_counter(), time.process_time()
    page = render(record).encode()
    clock, processor = time.perf_counter() - start, time.process_time() - spent
    print(f"{asked.cases} synthetic results of {asked.tensors} tensors; load of the machine {os.getloadavg()[0]:.1f}")
    print(f"rendered in {clock:.1f} s ({processor:.1f} s of processor time): {len(page) / 1e6:.1f} MB")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        path.write_bytes(page)
        found = openings(path, asked.openings)
    if not found:
        print("not opened: there is no Chromium here")
        return int(len(page) > MOST_BYTES)
    first, loaded, main_thread = (
        statistics.median(getattr(one, name) for one in found) for name in ("first_paint_s", "loaded_s", "processor_s")
    )
    print(f"first seen after {first:.2f} s, loaded after {loaded:.2f} s, main thread {main_thread:.2f} s, medians of")
    print(f"{len(found)}; {found[0].nodes} nodes. Limits: {MOST_BYTES / 1e6:g} MB, {MOST_SECONDS:g} s")
    return int(len(page) > MOST_BYTES or loaded > MOST_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
