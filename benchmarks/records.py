"""Synthetic records for reports: made by seeded code, of no model, engine or GPU; they say so wherever they can."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

__all__ = ["case", "document", "latency"]

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")


def document(cases: int, tensors: int, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A record of so many cases, one in 20 of which failed and one in 50 could not be judged."""
    draw = random.Random(seed)
    return {
        "schema": 1,
        "partial": False,
        "exit_status": 1,
        "complaints": [],
        "environment": {
            "python": "synthetic",
            "platform": "synthetic: no machine ran this",
            "machine": "synthetic",
            "packages": {},
            "source": {"service": None, "commit": None, "branch": None, "run": None},
            "options": [],
            "gpus": [],
            "started": "2026-01-01T00:00:00.000+00:00",
            "finished": "2026-01-01T00:01:00.000+00:00",
            "duration_s": 60.0,
        },
        "results": [_numbered(draw, number, tensors) for number in range(cases)],
        **changes,
    }


def _numbered(draw: random.Random, number: int, tensors: int) -> dict[str, Any]:
    name, precision = f"synthetic-{number // len(PRECISIONS):03}", PRECISIONS[number % len(PRECISIONS)]
    if number % 50 == 49:
        return broken(name, precision)
    return case(name, precision, draw=draw, tensors=tensors, failed=number % 20 == 4, simulated=number % 2 == 0)


def case(
    name: str = "net",
    precision: str = "int8",
    *,
    draw: random.Random | None = None,
    tensors: int = 6,
    failed: bool = False,
    simulated: bool = True,
) -> dict[str, Any]:
    """One judged result with all that a record may hold."""
    draw = draw or random.Random(0)
    error, bound = (0.31 if failed else 0.0142) * draw.uniform(0.8, 1.2), 0.0384
    names = [f"/backbone/stage{n // 8}/block{n % 8}/conv/Relu_output_0" for n in range(tensors)]
    return {
        **_head(name, precision, "failed" if failed else "passed", simulated),
        "worst_output": "logits",
        "outputs": {"logits": _output(error, bound, failed)},
        "findings": _findings(names, failed),
        "hops": [
            {"from": "golden", "to": "fp32", "output": "logits", "rel_rms": 3.1e-7, "limit": 1e-4},
            {"from": "fp32", "to": "simulated", "output": "logits", "rel_rms": error, "limit": bound},
        ],
        "blame": "fp32 -> simulated" if failed else None,
        "located": [_located(tensor, place) for place, tensor in enumerate(names[:20])] if failed else [],
        "figures": {
            "outputs": {"logits": _drawn(draw, error)},
            "tensors": [_tensor(draw, tensor, place) for place, tensor in enumerate(names)],
            "ranges": [_range(draw, tensor, failed) for tensor in names],
        },
        "layers": {} if simulated else _layers(draw, precision, names),
        "latency": None if simulated else latency(draw, slow=failed),
    }


def broken(name: str, precision: str) -> dict[str, Any]:
    """A result that could not be judged."""
    said = f"there is no golden for {name}: make it with --trt-update-golden"
    head = _head(name, precision, "error", simulated=True)
    finding = {"code": "TRT501", "severity": "error", "message": said, "remedy": "", "evidence": {}}
    return {**head, "kind": "MissingGolden", "message": said, "findings": [finding]}


