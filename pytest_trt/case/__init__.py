"""Case: one model to check, as a file, a marker or the command line describes it, and what it stands on."""

__all__ = ["budgets", "build_settings", "case", "case_file", "reference"]
