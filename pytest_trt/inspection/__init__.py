"""Inspection: what a file is, told by its content, and what is in it."""
