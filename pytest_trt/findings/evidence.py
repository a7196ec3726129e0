"""Evidence: all that rules may look at, gathered before the first of them is asked; each part is None if it is not known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trt.precision import Precision
    from pytest_trt.quantised import Quantised

__all__ = ["Evidence"]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known about one case at one precision.

    Attributes:
        case: its name.
        precision: what was asked.
        held: the precision that the file under test holds: fp32 where it was lowered from it.
        backend: what ran it.
        simulated: whether no engine was built.
        quantised: what int8 or fp8 stands on.
    """

    case: str
    precision: Precision
    held: str
    backend: str
    simulated: bool
    quantised: Quantised | None = None
