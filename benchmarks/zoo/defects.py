"""Planted defects: on which networks, at which precision, and which code must come first.

Where a set of codes is expected, each of them says the same defect: a range that cuts off is saturated (105), one that
is too wide is wide (106), and both keep their tensor badly (107). An output that is wrong is outside (302), and more
clearly leans (304), is concentrated in a class or place (306) or changes its best class (303), as the network has it.
Of a ranges file with half of the tensors it may be said that it is partial (103) or another model's (104).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.zoo import structural as plants
from benchmarks.zoo.given import by_onnxruntime, by_ranges, by_samples, ranges_of, with_pairs
from benchmarks.zoo.network import MEAN, SPREAD
from benchmarks.zoo.specimen import Plant, Specimen
from benchmarks.zoo.surgery import matrix_nodes
from benchmarks.zoo.weights import clipped, coarse, rounded_file, zeroed
from pytest_trt.ranges.amax import Ranges
from pytest_trt.ranges.files import write_ranges

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto

    from benchmarks.zoo.network import Network
    from pytest_trt.case.case import Case

__all__ = ["ALL", "CONVOLUTIONAL", "DEFECTS", "every_second"]

ALL = ("digits", "resnet18", "mobilenet_v2", "encoder", "segmentation", "detection")
CONVOLUTIONAL = ("digits", "resnet18", "mobilenet_v2", "segmentation", "detection")
COLOURED = ("resnet18", "mobilenet_v2", "detection")
RESIDUAL = ("digits", "resnet18", "mobilenet_v2", "encoder")

WRONG = {"TRT302", "TRT303", "TRT304", "TRT306"}
"""Signs of outputs that are wrong in fp32 already: the network itself was changed."""

WEIGHTS = {"TRT110", *WRONG}
"""The same where a weight was: that it is no longer the reference's says more."""


def _all(value: float, amax: dict[str, float]) -> dict[str, float]:
    return dict.fromkeys(amax, value)


def _trtexec(amax: dict[str, float]) -> dict[str, float]:
    return {name: 4.0 if index else 2.0 for index, name in enumerate(amax)}


