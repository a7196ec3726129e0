"""The latency gate on a GPU: one plan against itself, and an engine that added layers make really slower by 4 to 6 %.

    python benchmarks/gate_gpu.py MODEL.onnx --results FILE.json [--repeats 20] [--build KEY=VALUE ...]

MODEL is a ResNet of benchmarks/models.py. Layers (a Gemm and a Relu each) are put before its last one until the engine
is slower by 4 to 6 %, as long side-by-side measurements say. Then the gate itself is asked, with its defaults, so many
times each: the engine against its own plan (A/A), and the slower engine against that plan. ``--table FILE.json`` prints
the table of earlier results.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from accuracy import driver
from onnx import helper, numpy_helper

from pytest_trt.backends.backend import Built, choose
from pytest_trt.backends.build_options import BuildOptions, merged, read_build_options, read_word
from pytest_trt.backends.recipe import Recipe
from pytest_trt.backends.stopwatch import stopwatch_of
from pytest_trt.case.case import Case
from pytest_trt.latency._decision import Suite
from pytest_trt.latency._machine import machine_of
from pytest_trt.latency._rounds import Rounds, in_rounds
from pytest_trt.latency._timing import measure
from pytest_trt.latency.baseline import Baseline
from pytest_trt.latency.check import find_latency, open_keeper
from pytest_trt.model.model import Model
from pytest_trt.precision import Precision
from pytest_trt.report.record import environment

if TYPE_CHECKING:
    from pytest_trt.latency.question import Keeper
    from pytest_trt.model.feeds import Arrays

BACKEND = "tensorrt"
MOST_LAYERS = 12
SLOWER = (1.04, 1.06)


def with_layers(proto: onnx.ModelProto, count: int) -> onnx.ModelProto:
    """The network with so many more layers before its last Gemm, each as wide as that one's input."""
    found = onnx.ModelProto()
    found.CopyFrom(proto)
    graph = found.graph
    last = next(node for node in reversed(graph.node) if node.op_type == "Gemm")
    weights = next(tensor for tensor in graph.initializer if tensor.name == last.input[1])
    width = max(numpy_helper.to_array(weights).shape)
    drawn = np.random.default_rng(0).standard_normal((width, width)) * np.sqrt(2 / width)
    graph.initializer.append(numpy_helper.from_array(drawn.astype(np.float32), "added_weights"))
    place, feed = list(graph.node).index(last), last.input[0]
    for number in range(count):
        names = [f"added_{number}", f"added_relu_{number}"]
        graph.node.insert(place, helper.make_node("Gemm", [feed, "added_weights"], names[:1], names[0]))
        graph.node.insert(place + 1, helper.make_node("Relu", names[:1], names[1:], names[1]))
        place, feed = place + 2, names[1]
    last.input[0] = feed
    return found


def built(
    proto: onnx.ModelProto, name: str, precision: str, inputs: Arrays, options: BuildOptions, store: Path
) -> Built:
    """The engine of a network."""
    backend = choose(BACKEND)
    recipe = Recipe(Model(proto, name), Precision.parse(precision), feeds=(inputs,), options=options, store=store)
    return Built(backend.build(recipe), recipe, backend)


def ratio(one: Built, other: Built, inputs: Arrays, keeper: Keeper) -> float:
    """How many times as long the second takes, by 20 rounds."""
    first, second = (partial(stopwatch_of, part.engine, inputs, keeper.timing) for part in (one, other))
    blocks = in_rounds(Rounds(first, second), replace(keeper.design, pairs=20))
    return float(np.exp(np.mean(np.log(blocks.candidate / blocks.baseline))))


def promoted(keeper: Keeper, of: Built, inputs: Arrays) -> Keeper:
    """The keeper with this engine as the baseline of the case."""
    found = find_latency(replace(keeper, mode="record"), CASE, of, inputs)
    machine = {"key": found.machine.key, **{k: dict(getattr(found.machine, k)) for k in ("hard", "soft", "record")}}
    assert found.materials is not None
    baseline = Baseline(
        identity=found.identity,
        run="benchmark",
        recorded="2026-01-01T00:00:00",
        promoted="2026-01-01T00:00:00",
        reason="benchmark",
        machine=machine,
        metric=asdict(found.samples.metric),
        p50_s=float(np.median(found.samples.lap.latency)),
        plan_sha256=of.engine.facts.get("plan_sha256"),
        kept={"plan": found.materials.plan, "onnx": found.materials.onnx},
    )
    return replace(keeper, mode="gate", baselines=(baseline,))


