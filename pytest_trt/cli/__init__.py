"""The command line ``pytest-trt``: what is done to a model outside a test, each command a module."""

__all__ = ["main"]
