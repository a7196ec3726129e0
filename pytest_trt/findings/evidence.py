"""Evidence: all that rules may look at, gathered before the first of them is asked; each part is None if not known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trt.localise import Located
    from pytest_trt.precision import Precision

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
        located: tensors of the simulated graph against those of fp32, the likeliest cause first; None where none were
            compared.
    """

    case: str
    precision: Precision
    held: str
    backend: str
    simulated: bool
    located: tuple[Located, ...] | None = None
