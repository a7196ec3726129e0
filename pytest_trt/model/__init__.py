"""Model: an ONNX graph as it is, the arrays that it takes and gives, and the one place that runs it on the CPU."""

__all__ = [
    "external_data",
    "feeds",
    "graph",
    "model",
    "normalise",
    "onnx_session",
    "quantised_weights",
    "sample_stream",
    "samples",
    "scores",
    "torch_export",
]
