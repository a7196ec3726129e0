"""The latency of a record, every field told."""

from __future__ import annotations

from typing import Any

LATENCY: dict[str, Any] = {
    "mode": "gate", "state": "slow", "action": "fail", "fails": True, "message": "slower by 4 %",
    "metric": {"clock": "cuda_event", "graph": True, "spin": True, "transfers": False, "inferences": 4, "batch": 1,
               "shapes": {"x": [1, 3, 224, 224]}},
    "samples": 300, "batch": 1, "min_s": 0.001, "p50_s": 0.0011, "mean_s": 0.0011, "stddev_s": 0.0001, "iqr_s": 0.0001,
    "max_s": 0.002, "p90_s": 0.0012, "p95_s": 0.0013, "p99_s": None, "throughput_per_s": 900.0, "memory_bytes": 1 << 20,
    "parts": {"compute_s": 0.0011, "h2d_s": None, "d2h_s": None, "enqueue_s": 1e-5},
    "histogram": {"edges": [0.001, 0.002], "counts": [300]}, "stopped": "stable", "notes": ["no graph was captured"],
    "comparison": {"method": "history", "baseline": "0003", "ratio": 1.04, "low": 1.03, "high": 1.05, "mde": None,
                   "unseen": None, "threshold": 0.025, "n": 20, "spread": 0.01, "p_slow": 1e-6, "p_fast": 1.0,
                   "reasons": [], "notes": []},
    "history": [{"run": "0003", "when": "2026-01-01T00:00:00+00:00", "p50_s": 0.00105, "state": None,
                 "baseline": True}],
    "interval": {"low_s": 0.001, "high_s": 0.0011},
    "budgets": [{"budget": "p50_ms", "limit": 1.0, "actual": 1.1, "met": False, "message": "over"}],
    "machine": {"key": "0123456789abcdef", "hard": {"gpu": "NVIDIA H200"}, "soft": {}, "record": {}},
    "telemetry": {"before": {}, "after": {}, "disturbances": []},
}  # fmt: skip
