"""Plants in calibration: other ranges, and samples of another normalisation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.foreign.graphs import is_float
from benchmarks.foreign.specimen import NoPlace, Planted
from benchmarks.zoo.given import by_ranges, ranges_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.foreign.draws import Foreign

__all__ = ["changed_range", "ranges", "wrongly_normalised"]


def ranges(change: Callable[[dict[str, float]], dict[str, float]], network: Foreign, folder: Path) -> Planted:
    """The healthy ranges, changed."""
    return Planted(by_ranges(change, network, folder))


def changed_range(factor: float, network: Foreign, folder: Path) -> Planted:
    """The range of an inner tensor in the middle, times a factor."""
    inputs = {value.name for value in network.proto().graph.input}
    names = [name for name in ranges_of(network) if name not in inputs]
    chosen = names[len(names) // 2]
    case = by_ranges(lambda amax: {**amax, chosen: amax[chosen] * factor}, network, folder)
    return Planted(case, frozenset([chosen]))


def wrongly_normalised(network: Foreign, folder: Path) -> Planted:
    """Calibration samples as another network takes them: of another scale, and pictures with another zero.

    Raises:
        NoPlace: no input is of floats.
    """
    samples: dict[str, Any] = network.samples()
    name = next((name for name, array in samples.items() if is_float(array)), "")
    if not name:
        raise NoPlace("no input is of floats")
    array = samples[name]
    if array.ndim == 4 and array.min() < 0:
        samples[name] = ((array + 1) / 2).astype(np.float32)
    elif array.ndim == 4:
        samples[name] = ((array - 0.45) / 0.225).astype(np.float32)
    else:
        samples[name] = (array * 0.05).astype(np.float32)
    np.savez(folder / "samples.npz", **samples)
    return Planted(replace(network.case, calibration=str(folder / "samples.npz")), frozenset([name]))
