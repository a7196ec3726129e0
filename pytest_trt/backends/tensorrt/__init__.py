"""TensorRT, one path for 8.6, 10, 11 and TensorRT-RTX: what a release lacks is seen by its absence, not by a number."""

__all__ = ["backend", "parser", "runtime", "weak_typing"]
