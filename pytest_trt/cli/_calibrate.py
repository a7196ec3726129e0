"""``pytest-trt calibrate``: samples to ranges."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pytest_trt.cli._console import as_json, force_cache, require_free, require_header_heeded, say, watched
from pytest_trt.cli._ranges import about, facts
from pytest_trt.errors import LoweringError
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from pytest_trt.model.model import Model

__all__ = ["command"]

_FILE = click.Path(path_type=Path)


@click.command(name="calibrate")
@click.argument("model", type=_FILE)
@click.argument("data")
@click.option("-o", "--output", type=_FILE, required=True, help="By suffix: .txt, .cache, .json or .flatbuffers.")
@click.option(
    "--method",
    default="minmax",
    show_default=True,
    help="How a tensor's range follows from its values: minmax, entropy, percentile (99.99) or percentile:99.9, mse.",
)
@click.option(
    "--precision",
    type=click.Choice(["int8", "fp8"]),
    default="int8",
    show_default=True,
    help="What the ranges are for.",
)
@click.option("--batch", type=click.IntRange(min=1), help="The most samples at once where the first axis is dynamic.")
@click.option("--header", default="", help="First line of a cache, such as TRT-100300-EntropyCalibration2.")
@force_cache
@as_json
def command(
    model: Path,
    data: str,
    output: Path,
    method: str,
    precision: str,
    batch: int | None,
    header: str,
    force: bool,
    as_json: bool,
) -> None:
    """Run DATA through MODEL and write the ranges of its activations.

    Activations that no range can hold, such as a mask of -inf, are left out where nothing that is quantised reads them.

    DATA is an .npz, .npy or .safetensors file, a folder of them or of ONNX test data, or module:function.
    """
    from pytest_trt.calibration.calibration import calibrate
    from pytest_trt.lowering.lowering import at_opset
    from pytest_trt.model.graph import float_activations
    from pytest_trt.model.model import load
    from pytest_trt.model.sample_stream import how_many, pieces
    from pytest_trt.ranges.files import require_writable, write_ranges

    require_free(output, force, model, Path(data))
    require_header_heeded(header, output)
    require_writable(output)
    converted = at_opset(load(model), Precision.parse(precision))
    samples = partial(pieces, data, Path.cwd(), converted.inputs, "calibration data")
    tensors = float_activations(converted.proto)
    ranges = calibrate(
        converted,
        tensors,
        samples,
        data,
        batch,
        method,
        precision=precision,
        needed=_needed(converted),
        progress=watched(),
        expected=how_many(data, Path.cwd(), converted.inputs),
    )
    write_ranges(replace(ranges, made_by=header), output)
    told = {**facts(ranges), "method": method, "output": str(output)}
    say([*about(ranges), f"wrote {output}"], told, json_wanted=as_json)


def _needed(model: Model) -> list[str] | None:
    """The tensors that lowering gives Q/DQ; None, which is all, where it would refuse the model."""
    from pytest_trt.lowering.qdq import quantised_activations

    try:
        return quantised_activations(model.proto)
    except LoweringError:
        return None
