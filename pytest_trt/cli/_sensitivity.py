"""``pytest-trt sensitivity``: which layers a precision costs most, and the fewest to keep in fp32."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pytest_trt.cli._console import CALIBRATED, Finite, as_json, say, watched, written
from pytest_trt.errors import StaleGolden
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_trt.comparison.parts import Part
    from pytest_trt.evidence.sensitivity import Sensitivity
    from pytest_trt.golden.envelope import Kept
    from pytest_trt.golden.golden import Golden
    from pytest_trt.model.feeds import Arrays
    from pytest_trt.model.model import Model
    from pytest_trt.ranges.amax import Ranges

__all__ = ["command"]

_FILE = click.Path(path_type=Path)
_MOST_LINES = 10


@dataclass(frozen=True)
class _Judged:
    """What is run, what comes out of fp32 (None: to be computed) and how far it may be missed."""

    inputs: list[Arrays]
    outputs: list[Arrays] | None
    bounds: dict[str, float] | None
    kept: Kept | None = None
    parts: Mapping[str, Sequence[Part]] | None = None


@click.command(name="sensitivity")
@click.argument("model", type=_FILE)
@click.option("--precision", type=click.Choice(["int8", "fp8", "fp16", "bf16", "tf32"]), required=True)
@click.option("--ranges", "source", type=_FILE, help="Ranges of any format, for int8 and fp8.")
@click.option("--data", help="Calibration samples, in place of ranges; as for pytest-trt calibrate.")
@click.option("--method", default="minmax", show_default=True, help="How --data becomes ranges.")
@click.option("--golden", "golden_file", type=_FILE, help="Judge by this golden: its inputs, outputs and bounds.")
@click.option("--inputs", help="Judge on these samples, against fp32; the same kinds of files as --data.")
@click.option("--bound", type=Finite(min=0, min_open=True), help="Relative RMS that every output may err by.")
@click.option("--batch", type=click.IntRange(min=1), help="The most samples at once where the first axis is dynamic.")
@click.option("-o", "--output", type=_FILE, help="Write the layers to keep, a line each.")
@as_json
def command(
    model: Path,
    precision: str,
    source: Path | None,
    data: str | None,
    method: str,
    golden_file: Path | None,
    inputs: str | None,
    bound: float | None,
    batch: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Rank the layers of MODEL by what the outputs gain when each alone stays in fp32.

    With a golden or a bound, find the fewest layers to keep for the model to be inside it.
    """
    from pytest_trt.evidence.sensitivity import sensitivity
    from pytest_trt.lowering.lowering import at_opset
    from pytest_trt.model.model import load

    wanted = Precision.parse(precision)
    _require_fitting(precision, (source, data), (golden_file, inputs))
    if output and not (golden_file or bound):
        raise click.UsageError(
            "-o writes the layers to keep, and nothing says for which bound: give --golden or --bound."
        )
    reference = load(model)
    judged = _judged(reference, wanted, golden_file, inputs, bound)
    ranges = _ranges(at_opset(reference, wanted), source, data, batch, method, precision)
    found = sensitivity(
        reference, wanted, judged.inputs, ranges,
        exact=judged.outputs, bounds=judged.bounds, batch=batch, kept=judged.kept, parts=judged.parts,
        progress=watched(),
    )  # fmt: skip
    if output and found.keep is not None:
        written(output, "".join(f"{node}\n" for node in found.keep).encode())
    last = [f"wrote {output}"] if output and found.keep is not None else []
    say([*_lines(found, judged.kept), *last], asdict(found), json_wanted=as_json)
    if found.bounded and found.keep is None:
        raise click.exceptions.Exit(1)


def _require_fitting(precision: str, calibration: tuple[Any, Any], judged: tuple[Any, Any]) -> None:
    given = sum(one is not None for one in calibration)
    if precision in CALIBRATED and given != 1:
        raise click.UsageError(
            f"{precision} needs ranges: give --ranges FILE, or --data to take them from; one of them."
        )
    if precision not in CALIBRATED and given:
        raise click.UsageError(f"{precision} takes no ranges: leave out --ranges and --data.")
    if sum(one is not None for one in judged) != 1:
        raise click.UsageError("nothing says what to judge on: give --golden FILE or --inputs DATA; one of them.")


def _judged(
    model: Model, precision: Precision, golden_file: Path | None, inputs: str | None, bound: float | None
) -> _Judged:
    from pytest_trt.golden.envelope import Kept
    from pytest_trt.model.sample_stream import pieces

    if golden_file is None:
        runs = list(pieces(inputs or "", Path.cwd(), model.inputs, "inputs"))
        return _Judged(runs, None, dict.fromkeys((spec.name for spec in model.outputs), bound) if bound else None)
    golden = _golden(model, golden_file)
    told = golden.envelope.get(precision.label, {})
    bounds = {name: bound or entry["bound"] for name, entry in told.items()}
    if bound:
        bounds = dict.fromkeys((spec.name for spec in model.outputs), bound)
    elif not bounds:
        raise click.UsageError(f"the golden {golden_file} has no bound for {precision}: give one with --bound.")
    kept = Kept(tuple(golden.kept.get("keep", ())), tuple(golden.kept.get("ops", ())))
    parts = {} if bound else golden.parts(precision.label)
    return _Judged([run.inputs for run in golden.runs], [run.outputs for run in golden.runs], bounds, kept, parts)


def _golden(model: Model, file: Path) -> Golden:
    """The golden, if it was made from this very model."""
    from pytest_trt.golden.golden import read, require_fit

    mend = "pytest --trt-update-golden"
    golden = read(file, mend)
    require_fit(golden, model, mend, exact=True)
    if golden.model_sha256 not in (None, model.sha256):
        raise StaleGolden(
            f"the golden {file} is of another model than {model.source}: name the fp32 file that it was made from, or"
            f" make it anew: {mend}"
        )
    return golden


def _ranges(
    model: Model, source: Path | None, data: str | None, batch: int | None, method: str, precision: str
) -> Ranges | None:
    """Ranges of every tensor that may be quantised: which those are depends on what is kept."""
    from pytest_trt.calibration.calibration import calibrate
    from pytest_trt.model.graph import float_activations
    from pytest_trt.model.sample_stream import pieces
    from pytest_trt.ranges.files import read_ranges

    if source is not None:
        return read_ranges(source, str(source))
    if data is None:
        return None
    samples = partial(pieces, data, Path.cwd(), model.inputs, "calibration data")
    tensors = float_activations(model.proto)
    return calibrate(model, tensors, samples, data, batch, method, precision=precision, progress=watched())


def _lines(found: Sensitivity, kept: Kept | None) -> list[str]:
    unit = " of its bound" if found.bounded else ""
    lines = [
        f"{found.precision}: error {found.error:.3g}{unit}; with one layer in fp32, the {_MOST_LINES} that gain most:"
    ]
    for gain in found.layers[:_MOST_LINES]:
        lines.append(f"  {gain.error:.3g}  {gain.op} {gain.node}")
    return [*lines, *_list_lines(found, kept.keep if kept else ())]


def _list_lines(found: Sensitivity, kept: tuple[str, ...]) -> list[str]:
    if not found.bounded:
        return ["no bound was given, so no layers are chosen: --golden or --bound"]
    if found.keep is None:
        return ["no list short of all layers brings it inside its bound"]
    if not found.keep:
        return [f"inside its bound with no {'further ' if kept else ''}layer kept"]
    return [f"inside its bound ({found.kept_error:.3g} of it) with:", f"keep = {json.dumps([*kept, *found.keep])}"]
