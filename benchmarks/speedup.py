"""How much faster an engine is: PyTorch, onnxruntime and TensorRT on one network and one GPU, a part at a time.

    python benchmarks/speedup.py FOLDER --only torch --only onnxruntime --results a.json
    python benchmarks/speedup.py FOLDER --only tensorrt --results b.json [--build KEY=VALUE ...]
    python benchmarks/speedup.py --table a.json b.json

The parts may need different interpreters; the table refuses results of different GPUs. FOLDER is what
benchmarks/models.py wrote. Where there is no GPU the rows say that they are the CPU's, or simulated.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from accuracy import case_of

from pytest_trt.backends.backend import choose
from pytest_trt.backends.build_options import merged, read_build_options, read_word
from pytest_trt.backends.onnxruntime import session_stopwatch
from pytest_trt.backends.stopwatch import Timing, stopwatch_of
from pytest_trt.case.build_settings import How, recipe_of
from pytest_trt.case.reference import Subject
from pytest_trt.errors import PytestTrtError
from pytest_trt.latency._machine import Machine, machine_of
from pytest_trt.latency._telemetry import disturbances, telemetry_of
from pytest_trt.latency._timing import measure
from pytest_trt.latency.result import percentile
from pytest_trt.model.model import load
from pytest_trt.model.onnx_session import require_onnxruntime
from pytest_trt.model.torch_export import Network
from pytest_trt.precision import Precision
from pytest_trt.report.record import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_trt.backends.recipe import Recipe
    from pytest_trt.backends.stopwatch import Stopwatch

PARTS = ("torch", "onnxruntime", "tensorrt")
BASE = "PyTorch fp32, eager"
TENSORRT = {
    "fp32": ("fp32", {}),
    "tf32": ("tf32", {}),
    "fp16": ("fp16", {}),
    "int8": ("int8", {}),
    "int8 + fp16": ("int8", {"fallback": "fp16"}),
}


class Bench:
    """One network, one batch, one way of timing; rows are kept as they come."""

    def __init__(self, told: argparse.Namespace) -> None:
        self.told = told
        self.case = case_of(told.folder, told.model)
        arrays = dict(np.load(self.case.base / str(self.case.inputs)))
        self.feeds = {name: np.ascontiguousarray(value[: told.batch]) for name, value in arrays.items()}
        self.model = load(self.case.base / str(self.case.onnx))
        self.timing = Timing(warmup_s=told.seconds / 5, least_s=told.seconds, most_s=5 * told.seconds)
        self.reference = self.session().run(None, self.feeds)[0]
        self.rows: list[dict[str, Any]] = []

    def session(self) -> Any:
        """onnxruntime as it comes, with all of its optimizations."""
        onnxruntime = require_onnxruntime()
        return onnxruntime.InferenceSession(self.model.proto.SerializeToString(), providers=["CPUExecutionProvider"])

    def recipe(self, precision: str, build: dict[str, Any] | None = None) -> Recipe:
        """The recipe of the network at a precision."""
        told = {**(build or {}), **dict(read_word(word) for word in self.told.build)}
        how = How(merged(read_build_options(told, "--build")))
        return recipe_of(Subject(self.case, Precision.parse(precision), self.model), (self.feeds,), how)

    def error(self, outputs: dict[str, np.ndarray]) -> float:
        """Relative RMS of the first output against onnxruntime's fp32 on the CPU."""
        found = next(iter(outputs.values())).astype(np.float64)
        return float(np.linalg.norm(found - self.reference) / np.linalg.norm(self.reference))

    def add(self, what: str, stopwatch: Stopwatch, timing: Timing, **more: Any) -> None:
        """Measure a row."""
        samples = measure(stopwatch, timing)
        latency = samples.lap.latency
        p50 = percentile(latency, 50)
        assert p50 is not None
        self.rows.append(
            {
                "what": what,
                "p50_s": p50,
                "p90_s": percentile(latency, 90),
                "p99_s": percentile(latency, 99),
                "throughput_per_s": samples.metric.batch / p50,
                "memory_bytes": samples.memory,
                "samples": len(latency),
                "stopped": samples.stopped,
                "metric": asdict(samples.metric),
                "notes": list(samples.notes),
                **more,
            }
        )
        print(line(self.rows[-1], None), flush=True)

    def engine(self, what: str, recipe: Recipe, backend: str, ways: dict[str, bool]) -> None:
        """A row for each way of an engine: what it is called, and whether it replays a graph."""
        started = time.perf_counter()
        try:
            engine = choose(backend).build(recipe)
        except PytestTrtError as error:
            self.rows.append({"what": what, "error": str(error)})
            print(f"{what}: {error}", flush=True)
            return
        took, error = time.perf_counter() - started, self.error(engine.run(self.feeds))
        for way, graph in ways.items():
            timing = replace(self.timing, graph=graph)
            more = {"simulated": engine.simulated, "built_s": took, "rel_rms": error, "facts": dict(engine.facts)}
            self.add(f"{what}, {way}", stopwatch_of(engine, self.feeds, timing), timing, **more)


def torch_rows(bench: Bench) -> None:
    """PyTorch, eager and as a CUDA graph where there is a GPU."""
    import torch
    from models import five_way

    on_gpu = torch.cuda.is_available()
    ways = {"eager": False, "CUDA graph": True} if on_gpu else {"eager": False}
    for precision in ("fp32", "tf32", "fp16") if on_gpu else ("fp32",):
        network = Network(five_way(bench.told.model), bench.model.inputs, bench.model.outputs, bench.told.model)
        recipe = replace(bench.recipe(precision), module=lambda network=network: network)
        bench.engine(f"PyTorch {precision}", recipe, "torch", ways)


