"""Report: renders records, decides nothing."""

__all__ = ["compare", "html", "layout", "markdown", "record", "record_file", "terminal"]
