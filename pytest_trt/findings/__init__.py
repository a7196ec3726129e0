"""Findings: rules with stable codes, each a pure function of evidence; one module a family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.findings import calibration
from pytest_trt.findings.evidence import Evidence
from pytest_trt.findings.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["RULES", "Evidence", "Finding", "Rule", "Severity", "diagnose"]

Rule = "Callable[[Evidence], Iterable[Finding]]"

RULES: tuple[Callable[[Evidence], Iterable[Finding]], ...] = (*calibration.RULES,)
"""All rules, those that name a cause before those that name a sign of one: the first finding is the reason."""


def diagnose(evidence: Evidence) -> tuple[Finding, ...]:
    """What all rules find, in their order."""
    return tuple(finding for rule in RULES for finding in rule(evidence))
