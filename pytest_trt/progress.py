"""Progress: what a long build is at, on the last line of pytest's terminal, where one is watched."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

__all__ = ["progress_of"]

_SECONDS_BETWEEN = 0.2


def progress_of(config: pytest.Config) -> Callable[[str, float | None], None] | None:
    """What to tell the progress to: None where the output is no terminal, is quiet, or belongs to another process."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    watched = reporter is not None and getattr(reporter, "isatty", False) and config.option.verbose >= 0
    if not watched or hasattr(config, "workerinput"):
        return None
    return _line_writer(reporter, config.pluginmanager.get_plugin("capturemanager"))


def _line_writer(reporter: Any, capture: Any) -> Callable[[str, float | None], None]:
    lock = threading.Lock()
    last = 0.0

    def write(text: str) -> None:
        if capture is None:
            reporter.rewrite(text, erase=True)
            return
        with capture.global_and_fixture_disabled():
            reporter.rewrite(text, erase=True)

    def tell(phase: str, share: float | None) -> None:
        # the builder tells from threads of its own, and more often than anybody reads
        nonlocal last
        with lock:
            if phase and time.monotonic() - last < _SECONDS_BETWEEN:
                return
            last = time.monotonic()
            done = "" if share is None else f" {100 * share:.0f} %"
            write(f"{phase}{done}" if phase else "")

    return tell
