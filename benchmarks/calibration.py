"""Our calibration beside onnxruntime's: time, peak memory, and the error of the int8 model that comes out.

    python benchmarks/calibration.py FOLDER --results FILE.json [--repeat 3]

FOLDER is what benchmarks/models.py wrote; 64 images are added to it. Each calibration runs in a process of its own, by
turns. Both take the same tensors (the inputs of Conv and Gemm that our int8 quantises), 2048 bins and 128 levels, and
one image at a time, which is what the exported ResNet-18 takes.
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
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

IMAGES = 64
JUDGES = 64
GROUP = 8
COUNTS = (8, 64)
QUARTERS = 4
SLOW = 20.0  # seconds after which a measurement is not repeated
DIGITS = Path(__file__).parents[1] / "examples" / "digits"


def write_images(folder: Path) -> None:
    """calibration-8.npz and calibration-64.npz: the same white noise, which ResNet-18 of benchmarks/models.py takes.

    judges.npz, 64 more that calibrate nothing, since int8 scatters by a tenth from eight images to the next. And
    digits-0.npz to digits-3.npz, the quarters of digits' calibration data, which show how far errors scatter.
    """
    generator = np.random.default_rng(0)
    drawn = generator.standard_normal((IMAGES, 3, 224, 224), dtype=np.float32)
    np.savez(folder / "judges.npz", input=generator.standard_normal((JUDGES, 3, 224, 224), dtype=np.float32))
    for count in COUNTS:
        np.savez(folder / f"calibration-{count}.npz", input=drawn[:count])
    [(name, images)] = np.load(DIGITS / "calibration.npz").items()
    for number, quarter in enumerate(np.split(images, QUARTERS)):
        np.savez(folder / f"digits-{number}.npz", **{name: quarter})


def ours(model_file: Path, data: Path, method: str) -> dict[str, Any]:
    """Ranges by name, seconds, peak memory."""
    from functools import partial

    from pytest_trt.calibration.calibration import calibrate
    from pytest_trt.lowering.qdq import quantised_activations
    from pytest_trt.model.model import load
    from pytest_trt.model.sample_stream import pieces

    model = load(model_file)
    tensors = quantised_activations(model.proto)
    opened = partial(pieces, data.name, data.parent, model.inputs, "calibration")
    started = time.perf_counter()
    ranges = calibrate(model, tensors, opened, data.name, method=method)
    return _measured(started, dict(ranges.amax))


def onnxruntimes(model_file: Path, data: Path, method: str) -> dict[str, Any]:
    """The same of onnxruntime's calibrator, for the operators that our int8 quantises."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    from pytest_trt.lowering.qdq import quantised_activations
    from pytest_trt.model.model import load

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            [(name, array)] = np.load(data).items()
            self.feeds = iter([{name: array[i : i + 1]} for i in range(len(array))])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.feeds, None)

    wanted = quantised_activations(load(model_file).proto)
    bins = {"num_bins": 2048, "num_quantized_bins": 128, "symmetric": True}
    started = time.perf_counter()
    calibrator = create_calibrator(
        str(model_file),
        ["Conv", "Gemm", "MatMul"],
        augmented_model_path=str(Path(tempfile.mkdtemp()) / "augmented.onnx"),
        calibrate_method=CalibrationMethod[method],
        extra_options=bins if method == "Entropy" else {"symmetric": True},
    )
    calibrator.collect_data(Reader())
    found = calibrator.compute_data().data
    return _measured(started, {name: _amax(found[name]) for name in wanted})


def _amax(tensor: Any) -> float:
    low, high = tensor.range_value
    return float(max(abs(np.asarray(low).item()), abs(np.asarray(high).item())))


def _measured(started: float, amax: dict[str, float]) -> dict[str, Any]:
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "amax": amax}


def forward(model_file: Path, data: Path) -> dict[str, Any]:
    """Seconds of running the fp32 model alone over the samples, with the tensors that calibration looks at."""
    from pytest_trt.lowering.qdq import quantised_activations
    from pytest_trt.model.graph import with_outputs
    from pytest_trt.model.model import load
    from pytest_trt.model.onnx_session import open_session

    model = load(model_file)
    tensors = [name for name in quantised_activations(model.proto) if name != model.inputs[0].name]
    session = open_session(with_outputs(model.proto, tensors), model.source)
    [(name, array)] = np.load(data).items()
    started = time.perf_counter()
    for begin in range(len(array)):
        session.run(None, {name: array[begin : begin + 1]})
    return _measured(started, {})


@cache
def exactly(model_file: Path, inputs: Path) -> dict[str, Any]:
    """The outputs of the fp32 model."""
    from pytest_trt.model.model import load
    from pytest_trt.model.onnx_session import open_session, run

    model = load(model_file)
    return run(open_session(model.proto, "fp32"), model, dict(np.load(inputs)))


