"""Symptom: one thing that a check found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ALWAYS", "STATES", "Symptom", "broken_of", "counting"]

ALWAYS = "pytest-trt"
"""What everything needs: its name among the things that a symptom is of matter for."""

STATES = ("good", "absent", "doubt", "broken")
"""good; not there, and needed by some only; works and may be wrong; does not work."""


@dataclass(frozen=True)
class Symptom:
    """What was found.

    Attributes:
        about: the part of the machine, one word: python, packages, driver, gpu, tensorrt, onnxruntime, torch.
        state: one of :data:`STATES`.
        said: what was found, a sentence or a fact.
        remedy: what to do; empty where nothing is to be done.
        needed_by: the backends that it matters for, or :data:`ALWAYS`.
    """

    about: str
    state: str
    said: str
    remedy: str = ""
    needed_by: tuple[str, ...] = ()

    @property
    def bad(self) -> bool:
        """Whether what needs it can't work."""
        return self.state in ("absent", "broken")


def counting(symptoms: Iterable[Symptom], asked: Iterable[str]) -> list[Symptom]:
    """Those that keep what was asked for from working."""
    wanted = {ALWAYS, *asked}
    return [symptom for symptom in symptoms if symptom.bad and wanted.intersection(symptom.needed_by)]


def broken_of(symptoms: Iterable[Symptom], backend: str) -> list[Symptom]:
    """Those that keep one backend from working."""
    return counting(symptoms, (backend,))
