"""Tolerance: which bound applies to an output, and whether a Comparison is inside it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import CaseError, unknown

if TYPE_CHECKING:
    from pytest_trt.comparison.comparison import Comparison

__all__ = [
    "SLACK",
    "WEAK_BOUNDS",
    "Tolerance",
    "allowance",
    "bounded",
    "floor",
    "known_weak_bounds",
    "rank_violations",
    "toml_key",
    "violations",
]

WEAK_BOUNDS = ("warn", "fail")
"""What a bound does that says little about the output that is inside it."""

SLACK = 2.5
"""How far a correct engine may be beyond the simulated error: measured engines are within 2 (docs/tolerance.md)."""

_LEAST_FLOOR = 1e-5  # what fp32 differs by beyond that is measured (docs/tolerance.md)
_TIES = 0.01  # share of class ids or flags that a reduced precision may change by near ties


_SHARES = ("mismatch", "outliers", "cosine", "top1", "top5", "top1_all", "accuracy_drop")


@dataclass(frozen=True)
class Tolerance:
    """Limits on one output (or, in a case, on all): what is None is not asked.

    Attributes:
        rel_rms: largest relative RMS error, ||actual - golden|| / ||golden||.
        mismatch: largest share of elements that are not equal; for integer and boolean outputs.
        max_abs: largest absolute difference, in the output's unit.
        atol, rtol: every element within atol + rtol x |golden|, but for a share of ``outliers``.
        outliers: share of elements that may be beyond atol and rtol; 0 if not given.
        cosine: least cosine. sqnr_db: least signal to quantization noise ratio, dB.
        top1, top5: least share of samples that keep their best class (first, among five); of sequences (N, T, C), of
            positions.
        top1_all: least share of sequences that keep their best class at every position.
        accuracy_drop: largest loss of accuracy on the golden's labels, as a share of samples.
        outputs: limits for single outputs, by name, which replace these one by one.
    """

    rel_rms: float | None = None
    mismatch: float | None = None
    max_abs: float | None = None
    atol: float | None = None
    rtol: float | None = None
    outliers: float | None = None
    cosine: float | None = None
    sqnr_db: float | None = None
    top1: float | None = None
    top5: float | None = None
    top1_all: float | None = None
    accuracy_drop: float | None = None
    outputs: Mapping[str, Tolerance] = field(default_factory=dict)

    @classmethod
    def from_table(cls, table: Any, where: str) -> Tolerance:
        """Read a TOML table or a marker's dict.

        Raises:
            SpecError: a key is not known.
            CaseError: a limit is not a finite number, or is negative.
        """
        if not isinstance(table, Mapping):
            raise CaseError(f"{where} must be a table of limits, like {{ rel_rms = 0.05 }}, not {table!r}.")
        known = [f.name for f in fields(cls)]
        for key in table:
            if key not in known:
                raise unknown(f"limit in {where}:", key, known)
        limits = {key: _limit(key, value, f"{where}.{key}") for key, value in table.items() if key != "outputs"}
        outputs = table.get("outputs", {})
        if not isinstance(outputs, Mapping):
            raise CaseError(f"{where}.outputs = {outputs!r} must hold a table an output.")
        inner = {str(name): cls.from_table(value, f"{where}.outputs.{name}") for name, value in outputs.items()}
        return cls(**limits, outputs=inner)

    def of(self, output: str, *, whole: bool) -> Tolerance:
        """The limits of one output: the common ones that suit its kind, replaced by its own.

        Args:
            output: its name.
            whole: whether it is integer or boolean; limits on relative size are not of such outputs, nor is
                the share of unequal elements of floats, unless they are the output's own.
        """
        if whole:
            common = replace(self, outputs={}, rel_rms=None, cosine=None, sqnr_db=None)
        else:
            common = replace(self, outputs={}, mismatch=None)
        own = self.outputs.get(output)
        if own is None:
            return common
        given = {f.name: getattr(own, f.name) for f in fields(own) if getattr(own, f.name) not in (None, {})}
        return replace(common, **given)

    @property
    def overrides_envelope(self) -> bool:
        """Whether a limit here says how large the error may be, so that the envelope is not asked."""
        sizes = (self.rel_rms, self.mismatch, self.max_abs, self.atol, self.rtol, self.cosine, self.sqnr_db)
        return any(limit is not None for limit in sizes)


def known_weak_bounds(word: str) -> str:
    """What weak bounds do.

    Raises:
        SpecError: the word is not known.
    """
    if word not in WEAK_BOUNDS:
        raise unknown("word for weak bounds", word, WEAK_BOUNDS)
    return word


def floor(unit_roundoff: float, *, whole: bool, count: int = 100) -> float:
    """What is allowed on top of the simulated error.

    A correct engine may round the output once more than the simulation did, which is at most one unit
    roundoff, and fp32 itself differs between implementations. Whole numbers are exact in fp32; at a reduced
    precision a near tie may change one of them, or one in a hundred.

    Args:
        unit_roundoff: of the precision.
        whole: whether the output is integer or boolean.
        count: its number of elements, if it is.
    """
    if not whole:
        return max(_LEAST_FLOOR, unit_roundoff)
    return max(_TIES, min(1 / max(count, 1), 0.25)) if unit_roundoff > 1e-6 else 0.0


def bounded(tolerance: Tolerance, envelope: float | None, *, whole: bool) -> Tolerance:
    """The limits with the envelope's bound filled in, where the user set none of the size of the error."""
    if tolerance.overrides_envelope or envelope is None:
        return tolerance
    return replace(tolerance, mismatch=envelope) if whole else replace(tolerance, rel_rms=envelope)


