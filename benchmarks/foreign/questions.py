"""Plants in what the case names: other inputs and labels than the golden's, and files that are missing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.foreign.specimen import NoPlace, Planted

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.foreign.draws import Foreign

__all__ = ["changed_labels", "missing", "other_inputs"]


def other_inputs(network: Foreign, folder: Path) -> Planted:
    """The case names other inputs than the golden has."""
    axes = network.source.axes
    given: dict[str, Any] = {
        name: np.flip(array, axes.get(name, 0) or 0) if array.ndim else array for name, array in network.inputs.items()
    }
    np.savez(folder / "inputs.npz", **given)
    return Planted(replace(network.case, inputs=str(folder / "inputs.npz")))


def changed_labels(network: Foreign, folder: Path) -> Planted:
    """The case names other true classes than the golden has.

    Raises:
        NoPlace: the network has none.
    """
    if not network.case.labels:
        raise NoPlace("no labels")
    np.save(folder / "labels.npy", 1 - np.load(network.case.labels))
    return Planted(replace(network.case, labels=str(folder / "labels.npy")))


def missing(key: str, network: Foreign, folder: Path) -> Planted:
    """A file that the case names is not there.

    Raises:
        NoPlace: the case names none.
    """
    if getattr(network.case, key) is None:
        raise NoPlace(f"the case has no {key}")
    absent: dict[str, Any] = {key: str(folder / f"{key}.npz")}
    return Planted(replace(network.case, **absent))
