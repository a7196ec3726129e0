"""Latency: samples of an engine's time, and whether it became slower."""

__all__ = ["baseline", "check", "options", "question", "result", "rule", "runs"]
