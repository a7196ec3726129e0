"""Specimens: the healthy deployments and the planted defects of each network, and which code must come first.

Sets of codes are as in the zoo: each of them says the same defect.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.foreign import calibrations, files, insides, outputs, questions
from benchmarks.foreign.specimen import Planted, Specimen
from benchmarks.zoo.defects import WRONG
from benchmarks.zoo.given import with_pairs
from benchmarks.zoo.weights import clipped, coarse, rounded_file, zeroed

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.foreign.draws import Foreign
    from benchmarks.foreign.specimen import Plant

__all__ = ["DEFECTS", "TWINS", "WEAK"]

WEAK = frozenset({"TRT202", "TRT307", "error"})
"""A bound that judges nothing, or the loss that made it; an error where no bound could be made."""


def _planted(name: str, precisions: str, plant: Plant, *expected: str, warns: bool = False) -> tuple[Specimen, ...]:
    return tuple(Specimen(name, asked, plant, frozenset(expected), warns) for asked in precisions.split())


def _four(amax: dict[str, float]) -> dict[str, float]:
    return dict.fromkeys(amax, 4.0)


def _rounded(precision: str, network: Foreign, folder: Path) -> Planted:
    return Planted(rounded_file(lambda levels, scale: (levels, scale), network, folder, precision))


def _pairs(network: Foreign, folder: Path) -> Planted:
    return Planted(with_pairs(dict, network, folder))


_CALIBRATION = (
    *_planted("one range x 0.05", "int8", partial(calibrations.changed_range, 0.05), "TRT105", "TRT107"),
    *_planted("all ranges 4", "int8", partial(calibrations.ranges, _four), "TRT102"),
    *_planted("calibrated on data normalised wrongly", "int8 fp8", calibrations.wrongly_normalised, "TRT108"),
    *_planted("Q/DQ with zero points", "model", partial(files.from_onnxruntime, ActivationSymmetric=False), "TRT109"),
    *_planted("a scale x 0.05 in Q/DQ", "model", files.scale_by_onnxruntime, "TRT105", "TRT107"),
)

_WEIGHTS = (
    *_planted("a quarter of a weight zeroed, onnxruntime's Q/DQ", "model", files.zeros_by_onnxruntime, "TRT110"),
    *_planted("a quarter of a weight zeroed, onnxconverter's fp16", "model", files.halves_with_zeros, "TRT110"),
    *(
        specimen
        for precision in ("int8", "fp16")
        for name, change in (
            ("a quarter of a weight zeroed", zeroed),
            ("a weight 8 times too coarse", partial(coarse, 8)),
            ("a weight 16 times too coarse", partial(coarse, 16)),
            ("a weight clipped at half", partial(clipped, 0.5)),
        )
        for specimen in _planted(
            f"{name}, {precision} file", "model", partial(files.weights, change, precision), "TRT110"
        )
    ),
)

_PARTS = (
    *_planted("class scores dead", "fp16 int8", partial(outputs.dead_rows, 18), "TRT305", "TRT110"),
    *_planted("a slice stands still", "fp16 int8", outputs.still_slice, "TRT305"),
    *_planted("outputs swapped", "fp16", outputs.swapped, *WRONG),
    *_planted("logits 1.2 times beside sentinels", "fp16 int8", partial(outputs.beside_sentinels, 1.2), *WRONG),
    *_planted("indices of the best off by one", "fp16 int8", partial(outputs.best, 1), *WRONG),
)

_INSIDE = (
    *_planted("few samples overflow", "fp16", insides.few_overflow, "TRT202"),
    *_planted("few samples overflow, swallowed", "fp16", insides.swallowed, "TRT202"),
    *_planted("flushed to zero", "fp16", insides.flushed, "TRT202"),
    *_planted("what the network needs in fp32 is not kept", "fp16", insides.unkept, "TRT202"),
    *_planted("an epsilon of 1e-8", "fp16", insides.divided_by_epsilon, "TRT202"),
    *_planted("a large constant", "fp16 bf16", insides.large_constant, *WEAK, warns=True),
)

_QUESTIONS = (
    *_planted("hardly int8", "model", files.hardly_quantised, "TRT206", "TRT103", warns=True),
    *_planted("other inputs", "fp16", questions.other_inputs, "TRT502"),
    *_planted("inputs are missing", "fp16", partial(questions.missing, "inputs"), "error"),
    *_planted("other labels", "fp16", questions.changed_labels, "TRT502"),
    *_planted("labels are missing", "fp16", partial(questions.missing, "labels"), "error"),
)

DEFECTS = (*_CALIBRATION, *_WEIGHTS, *_PARTS, *_INSIDE, *_QUESTIONS)
"""Every planted defect."""

TWINS = (
    *_planted("onnxconverter's fp16 file", "model", files.halves),
    *_planted("onnxruntime's Q/DQ file", "model", files.from_onnxruntime),
    *_planted("int8 file", "model", _pairs),
    *_planted("fp16 file", "model", partial(_rounded, "fp16")),
    *_planted("a layer scaled up and down", "fp16", insides.healthy_scaled),
    *_planted("the smallest layer in fp32", "int8", files.smallest_kept),
    *_planted("logits beside sentinels", "fp16 int8", partial(outputs.beside_sentinels, 1.0)),
    *_planted("the best with near ties", "fp16 int8", partial(outputs.best, 0)),
)
"""Healthy deployments beside those of every precision and draw."""
