"""Ranges: the largest |x| of each tensor, the one currency of int8 and fp8, in every format that holds it."""

__all__ = ["amax", "files", "qdq"]
