"""Verdict: what was found about one case at one precision, and the figures that reports draw of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pytest_trt.comparison.error_metrics import blocks
from pytest_trt.evidence.hops import blamed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pytest_trt.comparison.comparison import Comparison
    from pytest_trt.evidence.coverage import Coverage
    from pytest_trt.evidence.finding import Finding
    from pytest_trt.evidence.hops import Hop
    from pytest_trt.evidence.judgement import Judgement
    from pytest_trt.evidence.localise import Located
    from pytest_trt.evidence.quant_ranges import Quantised
    from pytest_trt.golden.golden import Run
    from pytest_trt.latency.result import Latency
    from pytest_trt.model.feeds import Arrays

__all__ = ["Figures", "OutputFigures", "Verdict", "figures_of"]


@dataclass(frozen=True)
class Verdict:
    """What was found about one case at one precision.

    Attributes:
        case: its name.
        precision: what was asked.
        backend: what ran it.
        simulated: whether no engine was built, and the rounding was simulated on the CPU.
        verdict: "passed", "failed" (judged, outside) or "error" (could not be judged, never a pass); "built" where
            only building was asked, "timed" where a test measured an engine and judged nothing.
        judgements: one an output, the worst of several data sets.
        held: the precision that the file holds, where it was judged as it is.
        message: why it could not be judged.
        kind: name of the exception that says so.
        where: the file that the case was written in.
        accept: how to accept the error, if it is right.
        provenance: model, golden and backend: names, hashes, versions.
        layers: how many compute layers run in the asked precision, and all layers, where an engine tells.
        warnings: what the builder warned of, and what could not be looked at, and why.
        hops: error of each step that is known, the first one first.
        findings: why it drifts, causes before signs; one of severity error fails a case that is inside its bounds too.
        ignored: how many findings were left out by --trt-select and --trt-ignore, by code.
        located: the tensors that the error comes from, where that was looked for, the worst first.
        figures: what reports draw of it; None where nothing ran.
        latency: what was found of it, where the engine was timed.
        coverage: what of the network runs at the precision; None where nobody knows.
        unjudged: outputs that the case leaves out.
    """

    case: str
    precision: str
    backend: str
    simulated: bool
    verdict: Literal["passed", "failed", "error", "built", "timed"]
    judgements: tuple[Judgement, ...] = ()
    held: str | None = None
    message: str = ""
    kind: str = ""
    where: str = ""
    accept: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    hops: tuple[Hop, ...] = ()
    findings: tuple[Finding, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    located: tuple[Any, ...] = ()
    figures: Figures | None = None
    latency: Latency | None = None
    coverage: Coverage | None = None
    unjudged: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether it was judged, inside every bound and without an error found; or built, or timed, as was asked."""
        return self.verdict in ("passed", "built", "timed")

    @property
    def blame(self) -> str | None:
        """The step that the error comes from, in words; None where no step is over its limit."""
        found = blamed(self.hops)
        return str(found) if found else None

    @property
    def worst(self) -> Judgement | None:
        """The output furthest beyond its bound, or nearest to it."""
        return max(self.judgements, key=_strain, default=None)


def _strain(judgement: Judgement) -> tuple[bool, float]:
    bound = judgement.bound
    return bool(judgement.reasons), judgement.error / bound if bound else judgement.error


_BINS = 51  # odd, so that one of them is around zero
_POINTS = 512  # of one output
_ALL_POINTS = 1024  # of all outputs of a case
_LEAST_POINTS = 32
_NARROWEST = 2.0**-24  # half a step of float32: where nothing differs, bins as wide as this show it
_WORST_DB = -100.0
_TINY = 1e-300  # so that quotients and ends of bins stay inside float64


