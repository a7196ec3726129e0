"""Fakes: machines, clocks and libraries that nobody has here, one at a time."""
