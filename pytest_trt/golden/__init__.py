"""Golden: inputs and the reference outputs for them, with the errors that a correct implementation may have."""

__all__ = ["create", "diff", "envelope", "folds", "golden", "index_outputs", "load", "overflow"]
