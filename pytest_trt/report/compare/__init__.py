"""Compare: two records side by side, as rows, as a page, and as a reason to fail."""

__all__ = ["changes", "fail_on", "page"]
