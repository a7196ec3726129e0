"""Specimen: one deployment of a network, defective or healthy, and what must be said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.foreign.draws import Foreign

if TYPE_CHECKING:
    from pytest_trt.case.case import Case

__all__ = ["NoPlace", "Plant", "Planted", "Refused", "Specimen"]


class NoPlace(Exception):
    """The network has nothing that this could be done to."""


class Refused(Exception):
    """It could not be made, and the message says why: another tool failed, or is not there."""


@dataclass(frozen=True)
class Planted:
    """A deployment in its folder.

    Attributes:
        case: what is judged.
        tensors: any of these names the place of the defect; none where it has no place.
        own_golden: the golden is of this very file and must be made first: nobody knows the healthy one.
    """

    case: Case
    tensors: frozenset[str] = frozenset()
    own_golden: bool = False


Plant = Callable[[Foreign, Path], Planted]
"""Writes what the deployment needs into an empty folder."""


@dataclass(frozen=True)
class Specimen:
    """One deployment.

    Attributes:
        name: of the defect, or of the healthy twin.
        precision: that is asked.
        plant: makes the case. It raises NoPlace where the network has no place for it.
        expected: codes that may come first; none for a healthy twin.
        warns: that it is found where it is said, also where the case passes.
    """

    name: str
    precision: str
    plant: Plant
    expected: frozenset[str] = frozenset()
    warns: bool = False