def toml_key(name: str) -> str:
    """An output's name as TOML takes it for a key."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def allowance(tolerance: Tolerance, rms: float) -> tuple[float, float]:
    """(atol, rtol) of one element, to count and list those beyond.

    Where only the relative RMS is bounded, the largest uniform error inside it: bound x RMS of the golden.
    """
    if tolerance.atol is not None or tolerance.rtol is not None:
        return tolerance.atol or 0.0, tolerance.rtol or 0.0
    if tolerance.max_abs is not None:
        return tolerance.max_abs, 0.0
    return (tolerance.rel_rms or 0.0) * rms, 0.0


def violations(comparison: Comparison, tolerance: Tolerance) -> list[str]:
    """Why the comparison is outside but for its ranking, a sentence each; none when it is inside.

    NaN is outside of everything: each limit is tested as "not inside".
    """
    found = [] if comparison.count else ["no element was compared: the output is empty"]
    if comparison.mismatched:
        found.append(f"{comparison.mismatched} element(s) are NaN or infinite where the other side is not")
    found += [_over(*limit) for limit in _upper(comparison, tolerance) if not limit[1] <= limit[2]]
    found += [_under(*limit) for limit in _lower(comparison, tolerance) if not limit[1] >= limit[2]]
    return found


def rank_violations(comparison: Comparison, tolerance: Tolerance) -> list[str]:
    """Why too many best classes changed, a sentence each; none where no limit asks, or all are inside."""
    found = comparison.ranking
    checks = [
        ("top-1 agreement", found.top1 if found else math.nan, tolerance.top1),
        ("top-5 agreement", found.top5 if found else math.nan, tolerance.top5),
        ("share of sequences that keep every best class", _sequences(comparison), tolerance.top1_all),
    ]
    return [_under(label, value, limit) for label, value, limit in checks if limit is not None and not value >= limit]


def _upper(c: Comparison, t: Tolerance) -> list[tuple[str, float, float]]:
    elementwise = t.atol is not None or t.rtol is not None
    count = max(c.count, 1)
    checks = [
        ("relative RMS", c.rel_rms, t.rel_rms),
        ("share of unequal elements", c.different / count, t.mismatch),
        ("largest difference", c.max_abs.difference if c.max_abs else math.nan, t.max_abs),
        ("share beyond atol and rtol", (c.beyond or 0) / count, (t.outliers or 0.0) if elementwise else None),
    ]
    return [(label, value, limit) for label, value, limit in checks if limit is not None]


def _lower(c: Comparison, t: Tolerance) -> list[tuple[str, float, float]]:
    checks = [
        ("cosine", c.cosine, t.cosine),
        ("SQNR in dB", c.sqnr_db, t.sqnr_db),
    ]
    return [(label, value, limit) for label, value, limit in checks if limit is not None]


def _sequences(c: Comparison) -> float:
    return math.nan if c.ranking is None or c.ranking.top1_all is None else c.ranking.top1_all


def _over(label: str, value: float, limit: float) -> str:
    times = f" ({value / limit:.3g} times)" if limit > 0 and math.isfinite(value) else ""
    return f"{label} {value:.3g} is over the bound {limit:.3g}{times}"


def _under(label: str, value: float, limit: float) -> str:
    return f"{label} {value:.6g} is under the bound {limit:.6g}"


def _limit(key: str, value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise CaseError(f"{where} = {value!r} is no limit: write a finite number that is not negative.")
    if key in _SHARES and value > 1:
        raise CaseError(f"{where} = {value!r} is no share: write a number from 0 to 1, like 0.98 for 98 %.")
    return float(value)
