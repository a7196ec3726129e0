"""Simulated on the CPU against measured on the GPU: one row a model, precision and way of asking for it.

    python benchmarks/accuracy.py FOLDER --results FILE.json [--only resnet18] [--build KEY=VALUE ...]

FOLDER is what benchmarks/models.py wrote. Needs TensorRT and a GPU; goldens are made in FOLDER/golden.
``--table FILE.json ...`` prints the table of earlier results.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.build_options import merged, read_build_options, read_word
from pytest_trt.case.build_settings import How, recipe_of
from pytest_trt.case.case import Case
from pytest_trt.case.reference import Subject
from pytest_trt.comparison.tolerance import Tolerance
from pytest_trt.gate import check
from pytest_trt.golden.create import update
from pytest_trt.golden.envelope import envelope_of
from pytest_trt.model.model import load
from pytest_trt.precision import Precision
from pytest_trt.report.record import environment, record_of

if TYPE_CHECKING:
    from pytest_trt.findings.verdict import Verdict

# way: precision, typing, further build options, calibration in place of the samples
QUICK = {
    "fp16": ("fp16", "weak", {}, None),
    "int8, ranges of the samples": ("int8", "weak", {}, None),
    "int8, Q/DQ": ("int8", "strong", {}, None),
}
WHOLE = {
    "fp32": ("fp32", "weak", {}, None),
    "tf32": ("tf32", "weak", {}, None),
    **QUICK,
    "fp16, built again": ("fp16", "weak", {}, None),
    "fp16, typed graph": ("fp16", "strong", {}, None),
    "int8, entropy calibrator": ("int8", "weak", {"calibrator": "entropy"}, None),
    "int8, min-max calibrator": ("int8", "weak", {"calibrator": "minmax"}, None),
    "int8, ranges file": ("int8", "weak", {}, "ranges.txt"),
    "int8 + fp16, entropy calibrator": ("int8", "weak", {"calibrator": "entropy", "fallback": "fp16"}, None),
    "int8, nothing given": ("int8", "weak", {}, ""),
}


def case_of(folder: Path, name: str) -> Case:
    """The case of a network that was written there, or of the example digits."""
    if name == "digits":
        base = Path(__file__).parents[1] / "examples" / "digits"
        data = {"inputs": "test.npz", "labels": "labels.npy", "calibration": "calibration.npz"}
        return Case(name=name, onnx="digits.onnx", base=base, where="benchmarks/accuracy.py", **data)
    return Case(
        name=name,
        onnx=f"{name}.onnx",
        inputs=f"{name}.inputs.npz",
        calibration=f"{name}.calibration.npz",
        base=folder,
        where="benchmarks/accuracy.py",
        # on random weights int8 errs by as much as the output moves: there is no bound, and the error is shown
        tolerance={"int8": Tolerance(rel_rms=0.999)} if name in ("mobilenet_v2", "resnet50") else {},
    )


def write_ranges(case: Case, folder: Path) -> None:
    """NAME.ranges.txt: min-max ranges of every float tensor over its samples."""
    from pytest_trt.model.graph import float_activations

    model = load(case.base / str(case.onnx))
    recipe = recipe_of(Subject(case, Precision.INT8, model), (), How())
    assert recipe.calibration is not None
    amax = recipe.calibration.ranges(float_activations(recipe.model.proto)).amax
    lines = [f"{name}: {value!r}" for name, value in amax.items() if value > 0]
    (folder / f"{case.name}.ranges.txt").write_text("\n".join(lines) + "\n")


def simulated_errors(case: Case) -> dict[str, float]:
    """The simulated error by precision, also where it proves too little for a bound."""
    model, arrays = load(case.base / str(case.onnx)), dict(np.load(case.base / str(case.inputs)))
    precisions = [Precision.parse(label) for label in ("fp32", "tf32", "fp16", "int8")]
    envelope, _ = envelope_of(model, [arrays], precisions, None)
    return {label: max(entry["error"] for entry in outputs.values()) for label, outputs in envelope.items()}


def measure(case: Case, way: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """One row."""
    precision, typing, told, calibration = (WHOLE | QUICK)[way]
    if calibration is not None:
        case = replace(case, calibration=str(folder / f"{case.name}.{calibration}") if calibration else None)
    how = How(merged(options, {"typing": typing, "honoured": 0.0}, told))
    started = time.perf_counter()
    verdict = check(case, precision, backend="tensorrt", golden_dir=folder / "golden", how=how)
    return {"model": case.name, "way": way, "seconds": round(time.perf_counter() - started, 1), **brief(verdict)}


def brief(verdict: Verdict) -> dict[str, Any]:
    """The record without paths, its layers counted by kernel: f16f16_f16f16_f16 reads, multiplies and adds in fp16."""
    record = record_of(verdict)
    layers = record["layers"].pop("layers", [])
    record["layers"]["kernels"] = Counter(kernel(layer) for layer in layers if layer["computes"]) if layers else {}
    engine = record["provenance"].get("engine", {})
    kept = ("precision", "backend", "verdict", "kind", "message", "worst_output", "layers", "warnings")
    outputs = {name: {key: o[key] for key in ("error", "bound", "top1")} for name, o in record["outputs"].items()}
    return {**{key: record[key] for key in kept}, "outputs": outputs, "engine": engine}


def kernel(layer: dict[str, Any]) -> str:
    """What a layer's kernel reads, multiplies and adds in, as its name says."""
    found = re.search(r"(?:f16|f32|i8|f8)\w{2,3}_\w+?_[fi]\d+(?=_)", layer["tactic"])
    return found.group(0) if found else layer["tactic"][:40] or layer["type"]


