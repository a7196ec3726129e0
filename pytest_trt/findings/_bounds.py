"""TRT307: an output that is inside a bound which says little, and the tensor that its error begins at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.comparison.tolerance import toml_key
from pytest_trt.evidence.finding import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.evidence.evidence import Evidence
    from pytest_trt.evidence.localise import Located
    from pytest_trt.evidence.weak_bounds import WeakBound

__all__ = ["RULES"]


def weak(evidence: Evidence) -> Iterator[Finding]:
    """TRT307: the bound is near the output's movement, or follows an error that rounding does not explain."""
    for one in evidence.weak:
        cause = one.cause
        yield Finding(
            "TRT307",
            Severity.ERROR if evidence.weak_fails else Severity.WARNING,
            f"output {one.part!r} is inside its bound at {evidence.precision}, and that says little:"
            f" {_why(one)}{_begins(cause)}.",
            _remedy(one, evidence),
            {
                "output": one.output,
                "part": one.part,
                "error": one.error,
                "bound": one.bound,
                "movement": one.moved,
                "explained": one.explained,
                "depth": one.depth,
                "tensor": cause.tensor if cause else None,
                "node": cause.node if cause else None,
                "keep": list(one.keep),
                "kept_error": one.kept_error,
            },
        )


def _why(one: WeakBound) -> str:
    told = []
    if one.explained is not None:
        told.append(
            f"a correct implementation errs by {one.error:.2g}, where its rounding in {one.depth} operators one after"
            f" the other explains {one.explained:.2g}"
        )
    if one.near:
        told.append(
            f"the bound {one.bound:.2g} is near the {one.moved:.2g} by which the output moves over the samples, so that"
            " an engine half blind to its input passes"
        )
    return ", and ".join(told)


def _begins(cause: Located | None) -> str:
    if cause is None:
        return ""
    made = f" of {cause.op} {cause.node!r}" if cause.node else ""
    return f"; the error begins at tensor {cause.tensor!r}{made}, which has {cause.cumulative_db:.3g} dB left"


def _remedy(one: WeakBound, evidence: Evidence) -> str:
    if one.keep:
        told = f"which brings the error to {one.kept_error:.2g}"
        return f"Keep what it is computed from in fp32, {told}: {evidence.keep(one.keep)}."
    seen = max((seen.most for seen in evidence.observed if seen.output == one.output), default=0.0)
    limit = float(f"{1.2 * max(one.error, seen):.1e}")
    metric = "mismatch" if _is_whole(one, evidence) else "rel_rms"
    return (
        "Use a finer precision, keep what costs most in fp32 (pytest-trt sensitivity), or give inputs that move the"
        f" output more{_left_out(one, evidence)}; if this is right for you, say so: tolerance.{evidence.precision} = {{"
        f" outputs.{toml_key(one.output)} = {{ {metric} = {limit:g} }} }}."
    )


def _left_out(one: WeakBound, evidence: Evidence) -> str:
    """Where floats are judged beside it; rows that are gathered by indices can't be judged by their places."""
    others = [seen for seen in evidence.observed if seen.output != one.output and not seen.whole]
    return f', or judge the others alone (ignore_outputs = ["{one.output}"])' if others else ""


def _is_whole(one: WeakBound, evidence: Evidence) -> bool:
    return any(seen.whole for seen in evidence.observed if seen.output == one.output)


RULES = (weak,)
