"""What the doctor found, and what probes of a healthy machine answer it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.doctor.platform import Symptom


TORCH = {"version": "2.13.0", "cuda": "13.0", "usable": True, "architectures": ["sm_80", "sm_90"], "capability": [9, 0]}
TRT = {"version": "11.4.0", "file": "/venv/tensorrt/__init__.py", "weak": False, "strong": True, "dla": 0}
ORT = {"version": "1.31.1", "available": ["CPUExecutionProvider"], "loaded": ["CPUExecutionProvider"]}
WINDOWS: dict[str, Any] = {"system": "Windows", "machine": "AMD64", "site": (r"C:\venv\Lib\site-packages",)}


def only(found: Iterator[Symptom], state: str) -> Symptom:
    """The one symptom of this state."""
    [symptom] = [one for one in found if one.state == state]
    return symptom


def states(found: Iterator[Symptom]) -> list[str]:
    return [one.state for one in found]
