"""TRT109: what TensorRT's parser refuses, told before an engine is tried."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from pytest_trt.backends.tensorrt.parser import NEWEST
from pytest_trt.evidence.finding import Finding, Severity
from pytest_trt.findings._calibration import more

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_trt.backends.tensorrt.parser import ParserAnswer, Unparsed
    from pytest_trt.evidence.evidence import Evidence

__all__ = ["refused"]

_MENDS = {
    "type": "Store weights as int8, int4, fp8 (E4M3) or nvfp4, symmetrically: pytest-trt lower --precision int4 writes"
    " what it takes.",
    "asymmetric": "Quantise weights symmetrically, with zero points of 0: pytest-trt lower --precision int4 does.",
    "scales": "Write mxfp8 with TensorRT's own TRT_MXFP8DequantizeLinear, as ModelOpt does, or take nvfp4 or fp8.",
    "activations": "Convert the activations to fp16, or write the weights as int4 with DequantizeLinear in blocks.",
    "cache": "Hand keys and values of the past in and out by Concat around the Attention, or export it in plain"
    " operators.",
    "operator": "Export without it, in operators that TensorRT has, or give a plugin for it (build = { plugins = [...]"
    " }).",
}


def refused(evidence: Evidence) -> Iterator[Finding]:
    """TRT109: nodes that TensorRT's parser refuses, by the table of its releases, or by a parser that was asked."""
    told = {fault.node for fault in (evidence.quantised.refused if evidence.quantised else ())}
    faults = [fault for fault in evidence.unparsed if fault.node not in told]
    answer = evidence.parser
    said = f" {answer.release}'s parser was asked here, and {_said(answer)}." if answer else ""
    if not faults and answer is not None and answer.refuses and not told:
        yield Finding(
            "TRT109", Severity.WARNING, f"TensorRT may refuse this file:{said}", _MENDS["operator"], asdict(answer)
        )
    if not faults:
        return
    first = min(faults, key=lambda fault: NEWEST.isdisjoint(fault.releases))
    kinds = sorted({fault.what for fault in faults})
    yield Finding(
        "TRT109",
        _of_parser(evidence, first),
        f"TensorRT ({_in_a_row(first.releases)}) refuses this file: {first.node} of {first.tensor!r} {first.why}"
        f"{more(faults)}.{said}",
        _MENDS[first.what],
        {
            "layer": first.node,
            "tensor": first.tensor,
            "kinds": kinds,
            "releases": list(first.releases),
            "nodes": [fault.node for fault in faults],
            "asked": answer.release if answer else None,
        },
    )


def _of_parser(evidence: Evidence, first: Unparsed) -> Severity:
    """An error where an engine was wanted; a note of past releases alone, or where a parser takes the file."""
    if not evidence.simulated:
        return Severity.ERROR
    taken = evidence.parser is not None and not evidence.parser.refuses
    return Severity.NOTE if taken or NEWEST.isdisjoint(first.releases) else Severity.WARNING


def _said(answer: ParserAnswer) -> str:
    return f"refuses it: {answer.refuses}" if answer.refuses else "takes it"


def _in_a_row(words: Sequence[str]) -> str:
    """Words in a row, as "8.6, 10.1 and 11"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
