"""Fitting: whether a range fits its tensor, and how that is told.

Thresholds come of measurements, which docs/findings/TRT1xx.md tells.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_trt.quantised import Quantised, QuantisedTensor

__all__ = [
    "fault",
    "figures",
    "is_bad",
    "is_hard",
    "known",
    "listed",
    "more",
    "numbers",
    "place",
    "quality",
    "utilisation",
]

_SATURATED = 5e-3
_WIDE = 3.0
_BAD_DB = 24.0
_LOW_DB = 28.0
_LOST_DB = 6.0
_FAR_LOST_DB = 9.0


def known(found: Quantised) -> list[QuantisedTensor]:
    """The tensors whose statistics say something; an asymmetric grid may cut values off in a Relu's place (TRT109)."""
    return [
        tensor
        for tensor in found.tensors
        if tensor.statistics
        and tensor.statistics.amax > 0
        and not tensor.statistics.nonfinite
        and tensor.grid.is_symmetric
    ]


def fault(tensor: QuantisedTensor) -> str | None:
    """What the range does to the tensor: "saturated", "wide", "lost", or None where it costs little."""
    seen = tensor.statistics
    if seen is None:
        return None
    lost = seen.attainable_db - seen.sqnr_db
    if (seen.sqnr_db >= _BAD_DB or lost < _LOST_DB) and (seen.sqnr_db >= _LOW_DB or lost < _FAR_LOST_DB):
        return "wide" if seen.utilisation > 2 * _WIDE and not tensor.grid.is_float else None
    if seen.clipped > 0.5:
        return "saturated"
    return "wide" if seen.utilisation > _WIDE else "lost"


def is_bad(tensor: QuantisedTensor) -> bool:
    """Whether a fault fails the case: between 24 and 28 dB, clipping may be what a percentile was asked for."""
    seen = tensor.statistics
    return seen is not None and (seen.sqnr_db < _BAD_DB or seen.utilisation > _WIDE or seen.saturation > _SATURATED)


def is_hard(tensor: QuantisedTensor) -> bool:
    """Whether the tensor is kept badly, and no range would keep it better."""
    return tensor.statistics is not None and tensor.statistics.sqnr_db < _BAD_DB and not fault(tensor)


def quality(tensor: QuantisedTensor) -> float:
    """Local SQNR in dB; infinite where it is not known."""
    return tensor.statistics.sqnr_db if tensor.statistics else math.inf


def utilisation(tensor: QuantisedTensor) -> float:
    """The range over the largest |x|; 1 where it is not known."""
    return tensor.statistics.utilisation if tensor.statistics else 1.0


def place(tensor: QuantisedTensor) -> str:
    """What a message calls the tensor."""
    return f"tensor {tensor.name!r}{f', read by {tensor.consumer},' if tensor.consumer else ''}"


def numbers(tensor: QuantisedTensor) -> str:
    """What a message says of its range."""
    seen = tensor.statistics
    assert seen is not None
    beyond = f"{seen.saturation:.2g} of its values lie beyond" if seen.saturation else "all of its values lie within"
    return (
        f"has the range {tensor.grid.amax:.4g} for a largest |x| of {seen.amax:.4g}: {beyond}, and"
        f" {tensor.grid.kind} keeps it at {seen.sqnr_db:.1f} dB where {seen.attainable_db:.1f} dB could be"
    )


def figures(tensor: QuantisedTensor) -> dict[str, Any]:
    """The same as evidence."""
    seen = tensor.statistics
    assert seen is not None
    return {
        "tensor": tensor.name,
        "layer": tensor.consumer,
        "range": tensor.grid.amax,
        "amax": seen.amax,
        "saturation": seen.saturation,
        "utilisation": seen.utilisation,
        "sqnr_db": seen.sqnr_db,
        "attainable_db": seen.attainable_db,
    }


def more(found: Sequence[object]) -> str:
    """How many there are beside the first."""
    return f"; {len(found) - 1} more like it" if len(found) > 1 else ""


def listed(names: Sequence[str]) -> str:
    """The first five names."""
    return f"{', '.join(map(repr, names[:5]))}{' ...' if len(names) > 5 else ''}"
