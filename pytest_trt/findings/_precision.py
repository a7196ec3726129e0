"""TRT2xx: what was asked of the engine and what it is, and what a precision can't hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pytest_trt.comparison.tolerance import SLACK
from pytest_trt.evidence.finding import Finding, Severity
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.evidence.evidence import Evidence
    from pytest_trt.evidence.rounding import Rounded
    from pytest_trt.golden.overflow import Overflow

__all__ = ["RULES", "not_honoured"]

_LARGEST = 65504
_TOLD = 5

_COARSE = 1e-2
"""Error of rounding a weight to fp16, as relative RMS, that is as bad as int8's; normal ones have 2.8e-4 at most."""

_WEAK = 2e-3

_SUBNORMAL = re.compile(r"subnormal FP16 value|FP16 subnormal value", re.IGNORECASE)
"""As 8.4 to 11 write it: "Subnormal FP16 values detected", "Detected subnormal FP16 values", "less than smallest
positive FP16 subnormal value"."""


def overflow(evidence: Evidence) -> Iterator[Finding]:
    """TRT202: a weight or an inner tensor that the precision can't hold, whatever the outputs look like."""
    inner = evidence.inner
    where = {**_weights(evidence), **(_inner(inner) if inner else _activation(evidence))}
    seen = _told_inner(inner, evidence) if inner else _told_activation(evidence)
    told = [text for text in (_told_weights(evidence), seen) if text]
    if told:
        yield Finding(
            "TRT202",
            _severity(evidence),
            f"{_lead(evidence)}: {'; '.join(told)}.",
            _mend_overflow(inner, evidence),
            where,
        )


def tf32(evidence: Evidence) -> Iterator[Finding]:
    """TRT204: an fp32 engine that multiplies in TF32, by what its layers tell or by the size of its error."""
    if evidence.precision is not Precision.FP32 or evidence.simulated:
        return
    layers = [layer["name"] for layer in _layers(evidence) if layer["precision"] == "tf32"]
    alike = _as_tf32_errs(evidence)
    if not layers and not alike:
        return
    told = (
        f"{len(layers)} compute layers of the engine multiply in TF32 ({_listed(layers)}): errors near 1e-3 in place"
        " of 1e-7"
        if layers
        else f"the error is that of TF32: {_listed(alike)}"
    )
    yield Finding(
        "TRT204",
        Severity.ERROR,
        f"fp32 was asked, and {told}.",
        "Clear the builder's TF32 flag (trtexec --noTF32), or ask for tf32.",
        {"layers": layers, "outputs": alike, **({"layer": layers[0]} if layers else {})},
    )


def not_honoured(evidence: Evidence) -> Iterator[Finding]:
    """TRT201: the engine runs in another precision than was asked."""
    refused = evidence.refused
    if refused is None or refused.kind != "PrecisionNotHonoured":
        return
    asked = str(refused.facts.get("asked", evidence.precision.label))
    other = [layer for layer in _layers(evidence) if layer["precision"] != asked]
    listing = _listed([f"{layer['name']} in {layer['precision']}" for layer in other])
    yield Finding(
        "TRT201",
        Severity.ERROR,
        f"{asked} was asked and is not what was built: {_counted(evidence)}{f' ({listing})' if listing else ''}.",
        "Ask with --trt-typing=strong where the release has it, ask for what it runs in, or accept it with"
        " --trt-build honoured=0.",
        {
            "asked": asked,
            "got": dict(_precisions(evidence)),
            "layers": [{"layer": layer["name"], "asked": asked, "got": layer["precision"]} for layer in other],
        },
    )


def subnormal(evidence: Evidence) -> Iterator[Finding]:
    """TRT203: weights that fp16 holds with fewer bits than it has, or not at all."""
    small = [tensor for tensor in evidence.half.tensors if tensor.subnormal] if evidence.half else []
    warned = _warned(evidence)
    if small:
        yield _measured(evidence, small, warned)
    elif warned:
        outside = any(seen.reasons for seen in evidence.observed)
        yield Finding(
            "TRT203",
            Severity.WARNING if outside else Severity.NOTE,
            f"TensorRT's builder warns of weights that are small for fp16: {warned}.",
            "Scale these weights up and the next layer's down, keep their nodes in fp32, or use bf16."
            if outside
            else "Nothing to mend: the outputs are inside their bounds.",
            {"warned": warned},
        )


