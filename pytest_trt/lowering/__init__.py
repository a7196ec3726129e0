"""Lowering: a precision expressed in the ONNX graph itself, fp32 in, its rounding out."""

__all__ = [
    "batch_normalization",
    "casts",
    "inner_values",
    "lowering",
    "modelopt",
    "placement",
    "qdq",
    "weight_only",
    "weights",
]
