"""Calibration: samples run through the fp32 model, and the ranges of its tensors taken from them."""

__all__ = ["activations", "calibration", "threshold"]
