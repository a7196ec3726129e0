"""A fake ``pynvml``: what is not answered raises NVMLError, as everything may."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pynvml as real

ANSWERS: dict[str, Any] = {
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetEccMode": [1, 1],
    "nvmlDeviceGetMigMode": [0, 0],
    "nvmlDeviceGetVirtualizationMode": 1,
    "nvmlSystemGetDriverVersion": "580.82.07",
    "nvmlDeviceGetVbiosVersion": "96.00.A5.00.03",
    "nvmlDeviceGetMaxClockInfo": {1: 1980, 2: 3201},
    "nvmlDeviceGetClockInfo": {1: 1965, 2: 3201},
    "nvmlDeviceGetApplicationsClock": {1: 1980},
    "nvmlDeviceGetMaxPcieLinkGeneration": 5,
    "nvmlDeviceGetCurrPcieLinkWidth": 16,
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetUUID": "GPU-1234",
    "nvmlDeviceGetSerial": "42",
    "nvmlDeviceGetCurrentClocksEventReasons": 0x0,
    "nvmlDeviceGetTemperatureV": {0: 41},
    "nvmlDeviceGetPowerUsage": 312_500,
    "nvmlDeviceGetPerformanceState": 0,
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(free=100, total=200, used=100),
    "nvmlDeviceGetComputeRunningProcesses": [],
    "fields": {74: (3, 5_000_000), 75: (3, 0), 269: (3, 0), 270: (3, 0), 271: (3, 0)},
}
UNION = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")


class NVMLError(Exception):
    """Not supported, no permission, not found."""


def module(absent: tuple[str, ...] = (), bus_id: str = "0000:01:00.0", **answers: Any) -> ModuleType:
    """A module; ``answers`` go before those of ANSWERS, None for what is refused; ``absent`` names are not there."""
    told = ANSWERS | answers
    made = ModuleType("pynvml")
    made.NVMLError, made.asked = NVMLError, []  # type: ignore[attr-defined]
    functions = [name for name in dir(real) if name.startswith(("nvmlDeviceGet", "nvmlSystemGet", "nvmlInit"))]
    for name in functions:
        if name not in absent:
            setattr(made, name, _function(made, told, name))
    if "nvmlDeviceGetHandleByPciBusId" not in absent:
        made.nvmlDeviceGetHandleByPciBusId = _finder(bus_id)  # type: ignore[attr-defined]
    if "nvmlDeviceGetFieldValues" not in absent:
        made.nvmlDeviceGetFieldValues = lambda _, numbers: [_field(told["fields"], n) for n in numbers]  # type: ignore[attr-defined]
    return made


def _finder(bus_id: str) -> Any:
    def find(asked: str) -> str:
        if asked != bus_id:
            raise NVMLError("Not Found")
        return "handle"

    return find


def _function(made: Any, told: dict[str, Any], name: str) -> Any:
    def answer(*arguments: Any) -> Any:
        made.asked.append(name)
        if name == "nvmlInit":
            if told.get("nvmlInit", "") is None:
                raise NVMLError("Driver Not Loaded")
            return None
        found = told.get(name)
        if isinstance(found, dict):
            found = found.get(arguments[1])
        if found is None:
            raise NVMLError("Not Supported")
        return found

    return answer


def _field(fields: Any, number: int) -> Any:
    if fields is None:
        raise NVMLError("No Permission")
    if number not in fields:
        return SimpleNamespace(fieldId=number, nvmlReturn=3, valueType=0, value=SimpleNamespace())
    kind, value = fields[number]
    return SimpleNamespace(fieldId=number, nvmlReturn=0, valueType=kind, value=SimpleNamespace(**{UNION[kind]: value}))
