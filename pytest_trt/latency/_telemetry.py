"""Telemetry: the state of a machine at one moment, and what came between two, which spoils a latency.

Counters are read before and after, and nothing while the clock runs: asking a GPU makes it slower.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.cuda import pci_bus_id
from pytest_trt.latency._machine import open_nvml, processor_load, usable_cpus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_trt.latency._machine import Nvml

__all__ = ["Telemetry", "disturbances", "telemetry_of"]

_IDLE = 0x1
_REASONS = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}  # of NVML's event reasons those that slow down: 0xEC
_COUNTERS = {
    74: "power cap",
    75: "thermal slowdown",
    269: "software thermal slowdown",
    270: "hardware thermal slowdown",
    271: "power brake",
}  # fields of NVML, nanoseconds
_POLICIES = {0: "power cap", 1: "thermal slowdown"}  # of nvmlDeviceGetViolationStatus, nanoseconds
_SM, _MEMORY = 1, 2
_UNION = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by NVML's value type
_SLOW_CLOCK = 0.75
_OTHERS = 0.25


@dataclass(frozen=True)
class Telemetry:
    """What was told at one moment; values are plain, and what is not told is absent.

    Attributes:
        values: of a GPU: sm_mhz, memory_mhz, max_sm_mhz, temperature_c, power_w, pstate, reasons (a bit mask),
            throttled_ns by its reason, other_processes (how many), free_bytes. Of a CPU: see
            :func:`~pytest_trt.latency._machine.processor_load`.
        notes: what could not be found out, a sentence each.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def telemetry_of(device: int | None) -> Telemetry:
    """The state of a GPU, or of the CPU where ``device`` is None, now.

    Raises:
        BackendError: there is no such GPU.
    """
    if device is None:
        return Telemetry(processor_load())
    nvml = open_nvml(pci_bus_id(device))
    return Telemetry({}, (nvml,)) if isinstance(nvml, str) else Telemetry(_told(nvml))


def disturbances(before: Telemetry, after: Telemetry, expected_mhz: float | None = None) -> tuple[str, ...]:
    """What came between, a sentence each: with any of it, a difference in latency proves nothing.

    Args:
        before: the state before the first sample.
        after: right after the last.
        expected_mhz: of the multiprocessors; their highest clock where it is None. A GPU whose clocks are locked
            lower, deliberately, needs it.
    """
    return (
        *_throttled(before.values, after.values),
        *_reasons(before.values, after.values),
        *_slow_clock(after.values, expected_mhz),
        *_shared(before.values, after.values),
        *_busy_host(before.values, after.values),
    )


def _told(nvml: Nvml) -> dict[str, Any]:
    power = nvml.ask("nvmlDeviceGetPowerUsage")
    memory = nvml.ask("nvmlDeviceGetMemoryInfo")
    told = {
        "reasons": nvml.ask("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"),
        "sm_mhz": nvml.ask("nvmlDeviceGetClockInfo", of=(_SM,)),
        "memory_mhz": nvml.ask("nvmlDeviceGetClockInfo", of=(_MEMORY,)),
        "max_sm_mhz": nvml.ask("nvmlDeviceGetMaxClockInfo", of=(_SM,)),
        "temperature_c": nvml.ask("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature", of=(0,)),
        "power_w": None if power is None else power / 1000,
        "pstate": nvml.ask("nvmlDeviceGetPerformanceState"),
        "throttled_ns": _counters(nvml) or _violations(nvml) or None,
        "other_processes": _other_processes(nvml),
        "free_bytes": None if memory is None else int(memory.free),
    }
    return {key: value for key, value in told.items() if value is not None}


def _counters(nvml: Nvml) -> dict[str, int]:
    found = {}
    for number, word in _COUNTERS.items():
        for value in nvml.ask("nvmlDeviceGetFieldValues", of=([number],)) or ():
            if value.nvmlReturn == 0 and value.valueType < len(_UNION):
                found[word] = int(getattr(value.value, _UNION[value.valueType]))
    return found


def _violations(nvml: Nvml) -> dict[str, int]:
    told = {word: nvml.ask("nvmlDeviceGetViolationStatus", of=(policy,)) for policy, word in _POLICIES.items()}
    return {word: int(found.violationTime) for word, found in told.items() if found is not None}


def _other_processes(nvml: Nvml) -> int | None:
    """How many; this process is known to have a context by now."""
    found = nvml.ask("nvmlDeviceGetComputeRunningProcesses")
    if found is None:
        return None
    # one is ours, be it by another number: in a container NVML may tell the host's
    return max(len({int(process.pid) for process in found}) - 1, 0)


def _throttled(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    first, last = before.get("throttled_ns", {}), after.get("throttled_ns", {})
    moved = {word: last[word] - first[word] for word in last if word in first and last[word] > first[word]}
    return [f"the GPU was throttled for {ns / 1e6:.1f} ms ({word})" for word, ns in moved.items()]


def _reasons(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    bits = before.get("reasons", 0) | after.get("reasons", 0)
    return [f"the GPU says that its clocks are held down by {word}" for bit, word in _REASONS.items() if bits & bit]


def _slow_clock(after: Mapping[str, Any], expected: float | None) -> list[str]:
    clock, expected = after.get("sm_mhz"), expected or after.get("max_sm_mhz")
    # an idle GPU lowers its clock, and that says nothing of a moment before
    if not clock or not expected or after.get("reasons", 0) & _IDLE or clock >= _SLOW_CLOCK * expected:
        return []
    return [f"the GPU's multiprocessors ran at {clock:.0f} MHz, of {expected:.0f} expected"]


def _shared(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    others = max(before.get("other_processes", 0), after.get("other_processes", 0))
    return [f"{others} other process(es) use the GPU"] if others else []


def _busy_host(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    found = []
    held = after.get("throttled_s", 0.0) - before.get("throttled_s", 0.0)
    if held > 0:
        found.append(f"the container's CPU quota held the process up for {held * 1e3:.0f} ms")
    if all(key in values for key in ("busy_s", "own_s", "clock_s") for values in (before, after)):
        busy, own, wall = (after[key] - before[key] for key in ("busy_s", "own_s", "clock_s"))
        share = (busy - own) / (wall * len(usable_cpus())) if wall > 0 else 0.0
        if share > _OTHERS:
            found.append(f"others took {share:.0%} of the CPUs")
    return found
