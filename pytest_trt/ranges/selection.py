"""Selection: the ranges that a model needs, out of those that were given."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_trt.errors import LoweringError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_trt.ranges.amax import Ranges

__all__ = ["is_tensorrts_own", "select"]

# what TensorRT's parser adds to a network has no name in the ONNX model
_OWN = re.compile(r"\(Unnamed Layer\* \d+\) \[.*|ONNXTRT_.*")


def is_tensorrts_own(name: str) -> bool:
    """Whether TensorRT gave a tensor this name, as "(Unnamed Layer* 5) [Constant]_output"."""
    return _OWN.fullmatch(name) is not None


def select(ranges: Ranges, tensors: Iterable[str], known: Iterable[str]) -> Ranges:
    """The ranges of these tensors.

    Args:
        ranges: that were given; those of tensors that TensorRT's parser added are passed over.
        tensors: whose range is needed.
        known: every tensor of the model.

    Raises:
        LoweringError: one of them has none or 0, or a range is given for a tensor that the model has not.
    """
    names, all_of_it = list(tensors), set(known)
    told = [name for name in ranges.amax if not is_tensorrts_own(name)]
    strange = [name for name in told if name not in all_of_it]
    zero = [name for name in names if name in ranges.constants and name not in ranges.amax]
    missing = [name for name in names if name not in ranges.amax and name not in zero]
    if 2 * len(strange) > len(told):
        none = "none" if len(strange) == len(told) else f"only {len(told) - len(strange)}"
        raise LoweringError(
            f"{ranges.source} is of another network: {none} of its {len(told)} tensors"
            f" ({_placed(ranges, strange)}) is one of the model's, which needs {_five(names)}. Take the ranges of this"
            " model, exported the same way.",
            _facts(ranges, names, strange, missing),
        )
    faults = [
        *([f"{len(missing)} tensors have no range: {_five(missing)}"] if missing else []),
        *([f"{len(strange)} ranges are of tensors it has not: {_placed(ranges, strange)}"] if strange else []),
        *([f"{len(zero)} needed tensors have range 0: {_placed(ranges, zero)}"] if zero else []),
    ]
    if faults:
        remedy = (
            " Range 0 says that a tensor was 0 in all of the calibration data, or taken for a constant: calibrate on"
            " data that moves it, or, where it is always 0, write the ranges as text and give it any range, such as 1."
        )
        raise LoweringError(
            f"{ranges.source} does not fit the model: {'; '.join(faults)}.{remedy if zero else ''}",
            _facts(ranges, names, strange, missing),
        )
    return replace(ranges, amax={name: ranges.amax[name] for name in names}, constants=())


def _placed(ranges: Ranges, names: list[str]) -> str:
    told = [f"{name!r} ({ranges.lines[name]})" if name in ranges.lines else repr(name) for name in names[:5]]
    return f"{', '.join(told)}{' ...' if len(names) > 5 else ''}"


def _facts(ranges: Ranges, names: list[str], strange: list[str], missing: list[str]) -> dict[str, object]:
    fitting = {name: ranges.amax[name] for name in names if name in ranges.amax}
    return {"source": ranges.source, "made_by": ranges.made_by, "amax": fitting, "strange": strange, "missing": missing}


def _five(names: list[str]) -> str:
    return f"{', '.join(map(repr, names[:5]))}{' ...' if len(names) > 5 else ''}"
