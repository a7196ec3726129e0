"""``pytest-trt lower``: an fp32 model to one that holds the precision itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_trt.cli._console import CALIBRATED, as_json, comma_lists, require_free, say
from pytest_trt.cli._ranges import about
from pytest_trt.errors import DataError, LoweringError
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_trt.model.model import Model
    from pytest_trt.ranges.amax import Ranges

__all__ = ["command"]

_FILE = click.Path(path_type=Path)
_WEIGHTS_ALONE = ("int4", "nvfp4", "mxfp8")


@click.command(name="lower")
@click.argument("model", type=_FILE)
@click.option(
    "--precision", type=click.Choice(["int8", "fp8", "fp16", "bf16", "int4", "nvfp4", "mxfp8"]), required=True
)
@click.option("--ranges", "source", type=_FILE, help="Ranges of any format, for int8 and fp8.")
@click.option("-o", "--output", type=_FILE, required=True, help="The lowered .onnx file.")
@click.option(
    "--typed/--sandwich",
    default=None,
    help="fp16, bf16: the graph in that type, for TensorRT (default), or casts down and up, for simulation.",
)
@click.option("--keep", multiple=True, metavar="NODES", help="Nodes to leave in fp32; a comma list, or repeated.")
@click.option("--ops", multiple=True, metavar="KINDS", help="int8, fp8: kinds to quantise; a comma list, or repeated.")
@as_json
def command(
    model: Path,
    precision: str,
    source: Path | None,
    output: Path,
    typed: bool | None,
    keep: tuple[str, ...],
    ops: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write MODEL with the precision in its graph, as TensorRT 11 and TensorRT-RTX want it."""
    from pytest_trt.lowering.lowering import at_opset, lower
    from pytest_trt.model.model import load

    _require_fitting(precision, source, typed)
    require_free(output, True, model, source)
    kinds = comma_lists(ops)
    if precision in _WEIGHTS_ALONE:
        _of_weights(load(model), precision, output, keep, ops, as_json)
        return
    wanted = Precision.parse(precision)
    if ops and not kinds:
        raise click.UsageError(f"--ops {','.join(ops)!r} names no kind of operator: write Conv,Gemm, or leave it out.")
    converted = at_opset(_fp32(load(model), precision), wanted)
    keep = _nodes(converted, keep)
    ranges = _ranges(converted, source, keep, kinds)
    lowered = lower(converted, wanted, ranges, typed=_form(precision, typed), keep=keep, ops=kinds)
    _save(lowered, output)
    facts = {"precision": precision, "output": str(output), **_counts(lowered, ranges), "keep": list(keep)}
    say([*_lines(facts, ranges), f"wrote {output}"], facts, json_wanted=as_json)


def _save(model: Model, output: Path) -> None:
    try:
        model.save(output)
    except OSError as error:
        raise DataError(f"{output} can't be written: {error.strerror or error}.") from error


def _of_weights(
    model: Model, precision: str, output: Path, keep: tuple[str, ...], ops: tuple[str, ...], as_json: bool
) -> None:
    """Write the model with its weights in few bits."""
    from pytest_trt.lowering.modelopt import weights_by_modelopt
    from pytest_trt.lowering.weight_only import int4_weights

    if ops:
        raise click.UsageError(f"{precision} is for the weights of MatMul and Gemm: leave out --ops.")
    keep = _nodes(model, keep)
    found = int4_weights(model, keep) if precision == "int4" else weights_by_modelopt(model, precision, keep)
    _save(found.model, output)
    facts = {
        "precision": precision,
        "output": str(output),
        **_counts(found.model, None),
        "keep": list(keep),
        "weights": list(found.weights),
        "odd": list(found.odd),
    }
    count, block = len(found.weights), found.format.block
    lines = [*_lines(facts, None), f"{count} weight{'s' * (count != 1)} in {precision}, blocks of {block}"]
    if found.odd:
        named = ", ".join(map(repr, found.odd[:5])) + (" ..." if len(found.odd) > 5 else "")
        left = "its last block is shorter" if found.format.cuts else "it stays in fp32"
        lines.append(f"{block} does not divide the axis of {named}: {left}")
    say([*lines, f"wrote {output}"], facts, json_wanted=as_json)


def _nodes(model: Model, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Nodes of a comma list, where the text as a whole is not the name of one: names may hold commas."""
    from pytest_trt.model.model import nodes_of

    known = {name for node in nodes_of(model.proto.graph) for name in (node.name, *node.output)}
    return tuple(word for text in texts for word in ((text,) if text in known else comma_lists((text,))))


def _require_fitting(precision: str, source: Path | None, typed: bool | None) -> None:
    if precision in CALIBRATED and source is None:
        raise click.UsageError(
            f"{precision} needs ranges: name a file with --ranges; pytest-trt calibrate MODEL DATA -o FILE makes one."
        )
    if precision not in CALIBRATED and source is not None:
        raise click.UsageError(f"{precision} takes no ranges: leave out --ranges.")
    if typed is not None and precision not in ("fp16", "bf16"):
        raise click.UsageError(f"--typed and --sandwich are for fp16 and bf16; {precision} has one form.")


def _form(precision: str, typed: bool | None) -> bool:
    return precision in ("fp16", "bf16") and typed is not False


def _fp32(model: Model, precision: str) -> Model:
    from pytest_trt.lowering.lowering import held_precision

    held = held_precision(model.proto)
    if held != "fp32":
        raise LoweringError(f"{model.source} already holds {held}: name the fp32 file to lower it to {precision}.")
    return model


def _ranges(model: Model, source: Path | None, keep: tuple[str, ...], ops: tuple[str, ...]) -> Ranges | None:
    """The ranges of what will be quantised; those of the other tensors are not needed."""
    from pytest_trt.lowering.qdq import quantised_activations
    from pytest_trt.model.model import tensor_names
    from pytest_trt.ranges.amax import select
    from pytest_trt.ranges.files import read_ranges

    if source is None:
        return None
    wanted = quantised_activations(model.proto, keep, ops)
    return select(read_ranges(source, str(source)), wanted, tensor_names(model.proto))


def _counts(lowered: Model, ranges: Ranges | None) -> dict[str, Any]:
    operators = Counter(node.op_type for node in lowered.proto.graph.node)
    kinds = ("Cast", "QuantizeLinear", "DequantizeLinear")
    return {
        "opset": next(o.version for o in lowered.proto.opset_import if o.domain in ("", "ai.onnx")),
        "nodes": {kind: operators[kind] for kind in kinds if operators[kind]},
        "ranges": len(ranges.amax) if ranges else 0,
        "source": ranges.source if ranges else None,
        "notes": list(ranges.notes) if ranges else [],
    }


def _lines(facts: Mapping[str, Any], ranges: Ranges | None) -> list[str]:
    added = ", ".join(f"{count} {kind}" for kind, count in facts["nodes"].items())
    kept = f"; kept in fp32: {', '.join(facts['keep'])}" if facts["keep"] else ""
    return [*(about(ranges) if ranges else []), f"{facts['precision']}, opset {facts['opset']}: {added}{kept}"]
