"""What it costs to compare all tensors, beside one plain fp32 and one plain lowered inference.

    python benchmarks/localise.py FOLDER --results FILE.json [--repeat 3]

FOLDER is what benchmarks/models.py wrote; the int8 models are added to it. Each measurement is a process of its own, by
turns, of one image at a time, the quickest of 16 in each. "plain" runs the fp32 model and then the lowered one, as they
are; "localised" runs both side by side and compares every float tensor. A spoiled range is then looked for in three
places of each network.
``--table FILE.json`` prints the tables of earlier results.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

NETWORKS = ("resnet18", "mobilenet_v2")
IMAGES = 8
FACTORS = (0.03, 0.1, 10.0)


def prepare(folder: Path, name: str) -> None:
    """NAME.int8.onnx, calibrated by its own calibration data."""
    from functools import partial

    from pytest_trt import lower
    from pytest_trt.calibration.calibration import calibrate
    from pytest_trt.lowering.qdq import quantised_activations
    from pytest_trt.model.model import load
    from pytest_trt.model.sample_stream import pieces

    model = load(folder / f"{name}.onnx")
    samples = partial(pieces, f"{name}.calibration.npz", folder, model.inputs, "calibration")
    ranges = calibrate(model, quantised_activations(model.proto), samples, name)
    (folder / f"{name}.int8.onnx").write_bytes(lower(model, "int8", ranges).proto.SerializeToString())


def plain(folder: Path, name: str) -> dict[str, Any]:
    """Open both models and run them one after the other."""
    from pytest_trt.model.model import load
    from pytest_trt.model.onnx_session import open_session

    models = [load(folder / f"{name}{kind}.onnx") for kind in ("", ".int8")]
    started = time.perf_counter()
    sessions = [open_session(model.proto, model.source) for model in models]
    opened = time.perf_counter() - started
    # one after the other: threads of an idle session spin, and would slow the next one down
    found = [_run(folder, name, lambda feeds, session=session: session.run(None, feeds)) for session in sessions]
    summed = {key: sum(one[key] for one in found) for key in ("run_s", "cpu_s")}
    return {"open_s": opened, **summed, "peak_mb": found[-1]["peak_mb"]}


def localised(folder: Path, name: str) -> dict[str, Any]:
    """The same of both side by side, every tensor compared."""
    from pytest_trt.evidence._pairing import paired
    from pytest_trt.model.model import load
    from pytest_trt.model.onnx_session import open_session

    models = [load(folder / f"{name}{kind}.onnx") for kind in ("", ".int8")]
    started = time.perf_counter()
    pair = paired(*models)
    session = open_session(pair.model.proto, name, in_order=True)
    opened = time.perf_counter() - started
    found = _run(
        folder, name, lambda feeds: session.run(None, feeds | {f"{pair.prefix}{key}": v for key, v in feeds.items()})
    )
    return {"open_s": opened, "tensors": len(pair.tensors), **found}


def _run(folder: Path, name: str, run: Any) -> dict[str, Any]:
    images = np.load(folder / f"{name}.inputs.npz")["input"][:IMAGES]
    run({"input": images[:1]})
    seconds, cpu = [], time.process_time()
    for _ in range(2):
        for place in range(len(images)):
            started = time.perf_counter()
            run({"input": images[place : place + 1]})
            seconds.append(time.perf_counter() - started)
    cpu_s = (time.process_time() - cpu) / len(seconds)
    return {"run_s": min(seconds), "cpu_s": cpu_s, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def named(folder: Path, name: str) -> dict[str, Any]:
    """How often a spoiled range is named first: by its tensor, in three places and by three factors."""
    from pytest_trt import Ranges, lower
    from pytest_trt.evidence.localise import localise
    from pytest_trt.model.model import load
    from pytest_trt.ranges.qdq import ranges_of_graph

    model = load(folder / f"{name}.onnx")
    amax = dict(ranges_of_graph(load(folder / f"{name}.int8.onnx").proto, name).amax)
    runs = [{"input": np.load(folder / f"{name}.inputs.npz")["input"][:2]}]
    tensors = list(amax)
    chosen = [tensors[place] for place in (1, len(tensors) // 2, len(tensors) - 2)]
    found = [
        localise(model, lower(model, "int8", Ranges({**amax, tensor: amax[tensor] * by})), runs)[0].tensor == tensor
        for tensor in chosen
        for by in FACTORS
    ]
    return {"spoiled": len(found), "named_first": sum(found)}


WAYS = {"plain": plain, "localised": localised, "named": named, "prepare": prepare}


def apart(folder: Path, name: str, way: str) -> dict[str, Any]:
    """One measurement, in a process of its own."""
    command = [sys.executable, __file__, "--one", str(folder), name, way]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    return found


def measure(folder: Path, repeat: int) -> list[dict[str, Any]]:
    """A row a network: of several runs by turns, the quickest image of each way and its largest memory."""
    rows = []
    for name in NETWORKS:
        apart(folder, name, "prepare")
        turns = [{way: apart(folder, name, way) for way in ("plain", "localised")} for _ in range(repeat)]
        best = {
            way: {
                "open_s": min(turn[way]["open_s"] for turn in turns),
                "run_s": min(turn[way]["run_s"] for turn in turns),
                "cpu_s": min(turn[way]["cpu_s"] for turn in turns),
                "peak_mb": max(turn[way]["peak_mb"] for turn in turns),
            }
            for way in ("plain", "localised")
        }
        rows.append({"network": name, "tensors": turns[0]["localised"]["tensors"], **best})
        rows[-1].update(apart(folder, name, "named"))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def machine() -> dict[str, Any]:
    """Versions and the CPU."""
    from importlib.metadata import version

    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.machine(),
        "cores": len(cpu),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("pytest-trt", "numpy", "onnx", "onnxruntime")},
    }


def table(document: dict[str, Any]) -> str:
    """The results as Markdown."""
    head = [
        "int8, one image",
        "tensors",
        "fp32 + int8 plain, ms",
        "compared, ms",
        "times",
        "times the CPU",
        "opening plain, s",
    ]
    rows = [[*head, "opening compared, s", "plain peak MB", "compared peak MB", "spoiled ranges named first"]]
    for row in document["rows"]:
        a, b = row["plain"], row["localised"]
        cells = [row["network"], str(row["tensors"]), f"{1e3 * a['run_s']:.0f}", f"{1e3 * b['run_s']:.0f}"]
        cells += [
            f"{b['run_s'] / a['run_s']:.2f}",
            f"{b['cpu_s'] / a['cpu_s']:.2f}",
            f"{a['open_s']:.2f}",
            f"{b['open_s']:.2f}",
        ]
        cells += [f"{a['peak_mb']:.0f}", f"{b['peak_mb']:.0f}", f"{row['named_first']} of {row['spoiled']}"]
        rows.append(cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one", nargs=3)
    parser.add_argument("--table", type=Path)
    told = parser.parse_args()
    if told.one:
        print(json.dumps(WAYS[told.one[2]](Path(told.one[0]), told.one[1])))
        return
    if told.table:
        print(table(json.loads(told.table.read_text())))
        return
    document = {"environment": machine(), "rows": measure(told.folder, told.repeat)}
    told.results.write_text(json.dumps(document, indent=1) + "\n")
    print(table(document))


if __name__ == "__main__":
    main()