def _one(factor: float, amax: dict[str, float]) -> dict[str, float]:
    chosen = list(amax)[len(amax) // 2]
    return {**amax, chosen: amax[chosen] * factor}


def _other_weights(amax: dict[str, float]) -> dict[str, float]:
    factors = np.exp(np.random.default_rng(7).uniform(np.log(0.2), np.log(5), len(amax)))
    return {name: value * factor for (name, value), factor in zip(amax.items(), factors, strict=True)}


def _half(amax: dict[str, float]) -> dict[str, float]:
    return {name: value for index, (name, value) in enumerate(amax.items()) if index % 2 == 0}


def _stale_cache(network: Network, folder: Path) -> Case:
    """A cache of TensorRT 7, of an older export: half of its tensors have other names now."""
    amax = ranges_of(network)
    renamed = {(f"{name}_old" if index % 2 else name): value for index, (name, value) in enumerate(amax.items())}
    path = folder / "calibration.cache"
    write_ranges(Ranges(renamed, made_by="TRT-7203-EntropyCalibration2"), path)
    return replace(network.case, calibration=str(path))


def _uncalibrated(network: Network, _: Path) -> Case:
    return replace(network.case, calibration=None)


def _raw(values: NDArray[Any]) -> NDArray[Any]:
    if values.shape[1] == 3:
        return (255 * (values * SPREAD + MEAN)).astype(np.float32)
    return (255 * values).astype(np.float32)


def _unnormalised(values: NDArray[Any]) -> NDArray[Any]:
    return (values * SPREAD + MEAN).astype(np.float32)


def _bgr(values: NDArray[Any]) -> NDArray[Any]:
    return (((values * SPREAD + MEAN)[:, ::-1] - MEAN) / SPREAD).astype(np.float32)


def _noise(values: NDArray[Any]) -> NDArray[Any]:
    return np.random.default_rng(5).standard_normal(values.shape).astype(np.float32)


def _uniform(values: NDArray[Any]) -> NDArray[Any]:
    return np.random.default_rng(5).uniform(0, 1, values.shape).astype(np.float32)


def _one_sample(values: NDArray[Any]) -> NDArray[Any]:
    return values[:1]


def _dark_sample(values: NDArray[Any]) -> NDArray[Any]:
    return (0.1 * values[:1]).astype(np.float32)


def every_second(proto: ModelProto) -> list[str]:
    """Of the inner layers every second one, by what they compute."""
    return [str(node.output[0]) for node in matrix_nodes(proto)[1:-1:2]]


def _without_golden(network: Network, folder: Path) -> Case:
    return replace(network.case, golden=str(folder / "none.safetensors"))


def _cut_golden(network: Network, folder: Path) -> Case:
    (folder / "cut.safetensors").write_bytes(network.golden.read_bytes()[: network.golden.stat().st_size // 2])
    return replace(network.case, golden=str(folder / "cut.safetensors"))


def _golden_of_another(network: Network, folder: Path) -> Case:
    from pytest_trt.golden.golden import read, write

    golden = read(network.golden, "")
    outputs = {name: np.concatenate([array, array], -1) for name, array in golden.outputs.items()}
    write(replace(golden, runs=(replace(golden.runs[0], outputs=outputs),)), folder / "other.safetensors", network.name)
    return replace(network.case, golden=str(folder / "other.safetensors"))


def _still_golden(network: Network, folder: Path) -> Case:
    """A golden of one sample over and over."""
    from pytest_trt.golden.golden import read, write

    golden = read(network.golden, "")
    run = golden.runs[0]
    still = {
        side: {name: np.repeat(array[:1], len(array), 0) for name, array in getattr(run, side).items()}
        for side in ("inputs", "outputs")
    }
    write(replace(golden, runs=(replace(run, **still),)), folder / "still.safetensors", network.name)
    return replace(network.case, golden=str(folder / "still.safetensors"))


def _stale_golden(network: Network, folder: Path) -> Case:
    """The model was trained on, and the golden is of before."""
    case = plants.edited(partial(plants.middle_changed, _trained_on), network, folder)
    return replace(case, reference=None)


def _trained_on(values: NDArray[Any]) -> NDArray[Any]:
    noise = np.random.default_rng(3).standard_normal(values.shape)
    return (values + 0.3 * values.std() * noise).astype(np.float32)


def _zero_class(values: NDArray[Any]) -> NDArray[Any]:
    values[min(3, len(values) - 1)] = 0
    return values


def _next_class(values: NDArray[Any]) -> NDArray[Any]:
    return np.roll(values, 1, 0)


def _shuffled_classes(values: NDArray[Any]) -> NDArray[Any]:
    return values[np.random.default_rng(4).permutation(len(values))]


def _transposed_kernel(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(np.swapaxes(values, -1, -2))


def _flipped_kernel(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values[..., ::-1, ::-1])


def _edit(change: Any) -> Plant:
    return partial(plants.edited, change)


def _planted(
    name: str, networks: tuple[str, ...], precision: str, plant: Plant, *expected: str
) -> tuple[Specimen, ...]:
    return tuple(Specimen(name, network, precision, plant, frozenset(expected)) for network in networks)


_RANGES = (
    *_planted("uncalibrated", ALL, "int8", _uncalibrated, "TRT101"),
    *_planted("trtexec's placeholders", ALL, "int8", partial(by_ranges, _trtexec), "TRT102"),
    *_planted("trtexec's placeholders", ("resnet18", "encoder"), "fp8", partial(by_ranges, _trtexec), "TRT102"),
    *_planted(
        "all ranges 1", ("digits", "encoder", "detection"), "int8", partial(by_ranges, partial(_all, 1.0)), "TRT102"
    ),
    *_planted("all ranges 2", ("resnet18", "segmentation"), "int8", partial(by_ranges, partial(_all, 2.0)), "TRT102"),
    *_planted("all ranges 6", ("resnet18", "detection"), "int8", partial(by_ranges, partial(_all, 6.0)), "TRT102"),
    *_planted(
        "all ranges 127", ("mobilenet_v2", "encoder"), "int8", partial(by_ranges, partial(_all, 127.0)), "TRT102"
    ),
    *_planted("one range x 0.1", ALL, "int8", partial(by_ranges, partial(_one, 0.1)), "TRT105", "TRT107"),
    *_planted("one range x 10", ALL, "int8", partial(by_ranges, partial(_one, 10.0)), "TRT106", "TRT107"),
    *_planted(
        "ranges of other weights",
        ("resnet18", "encoder", "segmentation"),
        "int8",
        partial(by_ranges, _other_weights),
        "TRT104",
        "TRT105",
        "TRT106",
        "TRT107",
    ),
    *_planted("half of the ranges", ("digits", "detection"), "int8", partial(by_ranges, _half), "TRT103", "TRT104"),
    *_planted("stale cache", ("resnet18", "encoder"), "int8", _stale_cache, "TRT104"),
    *_planted("calibrated on raw pixels", ALL, "int8", partial(by_samples, _raw), "TRT108"),
    *_planted("calibrated without normalisation", COLOURED, "int8", partial(by_samples, _unnormalised), "TRT108"),
    *_planted("calibrated on BGR", COLOURED, "int8", partial(by_samples, _bgr), "TRT108"),
    *_planted(
        "calibrated on noise", ("digits", "resnet18", "segmentation"), "int8", partial(by_samples, _noise), "TRT108"
    ),
    *_planted(
        "calibrated on one sample", ("mobilenet_v2", "encoder"), "int8", partial(by_samples, _one_sample), "TRT108"
    ),
    *_planted(
        "calibrated on one dark sample", ("digits", "detection"), "int8", partial(by_samples, _dark_sample), "TRT108"
    ),
)

_FILES = (
    *_planted("placeholders as Q/DQ", ("resnet18", "detection"), "model", partial(with_pairs, _trtexec), "TRT102"),
    *_planted(
        "one scale x 0.1 as Q/DQ",
        ("digits", "encoder"),
        "model",
        partial(with_pairs, partial(_one, 0.1)),
        "TRT105",
        "TRT107",
    ),
    *_planted(
        "one scale x 10 as Q/DQ",
        ("mobilenet_v2", "segmentation"),
        "model",
        partial(with_pairs, partial(_one, 10.0)),
        "TRT106",
        "TRT107",
    ),
    *_planted(
        "partial Q/DQ", ("resnet18", "segmentation"), "model", partial(with_pairs, dict, keep=every_second), "TRT103"
    ),
    *_planted(
        "asymmetric Q/DQ",
        ("digits", "detection"),
        "model",
        partial(by_onnxruntime, ActivationSymmetric=False),
        "TRT109",
    ),
    *_planted(
        "int32 biases in Q/DQ",
        ("resnet18", "segmentation"),
        "model",
        partial(by_onnxruntime, QuantizeBias=True),
        "TRT109",
    ),
    *_planted(
        "Q/DQ of random calibration",
        ("resnet18", "encoder", "detection"),
        "model",
        partial(by_onnxruntime, samples=_uniform),
        "TRT105",
        "TRT106",
        "TRT107",
        "TRT108",
    ),
)

_WEIGHTS = tuple(
    specimen
    for precision in ("int8", "fp16")
    for name, change in (
        ("a quarter of a weight's channels zeroed", zeroed),
        ("a weight 8 times too coarse", partial(coarse, 8)),
        ("a weight 16 times too coarse", partial(coarse, 16)),
        ("a weight clipped at half", partial(clipped, 0.5)),
    )
    for specimen in _planted(
        f"{name}, {precision} file",
        CONVOLUTIONAL if precision == "fp16" else ALL,
        "model",
        partial(rounded_file, change, precision=precision),
        "TRT110",
    )
)

_STRUCTURE = (
    *_planted(
        "BatchNorm in training mode",
        ("resnet18", "mobilenet_v2", "segmentation"),
        "fp16",
        plants.batch_statistics,
        *WRONG,
    ),
    *_planted("another epsilon", ("encoder",), "fp32", _edit(plants.another_epsilon), *WRONG),
    *_planted("another epsilon of BatchNorm", ("resnet18", "segmentation"), "fp16", plants.batch_epsilon, *WEIGHTS),
    *_planted("dropped residual", RESIDUAL, "fp16", _edit(plants.no_residual), *WRONG),
    *_planted("dropped activation", CONVOLUTIONAL, "int8", _edit(plants.no_rectifier), *WRONG),
    *_planted("changed padding", ("digits", "resnet18", "segmentation"), "fp16", _edit(plants.shifted_padding), *WRONG),
    *_planted("average for max pooling", ("digits", "segmentation"), "fp16", _edit(plants.another_pooling), *WRONG),
    *_planted("attention without its scale", ("encoder",), "fp16", _edit(plants.unscaled), *WRONG),
    *_planted("softmax along another axis", ("encoder", "detection"), "fp16", _edit(plants.another_axis), *WRONG),
    *_planted("one NaN weight", ("resnet18", "encoder", "detection"), "fp16", _edit(plants.nan_weight), "TRT301"),
    *_planted(
        "weights of two decimals",
        ("digits", "resnet18", "encoder"),
        "fp16",
        _edit(partial(plants.truncated, 2)),
        *WEIGHTS,
    ),
    *_planted(
        "weights of half their bits",
        ("mobilenet_v2", "segmentation"),
        "fp32",
        _edit(partial(plants.truncated, None)),
        *WEIGHTS,
    ),
    *_planted(
        "pruned channel", ("resnet18", "encoder", "segmentation"), "fp16", _edit(plants.one_channel_pruned), *WEIGHTS
    ),
    *_planted(
        "flipped kernel",
        ("segmentation", "mobilenet_v2"),
        "fp16",
        _edit(partial(plants.kernel_changed, _flipped_kernel)),
        *WEIGHTS,
    ),
    *_planted(
        "zeroed class",
        ("digits", "mobilenet_v2", "encoder", "detection"),
        "int8",
        _edit(partial(plants.head_weights, _zero_class)),
        *WEIGHTS,
    ),
    *_planted(
        "classes off by one",
        ("resnet18", "detection"),
        "fp16",
        _edit(partial(plants.head_weights, _next_class)),
        *WEIGHTS,
    ),
    *_planted(
        "exchanged output channels",
        ("segmentation",),
        "int8",
        _edit(partial(plants.head_weights, _next_class)),
        *WEIGHTS,
    ),
    *_planted(
        "shuffled classes",
        ("encoder", "detection"),
        "int8",
        _edit(partial(plants.head_weights, _shuffled_classes)),
        *WEIGHTS,
    ),
    *_planted(
        "transposed kernel",
        ("digits", "resnet18"),
        "fp16",
        _edit(partial(plants.kernel_changed, _transposed_kernel)),
        *WEIGHTS,
    ),
    *_planted("one flipped bit", ("segmentation", "encoder"), "fp32", _edit(plants.flipped_bit), *WEIGHTS, "TRT301"),
    *_planted("lost last activation", ("detection",), "fp16", _edit(plants.no_last_activation), *WRONG),
    *_planted("input normalised twice", ("resnet18", "detection"), "fp16", _edit(plants.normalised_twice), *WRONG),
    *_planted("exchanged coordinates", ("detection",), "int8", _edit(plants.exchanged_coordinates), *WRONG),
    *_planted("swapped outputs", ("detection",), "fp16", _edit(plants.swapped_outputs), "TRT504"),
    *_planted("label off by one", ("detection",), "fp16", _edit(plants.label_off_by_one), *WRONG),
    *_planted("lost bias", ("digits", "resnet18", "segmentation"), "fp16", _edit(plants.no_bias), *WRONG),
    *_planted(
        "constant output", ("mobilenet_v2", "encoder", "segmentation"), "fp16", _edit(plants.dead_input), "TRT305"
    ),
    *_planted(
        "transposed input",
        ("digits", "segmentation", "detection"),
        "int8",
        _edit(partial(plants.reordered_input, "transposed")),
        *WRONG,
    ),
    *_planted(
        "mirrored input", ("resnet18", "detection"), "fp16", _edit(partial(plants.reordered_input, "mirrored")), *WRONG
    ),
    *_planted(
        "input upside down", ("mobilenet_v2",), "fp16", _edit(partial(plants.reordered_input, "upside_down")), *WRONG
    ),
    *_planted("BGR input", COLOURED, "fp16", _edit(partial(plants.reordered_input, "bgr")), *WRONG),
    *_planted("input without normalisation", COLOURED, "int8", _edit(plants.raw_image), *WRONG),
)

_PRECISION = (
    *_planted(
        "overflow in fp16",
        ("digits", "resnet18", "encoder", "detection"),
        "fp16",
        _edit(partial(plants.large_between, 6e4)),
        "TRT202",
    ),
    *_planted(
        "weight beyond fp16", ("segmentation", "mobilenet_v2"), "fp16", _edit(plants.weight_beyond_fp16), "TRT202"
    ),
    *_planted(
        "subnormal weights in fp16",
        ("digits", "resnet18", "segmentation"),
        "fp16",
        _edit(plants.small_weights),
        "TRT203",
    ),
)

_GOLDEN = (
    *_planted("missing golden", ("digits",), "fp16", _without_golden, "TRT501"),
    *_planted("stale golden", ("digits", "resnet18", "encoder", "detection"), "fp16", _stale_golden, "TRT502"),
    *_planted("golden cut short", ("segmentation",), "fp16", _cut_golden, "TRT503"),
    *_planted("golden of other shapes", ("encoder", "detection"), "fp16", _golden_of_another, "TRT504"),
    *_planted("golden that stands still", ("mobilenet_v2", "digits"), "fp16", _still_golden, "TRT505"),
)

DEFECTS = (*_RANGES, *_FILES, *_WEIGHTS, *_STRUCTURE, *_PRECISION, *_GOLDEN)
"""Every planted defect."""