def simulated(evidence: Evidence) -> Iterator[Finding]:
    """TRT205: onnxruntime rounded as the precision does, and no engine was built."""
    if evidence.simulated and evidence.refused is None:
        yield Finding(
            "TRT205",
            Severity.NOTE,
            f"{evidence.precision} was simulated on the CPU and not measured: engines that were tried came within twice"
            " its error.",
            "Run with --trt-backend=tensorrt on the deployment's GPU; --trt-require-engine makes it a must.",
        )


RULES = (overflow, tf32, subnormal, simulated)


def _measured(evidence: Evidence, small: list[Rounded], warned: str) -> Finding:
    """By the model's own weights; what the builder said stands beside it, as it counts tensors and folds them first."""
    worst = max(small, key=lambda tensor: (tensor.multiplies, tensor.rel_rms))
    error = worst.rel_rms if worst.multiplies else 0.0
    count, zeroed = sum(tensor.subnormal for tensor in small), sum(tensor.zeroed for tensor in small)
    share = count / max(evidence.half.count if evidence.half else 1, 1)
    severity = Severity.ERROR if error > _COARSE else Severity.WARNING if error > _WEAK else Severity.NOTE
    return Finding(
        "TRT203",
        severity,
        f"{count} weights ({100 * share:.2g} %) are subnormal in fp16 and {zeroed} of them become zero; worst is"
        f" {worst.tensor!r} with {worst.subnormal} of {worst.count} and a rounding error of {worst.rel_rms:.2g}"
        f"{f'. TensorRT warns of it too: {warned}' if warned else ''}.",
        "Scale these weights up and the next layer's down, keep their nodes in fp32, or use bf16."
        if severity is not Severity.NOTE
        else "Nothing to mend: their share of the tensor is too small to be seen.",
        {
            "tensor": worst.tensor,
            "count": count,
            "zeroed": zeroed,
            "share": share,
            "rel_rms": worst.rel_rms,
            "warned": warned,
        },
    )


def _warned(evidence: Evidence) -> str:
    """What TensorRT's builder says of weights too small for fp16, without the lines around it."""
    return "; ".join(warning.strip(" -.") for warning in evidence.warnings if _SUBNORMAL.search(warning))


def _as_tf32_errs(evidence: Evidence) -> list[str]:
    """Outputs whose error is within what TF32's simulation allows and far from fp32's; none where one of them is not.

    A model that differs in fp32 itself errs by chance as TF32 does, also where that was accepted.
    """
    errors = {seen.name: seen.error for seen in evidence.observed}
    if any(h.end == "fp32" and (h.over or h.rel_rms > 0.5 * errors.get(h.output, 0.0)) for h in evidence.hops):
        return []
    of_tf32, of_fp32 = evidence.envelope.get("tf32", {}), evidence.envelope.get("fp32", {})
    found = []
    for seen in evidence.observed:
        expected, exact = of_tf32.get(seen.name), of_fp32.get(seen.name)
        if seen.whole or expected is None or exact is None:
            continue
        low = expected["error"] / SLACK
        if low <= 10 * exact["bound"] or not low <= seen.error <= expected["bound"]:
            return []
        found.append(f"{seen.name!r} is off by {seen.error:.2g}, tf32's own error is {expected['error']:.2g}")
    return found


def _beyond(evidence: Evidence) -> list[Rounded]:
    return [tensor for tensor in evidence.half.tensors if tensor.beyond] if evidence.half else []


def _weights(evidence: Evidence) -> dict[str, object]:
    found = _beyond(evidence)
    return {"weights": {tensor.tensor: tensor.largest for tensor in found}, "tensor": found[0].tensor} if found else {}


def _told_weights(evidence: Evidence) -> str:
    found = _beyond(evidence)
    return f"weight {_listed([f'{t.tensor!r} holds {t.largest:.3g}' for t in found])}" if found else ""


def _severity(evidence: Evidence) -> Severity:
    """A warning where outputs are inside and an engine ran, which may keep it in fp32, or masks are padding.

    A number that nothing is multiplied by and that overflows without a trace is a mask's minus infinity.
    """
    inner, right = evidence.inner, not any(seen.reasons for seen in evidence.observed)
    beyond = _beyond(evidence)
    if inner is None and beyond and right and not evidence.overflow:
        return Severity.ERROR if any(weight.multiplies for weight in beyond) else Severity.WARNING
    if inner is None or beyond:
        return Severity.ERROR
    excused = inner.kind == "masked" or not evidence.simulated
    return Severity.WARNING if excused and right else Severity.ERROR


