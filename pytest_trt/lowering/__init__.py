"""Lowering: expressing a precision in the ONNX graph itself, fp32 in, the precision's rounding out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from pytest_trt.errors import LoweringError
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable

    from onnx import ModelProto

    from pytest_trt.model import Model
    from pytest_trt.ranges import Ranges

__all__ = ["at_opset", "lower", "needs_ranges"]

_LEAST_OPSET = {Precision.BF16: 13, Precision.INT8: 13, Precision.FP8: 19}


def needs_ranges(model: Model, precision: Precision) -> bool:
    """Whether lowering this model to this precision takes calibration."""
    from pytest_trt.lowering.held import held_precision

    return precision.takes_ranges and held_precision(model.proto) == "fp32"


def at_opset(model: Model, precision: Precision) -> Model:
    """The model in operators new enough for the precision (bf16 and int8: 13, fp8: 19); itself where they are.

    Done first, because onnx's converter may give tensors other names, and calibration goes by names.

    Raises:
        LoweringError: an operator can't be converted.
    """
    from pytest_trt.lowering.graph import copy_at_opset, opset
    from pytest_trt.lowering.held import held_precision
    from pytest_trt.model import Model as Converted

    least = _LEAST_OPSET.get(precision, 0)
    if opset(model.proto) >= least or held_precision(model.proto) != "fp32":
        return model
    return Converted(copy_at_opset(model.proto, least), model.source)


@overload
def lower(
    model: Model,
    precision: Precision | str,
    ranges: Ranges | None = None,
    *,
    typed: bool = False,
    keep: Iterable[str] = (),
    ops: Iterable[str] = (),
) -> Model: ...
@overload
def lower(
    model: ModelProto,
    precision: Precision | str,
    ranges: Ranges | None = None,
    *,
    typed: bool = False,
    keep: Iterable[str] = (),
    ops: Iterable[str] = (),
) -> ModelProto: ...
def lower(
    model: Model | ModelProto,
    precision: Precision | str,
    ranges: Ranges | None = None,
    *,
    typed: bool = False,
    keep: Iterable[str] = (),
    ops: Iterable[str] = (),
) -> Model | ModelProto:
    """The same network with the precision's rounding in its graph; the argument is left alone.

    Args:
        model: an fp32 model, or onnx's ModelProto of one; one that holds the precision already is returned as it is.
        precision: what to express. fp32 and model change nothing.
        ranges: of the activations, for int8 and fp8.
        typed: for fp16 and bf16, the graph in that type itself, which TensorRT takes, in place of the cast sandwich
            that onnxruntime simulates.
        keep: nodes that stay in fp32, each by its name or by a tensor that it computes; of a file with Q/DQ, the
            ones that it leaves in fp32 on purpose.
        ops: kinds of operators that are lowered, as "Conv"; all that the precision lowers if none is named.

    Returns:
        The kind that was given.

    Raises:
        SpecError: no such precision.
        ModelError: the ModelProto is not valid.
        LoweringError: the model holds another reduced precision, can't be expressed in this one, has no such node or
            nothing that would change, or the precision lowers no such operator.
    """
    from pytest_trt.model import Model as Checked
    from pytest_trt.model import checked

    precision = Precision.parse(precision) if isinstance(precision, str) else precision
    how = _How(ranges, typed, tuple(keep), tuple(ops))
    if isinstance(model, Checked):
        return _expressed(model, precision, how)
    copy = type(model).FromString(model.SerializeToString())
    return _expressed(checked(copy, "the model"), precision, how).proto


@dataclass(frozen=True)
class _How:
    """What :func:`lower` is told beside model and precision."""

    ranges: Ranges | None
    typed: bool
    keep: tuple[str, ...]
    ops: tuple[str, ...]


def _expressed(model: Model, precision: Precision, how: _How) -> Model:
    from pytest_trt.lowering.held import held_precision

    held = held_precision(model.proto)
    if held != "fp32" and (how.keep or how.ops):
        _require_declaration(model, precision, held, how)
    if precision is Precision.MODEL or held == precision.label:
        return model
    if held != "fp32":
        raise LoweringError(
            f"{model.source} already holds {held}, and {precision} can only be lowered from fp32. Judge the file"
            f" as it is with --trt-precision=model, or name the fp32 file it was made from."
        )
    try:
        return _lowered(at_opset(model, precision), precision, how)
    except LoweringError as error:
        raise LoweringError(f"{model.source} at {precision}: {error}") from error


def _require_declaration(model: Model, precision: Precision, held: str, how: _How) -> None:
    """``keep`` of a file with Q/DQ tells which of its nodes are in fp32 on purpose; nothing else is left to be told."""
    from pytest_trt.lowering.kept import kept_in_fp32

    if how.ops or held not in ("int8", "fp8"):
        raise LoweringError(
            f"{model.source} already holds {held}, and keep and ops say what is lowered: leave them out, or name the"
            " fp32 file that it was made from."
        )
    kept_in_fp32(model.proto, precision, how.keep)


def _lowered(model: Model, precision: Precision, how: _How) -> Model:
    from pytest_trt.lowering import casts, qdq
    from pytest_trt.lowering import typed as typed_graph
    from pytest_trt.lowering.kept import kept_in_fp32
    from pytest_trt.model import Model as Lowered

    if precision is Precision.FP32:
        return model
    kept = kept_in_fp32(model.proto, precision, how.keep, how.ops)
    if precision.takes_ranges:
        if how.ranges is None:
            raise LoweringError(f"{precision} needs ranges, and there are none: give calibration data.")
        pairs = qdq.int8_qdq if precision is Precision.INT8 else qdq.fp8_qdq
        return Lowered(pairs(model.proto, how.ranges.amax, kept), model.source)
    forms = {
        Precision.TF32: casts.tf32_emulated,
        Precision.FP16: typed_graph.fp16_typed if how.typed else casts.fp16_sandwich,
        Precision.BF16: typed_graph.bf16_typed if how.typed else casts.bf16_sandwich,
    }
    return Lowered(forms[precision](model.proto, kept), model.source)
