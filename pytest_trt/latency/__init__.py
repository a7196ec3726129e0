"""Latency: samples of an engine's time, and whether it became slower."""