def latency(draw: random.Random | None = None, *, slow: bool = True) -> dict[str, Any]:
    """Latency against a baseline and its history."""
    draw = draw or random.Random(0)
    samples = [1.23e-3 * draw.lognormvariate(0, 0.02) for _ in range(700)]
    low, high = min(samples), max(samples)
    edges = [low + (high - low) * n / 30 for n in range(31)]
    counts = [sum(a <= s < b for s in samples) for a, b in itertools.pairwise(edges)]
    counts[-1] += 1
    runs = [{"run": f"{n:04}", "when": f"2026-01-{n + 1:02}", "p50_s": 1.2e-3 * draw.gauss(1, 0.01)} for n in range(12)]
    return {
        "mode": "gate",
        "state": "slow" if slow else "same",
        "action": "fail" if slow else "pass",
        "fails": slow,
        "message": f"{'4.5 % slower than' if slow else 'as fast as'} its baseline (synthetic)",
        "metric": {
            "clock": "cuda_event",
            "graph": True,
            "spin": True,
            "transfers": False,
            "inferences": 8,
            "batch": 8,
            "shapes": {"image": [8, 3, 224, 224]},
        },
        "samples": len(samples),
        "batch": 8,
        "min_s": low,
        "p50_s": 1.23e-3,
        "mean_s": 1.231e-3,
        "stddev_s": 2.4e-5,
        "iqr_s": 3.3e-5,
        "max_s": high,
        "p90_s": 1.262e-3,
        "p95_s": 1.27e-3,
        "p99_s": 1.289e-3,
        "throughput_per_s": 6504.0,
        "memory_bytes": 73400320,
        "parts": {"compute_s": 1.18e-3, "h2d_s": 4.1e-5, "d2h_s": 8e-6, "enqueue_s": 2.2e-4},
        "histogram": {"edges": edges, "counts": counts},
        "stopped": "stable",
        "notes": [],
        "comparison": {
            "method": "history",
            "baseline": "0011",
            "ratio": 1.045 if slow else 1.005,
            "low": 1.033 if slow else 0.993,
            "high": 1.057 if slow else 1.017,
            "threshold": 0.025,
            "mde": 0.012,
            "unseen": 0.02,
            "n": 12,
            "spread": 0.006,
            "p_slow": 1e-4,
            "p_fast": 0.99,
            "reasons": [],
            "notes": [],
        },
        "history": [{**run, "state": "same", "baseline": n == 11} for n, run in enumerate(runs)],
        "interval": {"low_s": 1.175e-3, "high_s": 1.226e-3 if slow else 1.24e-3},
        "budgets": [{"budget": "p50_ms", "limit": 1.3, "actual": 1.23, "met": True, "message": ""}],
        "machine": {"key": "0123456789abcdef", "hard": {"gpu": "synthetic"}, "soft": {}, "record": {}},
        "telemetry": {"before": {}, "after": {}, "disturbances": []},
    }


def _head(name: str, precision: str, verdict: str, simulated: bool) -> dict[str, Any]:
    return {
        "nodeid": f"trt.toml::{name}[{precision}]",
        "file": "trt.toml",
        "line": 1,
        "case": name,
        "precision": precision,
        "held": None,
        "backend": "onnxruntime" if simulated else "tensorrt",
        "simulated": simulated,
        "verdict": verdict,
        "message": "",
        "kind": "",
        "where": f"trt.toml: model '{name}'",
        "accept": "",
        "worst_output": None,
        "outputs": {},
        "findings": [],
        "ignored": {},
        "hops": [],
        "blame": None,
        "located": [],
        "figures": {"outputs": {}, "tensors": [], "ranges": []},
        "layers": {},
        "warnings": [],
        "latency": None,
        "provenance": {"model": f"{name}.onnx", "golden_made_by": {"reason": "synthetic", "seed": 0}},
    }


def _output(error: float, bound: float, failed: bool) -> dict[str, Any]:
    worst = {"index": [3, 7], "actual": 1.5, "golden": 1.0, "difference": 0.5, "relative": 0.5, "allowed": 0.1}
    return {
        "error": error,
        "bound": bound,
        "bound_from": "envelope",
        "metric": "rel_rms",
        "reasons": [f"relative RMS {error:.3g} is over the bound {bound:.3g}"] if failed else [],
        "run": "",
        "limits": {"rel_rms": bound},
        "accuracy": {"actual": 0.98, "reference": 0.9833, "samples": 360},
        "dtype": "float32",
        "golden_dtype": "float32",
        "shape": [360, 10],
        "count": 3600,
        "rel_rms": error,
        "max_abs": 0.5,
        "max_rel": "inf",
        "mean_error": -0.001,
        "cosine": 0.99991,
        "sqnr_db": -20 * math.log10(error),
        "p99": 0.2,
        "p999": 0.4,
        "different": 3600,
        "beyond": 0,
        "nonfinite": 0,
        "nan": {"actual": 0, "golden": 0},
        "inf": {"actual": 0, "golden": 0},
        "mismatched": 0,
        "top1": 1.0,
        "top5": 1.0,
        "samples": 360,
        "flips": [],
        "max_abs_at": worst,
        "max_rel_at": worst,
        "worst": [worst],
    }


