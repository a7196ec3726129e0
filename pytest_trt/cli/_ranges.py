"""``pytest-trt ranges``: show ranges of any format, convert them, compare two."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pytest_trt.cli._console import as_json, force_cache, require_free, require_header_heeded, say

if TYPE_CHECKING:
    from pytest_trt.ranges.amax import Ranges

__all__ = ["about", "command", "facts"]

_FILE = click.Path(path_type=Path)
_MOST = 5


@click.group(name="ranges")
def command() -> None:
    """Show, convert and compare ranges of any format.

    A text file (tensor: range), a TensorRT calibration cache, onnxruntime's calibration table, or the Q/DQ nodes of a
    model.
    """


@command.command()
@click.argument("file", type=_FILE)
@as_json
def show(file: Path, as_json: bool) -> None:
    """Print the ranges that FILE holds, in its order."""
    from pytest_trt.ranges.files import read_ranges

    ranges = read_ranges(file, str(file))
    lines = [f"{name}: {amax!r}" for name, amax in ranges.amax.items()]
    say([*lines, "", *about(ranges)], facts(ranges), json_wanted=as_json)


@command.command()
@click.argument("file", type=_FILE)
@click.option("-o", "--output", type=_FILE, required=True, help="By suffix: .txt, .cache, .json or .flatbuffers.")
@click.option("--header", help="First line of a cache, such as TRT-100300-EntropyCalibration2; TensorRT wants its own.")
@force_cache
@as_json
def convert(file: Path, output: Path, header: str | None, force: bool, as_json: bool) -> None:
    """Write the ranges of FILE in another format."""
    from pytest_trt.ranges.files import read_ranges, write_ranges

    require_header_heeded(header, output)
    require_free(output, force, file)
    ranges = read_ranges(file, str(file))
    ranges = replace(ranges, made_by=header or ranges.made_by)
    write_ranges(ranges, output)
    say([*about(ranges), f"wrote {output}"], {**facts(ranges), "output": str(output)}, json_wanted=as_json)


@command.command()
@click.argument("source", type=_FILE)
@click.argument("made", type=_FILE)
@as_json
@click.pass_context
def diff(ctx: click.Context, source: Path, made: Path, as_json: bool) -> None:
    """Compare the scales of MADE with those of the SOURCE that it was made from.

    Exit code 0 if every tensor of MADE has the very scale that it has in SOURCE, 1 if not. What SOURCE holds beyond
    that is told and no difference: a calibration cache knows more tensors than a model quantises.
    """
    from pytest_trt.ranges.amax import same_scale
    from pytest_trt.ranges.files import read_ranges

    first, second = read_ranges(source, str(source)), read_ranges(made, str(made))
    common = [name for name in second.amax if name in first.amax]
    other = [name for name in common if not same_scale(first.amax[name], second.amax[name])]
    strange = [name for name in second.amax if name not in first.amax]
    beyond = [name for name in first.amax if name not in second.amax]
    found = {
        "equal": len(common) - len(other),
        "different": {name: [first.amax[name], second.amax[name]] for name in other},
        "only_in_made": strange,
        "only_in_source": beyond,
    }
    ratios = {name: second.amax[name] / first.amax[name] for name in other}
    worst = sorted(ratios, key=lambda name: -abs(math.log(ratios[name])))
    lines = [
        f"{name}: {first.amax[name]:.8g} in {source}, {second.amax[name]:.8g} in {made} ({ratios[name]:.6g} times)"
        for name in worst[:_MOST]
    ]
    lines += [f"{name}: not in {source}" for name in strange[:_MOST]]
    if other:
        lines.append(f"{len(other)} differ, the furthest first")
    total = f"{found['equal']} of {len(second.amax)} tensors of {made} have the scale that they have in {source}"
    more = f"; {len(beyond)} more are only in {source}" if beyond else ""
    say([*lines, total + more], found, json_wanted=as_json)
    ctx.exit(1 if other or strange else 0)


def about(ranges: Ranges) -> list[str]:
    """What a person should know of ranges beyond the numbers."""
    made = f" ({ranges.made_by})" if ranges.made_by else ""
    constants = f", {len(ranges.constants)} entries without a range" if ranges.constants else ""
    return [f"{len(ranges.amax)} ranges of {ranges.source}{made}{constants}", *ranges.notes]


def facts(ranges: Ranges) -> dict[str, object]:
    """The same for a program."""
    return {
        "source": ranges.source,
        "made_by": ranges.made_by,
        "ranges": dict(ranges.amax),
        "constants": list(ranges.constants),
        "notes": list(ranges.notes),
    }