CASE = Case(name="network", onnx="network.onnx")


def asked(keeper: Keeper, of: Built, inputs: Arrays, repeats: int) -> list[dict[str, Any]]:
    """What the gate says, each time as the only case of a run."""
    rows = []
    for number in range(repeats):
        found = find_latency(replace(keeper, suite=Suite(keeper.rule)), CASE, of, inputs)
        compared = found.compared
        rows.append(
            {
                "state": found.state.value,
                "method": found.method,
                "ratio": compared.ratio if compared else None,
                "low": compared.low if compared else None,
                "high": compared.high if compared else None,
                "mde": compared.mde if compared else None,
                "pairs": compared.n if compared else None,
                "message": found.message,
                "disturbances": list(found.disturbances),
            }
        )
        print(number, found.state.value, found.message, flush=True)
    return rows


def measured(model: Path, told: argparse.Namespace, store: Path) -> dict[str, Any]:
    """All of it."""
    proto = onnx.load(str(model))
    shape = [axis.dim_value or 1 for axis in proto.graph.input[0].type.tensor_type.shape.dim]
    inputs = {proto.graph.input[0].name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    options = merged(read_build_options(dict(map(read_word, told.build)), "--build"))
    keeper = open_keeper(
        "gate", timing_words=told.timing, gate_words=(), folder=store, store=store, history="file://" + str(store),
        size=1, collected=frozenset(),
    )  # fmt: skip
    first = built(proto, model.name, told.precision, inputs, options, store)
    keeper = promoted(keeper, first, inputs)
    tried, slower = {}, None
    for count in range(told.layers, MOST_LAYERS + 1):
        other = built(with_layers(proto, count), f"{model.name} + {count}", told.precision, inputs, options, store)
        tried[count] = ratio(first, other, inputs, keeper)
        print(f"{count} more layers: {tried[count]:.4f} times", flush=True)
        if SLOWER[0] <= tried[count]:
            slower = other if tried[count] <= SLOWER[1] else None
            break
    alike = asked(keeper, first, inputs, told.repeats)
    worse = asked(keeper, slower, inputs, told.repeats) if slower else []
    watch = stopwatch_of(first.engine, inputs, keeper.timing)
    p50s = [float(np.median(measure(watch, keeper.timing).lap.latency)) for _ in range(10)]
    after = ratio(first, slower, inputs, keeper) if slower else None
    return {
        "model": model.name,
        "precision": told.precision,
        "tried": tried,
        "ratio_before": tried[max(tried)],
        "ratio_after": after,
        "a_a": alike,
        "slower": worse,
        "p50_s_of_ten_measurements": p50s,
        "machine": asdict(machine_of(0)),
    }


def table(found: dict[str, Any]) -> str:
    """Counts of states, and whether the bars are kept."""
    rows = [
        "| engine against the baseline | ratio | repeats | slow | fast | same | ambiguous | bar | kept |",
        "|" + " --- |" * 9,
    ]
    for label, key, ratios in (
        ("its own plan (A/A)", "a_a", [row["ratio"] for row in found["a_a"] if row["ratio"]]),
        ("with more layers", "slower", [row["ratio"] for row in found["slower"] if row["ratio"]]),
    ):
        states = Counter(row["state"] for row in found[key])
        total = sum(states.values())
        kept = not (states["slow"] or states["fast"]) if key == "a_a" else states["slow"] >= 0.9 * total and total > 0
        bar = "no slow, no fast" if key == "a_a" else "slow in 18 of 20"
        told = f"{np.median(ratios):.3f}" if ratios else ""
        counts = " | ".join(str(states[name]) for name in ("slow", "fast", "same", "ambiguous"))
        rows.append(f"| {label} | {told} | {total} | {counts} | {bar} | {'yes' if kept and total else 'no'} |")
    return "\n".join(rows)


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks/gate_gpu.py")
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--layers", type=int, default=1, help="added first, and then more")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--build", action="append", default=[])
    parser.add_argument("--timing", action="append", default=[])
    parser.add_argument("--table", type=Path)
    told = parser.parse_args()
    if told.table:
        print(table(json.loads(told.table.read_text())))
        return
    with TemporaryDirectory() as folder:
        store = Path(folder)
        store.chmod(0o700)
        found = {"environment": {**environment(Path.cwd()), "driver": driver()}, **measured(told.model, told, store)}
    if told.results:
        told.results.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
