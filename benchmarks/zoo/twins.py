"""Healthy twins: what is right, and must pass."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import onnx

from benchmarks.zoo.defects import ALL, CONVOLUTIONAL, every_second
from benchmarks.zoo.given import by_onnxruntime, by_ranges, with_pairs
from benchmarks.zoo.specimen import Plant, Specimen
from benchmarks.zoo.surgery import matrix_nodes
from benchmarks.zoo.weights import clipped, powers_of_two, pruned_with_reference, rounded_file
from pytest_trt.golden.create import update
from pytest_trt.lowering.lowering import lower
from pytest_trt.model.model import load

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.zoo.network import Network
    from pytest_trt.case.case import Case

__all__ = ["TWINS"]

TRAINED = tuple(name for name in ALL if name != "digits")


def _as_it_is(network: Network, _: Path) -> Case:
    return network.case


def _by(method: str, network: Network, _: Path) -> Case:
    return replace(network.case, calibration_method=method)


def _on_golden(network: Network, _: Path) -> Case:
    return replace(network.case, calibration="golden")


def _exported_again(opset: int, folding: bool, network: Network, folder: Path) -> Case:
    from benchmarks.zoo.makers import export, module_of

    module, x = module_of(network)
    told: dict[str, Any] = {"do_constant_folding": folding}
    export(module, x, folder / "again.onnx", network.name, opset, **told)
    return network.deployed(onnx.load(folder / "again.onnx"), folder)


def _golden_again(network: Network, folder: Path) -> Case:
    """The golden made anew of the same file."""
    case = replace(network.case, golden=str(folder / "again.safetensors"))
    update(case, folder)
    return case


def _rewritten(network: Network, folder: Path) -> Case:
    """The file as onnxruntime's optimiser writes it: folded, fused, renamed and in another order."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(str(network.onnx), options, providers=["CPUExecutionProvider"])
    return network.deployed(onnx.load(folder / "optimised.onnx"), folder)


def _first_and_last(proto: onnx.ModelProto) -> list[str]:
    nodes = matrix_nodes(proto)
    return [str(node.output[0]) for node in (nodes[0], nodes[-1])]


def _depthwise(proto: onnx.ModelProto) -> list[str]:
    nodes = matrix_nodes(proto)
    return [str(n.output[0]) for n in nodes if any(a.name == "group" and a.i > 1 for a in n.attribute)]


def _typed(precision: str, network: Network, folder: Path) -> Case:
    return network.deployed(lower(load(network.onnx), precision, typed=True).proto, folder)


def _twins(
    name: str, networks: tuple[str, ...], precision: str, plant: Plant = _as_it_is, threads: int | None = None
) -> tuple[Specimen, ...]:
    return tuple(Specimen(name, network, precision, plant, threads=threads) for network in networks)


TWINS = (
    *(twin for precision in ("fp32", "tf32", "fp16", "bf16", "fp8") for twin in _twins(precision, ALL, precision)),
    *(
        twin
        for method in ("minmax", "entropy", "percentile", "mse")
        for twin in _twins(f"int8, {method}", ALL, "int8", partial(_by, method))
    ),
    *_twins("int8, the golden's inputs", ALL, "int8", _on_golden),
    *_twins("int8, a ranges file", ("resnet18", "encoder", "segmentation"), "int8", partial(by_ranges, dict)),
    *_twins(
        "int8, a calibration cache", ("digits", "detection"), "int8", partial(by_ranges, dict, file="ranges.cache")
    ),
    *_twins("fp32, one thread", ALL, "fp32", threads=1),
    *_twins("int8, one thread", ALL, "int8", threads=1),
    *_twins("exported again, opset 13", CONVOLUTIONAL[1:], "fp32", partial(_exported_again, 13, True)),
    *_twins("exported again, opset 18", TRAINED, "fp16", partial(_exported_again, 18, True)),
    *_twins("exported again, not folded", TRAINED, "int8", partial(_exported_again, 17, False)),
    *_twins("golden made again", ALL, "fp16", _golden_again),
    *_twins("rewritten by onnxruntime", ALL, "int8", _rewritten),
    *_twins("fp16 file", CONVOLUTIONAL, "model", partial(_typed, "fp16")),
    *_twins("int8 file", ALL, "model", partial(with_pairs, dict)),
    *_twins(
        "int8 file, gaps declared",
        ("resnet18", "segmentation"),
        "model",
        partial(with_pairs, dict, keep=every_second, declared=True),
    ),
    *_twins(
        "int8 file, first and last in float",
        ("resnet18", "encoder", "segmentation"),
        "model",
        partial(with_pairs, dict, keep=_first_and_last),
    ),
    *_twins("int8 file, depthwise in float", ("mobilenet_v2",), "model", partial(with_pairs, dict, keep=_depthwise)),
    *_twins("onnxruntime's Q/DQ file", ALL, "model", by_onnxruntime),
    *_twins(
        "onnxruntime's Q/DQ file, one scale a weight",
        ("digits", "encoder", "segmentation"),
        "model",
        partial(by_onnxruntime, per_channel=False),
    ),
    *_twins("pruned as its reference is", ("digits", "segmentation"), "model", pruned_with_reference),
    *_twins(
        "int8 file, a weight of scales of powers of two",
        ("digits", "resnet18", "encoder"),
        "model",
        partial(rounded_file, powers_of_two),
    ),
    *_twins(
        "int8 file, a weight clipped at 0.97",
        ("digits", "resnet18", "segmentation"),
        "model",
        partial(rounded_file, partial(clipped, 0.97)),
    ),
)
"""Every healthy twin."""
