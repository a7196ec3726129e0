"""Doctor: what a machine has of all that pytest-trt may use, what of it does not fit, and how to mend it."""

__all__ = ["examination", "platform"]
