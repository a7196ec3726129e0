"""How right the stopwatch is: against a bare loop of CUDA-graph replays, against itself, and in its other modes.

    python benchmarks/timing.py FOLDER --results FILE.json [--model resnet18] [--precision fp16] [--build KEY=VALUE ...]

One engine, one process, in turns. FOLDER is what benchmarks/models.py wrote; ``--model digits`` needs none.
Needs TensorRT and a GPU. ``--table FILE.json`` prints the table of earlier results.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import case_of
from bare import bare_loop

from pytest_trt.backends.backend import choose
from pytest_trt.backends.build_options import merged, read_build_options, read_word
from pytest_trt.backends.stopwatch import Timing, stopwatch_of
from pytest_trt.case.build_settings import How, recipe_of
from pytest_trt.case.reference import Subject
from pytest_trt.latency._machine import machine_of
from pytest_trt.latency._rounds import Design, interleave
from pytest_trt.latency._telemetry import disturbances, telemetry_of
from pytest_trt.latency._timing import measure
from pytest_trt.latency.result import percentile
from pytest_trt.model.model import load
from pytest_trt.precision import Precision

LIMIT = 0.02
MODES = {
    "graph, spinning": Timing(),
    "graph, blocking": Timing(spin=False),
    "enqueued": Timing(graph=False),
    "graph, with copies": Timing(transfers=True),
    "enqueued, blocking, with copies (trtexec 10)": Timing(graph=False, spin=False, transfers=True),
}


def built(folder: Path, name: str, precision: str, words: list[str]) -> tuple[Any, dict[str, np.ndarray]]:
    """The engine and one sample."""
    case = case_of(folder, name)
    arrays = dict(np.load(case.base / str(case.inputs)))
    feeds = {key: np.ascontiguousarray(value[:1]) for key, value in arrays.items()}
    model, asked = load(case.base / str(case.onnx)), Precision.parse(precision)
    told = {"typing": "weak", **dict(read_word(word) for word in words)}
    how = How(merged(read_build_options(told, "--build")))
    return choose("tensorrt").build(recipe_of(Subject(case, asked, model), (feeds,), how)), feeds


def against_bare(engine: Any, feeds: dict[str, np.ndarray], rounds: int) -> dict[str, Any]:
    """Medians of ours and of the bare loop in turns; the bare one with our inferences a sample, and with one."""
    stopwatch = stopwatch_of(engine, feeds, Timing())
    inferences = measure(stopwatch, Timing()).metric.inferences
    plan = bytes(engine.engine.serialize())
    loops = {"bare_s": bare_loop(plan, feeds, inferences), "bare_single_s": bare_loop(plan, feeds)}
    turns = {"ours_s": lambda samples: stopwatch.lap(samples, inferences).latency, **loops}
    found: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        for name in sorted(turns, reverse=bool(number % 2)):
            found[name].append(float(np.median(turns[name](400))))
    middle = {name: float(np.median(values)) for name, values in found.items()}
    ratios = {name: middle["ours_s"] / middle[name] for name in loops}
    return {"inferences": inferences, "rounds": found, "p50": middle, "ratio": ratios}


def mode(engine: Any, feeds: dict[str, np.ndarray], timing: Timing) -> dict[str, Any]:
    """What one mode measures."""
    samples = measure(stopwatch_of(engine, feeds, timing), timing)
    lap = samples.lap
    parts = {"h2d_s": lap.h2d, "compute_s": lap.compute, "d2h_s": lap.d2h, "enqueue_s": lap.enqueue}
    return {
        **{f"p{p}_s": percentile(lap.latency, p) for p in (50, 90, 95, 99)},
        **{name: None if part is None else float(np.median(part)) for name, part in parts.items()},
        "samples": len(lap.compute),
        "inferences": samples.metric.inferences,
        "graph": samples.metric.graph,
        "stopped": samples.stopped,
        "wall_s": samples.wall_s,
        "notes": samples.notes,
    }


def against_itself(engine: Any, feeds: dict[str, np.ndarray], times: int) -> dict[str, Any]:
    """Two stopwatches of one engine in turns: what a gate takes for noise."""
    first, second = (stopwatch_of(engine, feeds, Timing()) for _ in range(2))
    ratios = []
    for _ in range(times):
        blocks = interleave(first, second, Design())
        ratios.append(np.log(blocks.candidate / blocks.baseline))
    means = [float(np.exp(logs.mean())) for logs in ratios]
    values = np.unique(first.lap(2000, 1).compute)
    return {
        "centre": blocks.centre,
        "per_block": blocks.per_block,
        "ratios": means,
        "block_sd": float(np.std(np.concatenate(ratios))),
        "least_step_s": float(np.diff(values).min()) if len(values) > 1 else 0.0,
    }


def table(document: dict[str, Any]) -> str:
    """All of it in Markdown."""
    bare, itself, gpu = document["bare"], document["itself"], document["machine"]["hard"]["gpu"]
    us = {name: f"{value * 1e6:.2f} us" for name, value in bare["p50"].items()}
    lines = [
        f"{document['model']} at {document['precision']} on {gpu}, {document['release']}:",
        "",
        f"- p50 {us['ours_s']}; a bare loop of as many inferences a sample ({bare['inferences']}) {us['bare_s']} (ratio"
        f" {bare['ratio']['bare_s']:.4f}), of one {us['bare_single_s']} ({bare['ratio']['bare_single_s']:.4f})",
        f"- against itself, {len(itself['ratios'])} times: ratios {min(itself['ratios']):.4f} to"
        f" {max(itself['ratios']):.4f}; s.d. of a pair of blocks {itself['block_sd']:.2%}; the clock steps by"
        f" {itself['least_step_s'] * 1e6:.3f} us",
        f"- disturbances: {'; '.join(document['disturbances']) or 'none'}",
        "",
        "| mode | p50 us | p99 us | h2d | compute | d2h | enqueue | samples | stopped | notes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    keys = ("p50_s", "p99_s", "h2d_s", "compute_s", "d2h_s", "enqueue_s")
    for name, row in document["modes"].items():
        cells = ["" if row[key] is None else f"{row[key] * 1e6:.2f}" for key in keys]
        lines.append(f"| {' | '.join([name, *cells, str(row['samples']), row['stopped'], ' '.join(row['notes'])])} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print; exit code 1 where ours is not within 2 % of the bare loop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    parser.add_argument("--results", type=Path)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--build", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--table", type=Path)
    told = parser.parse_args()
    if told.table:
        print(table(json.loads(told.table.read_text())))
        return
    engine, feeds = built(told.folder, told.model, told.precision, told.build)
    before = telemetry_of(0)
    document: dict[str, Any] = {"model": told.model, "precision": told.precision, "release": choose("tensorrt").version}
    document["bare"] = against_bare(engine, feeds, told.rounds)
    document["modes"] = {name: mode(engine, feeds, timing) for name, timing in MODES.items()}
    document["itself"] = against_itself(engine, feeds, told.rounds)
    after, machine = telemetry_of(0), machine_of(0)
    document["machine"] = {"key": machine.key, "hard": machine.hard, "soft": machine.soft, "notes": machine.notes}
    document["telemetry"] = {"before": before.values, "after": after.values}
    document["disturbances"] = disturbances(before, after)
    document["engine"] = dict(engine.facts)
    if told.results:
        told.results.write_text(json.dumps(document, indent=1, default=str) + "\n")
    print(table(json.loads(json.dumps(document, default=str))))
    sys.exit(abs(document["bare"]["ratio"]["bare_s"] - 1) > LIMIT)


if __name__ == "__main__":
    main()
