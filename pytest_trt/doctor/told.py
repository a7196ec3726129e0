"""Told: what a process of its own answered, and in plain words how it ended if it did not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_trt.doctor.platform import Platform, Ran

__all__ = ["MARK", "answer", "ended"]

MARK = "pytest-trt-doctor:"
"""What a probe writes before its JSON, so that whatever an import prints is told apart."""

_SIGNALS = {
    4: "an illegal instruction",
    6: "an abort",
    7: "a bus error",
    8: "a division by zero",
    11: "a segmentation fault",
}
_WINDOWS = {
    0xC0000005: "an access violation",
    0xC000001D: "an illegal instruction",
    0xC0000135: "a DLL that is missing",
    0xC0000139: "a DLL of another version (entry point not found)",
    0xC0000409: "a stack overrun",
}


def answer(platform: Platform, code: str) -> tuple[dict[str, Any] | None, str]:
    """The JSON that a probe printed behind :data:`MARK`, and else why there is none."""
    ran = platform.says(code)
    for line in reversed(ran.out.splitlines()):
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return found, ""
    return None, ended(ran)


def ended(ran: Ran) -> str:
    """How a process ended that did not succeed: its crash, or the last line that it wrote."""
    if ran.code is None:
        return ran.err
    if ran.code & 0xFFFFFFFF in _WINDOWS:
        return f"it ended the process by {_WINDOWS[ran.code & 0xFFFFFFFF]}"
    if ran.code < 0:
        return f"it ended the process by {_SIGNALS.get(-ran.code, f'signal {-ran.code}')}"
    lines = [line.strip() for line in ran.err.splitlines() if line.strip()]
    return lines[-1] if lines else f"it ended with exit code {ran.code}"
