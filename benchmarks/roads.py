"""The two roads on a GPU: builder flags and dynamic ranges (weak typing) against the precision in the graph (strong).

    python benchmarks/roads.py FOLDER --results FILE.json [--only resnet18] [--build KEY=VALUE ...]

FOLDER is what benchmarks/models.py wrote. Needs a TensorRT that has both, 8.6 to 10, and a GPU. Each row is one network
and one set of ranges: the error of the engine of each road against fp32, and how far the two are from each other.
``--table FILE.json`` prints the table of earlier results.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accuracy import case_of, driver, write_ranges

from pytest_trt.backends.achieved_precision import achieved
from pytest_trt.backends.backend import choose
from pytest_trt.backends.build_options import merged, read_build_options, read_word
from pytest_trt.case.build_settings import How
from pytest_trt.case.reference import Subject, subject_of
from pytest_trt.comparison.comparison import compare
from pytest_trt.comparison.tolerance import SLACK
from pytest_trt.gate import build
from pytest_trt.golden.create import update
from pytest_trt.golden.load import open_golden
from pytest_trt.model.model import load
from pytest_trt.precision import Precision
from pytest_trt.report.record import environment

if TYPE_CHECKING:
    from pytest_trt.case.case import Case
    from pytest_trt.model.feeds import Arrays


def outputs_of(case: Case, precision: str, typing: str, told: dict[str, Any], folder: Path) -> tuple[Arrays, str]:
    """What the engine of one road computes for the golden's inputs, and how many layers run in the precision."""
    model, asked = load(case.base / str(case.onnx)), Precision.parse(precision)
    golden = open_golden(Subject(case, asked, model), folder / "golden")
    how = How(merged(told, {"typing": typing, "honoured": 0.0}))
    engine = build(Subject(case, asked, model), golden, choose("tensorrt"), how)
    layers = achieved(engine.layers(), precision)
    return engine.run(golden.runs[0].inputs), f"{layers.honoured} of {layers.compute}"


def simulated_error(case: Case, precision: str, folder: Path) -> float:
    """The largest simulated error of an output with the case's own ranges; of fp16 that of the golden's envelope."""
    model, asked = load(case.base / str(case.onnx)), Precision.parse(precision)
    golden = open_golden(Subject(case, asked, model), folder / "golden")
    if precision == "fp16":
        return max(entry["error"] for entry in golden.envelope[precision].values())
    engine = build(Subject(case, asked, model), golden, choose("onnxruntime"))
    return _error(engine.run(golden.runs[0].inputs), golden.runs[0].outputs)


def _error(found: Arrays, reference: Arrays) -> float:
    return max(compare(found[name], reference[name]).rel_rms for name in reference)


def row(case: Case, label: str, roads: dict[str, tuple[Arrays, str]], precision: str, folder: Path) -> dict[str, Any]:
    """Errors of each road against the golden, and the largest distance from the first of them."""
    golden = open_golden(subject_of(case, Precision.parse(precision)), folder / "golden")
    exact, (first, *others) = golden.runs[0].outputs, [outputs for outputs, _ in roads.values()]

    simulated = simulated_error(case, precision, folder)
    apart = max(_error(other, first) for other in others)
    return {
        "model": case.name,
        "ranges": label,
        "errors": {road: _error(outputs, exact) for road, (outputs, _) in roads.items()},
        "layers": {road: layers for road, (_, layers) in roads.items()},
        "apart": apart,
        "simulated": simulated,
        "slack": SLACK * simulated,
        "agree": apart <= SLACK * simulated,
    }


def rows_of(name: str, folder: Path, told: dict[str, Any]) -> list[dict[str, Any]]:
    """fp16; int8 with the ranges file of the samples; int8 with the cache that TensorRT's own calibrator wrote."""
    case = case_of(folder, name)
    update(case, folder / "golden", "benchmark")
    write_ranges(case, folder)
    cache = folder / f"{name}.cache"
    by_file = replace(case, calibration=str(folder / f"{name}.ranges.txt"))
    by_cache = replace(case, calibration=str(cache))
    calibrator = {**told, "calibrator": "entropy", "calibration_cache": str(cache)}

    def ran(case: Case, precision: str, typing: str, told: dict[str, Any] = told) -> tuple[Arrays, str]:
        return outputs_of(case, precision, typing, told, folder)

    fp16 = {"flag": ran(case, "fp16", "weak"), "typed graph": ran(case, "fp16", "strong")}
    ranges = {"dynamic ranges": ran(by_file, "int8", "weak"), "Q/DQ": ran(by_file, "int8", "strong")}
    three = {
        "calibrator": ran(case, "int8", "weak", calibrator),
        "dynamic ranges": ran(by_cache, "int8", "weak"),
        "Q/DQ": ran(by_cache, "int8", "strong"),
    }
    return [
        row(case, "fp16", fp16, "fp16", folder),
        row(by_file, "int8, ranges file", ranges, "int8", folder),
        row(by_cache, "int8, entropy cache of TensorRT", three, "int8", folder),
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """All rows as a Markdown table."""
    head = ["model", "ranges", "error of each road", "apart", "simulated", "2.5 x simulated", "agree"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        errors = ", ".join(f"{road} {error:.2g} ({row['layers'][road]})" for road, error in row["errors"].items())
        numbers = [f"{row[key]:.2g}" for key in ("apart", "simulated", "slack")]
        lines.append([row["model"], row["ranges"], errors, *numbers, "yes" if row["agree"] else "no"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure, write the rows after each network, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--only", action="append")
    parser.add_argument("--build", action="append", default=[])
    parser.add_argument("--table", type=Path)
    told = parser.parse_args()
    if told.table:
        print(table(json.loads(told.table.read_text())["rows"]))
        return
    options = read_build_options(dict(read_word(word) for word in told.build), "--build")
    rows: list[dict[str, Any]] = []
    for name in told.only or sorted(path.stem for path in told.folder.glob("*.onnx")):
        rows += rows_of(name, told.folder, options)
        document = {"environment": {**environment(Path.cwd()), "driver": driver(), "build": told.build}, "rows": rows}
        told.results.write_text(json.dumps(document, indent=1) + "\n")
        print(table(rows[-3:]), flush=True)


if __name__ == "__main__":
    main()
