"""Suite: which differences of a suite's cases count, when fifty of them each have their chance to alarm."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trt.latency.compared import Compared, Rule

__all__ = ["Suite", "rejected"]


def rejected(p_values: list[float], fdr: float, size: int) -> int:
    """How many of the smallest p values Benjamini and Hochberg reject; those of ``size`` that are not there are 1.

    Args:
        p_values: in any order, of one side.
        fdr: false discovery rate.
        size: cases of the suite.
    """
    held = [rank for rank, p in enumerate(sorted(p_values), 1) if p <= fdr * rank / size]
    return held[-1] if held else 0


@dataclass
class Suite:
    """Benjamini and Hochberg's procedure while the suite still runs.

    A case that was not seen yet counts as p = 1. What is rejected early stays so, since more cases can only reject
    more; ``finish`` tells those that the whole suite rejects and their own turn did not.

    Attributes:
        rule: false discovery rate, one case's level, and the number of cases.
    """

    rule: Rule
    _seen: dict[str, Compared] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def add(self, case: str, compared: Compared) -> bool:
        """Whether the case's difference counts, by all that were seen so far.

        A case that comes again (a rerun) replaces what it was.
        """
        self._seen[case] = compared
        counts = self._counts(case)
        (self._told.add if counts else self._told.discard)(case)
        return counts

    def finish(self) -> dict[str, Compared]:
        """Cases that count now that all were seen, and did not when they came."""
        return {case: seen for case, seen in self._seen.items() if case not in self._told and self._counts(case)}

    def _counts(self, case: str) -> bool:
        compared = self._seen[case]
        if compared.reasons or not compared.beyond:
            return False
        return compared.p <= min(self.rule.alpha, self._limit(slow=compared.ratio > 1))

    def _limit(self, *, slow: bool) -> float:
        values = [seen.p_slow if slow else seen.p_fast for seen in self._seen.values() if not seen.reasons]
        size = max(self.rule.cases, len(self._seen))
        return self.rule.fdr * rejected(values, self.rule.fdr, size) / size
