"""Charts: figures of the record as inline SVG, each with its text alternative and its data."""

__all__ = ["accuracy", "drawing", "latency", "network"]
