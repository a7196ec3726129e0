"""Findings: rules with stable codes, each a pure function of evidence; one module a family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.findings import calibration, golden, numerics, precision, reproducibility
from pytest_trt.findings.codes import CODES, Choice, read_codes
from pytest_trt.findings.evidence import Evidence
from pytest_trt.findings.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["CODES", "RULES", "Choice", "Evidence", "Finding", "Rule", "Severity", "diagnose", "read_codes"]

Rule = "Callable[[Evidence], Iterable[Finding]]"

RULES: tuple[Callable[[Evidence], Iterable[Finding]], ...] = (
    *calibration.RULES,
    *precision.RULES,
    *golden.RULES,
    *reproducibility.RULES,
    *numerics.RULES,
)
"""All rules, those that name a cause before those that name a sign of one: the first finding is the reason."""

_WEIGHT = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """What all rules find: errors first, then warnings, then notes, each in the order of the rules."""
    found = [finding for rule in RULES for finding in rule(evidence)]
    return tuple(sorted(found, key=lambda finding: _WEIGHT[finding.severity]))
