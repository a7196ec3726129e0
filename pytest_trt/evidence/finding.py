"""Finding: why something drifts: a stable code, one sentence with numbers, the evidence, and how to mend it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import SpecError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["CODES", "Choice", "Finding", "Scrutiny", "Severity", "read_codes"]

CODES: Mapping[str, str] = {
    "TRT101": "uncalibrated",
    "TRT102": "placeholder ranges",
    "TRT103": "partial coverage",
    "TRT104": "stale calibration",
    "TRT105": "saturation",
    "TRT106": "range too wide",
    "TRT107": "local SQNR",
    "TRT108": "calibration data unlike the golden inputs",
    "TRT109": "refused by TensorRT's parser",
    "TRT110": "weights differ",
    "TRT201": "precision not honoured",
    "TRT202": "overflow",
    "TRT203": "fp16 subnormal weights",
    "TRT204": "TF32 in an fp32 engine",
    "TRT205": "simulated, not measured",
    "TRT206": "little at the precision",
    "TRT301": "NaN or infinity",
    "TRT302": "outside tolerance",
    "TRT303": "top-1 flips",
    "TRT304": "bias",
    "TRT305": "constant output",
    "TRT306": "concentrated error",
    "TRT307": "weak bound",
    "TRT401": "rerun differs",
    "TRT402": "reload differs",
    "TRT403": "rebuild outside tolerance",
    "TRT404": "plan of another GPU or release",
    "TRT501": "golden missing",
    "TRT502": "golden stale",
    "TRT503": "golden damaged",
    "TRT504": "golden of other shapes or dtypes",
    "TRT505": "golden without evidence",
    "TRT506": "PyTorch and ONNX disagree",
    "TRT507": "golden of an older release",
    "TRT601": "slower than the baseline",
    "TRT602": "latency can't be told",
    "TRT603": "no baseline of the latency",
    "TRT604": "baseline not comparable",
    "TRT605": "over a latency budget",
    "TRT606": "faster than the baseline",
}
"""Every code with its name; a code never changes its meaning."""

_FAMILY = re.compile(r"TRT\d{1,2}")


def read_codes(text: str) -> tuple[str, ...]:
    """The codes and families (``TRT1``, ``TRT1xx``) of a comma list, families as their first letters and digits.

    Raises:
        SpecError: one is not known, or there is none; names the nearest.
    """
    words = [word.strip() for word in text.split(",")]
    if not any(words):
        raise SpecError("the list of codes is empty: write TRT105, or TRT1 for a family")
    return tuple(dict.fromkeys(_known(word) for word in words))


@dataclass(frozen=True)
class Choice:
    """Which findings count.

    Attributes:
        select: codes or families that do; all if there are none.
        ignore: codes or families that do not, though they are selected.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def takes(self, code: str) -> bool:
        """Whether findings of this code count."""
        selected = not self.select or code.startswith(self.select)
        return selected and not (self.ignore and code.startswith(self.ignore))

    def split(self, findings: Iterable[Finding]) -> tuple[tuple[Finding, ...], dict[str, int]]:
        """The findings that count, and of those that do not how many of each code."""
        found = tuple(findings)
        left = Counter(finding.code for finding in found if not self.takes(finding.code))
        return tuple(finding for finding in found if self.takes(finding.code)), dict(sorted(left.items()))


def _known(word: str) -> str:
    told = word.upper().rstrip("X")
    if told in CODES or (_FAMILY.fullmatch(told) and any(code.startswith(told) for code in CODES)):
        return told
    raise unknown("finding", word, [*CODES, *sorted({code[:4] for code in CODES})])


@dataclass(frozen=True)
class Scrutiny:
    """How closely a case is looked at.

    Attributes:
        choice: which findings count.
        localise: whether to look for the tensors that the error comes from, also where the case passed.
        rebuilds: how many times an engine is built again, to be judged as the first.
    """

    choice: Choice = field(default_factory=Choice)
    localise: bool = False
    rebuilds: int = 0


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
