"""Machine: what a latency belongs to, told so that two of them can be compared or kept apart."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import socket
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from pytest_trt.latency.nvml import open_nvml
from pytest_trt.latency.processor import processor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_trt.latency.nvml import Nvml

__all__ = ["Machine", "differences", "machine_of"]

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
    from pytest_trt.backends.cuda import multiprocessors, open_gpu, pci_bus_id

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
