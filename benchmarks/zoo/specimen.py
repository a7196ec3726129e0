"""Specimen: one deployment of the zoo, defective or healthy, and how it is planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.zoo.network import Network
from pytest_trt.case.case import Case

__all__ = ["Plant", "Specimen"]

Plant = Callable[[Network, Path], Case]
"""Writes what the deployment needs into an empty folder, and says what is checked."""


@dataclass(frozen=True)
class Specimen:
    """One deployment.

    Attributes:
        name: of the defect, or of the healthy twin.
        network: on which.
        precision: that is asked.
        plant: makes the case.
        expected: codes that may come first; none for a healthy twin. Several, where several say the same defect.
        threads: cores that it may run on; all, if not given.
    """

    name: str
    network: str
    precision: str
    plant: Plant
    expected: frozenset[str] = frozenset()
    threads: int | None = None

    @property
    def healthy(self) -> bool:
        """Whether the gate must let it pass."""
        return not self.expected
