"""Backends: what builds an engine from a model at a precision, runs it and times it, each opened by its name."""

__all__ = [
    "achieved_precision",
    "backend",
    "build_options",
    "cuda",
    "onnxruntime",
    "onnxruntime_gpu",
    "recipe",
    "stopwatch",
    "tensorrt",
    "torch",
]
