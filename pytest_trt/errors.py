"""Everything that can go wrong, one tree, each with a message written for the person who reads it.

::

    PytestTrtError
    ├── SpecError              a word that is not known: an option, a marker argument, a TOML key
    ├── CaseError              a case that says too little, too much or something impossible
    ├── ModelError             a model file or module that can't be used
    ├── DataError              inputs, calibration or labels that can't be used
    ├── LoweringError          a precision that this model can't be expressed in
    ├── BackendError           a backend that is absent, or fails to build or to run
    │   ├── PrecisionNotHonoured   the engine was built, and runs in another precision
    │   └── ForeignPlan            a plan of another GPU or release, or a damaged one
    ├── ReportError            a record that can't be read, a report that can't be rendered
    └── GoldenError
        ├── MissingGolden      there is none
        ├── StaleGolden        it was made from another model
        ├── DamagedGolden      its file can't be read
        ├── GoldenMismatch     its names, shapes or dtypes are not the model's
        ├── EmptyGolden        it holds no evidence: the outputs do not move with the inputs
        └── GoldenRefused      it will not be written
            └── ExportMismatch     PyTorch and its ONNX export disagree

``NotPassed`` stands beside the tree: the verdict on a case that was judged, or could not be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "BackendError",
    "CaseError",
    "DamagedGolden",
    "DataError",
    "EmptyGolden",
    "ExportMismatch",
    "ForeignPlan",
    "GoldenError",
    "GoldenMismatch",
    "GoldenRefused",
    "LoweringError",
    "MissingGolden",
    "ModelError",
    "NotPassed",
    "PrecisionNotHonoured",
    "PytestTrtError",
    "ReportError",
    "SpecError",
    "StaleGolden",
    "unknown",
]


class PytestTrtError(Exception):
    """The root: its text is one paragraph that says what was wrong, where, and what to do.

    Attributes:
        facts: the same as plain data, for findings and records.
    """

    def __init__(self, message: str = "", facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.facts: Mapping[str, Any] = facts or {}


class NotPassed(Exception):
    """A verdict that is not a pass; its text is the whole message."""


class SpecError(PytestTrtError):
    """A word that is not known; pytest ends with a usage error (exit code 4)."""


class CaseError(PytestTrtError):
    """A case that says too little, too much or something impossible."""


class ModelError(PytestTrtError):
    """A model file or torch module that can't be used."""


class DataError(PytestTrtError):
    """Inputs, calibration samples or labels that can't be used."""


class LoweringError(PytestTrtError):
    """A precision that this model can't be expressed in."""


class BackendError(PytestTrtError):
    """A backend that is absent, or fails to build or to run."""


class PrecisionNotHonoured(BackendError):
    """An engine was built, and does not run in the precision that was asked, or does not tell."""


class ForeignPlan(BackendError):
    """A plan of another GPU or release, or a damaged one, can't be loaded here."""


class ReportError(PytestTrtError):
    """A record that can't be read, or a report that can't be rendered."""


class GoldenError(PytestTrtError):
    """A golden that can't be compared with."""


class MissingGolden(GoldenError):
    """There is no golden for the case."""


class StaleGolden(GoldenError):
    """The golden was made from another model."""


class DamagedGolden(GoldenError):
    """The golden's file can't be read whole."""


class GoldenMismatch(GoldenError):
    """The golden's names, shapes or dtypes are not those of the model, or of what it computes."""


class EmptyGolden(GoldenError):
    """The golden's outputs do not move with its inputs: agreeing with it proves nothing."""


class GoldenRefused(GoldenError):
    """The golden will not be written."""


class ExportMismatch(GoldenRefused):
    """PyTorch and its ONNX export disagree, before any precision is lowered."""


def unknown(kind: str, word: str, known: Iterable[str]) -> SpecError:
    """Say that ``word`` is no ``kind``, and which of ``known`` was probably meant.

    >>> print(unknown("precision", "int9", ["fp16", "int8"]))
    unknown precision 'int9': did you mean 'int8'? (known: fp16, int8)
    """
    import difflib

    names = list(known)
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.0)
    hint = f"did you mean {by_lower[near[0]]!r}? " if near and word else ""
    return SpecError(f"unknown {kind} {word!r}: {hint}(known: {', '.join(names)})")