@dataclass(frozen=True)
class Errors:
    """A histogram of actual - golden.

    Attributes:
        edges: n + 1 ends of bins of one width, around zero, in the output's own unit.
        counts: n numbers of elements.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Scatter:
    """Elements of an output, in the arrays' order: evenly spaced, and the worst ones among them.

    Attributes:
        golden: their golden values.
        actual: their values under test.
        sampled_of: how many elements the output has.
    """

    golden: tuple[float, ...]
    actual: tuple[float, ...]
    sampled_of: int


@dataclass(frozen=True)
class OutputFigures:
    """What is drawn of one output."""

    errors: Errors
    scatter: Scatter


@dataclass(frozen=True)
class TensorFigures:
    """One tensor along the network; ratios of signal to error power in dB, -100 where it is nothing but error.

    Attributes:
        tensor: its name in the fp32 graph.
        node: the node that makes it; empty for an input.
        op: that node's operator; empty for an input.
        position: where it stands in the graph's order.
        local_sqnr_db: what its own rounding leaves; None where it is not rounded by itself, or loses nothing.
        cumulative_sqnr_db: what the lowered run has; None where it is that of fp32.
    """

    tensor: str
    node: str
    op: str
    position: int
    local_sqnr_db: float | None
    cumulative_sqnr_db: float | None


@dataclass(frozen=True)
class RangeFigures:
    """One range against the fp32 activations of the golden's inputs.

    Attributes:
        tensor: whose range it is.
        range: the largest |x| that it holds.
        amax: the largest |x| that there is.
        saturated: share of the values beyond it.
        sqnr_db: what rounding to it leaves of the tensor, as of :class:`TensorFigures`; None where it loses nothing.
    """

    tensor: str
    range: float
    amax: float
    saturated: float
    sqnr_db: float | None


@dataclass(frozen=True)
class Figures:
    """What is drawn of a case.

    Attributes:
        outputs: by name, of the worst data set; an output without elements has none.
        tensors: all that were compared, along the network; none where they were not looked at.
        ranges: of int8 and fp8; none where nobody knows them.
    """

    outputs: dict[str, OutputFigures]
    tensors: tuple[TensorFigures, ...] = ()
    ranges: tuple[RangeFigures, ...] = ()


def figures_of(
    judgements: Sequence[Judgement],
    runs: Sequence[Run],
    outputs: Sequence[Arrays],
    located: Sequence[Located] = (),
    quantised: Quantised | None = None,
) -> Figures:
    """The figures of a case that ran.

    Args:
        judgements: one an output.
        runs: of the golden.
        outputs: under test, one set a run.
        located: the tensors that were compared.
        quantised: what int8 or fp8 stands on.
    """
    points = max(_LEAST_POINTS, min(_POINTS, _ALL_POINTS // max(len(judgements), 1)))
    of_run = {run.name: (run.outputs, found) for run, found in zip(runs, outputs, strict=True)}
    drawn: dict[str, OutputFigures] = {}
    for judgement in judgements:
        reference, actual = (arrays[judgement.output] for arrays in of_run[judgement.run])
        if reference.size:
            drawn[judgement.output] = _of_output(actual, reference, judgement.comparison, points)
    return Figures(drawn, tuple(_tensors(located)), tuple(_ranges(quantised)))


def _of_output(a: NDArray[Any], r: NDArray[Any], comparison: Comparison, points: int) -> OutputFigures:
    return OutputFigures(_errors(a, r, comparison), _scatter(a, r, comparison, points))


def _errors(a: NDArray[Any], r: NDArray[Any], comparison: Comparison) -> Errors:
    """Counts between the largest error and its negative."""
    half = _half_width(a, r, comparison)
    edges = np.linspace(-half, half, _BINS + 1)
    counts = np.zeros(_BINS, np.int64)
    for block in blocks(a, r):
        error = block.signed[np.isfinite(block.signed)]
        places = ((np.clip(error / half, -1.0, 1.0) + 1) * (_BINS / 2)).astype(np.int64)
        counts += np.bincount(np.clip(places, 0, _BINS - 1), minlength=_BINS)
    return Errors(tuple(_short(edge) for edge in edges), tuple(int(count) for count in counts))


def _half_width(a: NDArray[Any], r: NDArray[Any], comparison: Comparison) -> float:
    """The largest error that is finite; of an output without any, next to nothing beside its values."""
    largest = comparison.max_abs.difference if comparison.max_abs else 0.0
    if not math.isfinite(largest):
        largest = max(_largest(block.signed) for block in blocks(a, r))
    if not largest:
        largest = _NARROWEST * max(_largest(block.reference) for block in blocks(a, r))
    return min(max(largest, _TINY), 1 / _TINY)


def _largest(values: NDArray[np.float64]) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def _scatter(a: NDArray[Any], r: NDArray[Any], comparison: Comparison, points: int) -> Scatter:
    flat_a, flat_r = a.reshape(-1), r.reshape(-1)
    shape = comparison.shape or (1,)
    worst = [int(np.ravel_multi_index(element.index or (0,), shape)) for element in comparison.worst]
    even = np.linspace(0, flat_r.size - 1, min(points - len(worst), flat_r.size)).round().astype(np.int64)
    chosen = np.unique(np.concatenate([even, np.array(worst, np.int64)]))
    golden, actual = flat_r[chosen].astype(np.float64), flat_a[chosen].astype(np.float64)
    plain = np.isfinite(golden) & np.isfinite(actual)
    return Scatter(tuple(map(_short, golden[plain])), tuple(map(_short, actual[plain])), sampled_of=comparison.count)


def _tensors(located: Sequence[Located]) -> list[TensorFigures]:
    return [
        TensorFigures(one.tensor, one.node, one.op, one.place, _ratio(one.local_db), _ratio(one.cumulative_db))
        for one in sorted(located, key=lambda one: one.place)
    ]


def _ranges(quantised: Quantised | None) -> list[RangeFigures]:
    measured = [(one, one.statistics) for one in quantised.tensors if one.statistics] if quantised else []
    return [
        RangeFigures(
            tensor=one.name,
            range=_short(one.grid.amax),
            amax=_short(found.amax),
            saturated=_short(found.saturation),
            sqnr_db=_ratio(found.sqnr_db),
        )
        for one, found in measured
        if found
    ]


def _ratio(decibel: float | None) -> float | None:
    return None if decibel is None or decibel == math.inf else _short(max(decibel, _WORST_DB))


def _short(value: float) -> float:
    """Six digits, more than a picture shows, in a fraction of the text."""
    return float(f"{value:.6g}")
