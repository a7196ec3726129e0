"""Comparison: how far arrays are from their reference, and whether that is inside a tolerance."""

__all__ = ["comparison", "error_metrics", "parts", "tolerance"]
