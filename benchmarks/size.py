"""How much memory a golden and a gate take of a large model, and how their time grows with the number of nodes.

    python benchmarks/size.py --results FILE.json [--only 1300 --only 2400 --only growth]

A transformer with random weights, beside its graph as external data, is written into a temporary folder. Each
measurement is a process of its own; "peak" is its largest resident memory, which counts pages of mapped files too. It
is told against the bytes of the weights plus what onnxruntime alone adds to them on the same inputs.
``--table FILE.json`` prints the tables of earlier results.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZES = {"150": (3, 1024), "1300": (26, 1024), "2400": (48, 1024)}
"""By name, in MB: layers and width."""

HEADS, TOKENS, SAMPLES = 16, 16, 4
NODES = (100, 1_000, 10_000)
LEAST_EXTERNAL = 1024


class Transformer:
    """A graph that is put together, and its weights as they are written."""

    def __init__(self, folder: Path, layers: int, width: int) -> None:
        self.folder, self.width, self.random = folder, width, np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.held: list[TensorProto] = []
        with (folder / "weights.bin").open("wb") as self.file:
            last = "x"
            for layer in range(layers):
                last = self._layer(f"layer{layer}/", last)
        shape = ["N", TOKENS, width]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", last)]
        graph = helper.make_graph(self.nodes, "transformer", ends[:1], ends[1:], self.held)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, folder / "model.onnx")
        np.savez(folder / "inputs.npz", x=self.random.standard_normal((SAMPLES, TOKENS, width), dtype=np.float32))

    def _layer(self, name: str, x: str) -> str:
        self.name, width = name, self.width
        normal = self._node("LayerNormalization", x, self._weight("g1", 1, 0.1, 1.0), self._weight("b1", 1, 0.1))
        query, key, value = (
            self._node("Reshape", self._product(normal, width, width), self._held([0, 0, HEADS, width // HEADS]))
            for _ in range(3)
        )
        query, value = (self._node("Transpose", one, perm=[0, 2, 1, 3]) for one in (query, value))
        scores = self._node("MatMul", query, self._node("Transpose", key, perm=[0, 2, 3, 1]))
        scaled = self._node("Mul", scores, self._held(np.float32((width // HEADS) ** -0.5)))
        mixed = self._node("MatMul", self._node("Softmax", scaled, axis=-1), value)
        joined = self._node("Reshape", self._node("Transpose", mixed, perm=[0, 2, 1, 3]), self._held([0, 0, width]))
        x = self._node("Add", x, self._product(joined, width, width))
        normal = self._node("LayerNormalization", x, self._weight("g2", 1, 0.1, 1.0), self._weight("b2", 1, 0.1))
        inner = self._node(
            "Relu", self._node("Add", self._product(normal, width, 4 * width), self._weight("b3", 4, 0.1))
        )
        return self._node("Add", x, self._product(inner, 4 * width, width))

    def _node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{self.name}{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def _product(self, x: str, rows: int, columns: int) -> str:
        weight = self.random.standard_normal((rows, columns), dtype=np.float32) * np.float32(rows**-0.5)
        return self._node("MatMul", x, self._written(f"w{len(self.held)}", weight))

    def _weight(self, name: str, widths: int, spread: float, mean: float = 0.0) -> str:
        drawn = self.random.standard_normal(widths * self.width, dtype=np.float32)
        return self._written(name, drawn * np.float32(spread) + np.float32(mean))

    def _held(self, value: Any) -> str:
        self.held.append(numpy_helper.from_array(np.asarray(value), f"{self.name}held{len(self.held)}"))
        return str(self.held[-1].name)

    def _written(self, name: str, array: np.ndarray) -> str:
        tensor = TensorProto(name=f"{self.name}{name}", data_type=TensorProto.FLOAT, dims=array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        told = {"location": "weights.bin", "offset": self.file.tell(), "length": array.nbytes}
        for key, value in told.items():
            tensor.external_data.add(key=key, value=str(value))
        self.file.write(array.tobytes())
        self.held.append(tensor)
        return str(tensor.name)


def chain(folder: Path, count: int) -> None:
    """A network of so many nodes: blocks of five that each add a little to what came in."""
    random, nodes, held, last, width = np.random.default_rng(0), [], [], "x", 16
    inner = last
    for number in range(count):
        op, name = ("MatMul", "Tanh", "MatMul", "Relu", "Add")[number % 5], f"node{number}"
        inputs = [inner]
        if op == "MatMul":
            held.append(numpy_helper.from_array(random.normal(0, 0.1, (width, width)).astype(np.float32), f"{name}/w"))
            inputs.append(f"{name}/w")
        inputs += [last] if op == "Add" else []
        nodes.append(helper.make_node(op, inputs, [name], name))
        inner = name
        last = name if op == "Add" else last
    last = inner
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], held)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "model.onnx"
    )
    np.savez(folder / "inputs.npz", x=random.standard_normal((8, width), dtype=np.float32))


def bare(folder: Path) -> None:
    """onnxruntime alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    session.run(None, dict(np.load(folder / "inputs.npz")))


