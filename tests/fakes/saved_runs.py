"""Files as pytest-benchmark saves them, by hand."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

FIRST = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def table(case: str | None = "net", **words: Any) -> dict[str, Any]:
    """What the plugin writes to a benchmark's extra_info."""
    metric = {"clock": "cuda_event", "graph": True, "spin": True, "transfers": False, "inferences": 1, "batch": 1}
    machine = {"key": "0123456789abcdef", "soft": {"TensorRT": "10.3"}}
    made = {
        "schema": 1,
        "case": case,
        "precision": "int8",
        "backend": "tensorrt",
        "state": "recorded",
        "verdict": "passed",
    }
    return {**made, "metric": metric, "machine": machine, **words}


def benchmark(p50_s: float, told: dict[str, Any] | None) -> dict[str, Any]:
    """A benchmark of a file, with what readers look at."""
    stats = {"median": p50_s, "rounds": 200}
    extra = {} if told is None else {"trt": told}
    return {"fullname": "trt.toml::net[int8]", "extra_info": extra, "stats": stats}


def save(folder: Path, number: int, *benchmarks: dict[str, Any], when: datetime | None = None) -> Path:
    """Save a run as the storage names it, a day after the one before."""
    path = folder / "Linux-CPython-3.11-64bit" / f"{number:04}_main.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    day = when or FIRST + timedelta(days=number)
    path.write_text(json.dumps({"datetime": day.isoformat(), "benchmarks": list(benchmarks), "version": "5.3.1"}))
    return path


def save_all(folder: Path, values: list[float], **words: Any) -> None:
    """A run a value, from 1 on."""
    for number, value in enumerate(values, 1):
        save(folder, number, benchmark(value, table(**words)))
