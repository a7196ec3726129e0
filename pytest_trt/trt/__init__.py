"""TensorRT, one path for 8.6, 10, 11 and TensorRT-RTX: what a release lacks is seen by its absence, by no number."""