def onnxruntime_rows(bench: Bench) -> None:
    """onnxruntime on the CPU, and on the GPU where it has the provider."""
    timing, what = bench.timing, "onnxruntime fp32, CPU"
    bench.add(what, session_stopwatch(bench.session(), bench.feeds, what, timing, None), timing, rel_rms=0.0)
    if "CUDAExecutionProvider" in require_onnxruntime().get_available_providers():
        for precision in ("fp32", "tf32", "fp16"):
            bench.engine(f"onnxruntime {precision}", bench.recipe(precision), "onnxruntime-cuda", {"CUDA": False})


def tensorrt_rows(bench: Bench) -> None:
    """TensorRT, enqueued and as a CUDA graph."""
    for name, (precision, build) in TENSORRT.items():
        if bench.told.precision in (None, name):
            recipe = bench.recipe(precision, {"typing": "weak", **build})
            bench.engine(f"TensorRT {name}", recipe, "tensorrt", {"enqueued": False, "CUDA graph": True})


def line(row: dict[str, Any], base_s: float | None) -> str:
    """The row in Markdown."""
    if "error" in row:
        return f"| {row['what']} | | | | | | | {row['error'].splitlines()[0]} |"
    cells = [
        row["what"] + (" (simulated)" if row.get("simulated") and "PyTorch" not in row["what"] else ""),
        f"{row['p50_s'] * 1e3:.3f}",
        "" if row["p90_s"] is None else f"{row['p90_s'] * 1e3:.3f}",
        f"{row['throughput_per_s']:.0f}",
        "" if base_s is None else f"{base_s / row['p50_s']:.2f}",
        "" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 1e6:.0f}",
        f"{row['rel_rms']:.1e}" if row["rel_rms"] else "0",
        " ".join(row["notes"]),
    ]
    return f"| {' | '.join(cells)} |"


def table(documents: list[dict[str, Any]]) -> str:
    """All rows of several results of one machine, with the speed-up over PyTorch eager in fp32."""
    kinds = {
        f"{document['model']}, batch {document['batch']}, {document['machine']['hard'].get('gpu', 'no GPU')}"
        for document in documents
    }
    if len(kinds) > 1:
        sys.exit(f"these are results of different things, which are not compared: {'; '.join(sorted(kinds))}")
    rows = [row for document in documents for row in document["rows"]]
    base = next((row["p50_s"] for row in rows if row["what"] == BASE), None)
    head = ["what", "p50 ms", "p90 ms", "samples/s", f"times {BASE}", "memory MB", "rel. RMS", "notes"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(line(row, base) for row in rows)]
    return "\n".join([*lines, "", *about(documents)])


def about(documents: list[dict[str, Any]]) -> Iterator[str]:
    """What the results are of."""
    for document in documents:
        hard, packages = document["machine"]["hard"], document["environment"]["packages"]
        yield (
            f"{document['model']}, batch {document['batch']}, {hard.get('gpu', hard.get('processor'))}, driver"
            f" {document['machine']['soft'].get('driver', 'not told')}; {', '.join(document['versions'])}; Python"
            f" {document['environment']['python']}, numpy {packages.get('numpy')}; disturbances:"
            f" {'; '.join(document['disturbances']) or 'none'}."
        )


def versions(parts: list[str]) -> list[str]:
    """Of what was timed."""
    found = []
    for part in parts:
        try:
            found.append(choose(part).version)
        except PytestTrtError as error:
            found.append(f"{part}: {error}")
    return found


def where() -> tuple[int | None, Machine]:
    """The GPU, or None for the CPU, and what is known of it; by torch's word where cuda-bindings are not installed."""
    try:
        return 0, machine_of(0)
    except PytestTrtError as error:
        torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
        if torch is None or not torch.cuda.is_available():
            return None, machine_of(None)
        return None, Machine({"kind": "gpu", "gpu": torch.cuda.get_device_name(0)}, notes=(str(error),))


def main() -> None:
    """Measure the parts that were asked for, or print the table of what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--precision", choices=list(TENSORRT))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--build", action="append", default=[])
    parser.add_argument("--table", type=Path, nargs="+")
    told = parser.parse_args()
    if told.table:
        print(table([json.loads(path.read_text()) for path in told.table]))
        return
    parts, bench = told.only or list(PARTS), Bench(told)
    device, machine = where()
    before = telemetry_of(device)
    for part in parts:
        {"torch": torch_rows, "onnxruntime": onnxruntime_rows, "tensorrt": tensorrt_rows}[part](bench)
    after = telemetry_of(device)
    document = {
        "model": told.model,
        "batch": told.batch,
        "versions": versions(parts),
        "environment": environment(Path.cwd()),
        "machine": {"key": machine.key, "hard": machine.hard, "soft": machine.soft, "notes": machine.notes},
        "telemetry": {"before": before.values, "after": after.values},
        "disturbances": disturbances(before, after),
        "rows": bench.rows,
    }
    if told.results:
        told.results.write_text(json.dumps(document, indent=1, default=str) + "\n")
    print(table([json.loads(json.dumps(document, default=str))]))


if __name__ == "__main__":
    main()
