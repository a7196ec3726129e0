"""Evidence: all that rules may look at, gathered before the first is asked; each part is None if it is not known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_trt.bisection import Departure
    from pytest_trt.half import HalfWeights
    from pytest_trt.hops import Hop
    from pytest_trt.layer import Layer
    from pytest_trt.localise import Located
    from pytest_trt.observed import Observed
    from pytest_trt.precision import Precision
    from pytest_trt.quantised import Quantised
    from pytest_trt.repeated import Repeated

__all__ = ["Evidence", "Origin", "Refusal"]


@dataclass(frozen=True)
class Refusal:
    """Why a case could not be judged.

    Attributes:
        kind: name of the exception.
        message: its text.
        facts: what it tells of itself as plain data.
    """

    kind: str
    message: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Origin:
    """The first tensor, in the graph's order, that holds a NaN or an infinity, and the node that computes it."""

    tensor: str
    node: str = ""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known about one case at one precision.

    Attributes:
        case: its name.
        precision: what was asked.
        held: the precision that the file under test holds: fp32 where it was lowered from it.
        backend: what ran it.
        simulated: whether no engine was built.
        observed: what each output shows.
        envelope: the golden's, by precision and output: the error of a correct simulation, and its bound.
        hops: error of each step that is known, the first one first.
        refused: why it could not be judged; None where it was.
        layers: of the engine, as its inspector tells them.
        half: what fp16 does to the weights, where the precision is fp16.
        warnings: what the builder warned of.
        overflow: what the golden says of this precision, where it overflows.
        origin: the first tensor that is not finite, where that was looked for.
        repeated: what came of running, loading and building again.
        quantised: what int8 or fp8 stands on.
        located: tensors of the simulated graph against those of fp32, the likeliest cause first; None where none were
            compared.
        departure: where an engine leaves its simulation; None where it does not, or nobody looked.
    """

    case: str
    precision: Precision
    held: str
    backend: str
    simulated: bool
    observed: tuple[Observed, ...] = ()
    envelope: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    hops: tuple[Hop, ...] = ()
    refused: Refusal | None = None
    layers: tuple[Layer, ...] = ()
    half: HalfWeights | None = None
    warnings: tuple[str, ...] = ()
    overflow: str = ""
    origin: Origin | None = None
    repeated: Repeated | None = None
    quantised: Quantised | None = None
    located: tuple[Located, ...] | None = None
    departure: Departure | None = None
