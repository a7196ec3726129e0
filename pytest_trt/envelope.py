"""Envelope: the error that a correct implementation at a precision is expected to have on these inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.backends import DEFAULT, choose
from pytest_trt.calibration import calibrate
from pytest_trt.comparison import compare
from pytest_trt.errors import LoweringError, ModelError
from pytest_trt.lowering import needs_ranges
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model import is_float
from pytest_trt.precision import Precision
from pytest_trt.tolerance import SLACK, floor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_trt.model import Model
    from pytest_trt.samples import Arrays

__all__ = ["envelope_of", "simulate"]


def envelope_of(
    reference: Model, inputs: list[Arrays], precisions: Iterable[Precision], batch: int | None
) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, str]]:
    """Simulate each precision on the inputs, calibrated on them too, and measure it against fp32.

    Args:
        reference: the fp32 model.
        inputs: runs of arrays by input name.
        precisions: which to simulate.
        batch: the most samples at once where the first axis is dynamic.

    Returns:
        By precision and output: ``error`` (relative RMS; for integer outputs the share that differs; of
        several runs the largest) and ``bound`` = 2.5 x error + floor. And why a precision has none.
    """
    exact = [simulate(reference, Precision.FP32, run, batch) for run in inputs]
    envelope: dict[str, dict[str, dict[str, float]]] = {}
    refused: dict[str, str] = {}
    for precision in precisions:
        try:
            lowered = _simulate_all(reference, precision, inputs, batch)
            envelope[precision.label] = _entries(reference, precision, lowered, exact)
        except (LoweringError, ModelError) as error:
            refused[precision.label] = str(error)
    return envelope, refused


def simulate(model: Model, precision: Precision, inputs: Arrays, batch: int | None) -> Arrays:
    """Outputs of the model at a precision, simulated, int8 calibrated on these very inputs."""
    return _simulate_all(model, precision, [inputs], batch)[0]


def _simulate_all(model: Model, precision: Precision, inputs: list[Arrays], batch: int | None) -> list[Arrays]:
    ranges = None
    if needs_ranges(model, precision):
        ranges = calibrate(model, quantised_activations(model.proto), inputs, "the golden's inputs")
    engine = choose(DEFAULT).build(model, precision, ranges, batch)
    return [engine.run(run) for run in inputs]


def _entries(
    reference: Model, precision: Precision, lowered: list[Arrays], exact: list[Arrays]
) -> dict[str, dict[str, float]]:
    entries = {}
    for output in reference.outputs:
        whole = not is_float(output.dtype)
        pairs = zip(lowered, exact, strict=True)
        error = max(_error(low[output.name], high[output.name], whole=whole) for low, high in pairs)
        if not error < float("inf"):
            raise LoweringError(
                f"simulated at {precision}, output {output.name!r} is NaN or infinite where fp32 is not:"
                f" this model overflows at {precision}."
            )
        bound = SLACK * error + floor(precision.unit_roundoff, whole=whole)
        entries[output.name] = {"error": error, "bound": bound}
    return entries


def _error(lowered: object, exact: object, *, whole: bool) -> float:
    comparison = compare(lowered, exact)  # type: ignore[arg-type]
    return comparison.different / max(comparison.count, 1) if whole else comparison.rel_rms
