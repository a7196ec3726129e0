"""Findings: rules that read evidence, a module a family, and the verdict that they end in. Nothing is run here."""

__all__ = ["diagnosis", "verdict"]