def driver() -> str:
    """The GPU and its driver, as nvidia-smi tells them."""
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def row_of(result: dict[str, Any]) -> list[str]:
    """The row as texts."""
    output = result["outputs"].get(result["worst_output"])
    engine = result["engine"]
    layers = result["layers"]
    if output is None:
        return [result["model"], result["way"], "", "", "", "", "", "", f"error: {result['kind']}"]
    simulated = result["simulated_error"]
    return [
        result["model"],
        result["way"],
        f"{simulated:.2g}" if simulated else "0",
        f"{output['error']:.2g}",
        f"{output['bound']:.2g}",
        f"{layers['honoured']} of {layers['compute']}",
        f"{engine['built_s']:.0f}",
        f"{engine['plan_bytes'] / 1e6:.1f}",
        result["verdict"],
    ]


def table(results: list[dict[str, Any]]) -> str:
    """All rows as a Markdown table."""
    head = ["model", "asked", "simulated", "measured", "bound", "layers in it", "build s", "plan MB", "verdict"]
    rows = [head, ["---"] * len(head), *(row_of(result) for result in results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Measure, write the rows after each one, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--only", action="append")
    parser.add_argument("--build", action="append", default=[])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--way", action="append", choices=list(WHOLE))
    parser.add_argument("--table", type=Path, nargs="+")
    told = parser.parse_args()
    if told.table:
        print(table([row for path in told.table for row in json.loads(path.read_text())["rows"]]))
        return
    options = read_build_options(dict(read_word(word) for word in told.build), "--build")
    rows: list[dict[str, Any]] = []
    for name in told.only or sorted(path.stem for path in told.folder.glob("*.onnx")):
        case = case_of(told.folder, name)
        print("\n".join(update(case, told.folder / "golden", "benchmark")), flush=True)
        write_ranges(case, told.folder)
        simulated = simulated_errors(case)
        for way in told.way or (WHOLE if name in ("resnet18", "digits") and not told.quick else QUICK):
            row = measure(case, way, options, told.folder)
            rows.append({**row, "simulated_error": simulated.get(row["precision"])})
            document = {
                "environment": {**environment(Path.cwd()), "driver": driver(), "build": told.build},
                "rows": rows,
            }
            told.results.write_text(json.dumps(document, indent=1) + "\n")
            print(table(rows[-1:]).splitlines()[-1], row["message"][:600], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
