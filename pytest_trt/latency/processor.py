"""Processor: what the host's CPU is, and how much of it others take."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

__all__ = ["processor", "processor_load", "usable_cpus"]

_PROC, _CPUS, _CGROUP = Path("/proc"), Path("/sys/devices/system/cpu"), Path("/sys/fs/cgroup")


def usable_cpus() -> tuple[int, ...]:
    """The CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def processor() -> dict[str, Any]:
    """Model, CPUs, those that may be used, governor and quota; what is not told is left out."""
    first = usable_cpus()[0]
    quota = _read(_CGROUP / "cpu.max").split()
    told = {
        "processor": _line("model name") or platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "usable_cpus": len(usable_cpus()),
        "governor": _read(_CPUS / f"cpu{first}" / "cpufreq" / "scaling_governor"),
        "cpu_quota": round(int(quota[0]) / int(quota[1]), 3) if len(quota) == 2 and quota[0] != "max" else "",
    }
    return {key: value for key, value in told.items() if value}


def processor_load() -> dict[str, Any]:
    """Counters whose differences tell what happened between two moments, in seconds; what is not told is left out.

    busy_s: of the usable CPUs, whoever used them; own_s: of this process and of its children that ended;
    throttled_s: that a container's quota held it up; mhz: of the first CPU; load_1m: as uptime has it.
    """
    own = os.times()
    told = {
        "clock_s": time.monotonic(),
        "busy_s": _busy(),
        "own_s": own.user + own.system + own.children_user + own.children_system,
        "throttled_s": _throttled(),
        "mhz": _mhz(),
        "load_1m": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    return {key: value for key, value in told.items() if value is not None}


def _busy() -> float | None:
    """User, nice, system, interrupt and stolen time of /proc/stat; idle and waiting are left out."""
    mine = {f"cpu{number}" for number in usable_cpus()}
    rows = [line.split() for line in _read(_PROC / "stat").splitlines()]
    ticks = [sum(map(int, (*row[1:4], *row[6:9]))) for row in rows if row and row[0] in mine]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None


def _throttled() -> float | None:
    rows = dict(line.split() for line in _read(_CGROUP / "cpu.stat").splitlines())
    return int(rows["throttled_usec"]) / 1e6 if "throttled_usec" in rows else None


def _mhz() -> float | None:
    current = _read(_CPUS / f"cpu{usable_cpus()[0]}" / "cpufreq" / "scaling_cur_freq")
    if current.isdigit():
        return int(current) / 1000
    told = _line("cpu MHz")
    return float(told) if told else None


def _line(key: str) -> str:
    """The first value of a key in /proc/cpuinfo."""
    rows = (line.partition(":") for line in _read(_PROC / "cpuinfo").splitlines())
    return next((value.strip() for name, _, value in rows if name.strip() == key), "")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
