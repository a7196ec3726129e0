"""TRT206: a network of which little runs at the precision that it is judged at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.evidence.finding import Finding, Severity
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.evidence.evidence import Evidence

__all__ = ["RULES"]

_TOLD = 3
_LISTED = 20


def hardly(evidence: Evidence) -> Iterator[Finding]:
    """TRT206: most multiply-adds, or where nobody knows them most weights, run in another precision."""
    found = evidence.coverage
    if (
        found is None
        or found.precision not in Precision.labels()
        or found.share_of_asked is None
        or found.share_of_asked >= evidence.honoured
    ):
        return
    shares = {"multiply-adds": (found.reached_macs, found.macs), "weights": (found.reached_weights, found.weights)}
    told = [f"{at or 0:,} of {all_:,} {what} ({(at or 0) / all_:.1%})" for what, (at, all_) in shares.items() if all_]
    more = len(found.left_out) - _TOLD
    listing = f"{', '.join(map(repr, found.left_out[:_TOLD]))}{f' and {more} more' if more > 0 else ''}"
    yield Finding(
        "TRT206",
        # a file as it is, with no weight in the precision, was not asked for more: activations alone are rounded
        Severity.WARNING if _as_it_is(evidence) else Severity.ERROR,
        f"this is hardly {found.precision}: {' and '.join(told)} run in it, and at least {evidence.honoured:.0%} are"
        f" required; not {listing}.",
        "Ask for a precision that reaches them (fp16, bf16; int8 and fp8 have no LSTM, GRU or RNN), name what stays in"
        " fp32 on purpose in keep, or accept it with build = { honoured = 0 } (--trt-build honoured=0).",
        {
            "precision": found.precision,
            "share": found.share,
            "share_of_weights": found.share_of_weights,
            "kept": found.kept,
            "left_out": list(found.left_out[:_LISTED]),
        },
    )


def _as_it_is(evidence: Evidence) -> bool:
    found = evidence.coverage
    return evidence.precision is Precision.MODEL and found is not None and not found.reached_weights


RULES = (hardly,)