def _lead(evidence: Evidence) -> str:
    label = evidence.held if evidence.precision is Precision.MODEL else evidence.precision.label
    inner = evidence.inner
    if inner is not None and inner.kind in ("divided", "flushed", "small", "cancelled") and not _beyond(evidence):
        return f"{label} {'cancels' if inner.kind == 'cancelled' else 'makes zero of'} what the model needs"
    return f"the model overflows in {f'fp16, whose largest value is {_LARGEST}' if label == 'fp16' else label}"


def _inner(inner: Overflow) -> dict[str, object]:
    return {"tensor": inner.tensor, "node": inner.node, "kind": inner.kind, "cause": inner.cause, "keep": [*inner.keep]}


def _told_inner(inner: Overflow, evidence: Evidence) -> str:
    called = f"tensor {inner.tensor!r} of {inner.op} {inner.node!r}"
    told = {
        "beyond": f"{called} is the first that is not finite, where fp32's is",
        "divided": f"{called} is not finite, since {inner.cause!r} before it is flushed to zero",
        "flushed": f"{called} is flushed to zero throughout a sample, where fp32's is not",
        "small": f"{called} is flushed in part, to zero or to few bits, and an output is destroyed by it",
        "cancelled": f"{called} is a sum of terms that nearly cancel: their rounding is left, and destroys an output",
        "masked": f"{called} has rows of nothing but masks, whose rounding drowns the scores: their Softmax is another",
    }[inner.kind]
    real = "" if evidence.simulated else " (simulated; the engine is judged by its outputs)"
    return f"{told}{real}"


def _mend_overflow(inner: Overflow | None, evidence: Evidence) -> str:
    if inner is not None and not inner.keep:
        return "Use bf16, or scale the weights down and the next layer's up: keeping nodes in fp32 does not mend it."
    if inner is None:
        return (
            "Keep the nodes that compute or read it in fp32 (keep = [...]), use bf16, or scale the weights down and the"
            " next layer's up."
        )
    if evidence.held != "fp32":
        words = ", ".join(f'"{word}"' for word in inner.keep)
        return f"Leave these nodes in fp32 when the file is made: {words}."
    other = ", or use bf16" if evidence.precision is Precision.FP16 else ""
    return f"Keep these nodes in fp32: {evidence.keep(inner.keep)}{other}."


def _activation(evidence: Evidence) -> dict[str, object]:
    if not _overflows(evidence):
        return {}
    return {"tensor": evidence.origin.tensor, "node": evidence.origin.node} if evidence.origin else {}


def _told_activation(evidence: Evidence) -> str:
    if not _overflows(evidence):
        return ""
    born = evidence.origin
    if born is None:
        return "an activation" + (f" ({evidence.overflow})" if evidence.overflow else "")
    return f"activation {born.tensor!r}{f' of node {born.node!r}' if born.node else ''} is the first that is not finite"


def _overflows(evidence: Evidence) -> bool:
    """Whether outputs at fp16 are not finite, where those of fp32 are."""
    if evidence.precision is not Precision.FP16 and evidence.held != "fp16":
        return False
    at_fp32 = [hop for hop in evidence.hops if hop.end == "fp32" and hop.rel_rms == float("inf")]
    return bool(evidence.overflow or any(seen.nonfinite for seen in evidence.observed)) and not at_fp32


def _layers(evidence: Evidence) -> list[dict[str, str]]:
    """Layers that compute, of the engine that ran or of that which was refused."""
    if evidence.refused is not None:
        return list(evidence.refused.facts.get("layers", ()))
    return [
        {"name": layer.name, "precision": layer.precision}
        for layer in evidence.layers
        if layer.computes and not layer.kept
    ]


def _precisions(evidence: Evidence) -> dict[str, int]:
    labels = [layer["precision"] for layer in _layers(evidence)]
    return {label: labels.count(label) for label in sorted(set(labels))}


def _counted(evidence: Evidence) -> str:
    found = ", ".join(f"{count} in {label}" for label, count in _precisions(evidence).items())
    return f"of the compute layers {found} run" if found else "the engine does not tell what its layers run in"


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return ", ".join(names[:_TOLD]) + more
