"""Draws: a network with golden inputs and two sets of calibration samples, each taken at random from one pool.

The pool is drawn once. Each seed then takes its golden inputs and two sets of calibration samples that have nothing in
common: one for whoever makes the golden, the other for whoever deploys. Both are honest.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from benchmarks.foreign.networks import NETWORKS, Arrays, Source
from benchmarks.foreign.wheels import file_of
from benchmarks.zoo.network import Network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_trt.case.case import Case

__all__ = ["Foreign", "drawn"]


@dataclass(frozen=True)
class Foreign(Network):
    """One draw of a network: the zoo's files, and NAME.other.npz, the other calibration samples."""

    source: Source

    @property
    def case(self) -> Case:
        """The healthy deployment, with true classes where they are known."""
        labels = self.folder / f"{self.name}.labels.npy"
        return replace(super().case, labels=str(labels) if labels.exists() else None, keep=self.source.keep)

    @property
    def other(self) -> Path:
        """Calibration samples that the golden's maker did not have."""
        return self.folder / f"{self.name}.other.npz"

    @cached_property
    def inputs(self) -> Arrays:
        """The golden inputs."""
        with np.load(self.folder / f"{self.name}.inputs.npz") as file:
            return dict(file)

    def proto(self) -> onnx.ModelProto:
        """The healthy graph with all its weights among the initializers, to be changed at will."""
        return _stored(super().proto())

    def batches(self) -> Iterator[Arrays]:
        """The calibration samples, one at a time: all at once are more than some machines hold."""
        samples = self.samples()
        for index in range(self.source.calibration):
            yield self.source.taken(samples, slice(index, index + 1))


def drawn(name: str, folder: Path, wheels: Path, seed: int) -> Foreign:
    """One draw of a network, with its files in place.

    Raises:
        Unavailable: what it needs can't be had.
    """
    source = NETWORKS[name]
    network = Foreign(name, folder / name / f"draw-{seed}", source)
    if not network.other.exists():
        network.folder.mkdir(parents=True, exist_ok=True)
        _place(network.onnx, folder / name / f"{name}.onnx", wheels)
        golden, calibration = (_pool(network, folder / name, wheels, use) for use in ("golden", "calibration"))
        _take(network, golden, calibration, np.random.default_rng(seed))
    return network


def _place(path: Path, kept: Path, wheels: Path) -> None:
    if not kept.exists():
        source = NETWORKS[kept.stem]
        proto = onnx.load_from_string(file_of(source.package, source.file, wheels))
        _name_axes(proto)
        onnx.save(proto, kept)
    if not path.exists():
        os.link(kept, path)


def _name_axes(proto: onnx.ModelProto) -> None:
    """paddle2onnx calls every axis that it does not know '?', as if they were one: each gets a name of its own."""
    for value in (*proto.graph.input, *proto.graph.output):
        for index, axis in enumerate(value.type.tensor_type.shape.dim):
            if axis.dim_param == "?":
                axis.dim_param = f"axis{index}" if index else "batch"


def _pool(network: Foreign, folder: Path, wheels: Path, use: str) -> Arrays:
    """Three times as many samples as a draw of this use has; true classes are under ""."""
    path = folder / f"{use}.npz"
    if not path.exists():
        count = 3 * getattr(network.source, use)
        rng = np.random.default_rng([len(use), count])
        arrays, classes = network.source.draw(rng, count, network.onnx, wheels)
        np.savez(path, **(arrays if classes is None else {**arrays, "true classes": classes}))
    with np.load(path) as file:
        return dict(file)


def _take(network: Foreign, golden: Arrays, calibration: Arrays, rng: np.random.Generator) -> None:
    source, stem = network.source, network.folder / network.name
    chosen = rng.permutation(3 * source.golden)[: source.golden]
    classes = golden.pop("true classes", None)
    if classes is not None:
        calibration.pop("true classes")
        np.save(f"{stem}.labels.npy", classes[chosen])
    np.savez(f"{stem}.inputs.npz", **source.taken(golden, chosen))
    first, second = np.split(rng.permutation(3 * source.calibration)[: 2 * source.calibration], 2)
    np.savez(f"{stem}.calibration.npz", **source.taken(calibration, first))
    np.savez(network.other, **source.taken(calibration, second))


def _stored(proto: onnx.ModelProto) -> onnx.ModelProto:
    for node in [node for node in proto.graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]:
        proto.graph.node.remove(node)
        tensor: Any = helper.get_attribute_value(node.attribute[0])
        tensor.name = node.output[0]
        proto.graph.initializer.append(tensor)
    return proto
