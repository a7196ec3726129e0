"""Calibration and Q/DQ files, as they are taken rightly and wrongly."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.calibration.calibration import calibrate
from pytest_trt.lowering.lowering import at_opset, lower
from pytest_trt.lowering.qdq import quantised_activations
from pytest_trt.model.model import load
from pytest_trt.precision import Precision
from pytest_trt.ranges.amax import Ranges
from pytest_trt.ranges.files import write_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from benchmarks.zoo.network import Network
    from pytest_trt.case.case import Case

__all__ = ["by_onnxruntime", "by_ranges", "by_samples", "ranges_of", "with_pairs"]


def ranges_of(network: Network, keep: Sequence[str] = ()) -> dict[str, float]:
    """The healthy min-max ranges of all tensors that int8 quantises, in the graph's order."""
    return dict(_calibrated(network, tuple(keep)))


@cache
def _calibrated(network: Network, keep: tuple[str, ...]) -> Mapping[str, float]:
    model = at_opset(load(network.onnx), Precision.INT8)
    tensors = quantised_activations(model.proto, keep)
    return calibrate(model, tensors, [network.samples()], "zoo", 8).amax


def by_ranges(
    change: Callable[[dict[str, float]], dict[str, float]], network: Network, folder: Path, file: str = "ranges.txt"
) -> Case:
    """The healthy file with changed ranges, given as a file."""
    write_ranges(Ranges(change(ranges_of(network))), folder / file)
    return replace(network.case, calibration=str(folder / file))


def by_samples(change: Callable[[NDArray[Any]], NDArray[Any]], network: Network, folder: Path) -> Case:
    """The healthy file with changed calibration samples."""
    np.savez(folder / "samples.npz", **{name: change(array) for name, array in network.samples().items()})
    return replace(network.case, calibration=str(folder / "samples.npz"))


def with_pairs(
    change: Callable[[dict[str, float]], dict[str, float]],
    network: Network,
    folder: Path,
    precision: str = "int8",
    keep: Callable[[onnx.ModelProto], list[str]] = lambda _: [],
    *,
    declared: bool = False,
) -> Case:
    """A Q/DQ file, made from changed ranges, and judged as it is; ``declared``: the case names what was left out."""
    model = at_opset(load(network.onnx), Precision.parse(precision))
    kept = keep(model.proto)
    lowered = lower(model, precision, Ranges(change(ranges_of(network, kept))), keep=kept)
    return network.deployed(lowered.proto, folder, keep=tuple(kept) if declared else ())


def by_onnxruntime(
    network: Network,
    folder: Path,
    *,
    samples: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray,
    per_channel: bool = True,
    **told: Any,
) -> Case:
    """The Q/DQ file that onnxruntime's quantize_static writes; symmetric and with float biases if nothing is told."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = ({name: samples(array) for name, array in part.items()} for part in network.batches())

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self.left, None)

    symmetric = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    quantise = partial(quantize_static, quant_format=QuantFormat.QDQ, per_channel=per_channel)
    kinds = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8, **told.pop("kinds", {})}
    places = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
    path = folder / "deployed.onnx"
    quantise(
        str(network.onnx),
        str(path),
        Reader(),
        extra_options={**symmetric, **told},
        op_types_to_quantize=places,
        **kinds,
    )
    return replace(network.case, onnx=str(path), reference=str(network.onnx))