def _findings(tensors: list[str], failed: bool) -> list[dict[str, Any]]:
    note = {"code": "TRT205", "severity": "note", "message": "synthetic: nothing ran", "remedy": "", "evidence": {}}
    message = f"tensor '{tensors[0]}' has the range 0.1 for a largest |x| of 1: 0.47 of its values lie beyond"
    evidence = {"tensor": tensors[0], "tensors": tensors[:4], "range": 0.1, "amax": 1.0, "saturation": 0.47}
    remedy = "Calibrate on data that reaches what the golden reaches; or keep it in fp32 (`keep`)."
    error = {"code": "TRT105", "severity": "error", "message": message, "remedy": remedy, "evidence": evidence}
    return [error, note] if failed else [note]


def _located(tensor: str, place: int) -> dict[str, Any]:
    node = tensor.removesuffix("_output_0")
    figures = {"local_db": 11.0 + place, "cumulative_db": 9.0, "added_db": "inf"}
    bad = {"nonfinite": False, "nonfinite_in_fp32": False, "went_bad": False}
    return {"tensor": tensor, "node": node, "op": "Relu", "readers": [f"{node}/next"], "place": place, **figures, **bad}


def _drawn(draw: random.Random, error: float) -> dict[str, Any]:
    golden = [draw.gauss(0, 5) for _ in range(512)]
    actual = [value + draw.gauss(0, 5 * error) for value in golden]
    half = 25 * error
    edges = [half * (2 * n / 51 - 1) for n in range(52)]
    counts = [int(3600 * math.exp(-(((n - 25) / 8) ** 2))) for n in range(51)]
    scatter = {"golden": _short(golden), "actual": _short(actual), "sampled_of": 3600}
    return {"errors": {"edges": _short(edges), "counts": counts}, "scatter": scatter}


def _tensor(draw: random.Random, tensor: str, place: int) -> dict[str, Any]:
    node = tensor.removesuffix("_output_0")
    local, run = round(draw.gauss(38, 3), 3), round(40 - place * 0.1 + draw.gauss(0, 1), 3)
    ratios = {"local_sqnr_db": local, "cumulative_sqnr_db": run if place else None}
    return {"tensor": tensor, "node": node, "op": "Relu", "position": place, **ratios}


def _range(draw: random.Random, tensor: str, failed: bool) -> dict[str, Any]:
    reach = draw.lognormvariate(0, 0.4)
    beyond = draw.uniform(0, 0.2) if failed else draw.uniform(0, 1e-3)
    return {"tensor": tensor, "range": reach, "amax": 1.0, "saturated": beyond, "sqnr_db": round(draw.gauss(35, 4), 3)}


def _layers(draw: random.Random, asked: str, names: list[str]) -> dict[str, Any]:
    chosen = [draw.choices((asked, "fp16", "fp32"), (8, 1, 1))[0] for _ in names]
    layers = [
        {
            "name": f"{name} + PWN",
            "type": "CaskConvolution",
            "inputs": [label],
            "outputs": [label],
            "weights": label,
            "tactic": "sm90_xmma_fprop_implicit_gemm_synthetic",
            "onnx_nodes": [name],
            "precision": label,
            "computes": True,
            "kept": False,
        }
        for name, label in zip(names, chosen, strict=True)
    ]
    counts = {label: chosen.count(label) for label in dict.fromkeys(chosen)}
    return {"asked": asked, "compute": len(names), "honoured": counts[asked], "by_precision": counts, "layers": layers}


def _short(values: list[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
