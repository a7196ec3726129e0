"""Calibration: run samples through the fp32 model and take the ranges of its tensors, batch after batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from pytest_trt.errors import BackendError, DataError, LoweringError
from pytest_trt.feeds import finite, fit, split
from pytest_trt.ranges import Ranges
from pytest_trt.session import open_session, run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_trt.feeds import Arrays
    from pytest_trt.model import Model

__all__ = ["calibrate"]

_BATCH = 8  # samples whose activations are in memory together, where the first axis is dynamic


def calibrate(
    model: Model, tensors: list[str], samples: Iterable[Arrays], source: str, batch: int | None = None
) -> Ranges:
    """Min-max ranges: amax = max |x| over all samples.

    Args:
        model: the fp32 model.
        tensors: names of the activations whose range is wanted.
        samples: batches of arrays by input name, read once, one after the other.
        source: what messages call the samples.
        batch: the most samples at once where the first axis is dynamic; if not given, 8 where samples are
            independent, else all.

    Raises:
        DataError: no samples, samples that do not fit, or a NaN or infinite value among them.
        LoweringError: the fp32 model itself overflows or makes NaN on these samples.
    """
    inner = [name for name in tensors if name not in {spec.name for spec in model.inputs}]
    session = open_session(_with_outputs(model.proto, inner), model.source)
    amax = dict.fromkeys(tensors, 0.0)
    at_once = batch
    seen = False
    for arrays in samples:
        fit(arrays, model.inputs, source)
        finite(arrays, source)
        if not seen and batch is None:
            at_once = _BATCH if _independent(session, model, arrays) else None
        seen = True
        for feeds in split(arrays, model.inputs, at_once):
            _widen(amax, {**run(session, model, feeds), **feeds})
    if not seen:
        raise DataError(f"{source} holds no samples.")
    for name, value in amax.items():
        if not math.isfinite(value):
            raise LoweringError(
                f"{model.source}: tensor {name!r} is NaN or infinite in fp32 for the samples of {source}:"
                " no range can hold it. Look for NaN weights, or inputs of the wrong scale."
            )
    return Ranges(amax, source)


def _independent(session: Any, model: Model, arrays: Arrays) -> bool:
    """Whether the first axis may be cut: of some samples, two halves compute what the whole does.

    It may be time, points or nodes, where a cut makes another network.
    """
    if any(spec.shape and isinstance(spec.shape[0], int) for spec in model.inputs):
        return False  # fixed first axes are cut as they are anyway
    lengths = {arrays[spec.name].shape[0] for spec in model.inputs if spec.shape and arrays[spec.name].ndim}
    if len(lengths) != 1 or lengths == {1}:
        return False
    some = {name: array[: 2 * _BATCH] if array.ndim else array for name, array in arrays.items()}
    half = max(1, min(2 * _BATCH, *lengths) // 2)
    try:
        whole = run(session, model, some)
        cut = run(session, model, some, half)
    except (BackendError, DataError):
        return False
    names = [output.name for output in model.outputs]
    return all(np.allclose(whole[name], cut[name], rtol=1e-3, atol=1e-4, equal_nan=True) for name in names)


def _widen(amax: dict[str, float], arrays: Arrays) -> None:
    for name in amax:
        largest = np.abs(arrays[name]).max(initial=0.0)
        amax[name] = math.nan if np.isnan(largest) else max(amax[name], float(largest))


def _with_outputs(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """A copy that also gives these tensors out; onnxruntime finds their types itself."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(proto)
    present = {output.name for output in proto.graph.output}
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    return exposed
