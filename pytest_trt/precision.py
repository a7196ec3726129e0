"""Precision: what a network may be asked to compute in, and the facts of each."""

from __future__ import annotations

from enum import Enum

from pytest_trt.errors import SpecError, unknown

__all__ = ["Precision"]


class Precision(Enum):
    """A precision by its name on the command line.

    Attributes:
        bits: width of one stored value.
        unit_roundoff: largest relative error of rounding one value in range to nearest; for int8,
            which has an absolute grid, half a step over the range's largest value.
        largest: largest finite value; for int8 and fp8 in steps of the scale.

    ``MODEL`` is the file as it already is: its facts are those of the precision that it holds.

    Sources: IEEE 754-2008 (fp32, fp16); the bfloat16 and TF32 formats keep 7 and 10 stored bits of
    the significand; OCP 8-bit Floating Point Specification 1.0 (fp8 is its E4M3).
    """

    FP32 = ("fp32", 32, 2.0**-24, (2 - 2.0**-23) * 2.0**127)
    TF32 = ("tf32", 32, 2.0**-11, (2 - 2.0**-10) * 2.0**127)
    FP16 = ("fp16", 16, 2.0**-11, 65504.0)
    BF16 = ("bf16", 16, 2.0**-8, (2 - 2.0**-7) * 2.0**127)
    INT8 = ("int8", 8, 0.5 / 127, 127.0)
    FP8 = ("fp8", 8, 2.0**-4, 448.0)
    MODEL = ("model", 0, 0.0, 0.0)

    def __init__(self, label: str, bits: int, unit_roundoff: float, largest: float) -> None:
        self.label = label
        self.bits = bits
        self.unit_roundoff = unit_roundoff
        self.largest = largest

    def __str__(self) -> str:
        return self.label

    @property
    def takes_ranges(self) -> bool:
        """Whether activations are put on a grid that ranges decide."""
        return self in (Precision.INT8, Precision.FP8)

    @classmethod
    def labels(cls) -> list[str]:
        """The names that a user may write."""
        return [precision.label for precision in cls]

    @classmethod
    def parse(cls, label: str) -> Precision:
        """The precision of this name.

        Raises:
            SpecError: it is not one; the message names the nearest.
        """
        for precision in cls:
            if precision.label == label:
                return precision
        raise unknown("precision", label, cls.labels())

    @classmethod
    def parse_list(cls, text: str) -> tuple[Precision, ...]:
        """The precisions of a comma list, in order, each once.

        Raises:
            SpecError: a name is not known, or there is none.
        """
        labels = [label.strip() for label in text.split(",")]
        if not any(labels):
            raise SpecError(f"the list of precisions is empty (known: {', '.join(cls.labels())})")
        return tuple(dict.fromkeys(cls.parse(label) for label in labels))