def golden(folder: Path) -> None:
    """Write the golden."""
    from pytest_trt.case.case import Case
    from pytest_trt.golden.create import update

    update(_case(folder, Case), folder / "golden")


def gate(folder: Path, precision: str) -> str:
    """Judge the golden's case at a precision."""
    from pytest_trt import Case, check

    verdict = check(_case(folder, Case), precision=precision, golden_dir=folder / "golden")
    return verdict.verdict + verdict.message


def lowered(folder: Path) -> None:
    """Lower to fp16."""
    from pytest_trt import load_model, lower

    lower(load_model(folder / "model.onnx"), "fp16", typed=True)


def localised(folder: Path) -> None:
    """Compare all tensors of fp32 and fp16."""
    from pytest_trt import load_model, lower
    from pytest_trt.evidence.localise import localise

    model = load_model(folder / "model.onnx")
    localise(model, lower(model, "fp16"), [dict(np.load(folder / "inputs.npz"))])


def _case(folder: Path, kind: Any) -> Any:
    return kind(onnx="model.onnx", inputs="inputs.npz", calibration="inputs.npz", base=folder)


PARTS: dict[str, Any] = {
    "bare": bare,
    "golden": golden,
    "gate fp16": lambda folder: gate(folder, "fp16"),
    "gate int8": lambda folder: gate(folder, "int8"),
    "lower": lowered,
    "localise": localised,
}


def measured(folder: Path, part: str) -> dict[str, Any]:
    """One part in a process of its own: seconds and peak memory in MB."""
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    print(f"{folder.name} {part}: {done.stdout.strip()}", file=sys.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def itself(folder: Path, part: str) -> None:
    """Do the part here."""
    import pytest_trt.gate

    assert pytest_trt.gate
    begun = time.perf_counter()
    said = PARTS[part](folder)
    took = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": round(took, 2), "peak_mb": round(peak * 1.048576), "said": said}))


def of_size(root: Path, name: str) -> dict[str, Any]:
    """A transformer's golden and gates."""
    folder = root / f"{name}-mb"
    folder.mkdir()
    Transformer(folder, *SIZES[name])
    weights = (folder / "weights.bin").stat().st_size / 1e6
    found = {part: measured(folder, part) for part in ("bare", "golden", "gate fp16", "gate int8")}
    return {"weights_mb": round(weights), **found}


def of_growth(root: Path) -> dict[str, Any]:
    """Seconds by number of nodes."""
    found: dict[str, Any] = {}
    for count in NODES:
        folder = root / f"{count}-nodes"
        folder.mkdir()
        chain(folder, count)
        found[str(count)] = {part: measured(folder, part) for part in ("lower", "localise", "golden", "gate fp16")}
    return found


def table(results: dict[str, Any]) -> str:
    """Both tables, as Markdown."""
    lines = ["| weights | part | seconds | peak | peak / (model + activations) |", "| --- | --- | --- | --- | --- |"]
    for size in results["sizes"].values():
        for part in ("bare", "golden", "gate fp16", "gate int8"):
            one, whole = size[part], size["bare"]["peak_mb"]
            share = one["peak_mb"] / max(whole, size["weights_mb"])
            lines.append(
                f"| {size['weights_mb']:,} MB | {part} | {one['seconds']:.0f} | {one['peak_mb']:,} MB | {share:.2f} |"
            )
    if results.get("growth"):
        lines += ["", "| nodes | lower | localise | golden | gate fp16 |", "| --- | --- | --- | --- | --- |"]
        for count, parts in results["growth"].items():
            cells = [f"{int(count):,}", *(f"{one['seconds']:.2f} s" for one in parts.values())]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--only", action="append", choices=[*SIZES, "growth"])
    parser.add_argument("--table", type=Path)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.table:
        print(table(json.loads(given.table.read_text())))
        return
    if given.part:
        itself(given.folder, given.part)
        return
    wanted = given.only or ["1300", "2400", "growth"]
    with tempfile.TemporaryDirectory() as root:
        sizes = {name: of_size(Path(root), name) for name in wanted if name != "growth"}
        growth = of_growth(Path(root)) if "growth" in wanted else {}
    results = {"machine": f"{platform.machine()}, {platform.system()}", "sizes": sizes, "growth": growth}
    print(table(results))
    if given.results:
        given.results.write_text(f"{json.dumps(results, indent=1)}\n")


if __name__ == "__main__":
    main()
