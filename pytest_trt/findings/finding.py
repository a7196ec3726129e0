"""Finding: why something drifts - a stable code, one sentence with numbers, the evidence, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Finding", "Severity"]


class Severity(Enum):
    """What a finding does: an error fails the case, a warning is told, a note explains."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One cause, or one sign of a cause.

    Attributes:
        code: stable, TRT and three digits; its first digit is the family.
        severity: what it does to the verdict.
        message: one sentence that says what was found, where and with which numbers.
        remedy: one sentence that says how to mend it.
        evidence: the same as plain data; "tensor", "layer" or "output" name the place where there is one.
    """

    code: str
    severity: Severity
    message: str
    remedy: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
