"""Machine: what a latency belongs to - GPU, processor, releases - told so that two can be compared or kept apart."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import socket
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.cuda import multiprocessors, open_gpu, pci_bus_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

__all__ = ["Machine", "Nvml", "differences", "machine_of", "open_nvml", "processor", "processor_load", "usable_cpus"]


@dataclass(frozen=True, eq=False)
class Nvml:
    """One GPU as NVML knows it; with MIG the whole GPU, which alone has clocks.

    Attributes:
        module: pynvml.
        handle: of the GPU.
    """

    module: ModuleType
    handle: Any

    def ask(self, *names: str, of: tuple[Any, ...] = ()) -> Any:
        """The answer of the first of these functions that this release has; None where it is not supported or allowed.

        Args:
            names: of ``nvmlDevice...`` functions, newest first.
            of: arguments after the handle.
        """
        return self._answer(names, (self.handle, *of))

    def ask_system(self, name: str) -> Any:
        """The answer of a ``nvmlSystem...`` function."""
        return self._answer((name,), ())

    def constant(self, name: str) -> Any:
        """A number of pynvml by its name; None where this release has it not."""
        return getattr(self.module, name, None)

    def _answer(self, names: tuple[str, ...], arguments: tuple[Any, ...]) -> Any:
        for name in names:
            function = getattr(self.module, name, None)
            if function is None or None in arguments:
                continue
            try:
                return function(*arguments)
            except self.module.NVMLError:  # not supported, no permission, not in this driver
                continue
        return None


def open_nvml(bus_id: str) -> Nvml | str:
    """NVML for the GPU at this PCI bus id, or a sentence that says why it can't be asked.

    Indices are no help: NVML counts otherwise than CUDA, and knows nothing of CUDA_VISIBLE_DEVICES.
    """
    try:
        import pynvml
    except ImportError as error:
        return (
            f"nvidia-ml-py can't be imported ({error}), so nothing is known of clocks, power and who else uses the GPU:"
            ' pip install "pytest-trt[latency]".'
        )
    try:
        pynvml.nvmlInit()
        return Nvml(pynvml, pynvml.nvmlDeviceGetHandleByPciBusId(bus_id))
    except pynvml.NVMLError as error:
        return f"NVML does not tell of the GPU at {bus_id} ({error}): nothing is known of its clocks, power and users."


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


_VIRTUAL = {0: "none", 1: "passthrough", 2: "vGPU", 3: "vGPU host", 4: "vSGA host"}
_SM, _MEMORY = 1, 2  # NVML's clocks

_WORDS = {
    "kind": "what runs it",
    "gpu": "GPU",
    "compute_capability": "compute capability",
    "multiprocessors": "number of multiprocessors",
    "mig": "MIG profile",
    "virtual": "virtualisation",
    "power_limit_w": "power limit (W)",
    "ecc": "ECC",
    "cuda_driver": "CUDA of the driver",
    "cuda_runtime": "CUDA runtime",
    "pcie": "PCIe",
    "application_clock_mhz": "applications clock (MHz)",
    "cpus": "number of CPUs",
    "usable_cpus": "number of usable CPUs",
    "cpu_quota": "CPU quota",
}


@dataclass(frozen=True)
class Machine:
    """What a latency belongs to; values are plain.

    Attributes:
        hard: what must be the same for two latencies to be compared.
        soft: what may explain a difference.
        record: what is only kept.
        notes: what could not be found out, a sentence each.
    """

    hard: Mapping[str, Any]
    soft: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The first 16 hex digits of the SHA-256 over the canonical JSON of ``hard``."""
        canonical = json.dumps(dict(self.hard), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def machine_of(device: int | None) -> Machine:
    """This machine, for what runs on one of its GPUs or on its CPU.

    Args:
        device: the GPU among those that CUDA sees; None for the CPU.

    Raises:
        BackendError: there is no such GPU, or CUDA can't be asked.
    """
    soft = _answered({"pytest_trt": _own_version(), "system": f"{platform.system()} {platform.release()}"})
    record = {"host": socket.gethostname()}
    if device is None:
        return Machine({"kind": "cpu", **processor()}, soft, record)
    return _of_gpu(device, {**soft, **processor()}, record)


def differences(a: Mapping[str, Any] | Machine, b: Mapping[str, Any] | Machine) -> tuple[list[str], list[str]]:
    """What differs from ``a`` to ``b``: sentences of what forbids to compare, and of what may explain a difference.

    Args:
        a: a machine, or a mapping with its ``hard`` and ``soft``.
        b: the other.
    """
    first, second = _parts(a), _parts(b)
    return _differing(first[0], second[0]), _differing(first[1], second[1])


def _parts(machine: Mapping[str, Any] | Machine) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    if isinstance(machine, Machine):
        return machine.hard, machine.soft
    return machine.get("hard", {}), machine.get("soft", {})


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    return [f"{_WORDS.get(key, key)}: {_told(a.get(key))}, now {_told(b.get(key))}" for key in keys]


def _told(value: Any) -> str:
    return "not known" if value is None else str(value)


def _of_gpu(device: int, soft: dict[str, Any], record: dict[str, Any]) -> Machine:
    gpu, bus_id = open_gpu(device), pci_bus_id(device)
    hard = {
        "kind": "gpu",
        "gpu": gpu.name,
        "compute_capability": ".".join(map(str, gpu.compute_capability)),
        "multiprocessors": multiprocessors(device),
    }
    soft |= {"cuda_driver": gpu.driver, "cuda_runtime": gpu.runtime}
    record |= {"pci_bus_id": bus_id}
    nvml = open_nvml(bus_id)
    if isinstance(nvml, str):
        return Machine(hard, soft, record, (nvml,))
    return Machine(
        {**hard, **_answered(_hard(nvml, gpu.name))},
        {**soft, **_answered(_soft(nvml))},
        {**record, **_answered(_record(nvml))},
    )


def _own_version() -> str | None:
    try:
        return version("pytest-trt")
    except PackageNotFoundError:  # run from a folder, not installed
        return None


def _answered(told: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in told.items() if value is not None}


def _hard(nvml: Nvml, name: str) -> dict[str, Any]:
    limit, ecc, mig = (
        nvml.ask(f"nvmlDeviceGet{what}") for what in ("EnforcedPowerLimit", "EccMode", "MigMode")
    )  # milliwatts; current and pending; current and pending
    virtual = nvml.ask("nvmlDeviceGetVirtualizationMode")
    slices = re.search(r"\bMIG (\S+)", name)
    return {
        "power_limit_w": None if limit is None else round(limit / 1000),
        "ecc": None if ecc is None else bool(ecc[0]),
        "mig": slices.group(1) if slices else None if mig is None else "on" if mig[0] else "off",
        "virtual": None if virtual is None else _VIRTUAL.get(virtual, str(virtual)),
    }


def _soft(nvml: Nvml) -> dict[str, Any]:
    generation = nvml.ask("nvmlDeviceGetMaxPcieLinkGeneration")
    width = nvml.ask("nvmlDeviceGetCurrPcieLinkWidth")
    return {
        "driver": _text(nvml.ask_system("nvmlSystemGetDriverVersion")),
        "vbios": _text(nvml.ask("nvmlDeviceGetVbiosVersion")),
        "max_sm_mhz": nvml.ask("nvmlDeviceGetMaxClockInfo", of=(_SM,)),
        "max_memory_mhz": nvml.ask("nvmlDeviceGetMaxClockInfo", of=(_MEMORY,)),
        "application_clock_mhz": nvml.ask("nvmlDeviceGetApplicationsClock", of=(_SM,)),
        "pcie": None if generation is None or width is None else f"{generation}.0 x{width}",
    }


def _record(nvml: Nvml) -> dict[str, Any]:
    persistence = nvml.ask("nvmlDeviceGetPersistenceMode")
    return {
        "uuid": _text(nvml.ask("nvmlDeviceGetUUID")),
        "serial": _text(nvml.ask("nvmlDeviceGetSerial")),
        "persistence": None if persistence is None else bool(persistence),
    }


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
