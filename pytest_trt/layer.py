"""Layer: one layer of a built engine, and how many of those that compute run in the precision that was asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Achieved", "Layer", "achieved"]


@dataclass(frozen=True)
class Layer:
    """One layer of an engine, as its inspector tells it.

    Attributes:
        name: of the layer; fused layers are joined by the builder.
        type: the builder's word for its kind.
        inputs: dtypes of the tensors it reads, as "fp32", "fp16", "int8".
        outputs: dtypes of those it writes.
        weights: dtype of its weights; None where it has none, or the release does not tell.
        tactic: name of the kernel that was chosen; empty where the release does not tell.
        onnx_nodes: names of the ONNX nodes in it.
        precision: what it multiplies in: the dtype of its first input, tf32 where the kernel's name says so, unknown
            where many operators were fused into one layer that does not tell.
        computes: whether it multiplies matrices (convolution, deconvolution, matrix product, RNN), where precision
            decides speed and error.
        kept: whether all that it multiplies was to stay in fp32.
    """

    name: str
    type: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    weights: str | None = None
    tactic: str = ""
    onnx_nodes: tuple[str, ...] = ()
    precision: str = "unknown"
    computes: bool = False
    kept: bool = False


@dataclass(frozen=True)
class Achieved:
    """How many of the layers that compute run in which precision; those that were to stay in fp32 do not count.

    Attributes:
        asked: the precision that was asked.
        compute: how many layers compute.
        honoured: how many of them run in it.
        by_precision: how many run in each.
    """

    asked: str
    compute: int
    honoured: int
    by_precision: Mapping[str, int]

    def __str__(self) -> str:
        found = ", ".join(f"{count} in {label}" for label, count in sorted(self.by_precision.items()))
        return f"{self.honoured} of {self.compute} compute layers in {self.asked} ({found or 'none'})"


def achieved(layers: Iterable[Layer], asked: str) -> Achieved:
    """Count the layers that compute, but for those kept in fp32, by the precision they run in."""
    found = Counter(layer.precision for layer in layers if layer.computes and not layer.kept)
    return Achieved(asked, sum(found.values()), found[asked], dict(found))
