"""Report: renders records, decides nothing."""

__all__ = ["compare", "layout", "markdown", "record", "record_file", "terminal"]