def error_of(model_file: Path, inputs: Path, amax: dict[str, float]) -> tuple[float, float]:
    """Relative RMS of the int8 model by our Q/DQ with these ranges, on inputs that did not calibrate.

    And the standard error of its mean over groups of eight.
    """
    from pytest_trt.comparison.comparison import compare
    from pytest_trt.lowering.lowering import lower
    from pytest_trt.model.model import load
    from pytest_trt.model.onnx_session import open_session, run
    from pytest_trt.ranges.amax import Ranges

    model, arrays = load(model_file), dict(np.load(inputs))
    lowered = lower(model, "int8", Ranges(amax))
    exact = exactly(model_file, inputs)
    found = run(open_session(lowered.proto, "int8"), model, arrays)
    [name] = exact
    pairs = [(found[name][i : i + GROUP], exact[name][i : i + GROUP]) for i in range(0, len(exact[name]), GROUP)]
    groups = [float(compare(*pair).rel_rms) for pair in pairs]
    return float(compare(found[name], exact[name]).rel_rms), float(np.std(groups, ddof=1) / len(groups) ** 0.5)


WAYS = {
    "ours, minmax": ("ours", "minmax"),
    "ours, entropy": ("ours", "entropy"),
    "ours, percentile": ("ours", "percentile"),
    "ours, mse": ("ours", "mse"),
    "onnxruntime, minmax": ("onnxruntime", "MinMax"),
    "onnxruntime, entropy": ("onnxruntime", "Entropy"),
    "fp32 model alone, one pass": ("forward", ""),
}


def one(model: Path, data: Path, way: str) -> dict[str, Any]:
    """One measurement, in this process."""
    who, method = WAYS[way]
    if who == "forward":
        return forward(model, data)
    return ours(model, data, method) if who == "ours" else onnxruntimes(model, data, method)


def apart(model: Path, data: Path, way: str) -> dict[str, Any]:
    """One measurement, in a process of its own."""
    command = [sys.executable, __file__, "--one", str(model), str(data), way]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    return found


def measure(folder: Path, repeat: int) -> list[dict[str, Any]]:
    """A row a way and number of images: of several runs the quickest, and its memory; a slow way runs once."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for _ in range(repeat):
        for count in COUNTS:
            for way in WAYS:
                if (way, count) in rows and rows[way, count]["seconds"] > SLOW:
                    continue
                found = apart(folder / "resnet18.onnx", folder / f"calibration-{count}.npz", way)
                print(way, count, f"{found['seconds']:.2f} s", f"{found['peak_mb']:.0f} MB", flush=True)
                known = rows.get((way, count))
                if known is None or found["seconds"] < known["seconds"]:
                    rows[way, count] = {"way": way, "images": count, **found}
    return list(rows.values())


def errors(folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a way: errors on ResNet-18 and on digits."""
    found = []
    for way in [way for way, (who, _) in WAYS.items() if who != "forward"]:
        ranges = {row["images"]: row["amax"] for row in rows if row["way"] == way}
        resnet = {str(n): error_of(folder / "resnet18.onnx", folder / "judges.npz", amax) for n, amax in ranges.items()}
        parts = [DIGITS / "calibration.npz", *(folder / f"digits-{number}.npz" for number in range(QUARTERS))]
        amax = [apart(DIGITS / "digits.onnx", part, way)["amax"] for part in parts]
        digits = [error_of(DIGITS / "digits.onnx", DIGITS / "test.npz", one)[0] for one in amax]
        found.append({"way": way, "resnet18": resnet, "digits": digits[0], "digits_quarters": digits[1:]})
    return found


def machine() -> dict[str, Any]:
    """Versions and the CPU."""
    from importlib.metadata import version

    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    packages = {name: version(name) for name in ("pytest-trt", "numpy", "onnx", "onnxruntime")}
    return {
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.machine(),
        "cores": len(cpu),
        "python": platform.python_version(),
        "packages": packages,
    }


def tables(document: dict[str, Any]) -> str:
    """Both tables as Markdown."""
    by = {(row["way"], row["images"]): row for row in document["rows"]}
    first = [["ResNet-18, 224 x 224", *(f"{n} images, {what}" for n in COUNTS for what in ("s", "peak MB"))]]
    for way in WAYS:
        cells = [[f"{by[way, n]['seconds']:.2f}", f"{by[way, n]['peak_mb']:.0f}"] for n in COUNTS]
        first.append([way, *cells[0], *cells[1]])
    second = [["relative RMS of the int8 model", *(f"ResNet-18, {n} images" for n in COUNTS), "digits, 256 images"]]
    second[0].append("digits, 64 images, four times")
    for row in document["errors"]:
        resnet = [f"{error:.2e} ± {scatter:.1e}" for error, scatter in (row["resnet18"][str(n)] for n in COUNTS)]
        second.append([row["way"], *resnet, f"{row['digits']:.2e}"])
        quarters = row["digits_quarters"]
        second[-1].append(f"{np.mean(quarters):.2e} ({min(quarters):.2e} to {max(quarters):.2e})")
    return f"{_markdown(first)}\n\n{_markdown(second)}"


def _markdown(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def main() -> None:
    """Measure, write the results, print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one", nargs=3)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--errors", type=Path, help="results whose errors are measured anew, with the ranges they hold")
    told = parser.parse_args()
    if told.one:
        print(json.dumps(one(Path(told.one[0]), Path(told.one[1]), told.one[2])))
        return
    if told.table:
        print(tables(json.loads(told.table.read_text())))
        return
    write_images(told.folder)
    rows = json.loads(told.errors.read_text())["rows"] if told.errors else measure(told.folder, told.repeat)
    document = {"environment": machine(), "rows": rows, "errors": errors(told.folder, rows)}
    told.results.write_text(json.dumps(document, indent=1) + "\n")
    print(tables(document))


if __name__ == "__main__":
    main()
